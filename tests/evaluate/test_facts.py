"""What model folders of every kind say of themselves, and what is kept beside their answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rinsho.errors import UserError
from rinsho.evaluate.facts import Facts, facts_of_answers, name_of, read_facts, write_facts
from rinsho.tasks import Splitting

TUNED = {"answer_form": "text_letter", "split": "row", "steps": 40, "seen_tokens": 9_000, "igakuqa_years": [2018]}


def folder(path: Path, manifest: dict[str, Any] | None, documents: str | None = None) -> Path:
    path.mkdir(parents=True)
    if manifest is not None:
        (path / "rinsho.json").write_text(json.dumps(manifest), encoding="utf-8")
    if documents is not None:
        (path / "train_documents.txt").write_text(documents, encoding="utf-8")
    return path


def test_pretrained_tuned_adapter_and_foreign(tmp_path: Path) -> None:
    base = {"stage": "pretrain", "steps": 586, "seen_tokens": 1_000}
    assert read_facts(folder(tmp_path / "base", base)) == Facts("base", seen_tokens=1_000, steps=586, stage="pretrain")
    more = read_facts(folder(tmp_path / "more", base | {"base": {"seen_tokens": 500}}))
    assert more.seen_tokens == 1_500
    tuned = {"stage": "finetune", "base": {"stage": "pretrain", "seen_tokens": 1_000, "steps": 586}, "finetune": TUNED}
    for name, form in (("full", "arcee"), ("adapter", "adapter")):
        assert read_facts(folder(tmp_path / name, tuned | {"form": form}, "ab\ncd\n")) == Facts(
            name, "text_letter", Splitting("row"), frozenset({"ab", "cd"}), years=(2018,), seen_tokens=1_000, steps=40,
            tuned=True, stage="finetune",
        )  # fmt: skip
    foreign = folder(tmp_path / "foreign", {"stage": "finetune", "base": {"name": "llama"}, "finetune": TUNED})
    assert read_facts(foreign).seen_tokens is None
    assert read_facts(folder(tmp_path / "other", None)) == Facts("other")


@pytest.mark.parametrize("text", ["[]", "no JSON", '{"finetune": [1]}'])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (folder(tmp_path / "model", None) / "rinsho.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="not a JSON object"):
        read_facts(tmp_path / "model")


def test_facts_outlive_the_answers(tmp_path: Path) -> None:
    """Of the documents only those that are asked."""
    facts = Facts(
        "row/finetune", "letter", Splitting("row"), frozenset({"ab", "cd"}), years=(2018,), seen_tokens=7, steps=3,
        tuned=True, stage="finetune",
    )  # fmt: skip
    write_facts(facts, tmp_path, ["ab", "ef"])
    read = facts_of_answers(tmp_path / "answers.jsonl")
    assert read == Facts(**{**vars(facts), "documents": frozenset({"ab"})})
    old = {"model": "m", "form": None, "documents": None, "prompt_form": "benchmark"}
    (tmp_path / "asked.json").write_text(json.dumps(old), encoding="utf-8")
    assert facts_of_answers(tmp_path / "answers.jsonl") == Facts("m")


def test_folders_that_every_run_has_are_named_after_those_above(tmp_path: Path) -> None:
    assert name_of(tmp_path / "row/finetune") == "row/finetune"
    assert name_of(tmp_path / "small/pretrain/checkpoints/step-00000100") == "small/pretrain/step-00000100"
    assert name_of(tmp_path / "small/checkpoints/step-000100") == "small/step-000100"
    assert name_of(tmp_path / "tuned/last") == "tuned/last" and name_of(tmp_path / "mine") == "mine"
    assert name_of(Path("/finetune")) == "finetune"
