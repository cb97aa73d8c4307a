"""The real command in a fresh process: help, dry run, and one clear line for every kind of bad input."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zstandard

ROOT = Path(__file__).resolve().parents[1]
SENTENCE = "患者は発熱と咳嗽を訴え、外来を受診した。胸部単純撮影で右下肺野に浸潤影を認めた。"


def rinsho(*words, cwd=None, preexec_fn=None):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, "-m", "rinsho", *map(str, words)],
        capture_output=True, text=True, cwd=cwd, env=environment, timeout=120, check=False, preexec_fn=preexec_fn,
    )  # fmt: skip


def documents(folder, count=30, name="a.jsonl"):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"id": f"d{n}", "text": SENTENCE + f"体温は{36 + n / 10:.1f}度であった。"}) for n in range(count)
    ]
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def refused(result, *parts):
    """Exit code 2, one line, no traceback, and the line says what the test expects."""
    assert result.returncode == 2, result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert last.startswith("rinsho: ")
    for part in parts:
        assert part in last, last
    return last


def test_help_is_fast_and_loads_nothing_heavy():
    fastest = 9.0
    for _ in range(5):
        started = time.perf_counter()
        assert rinsho("--help").returncode == 0
        fastest = min(fastest, time.perf_counter() - started)
    assert fastest < 0.3
    code = "import sys, rinsho.cli\ntry: rinsho.cli.main(['--help'])\nexcept SystemExit: pass\nprint([m for m in ('torch','transformers','numpy') if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        check=True,
    )
    assert result.stdout.strip().endswith("[]")


@pytest.mark.parametrize("stage", ["samples", "corpus", "tokenizer", "pretrain", "finetune", "evaluate"])
def test_every_stage_tells_its_settings_without_torch(stage):
    code = (
        f"import sys, rinsho.cli\ntry: rinsho.cli.main(['{stage}', '--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch','transformers') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        check=True,
    )
    assert f"  {stage}.seed (int, 1)" in result.stdout
    assert result.stdout.strip().endswith("[]")


def test_every_setting_of_every_stage_has_a_sentence():
    import importlib

    from rinsho.cli import STAGES

    for module, _, _ in STAGES.values():
        for key, field in importlib.import_module(module).Recipe.model_fields.items():
            assert field.description and len(field.description) > 10, f"{module}.{key}"


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_resolves(recipe):
    from rinsho.chain import resolve
    from rinsho.cli import STAGES

    plans, _ = resolve(recipe, [], {stage: row[0] for stage, row in STAGES.items()})
    assert plans


def test_dry_run_prints_the_resolved_recipe_and_writes_nothing(tmp_path):
    result = rinsho("corpus", documents(tmp_path / "in"), "--dry-run", "--set", "corpus.min_chars=7", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "min_chars: 7" in result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_dry_run_of_a_whole_chain_names_every_problem(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("corpus: {inputs: ['{text}']}\ntokenizer: {inputs: [corpus, '{words}']}\n")
    result = rinsho(
        "all", "--recipe", recipe, "--dry-run", f"text={tmp_path}/no", f"words={tmp_path}/none", cwd=tmp_path
    )
    assert result.returncode == 2
    assert "2 problems" in result.stderr
    refused(rinsho("all", "--recipe", recipe, "--dry-run", cwd=tmp_path), "{text}", "text=FOLDER")


def test_missing_input_folder(tmp_path):
    refused(rinsho("corpus", tmp_path / "no", "--out", tmp_path / "out"), "no", "not there")


def test_empty_input_folder(tmp_path):
    (tmp_path / "in").mkdir()
    refused(rinsho("corpus", tmp_path / "in", "--out", tmp_path / "out"), "in: ")


def test_truncated_zstd_shard(tmp_path):
    (tmp_path / "in").mkdir()
    whole = zstandard.ZstdCompressor().compress(documents(tmp_path / "x").joinpath("a.jsonl").read_bytes())
    (tmp_path / "in/a.jsonl.zst").write_bytes(whole[:-9])
    refused(rinsho("corpus", tmp_path / "in", "--out", tmp_path / "out"), "a.jsonl.zst", "cut off")


def test_too_many_broken_documents_stop_the_run_and_few_do_not(tmp_path):
    folder = documents(tmp_path / "in")
    with (folder / "a.jsonl").open("ab") as file:
        file.write(b'\xff\xfe broken\n{"text": \n')
    line = refused(rinsho("corpus", folder, "--out", tmp_path / "out"), "a.jsonl:31", "max_broken_fraction")
    assert SENTENCE[:5] not in line
    allowed = rinsho("corpus", folder, "--out", tmp_path / "out2", "--set", "corpus.max_broken_fraction=0.2")
    assert allowed.returncode == 0, allowed.stderr
    broken = [json.loads(row) for row in (tmp_path / "out2/dropped/broken.jsonl").read_text().splitlines()]
    assert sorted(row["reason"] for row in broken) == ["invalid_json", "invalid_utf8"]


def test_recipe_with_wrong_type_and_unknown_key(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("corpus:\n  min_chars: many\n")
    refused(rinsho("corpus", tmp_path, "--recipe", recipe), "min_chars is 'many'", "r.yaml corpus")
    recipe.write_text("corpus:\n  min_char: 3\n")
    refused(rinsho("corpus", tmp_path, "--recipe", recipe), "'min_char'", "did you mean 'min_chars'?")
    recipe.write_text("korpus: {}\n")
    refused(rinsho("all", "--recipe", recipe), "'korpus'", "did you mean 'corpus'?")
    refused(rinsho("corpus", tmp_path, "--set", "corpus.min_chars"), "--set")


def test_output_folder_of_another_recipe_keeps_its_product(tmp_path):
    folder = documents(tmp_path / "in")
    assert rinsho("corpus", folder, "--out", tmp_path / "out").returncode == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out/shards").iterdir()}
    refused(
        rinsho("corpus", folder, "--out", tmp_path / "out", "--set", "corpus.min_chars=9"), "another recipe", "--out"
    )
    assert {path: path.read_bytes() for path in (tmp_path / "out/shards").iterdir()} == before
    again = rinsho("corpus", folder, "--out", tmp_path / "out")
    assert again.returncode == 0
    assert "unchanged, skipped" in again.stderr


def test_several_processes_are_for_pretrain_alone(tmp_path, monkeypatch, capsys):
    from rinsho.cli import main

    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["all", "--recipe", str(ROOT / "recipes/quickstart.yaml"), "--out", str(tmp_path / "out")]) == 2
    assert "without torchrun" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_full_disk_is_one_line_and_the_next_run_continues(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root; /dev/full is tested in test_run.py")
    try:
        words = ["corpus", documents(tmp_path / "in", count=30_000), "--set", "corpus.near_duplicates=false"]
        refused(rinsho(*words, "--out", small / "out"), "the disk is full", "run the same command again")
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        assert rinsho(*words, "--out", small / "out").returncode == 0
    finally:
        subprocess.run(["umount", small], check=False)


def test_csv_without_the_needed_columns_and_broken_json_line_of_tasks(tmp_path):
    from rinsho.errors import UserError
    from rinsho.tasks import read_igakuqa, read_jmed

    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/smdis.csv").write_text("tag,question\nfever,質問\n")
    with pytest.raises(UserError, match=r"smdis\.csv.*(optionA|answer)"):
        read_jmed(tmp_path, "test", tasks=["smdis"])
    (tmp_path / "data/2018").mkdir(parents=True)
    (tmp_path / "data/2018/112-A.jsonl").write_text('{"problem_id": \n')
    with pytest.raises(UserError, match=r"112-A\.jsonl:1"):
        read_igakuqa(tmp_path)


def test_doctor_names_what_is_there():
    result = rinsho("doctor")
    assert result.returncode == 0
    for row in ("tokenizer", "pretrain.fp8", "report, curves --to png", "curves --to tensorboard", "curves --to wandb"):
        assert f"  {row}" in result.stdout, row
    refused(rinsho("doctor", "/nowhere"), "no weights")


def test_dry_run_of_the_quickstart_finds_nothing_wrong_on_a_fresh_machine(tmp_path):
    result = rinsho("all", "--recipe", ROOT / "recipes/quickstart.yaml", "--dry-run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "0 problems" in result.stderr


def test_dry_run_checks_stages_whose_inputs_are_still_to_be_made(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "samples: {}\ncorpus: {inputs: [samples/text]}\ntokenizer: {inputs: [corpus]}\n"
        "pretrain: {inputs: [tokenizer, corpus], batch_tokens: 1000}\n"
        "finetune: {inputs: [pretrain, '{tasks}'], batch_tokens: 999}\n"
        "evaluate: {inputs: [finetune, '{tasks}'], tasks: [nonsense]}\n"
    )
    (tmp_path / "tasks").mkdir()
    result = rinsho("all", "--recipe", recipe, "--dry-run", f"tasks={tmp_path}/tasks", cwd=tmp_path)
    assert result.returncode == 2
    for part in ("pretrain.batch_tokens", "finetune.batch_tokens", f"{tmp_path}/tasks", "nonsense"):
        assert part in result.stderr, part
    assert {path.name for path in tmp_path.iterdir()} == {"r.yaml", "tasks"}


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["corpus", "in", "--out", "in/out"], ["lies inside an input"]),
        (["corpus", "in", "--out", "in"], ["lies inside an input"]),
        (["corpus", "in", "--out", "file"], ["file", "cannot be used"]),
        (["corpus", "in", "--recipe", "in"], ["the recipe cannot be read"]),
        (["all", "--recipe", "r.yaml", "foo=in"], ["unknown input name 'foo'"]),
        (["all", "--recipe", "empty.yaml"], ["no stage in this recipe"]),
        (["all", "--recipe", "number.yaml"], ["unknown section 1"]),
        (["chat", "list"], ["list"]),
        (["finetune", "list", "in"], ["config.json"]),
        (["corpus", "in", "--set", "corpus.filters=[os:getcwd]", "--out", "o"], ["filter getcwd failed", "TypeError"]),
    ],
)
def test_odd_commands_are_one_line_each(tmp_path, words, parts):
    documents(tmp_path / "in")
    (tmp_path / "file").write_text("x")
    (tmp_path / "r.yaml").write_text("corpus: {inputs: ['{text}']}\n")
    (tmp_path / "empty.yaml").write_text("name: x\n")
    (tmp_path / "number.yaml").write_text("1: 2\n")
    (tmp_path / "list").mkdir()
    (tmp_path / "list/config.json").write_text("[]")
    if words[0] == "all" and len(words) > 3:
        words = [*words, "text=in"]
    refused(rinsho(*words, cwd=tmp_path), *parts)
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["a.jsonl"], "the input is left as it was"


def test_a_missing_package_is_one_line(tmp_path):
    hidden = "import sys; sys.modules['zstandard'] = None; from rinsho.cli import main; sys.exit(main(['corpus', 'x']))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    result = subprocess.run(
        [sys.executable, "-c", hidden], capture_output=True, text=True, env=environment, check=False
    )
    refused(result, "zstandard is not installed", "rinsho doctor")


def test_a_raised_limit_continues_the_interrupted_stage(tmp_path):
    folder = documents(tmp_path / "in")
    with (folder / "a.jsonl").open("ab") as file:
        file.write(b"{broken\n")
    refused(rinsho("corpus", folder, "--out", tmp_path / "out"), "max_broken_fraction")
    again = rinsho("corpus", folder, "--out", tmp_path / "out", "--set", "corpus.max_broken_fraction=0.5")
    assert again.returncode == 0, again.stderr


def test_an_adapter_is_set_in_parts_as_a_whole_or_not_at_all(tmp_path):
    from rinsho.chain import resolve

    recipe = tmp_path / "r.yaml"
    recipe.write_text("finetune: {adapter: {rank: 16, target_modules: [q_proj]}}\n")

    def adapter(*changes):
        return resolve(recipe, changes, {"finetune": "rinsho.finetune"})[0]["finetune"].recipe.adapter

    assert (adapter().method, adapter().rank, adapter().target_modules) == ("lora", 16, ("q_proj",))
    assert adapter("finetune.adapter=null") is None
    assert adapter("finetune.adapter.rank=4", "finetune.adapter.method=dora").rank == 4
    whole = adapter("finetune.adapter={method: vera, options: {vera_dropout: 0.1}}")
    assert (whole.method, whole.rank, whole.options) == ("vera", 8, {"vera_dropout": 0.1})
    refused(rinsho("finetune", "x", "--set", "finetune.adapter.ranks=4"), "'adapter.ranks'", "did you mean 'rank'?")


def test_help_of_finetune_tells_what_an_adapter_may_have():
    from rinsho import finetune
    from rinsho.cli_parser import _settings_help

    lines = _settings_help("finetune", finetune).splitlines()
    assert "  finetune.adapter (null, or the following)" in lines
    assert any(line.startswith("  finetune.adapter.rank (int, 8)") for line in lines)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["finetune", "data"], ["inputs are missing", "MODEL DATA"]),
        (["finetune", "data", "in", "in"], ["no tokenizer in here"]),
        (["finetune", "data", "--recipe", "r.yaml"], ["no section 'finetune'"]),
        (["adapter", "show", "in"], ["no complete adapter in here"]),
        (["adapter", "merge", "in", "--out", "out", "--text", "empty"], ["no text in here"]),
        (["chat", "in", "--adapter", "x"], ["NAME=FOLDER"]),
        (["chat", "in", "--adapter", "x=in"], ["no complete adapter in here"]),
    ],
)
def test_odd_commands_of_adapting_are_one_line_each(tmp_path, monkeypatch, capsys, words, parts):
    from rinsho.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "r.yaml").write_text("corpus: {}\n")
    assert main(words) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("rinsho: ") and errors.count("\n") == 1
    for part in parts:
        assert part in errors, errors
    assert not (tmp_path / "out").exists() and not (tmp_path / "runs").exists()


def test_a_wrong_option_names_the_command_and_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    from rinsho.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["export", "model", "--flavor", "mimo2"])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "rinsho export" in said and "did you mean --flavour?" in said


def test_short_forms_are_settings() -> None:
    from rinsho.cli_parser import parse

    given = parse(["classify", "m", "d.csv", "--options", "あり", "なし", "--column", "本文", "--out", "o"])
    assert given.overrides == ['classify.column="本文"', 'classify.options=["あり", "なし"]']
    serve = parse(["serve", "m", "--allow-host", "a.example", "--max-waiting", "0"])
    assert serve.allow_hosts == ["a.example"] and serve.max_waiting == 0


def test_every_option_of_the_server_has_one_on_the_command_line() -> None:
    import dataclasses

    from rinsho.cli_parser import parse
    from rinsho.serve import ServeOptions

    given = parse(["serve", "m"])
    for field in dataclasses.fields(ServeOptions):
        assert getattr(given, field.name) == (list(field.default) if field.default == () else field.default), field.name
