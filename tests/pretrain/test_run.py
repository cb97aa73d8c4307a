"""The stage from its inputs to its folder: what it publishes, what it refuses, and kills at every kind of moment."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import toy_pretraining as toy

from rinsho.document import Document, read_documents, write_documents
from rinsho.errors import UserError
from rinsho.model_folder import load_folded, load_unfolded, read_manifest
from rinsho.pretrain import Recipe, check, run
from rinsho.recipe import settings
from rinsho.run import _kept, read_metrics

SCRIPT = Path(toy.__file__)


def recipe_of(**changes):
    return Recipe.model_validate({**toy.SETTINGS, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rinsho.pretrain.work.load_tokenizer", lambda _: (toy.Letters(), "letters"))
        products = toy.run_once(folder, folder / "out")
    return folder, products


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr("rinsho.pretrain.work.load_tokenizer", lambda _: (toy.Letters(), "letters"))


@pytest.mark.slow
def test_killed_at_every_kind_of_moment_the_products_are_the_same(finished, tmp_path):
    folder, products = finished
    moments = ["encode", "step:2", "step:5", "save:6", "publish"]
    command = [sys.executable, str(SCRIPT), str(folder), str(tmp_path / "out"), *moments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == products
    assert {"model.safetensors", "tokens/train/tokens.bin", "rinsho.json"} <= products.keys()
    assert not (tmp_path / "out" / "partial").exists()


def test_the_run_folder_is_a_model_folder(finished):
    folder, _ = finished
    model = load_folded(folder / "out")
    assert model.config.vocab_size == 64
    assert load_unfolded(folder / "out").config.residual_dropout == 0.1
    manifest = read_manifest(folder / "out")
    assert manifest["steps"] == 12
    assert manifest["tokenizer"] == "letters"
    assert str(folder) not in (folder / "out" / "rinsho.json").read_text()


def test_metrics_and_report_have_the_numbers_they_promise(finished):
    folder, _ = finished
    rows = read_metrics(folder / "out")
    first = next(row for row in rows if "loss" in row)
    assert {"step", "seen_tokens", "loss", "grad_norm", "learning_rate", "tokens_per_second"} <= first.keys()
    held_out = [row for row in rows if "validation_loss" in row]
    assert [row["step"] for row in held_out] == [5, 10, 12]
    assert held_out[-1]["validation_loss"] < held_out[0]["validation_loss"]
    numbers = json.loads((folder / "out" / "report.json").read_text())["numbers"]
    assert numbers["validation_bits_per_character"] == held_out[-1]["validation_bits_per_character"]
    assert numbers["parameters"] == sum(numbers["parameters_by_part"].values())


def test_a_corpus_with_a_validation_folder_uses_it_and_holds_nothing_out(stand_in, tmp_path):
    tokenizer, corpus = toy.toy_inputs(tmp_path)
    (corpus / "validation").mkdir()
    (corpus / "validation" / "v.jsonl").write_text('{"id": "v", "text": "発熱なし。肺癌の疑い。"}\n')
    report = run(recipe_of(max_tokens=128, keep_tokens=False), [tokenizer, corpus], tmp_path / "out")
    assert (report.numbers["documents"], report.numbers["validation_documents"]) == (120, 1)
    assert not (tmp_path / "out" / "tokens").exists()


def test_what_can_be_known_before_starting(tmp_path):
    inputs = toy.toy_inputs(tmp_path)
    assert check(recipe_of(), inputs) == []
    (tmp_path / "empty").mkdir()
    problems = {
        "TOKENIZER CORPUS": check(recipe_of(), inputs[:1]),
        "no tokenizer": check(recipe_of(), [tmp_path / "empty", inputs[1]]),
        "no documents": check(recipe_of(), [inputs[0], tmp_path / "empty"]),
        "not there": check(recipe_of(), [inputs[0], tmp_path / "nowhere"]),
        "no multiple": check(recipe_of(batch_tokens=100), inputs),
        "positions": check(recipe_of(sequence_length=128), inputs),
        "best_fit needs": check(recipe_of(document_bounds=False), inputs),
    }
    for text, found in problems.items():
        assert any(text in str(problem) for problem in found), text
        with pytest.raises(UserError):
            raise found[0]


def test_a_model_larger_than_the_memory_is_refused_before_starting(tmp_path):
    tokenizer, corpus = toy.toy_inputs(tmp_path)
    (tokenizer / "tokenizer.json").write_text(json.dumps({"model": {"vocab": [["x", 0.0]] * 100}}))
    huge = {**toy.MODEL, "hidden_size": 65_536, "intermediate_size": 262_144, "num_hidden_layers": 96}
    found = check(recipe_of(model=huge, device="cpu"), [tokenizer, corpus])
    assert "GiB" in str(found[0])


def test_too_little_text_and_too_many_broken_records_are_refused(stand_in, tmp_path):
    tokenizer, _ = toy.toy_inputs(tmp_path)
    little = tmp_path / "little"
    little.mkdir()
    (little / "a.jsonl").write_text('{"id": "a", "text": ""}\n')
    with pytest.raises(UserError, match="not one row"):
        recipe = recipe_of(pack="cut", document_bounds=False, validation_fraction=0)
        run(recipe, [tokenizer, little], tmp_path / "one")
    (little / "a.jsonl").write_text('{"id": "a", "text": "発熱"}\nbroken\n')
    with pytest.raises(UserError, match=r"a\.jsonl:2, invalid_json"):
        run(recipe_of(validation_fraction=0), [tokenizer, little], tmp_path / "two")


def test_the_recipe_is_refused_with_a_suggestion_and_takes_a_preset():
    with pytest.raises(UserError, match="did you mean 'learning_rate'"):
        settings(Recipe, {"learning_rat": 1}, "recipe.yaml pretrain")
    made = settings(Recipe, {"model": "tiny", "sequence_length": 64}, "recipe.yaml pretrain")
    assert made.model.hidden_size == 192
    assert settings(Recipe, made.model_dump(mode="json"), "again") == made


def test_the_room_opens_without_torch():
    code = "import sys, rinsho.pretrain, rinsho.tokens, rinsho.model; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_kept_steps_are_whole_model_folders_that_stay(stand_in, tmp_path):
    inputs = toy.toy_inputs(tmp_path)
    run(recipe_of(keep_every_steps=4, save_every_steps=5, keep_checkpoints=1), inputs, tmp_path / "out")
    kept = sorted((tmp_path / "out" / "checkpoints").iterdir())
    assert [folder.name for folder in kept] == ["step-00000004", "step-00000008", "step-00000012"]
    assert all(
        {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
        for folder in kept
    )
    assert [read_manifest(folder)["steps"] for folder in kept] == [4, 8, 12]
    assert kept[-1].joinpath("model.safetensors").read_bytes() == (tmp_path / "out/model.safetensors").read_bytes()
    load_folded(kept[0])


def test_every_checkpoint_opens_with_transformers_while_training(stand_in, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM

    from rinsho.pretrain import loop

    real, opened = loop.Trainer.step, []

    def step(trainer):
        for folder in trainer.checkpoints.glob("step-*"):
            opened.append(AutoModelForCausalLM.from_pretrained(folder).config.model_type)
        return real(trainer)

    monkeypatch.setattr(loop.Trainer, "step", step)
    run(recipe_of(save_every_steps=6), toy.toy_inputs(tmp_path), tmp_path / "out")
    assert opened == ["arcee"] * 6


def test_training_goes_on_from_a_published_model(stand_in, finished, tmp_path):
    folder, _ = finished
    base, corpus = folder / "out", folder / "corpus"
    settings = {
        **toy.SETTINGS,
        "init_from": "model",
        "learning_rate": 1e-9,
        "muon_learning_rate": 1e-9,
        "copy_fraction": 0,
    }
    settings.pop("model")
    run(Recipe.model_validate(settings), [base, corpus], tmp_path / "out")
    before, after = load_unfolded(base).state_dict(), load_unfolded(tmp_path / "out").state_dict()
    for name, tensor in before.items():  # rates of nothing: the weights are those of the base, the scale out and in
        torch.testing.assert_close(after[name], tensor, rtol=1e-5, atol=1e-6, msg=name)
    manifest = read_manifest(tmp_path / "out")
    assert manifest["base"]["steps"] == 12
    assert manifest["embedding_scale"] == read_manifest(base)["embedding_scale"] != 1
    first = next(row["loss"] for row in read_metrics(tmp_path / "out") if "loss" in row)
    fresh = next(row["loss"] for row in read_metrics(base) if "loss" in row)
    assert first < fresh - 0.3


def test_sizes_beside_a_model_to_start_from_are_refused(finished, tmp_path):
    folder, _ = finished
    recipe = recipe_of(init_from="model")
    assert "remove it" in str(check(recipe, [folder / "out", folder / "corpus"])[0])
    bare = Recipe(init_from="model", sequence_length=128, batch_tokens=1024)
    assert "positions" in str(check(bare, [folder / "out", folder / "corpus"])[0])
    assert any("no model in here" in str(problem) for problem in check(bare, [folder / "tokenizer", folder / "corpus"]))


def test_rows_that_processes_cannot_share_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert "multiple of 96 tokens" in str(check(recipe_of(), toy.toy_inputs(tmp_path))[0])


def test_what_belongs_to_the_identity_of_a_run():
    def identity(**changes):
        return json.dumps(_kept(recipe_of(**changes).model_dump(mode="json")), sort_keys=True)

    mixture = {"a*": {"weight": 1}, "*": {"weight": 2}}
    assert identity(mixture=mixture) != identity(mixture=dict(reversed(mixture.items())))  # the first match wins
    assert identity(parallelism="zero3", save_every_steps=7) == identity()
    assert identity(on_spike="rollback", save_every_steps=7) != identity(on_spike="rollback")  # where it goes back to


def test_the_model_folder_names_its_sources_and_their_licences(stand_in, tmp_path):
    tokenizer, corpus = toy.toy_inputs(tmp_path)
    documents = list(read_documents(corpus / "shards/0.jsonl.zst"))
    records = {"source": "records", "license": "CC-BY-NC-4.0", "synthetic": True, "model": "some-70b"}
    told = {0: records, 1: {"source": "general"}, 2: {"source": "general"}}
    (tmp_path / "told").mkdir()
    with (tmp_path / "told/a.jsonl.zst").open("wb") as file:
        write_documents(file, [Document(d.text, d.id, told[number % 3]) for number, d in enumerate(documents)])
    run(recipe_of(max_tokens=128 * 4), [tokenizer, tmp_path / "told"], tmp_path / "first")
    (entry,) = read_manifest(tmp_path / "first")["data"]
    assert entry["stage"] == "pretrain"
    rows = {row["source"]: row for row in entry["sources"]}
    assert rows.keys() == {"records", "general"}
    assert rows["records"]["licenses"] == {"CC-BY-NC-4.0": rows["records"]["documents"]}
    assert rows["general"]["licenses"] == {"": rows["general"]["documents"]}
    assert rows["records"]["synthetic"] == {"some-70b": rows["records"]["documents"]}
    assert rows["records"]["synthetic_tokens"] == rows["records"]["tokens"]
    assert (rows["general"]["synthetic"], rows["general"]["synthetic_tokens"]) == ({}, 0)
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1, abs=1e-3)
    # a source that is left out is not named; what the base learned from is not forgotten
    more = {**toy.SETTINGS, "init_from": "model", "max_tokens": 128 * 2, "copy_fraction": 0.0}
    more["mixture"] = {"records": 0, "*": 1.0}
    more.pop("model")
    run(Recipe.model_validate(more), [tmp_path / "first", tmp_path / "told"], tmp_path / "on")
    before, after = read_manifest(tmp_path / "on")["data"]
    assert before == entry
    assert [row["source"] for row in after["sources"]] == ["general"]
