"""What a model folder says about itself: how it answers, and which documents it was tuned on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rinsho.errors import UserError
from rinsho.run import write_atomic
from rinsho.tasks import AnswerForm, Split
from rinsho.tasks.asking import PromptForm

ASKED_FILE = "asked.json"  # beside answers.jsonl: the facts of the model that gave the answers
DOCUMENTS_FILE = "train_documents.txt"  # one document key a line, written by finetune


@dataclass(frozen=True)
class Facts:
    """Name, answer form, split, training documents and prompt form of a model; None where the folder does not say."""

    name: str
    form: AnswerForm | None = None
    split: Split | None = None
    documents: frozenset[str] | None = None
    prompt_form: PromptForm = "benchmark"


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
    form, split, prompt_form = about.get("answer_form"), about.get("split"), about.get("prompt_form", "benchmark")
    if form not in (None, "letter", "text_letter"):
        raise UserError("unknown answer_form", where=path, expected="letter or text_letter")
    if prompt_form not in ("benchmark", "short"):
        raise UserError("unknown prompt_form", where=path, expected="benchmark or short")
    if split not in (None, "row", "document"):
        split = None  # a split of a later version: the training part cannot be told from it
    documents = None
    listed = folder / DOCUMENTS_FILE
    if listed.is_file():
        documents = frozenset(listed.read_text(encoding="utf-8").split())
    return Facts(folder.resolve().name, form, split, documents, prompt_form)


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
        return Facts(row["model"], row["form"], row["split"], known, row["prompt_form"])
    except (ValueError, KeyError, TypeError):
        raise UserError(
            "not the file that an evaluation wrote", where=beside, expected="model, form, split, documents, prompt_form"
        ) from None


def write_facts(facts: Facts, folder: Path, asked: Iterable[str]) -> None:
    """Leaves the facts in a run folder; of the training documents only those among the `asked` ones."""
    documents = None if facts.documents is None else sorted(facts.documents.intersection(asked))
    row = {"model": facts.name, "form": facts.form, "split": facts.split, "documents": documents}
    row["prompt_form"] = facts.prompt_form
    write_atomic(folder / ASKED_FILE, json.dumps(row, ensure_ascii=False, indent=1) + "\n")
