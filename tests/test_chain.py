"""The whole chain at toy size: raw text to scores, without a network, killed in every stage, with the same products."""

import json
import re

import pytest

from tiny_chain import ROOT, STAGES, kill_while_working, products, run_chain, write_recipe

NO_NETWORK = """
import socket
def refuse(*_, **__):
    open({marker!r}, "a").write("a connection was tried\\n")
    raise OSError("no network in this test")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run in which every attempt at a connection fails and is written down."""
    folder = tmp_path_factory.mktemp("chain")
    (folder / "sitecustomize.py").write_text(NO_NETWORK.format(marker=str(folder / "connections")))
    text = run_chain(write_recipe(folder), folder / "run", extra_path=folder)
    return folder, text


def test_chain_ends_with_a_table_a_report_and_how_to_talk(whole):
    folder, text = whole
    assert re.search(r"^smdis +constrained +8 +accuracy", text, re.MULTILINE)
    assert "95 % interval" in text
    assert f"rinsho chat {folder}/run/finetune" in text
    page = (folder / "run/report.html").read_text()
    for part in (
        "Corpus: what was dropped and why",
        "loss over seen tokens",
        "Cases that a shortcut gets wrong",
        "Sample answers",
    ):
        assert part in page
    assert not re.search(r"""(src|href)=["']?https?:""", page), "the page must open offline"


def test_nothing_connects_anywhere(whole):
    assert not (whole[0] / "connections").exists()


def test_no_document_text_in_logs_metrics_or_manifests(whole):
    japanese = re.compile(r"[\u3041-\u30ff\u4e00-\u9fff]")
    folder, text = whole
    for stage in STAGES:
        for name in ("log.txt", "metrics.jsonl", "manifest.json", "DONE"):
            path = folder / "run" / stage / name
            if path.exists():
                assert not japanese.search(path.read_text()), path
    assert not japanese.search(text)


def test_second_run_skips_every_stage(whole):
    folder, _ = whole
    text = run_chain(folder / "tiny.yaml", folder / "run")
    assert text.count("unchanged, skipped") == len(STAGES)


@pytest.mark.slow
def test_killed_in_every_stage_the_products_are_the_same(whole, tmp_path):
    recipe = write_recipe(tmp_path)
    interrupted = [stage for stage in STAGES if kill_while_working(recipe, tmp_path / "run", stage)]
    assert interrupted == list(STAGES), "every kill must hit a stage at work"
    run_chain(recipe, tmp_path / "run")
    assert products(tmp_path / "run") == products(whole[0] / "run")


@pytest.mark.parametrize("stage", [pytest.param("pretrain", marks=pytest.mark.slow), "finetune"])
def test_model_opens_with_bare_transformers_and_gives_our_logits(whole, stage):
    """In a process that cannot import rinsho."""
    import subprocess
    import sys

    import torch

    from rinsho.generate.engine import Generator

    folder = whole[0] / "run" / stage
    code = (
        "import sys, json, torch, transformers\n"
        "try:\n    import rinsho\nexcept ImportError: pass\nelse: raise SystemExit('rinsho is importable')\n"
        "model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)\n"
        "assert type(model).__module__.startswith('transformers.models.arcee')\n"
        "print(json.dumps(model(torch.arange(5, 40)[None]).logits[0, -1].tolist()))\n"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-c", code, str(folder)], capture_output=True, text=True, check=False, cwd="/"
    )
    if "rinsho is importable" in result.stderr:  # installed beside the tests: hide it
        hidden = "import sys; sys.modules['rinsho'] = None\n" + code
        result = subprocess.run(
            [sys.executable, "-I", "-c", hidden, str(folder)], capture_output=True, text=True, check=True, cwd="/"
        )
    assert result.returncode == 0, result.stderr
    ours = Generator(folder).model(torch.arange(5, 40)[None]).logits[0, -1]
    assert torch.equal(torch.tensor(json.loads(result.stdout)), ours.float())


def test_readme_commands_exist():
    """Every `rinsho …` line of both READMEs names commands and options that the parser takes."""
    from rinsho.cli_parser import parse

    for readme in ("README.md", "README.ja.md"):
        lines = re.findall(r"^(?:\.venv/bin/)?rinsho ([^#\n]+)", (ROOT / readme).read_text(), re.MULTILINE)
        assert len(lines) >= 5
        for line in lines:
            words = line.split()
            if "--help" not in words:
                assert parse(words).command in (words[0], " ".join(words[:2]))
