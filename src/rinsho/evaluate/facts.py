"""What a model folder says about itself: how it answers, and what it was tuned and may be tested on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from rinsho.errors import UserError
from rinsho.model_folder import DOCUMENTS
from rinsho.run import write_atomic
from rinsho.tasks import AnswerForm, Split, Splitting, TestPart
from rinsho.tasks.asking import PromptForm

ASKED_FILE = "asked.json"  # beside answers.jsonl: the facts of the model that gave the answers


@dataclass(frozen=True)
class Facts:
    """What is known of a model; None where the folder does not say.

    Attributes:
        form, prompt_form: how it answers and how it was asked while tuning.
        splitting: which rows it was tuned on and which are its test part.
        documents: keys of the documents it was tuned on.
        test_hashes: of the test parts it was tuned beside (`rinsho.tasks.splits.hash_of_tests`).
        years: IgakuQA years it was tuned on, which are therefore not asked.
    """

    name: str
    form: AnswerForm | None = None
    splitting: Splitting | None = None
    documents: frozenset[str] | None = None
    prompt_form: PromptForm = "benchmark"
    test_hashes: tuple[str, ...] = ()
    years: tuple[int, ...] = ()


def read_facts(folder: Path) -> Facts:
    """The facts in `rinsho.json` (its `finetune` part) and in `train_documents.txt` of a model folder.

    Raises:
        UserError: `rinsho.json` is not JSON, or names a form or split that does not exist.
    """
    about: dict[str, Any] = {}
    path = folder / "rinsho.json"
    if path.is_file():
        try:
            about = json.loads(path.read_text(encoding="utf-8")).get("finetune") or {}
        except (ValueError, AttributeError):
            raise UserError("not a JSON object", where=path, expected="the file that finetune wrote") from None
    form, prompt_form = about.get("answer_form"), about.get("prompt_form", "benchmark")
    if form not in (None, "letter", "text_letter"):
        raise UserError("unknown answer_form", where=path, expected="letter or text_letter")
    if prompt_form not in ("benchmark", "short"):
        raise UserError("unknown prompt_form", where=path, expected="benchmark or short")
    documents = None
    listed = folder / DOCUMENTS
    if listed.is_file():
        documents = frozenset(listed.read_text(encoding="utf-8").split())
    hashes = tuple(split["test_hash"] for split in about.get("splits", ()) if "test_hash" in split)
    years = tuple(about.get("igakuqa_years", ()))
    return Facts(folder.resolve().name, form, _splitting(about), documents, prompt_form, hashes, years)


def facts_of_answers(path: Path) -> Facts:
    """The facts that an evaluation left beside its `answers.jsonl`; only a name for answers from elsewhere.

    Raises:
        UserError: the file is there and is not what an evaluation writes.
    """
    beside = path.with_name(ASKED_FILE)
    if not beside.is_file():
        return Facts(path.name)
    try:
        row = json.loads(beside.read_text(encoding="utf-8"))
        documents = row["documents"]
        known = None if documents is None else frozenset(documents)
        hashes = tuple(row.get("test_hashes", ()))
        years = tuple(row.get("igakuqa_years", ()))
        return Facts(row["model"], row["form"], _splitting(row), known, row["prompt_form"], hashes, years)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            "not the file that an evaluation wrote", where=beside, expected="model, form, documents, prompt_form"
        ) from None


def write_facts(facts: Facts, folder: Path, asked: Iterable[str]) -> None:
    """Leaves the facts in a run folder; of the training documents only those among the `asked` ones."""
    documents = None if facts.documents is None else sorted(facts.documents.intersection(asked))
    row: dict[str, Any] = {"model": facts.name, "form": facts.form, "documents": documents}
    row |= {"prompt_form": facts.prompt_form, "test_hashes": facts.test_hashes}
    row["igakuqa_years"] = facts.years
    if facts.splitting is not None:
        told = facts.splitting
        row |= {"split": told.split, "test_part": told.test_part, "split_seed": told.seed}
    write_atomic(folder / ASKED_FILE, json.dumps(row, ensure_ascii=False, indent=1) + "\n")


def _splitting(about: Mapping[str, Any]) -> Splitting | None:
    """What finetune recorded; None for nothing, and for a split of a later version, which cannot be told from it."""
    split: Any = about.get("split")
    part, seed = about.get("test_part", "published"), about.get("split_seed", 1)
    if split not in get_args(Split) or part not in get_args(TestPart) or not isinstance(seed, int):
        return None
    return Splitting(split, part, seed)
