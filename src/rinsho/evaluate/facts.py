"""What a model folder says about itself: how it answers, and what it was tuned and may be tested on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from rinsho.errors import UserError
from rinsho.evaluate.inputs import ASKED_FILE
from rinsho.model_folder import DOCUMENTS, MANIFEST
from rinsho.run import write_atomic
from rinsho.tasks import AnswerForm, Split, Splitting, TestPart
from rinsho.tasks.asking import PromptForm

NO_NAMES = re.compile(r"finetune|pretrain|tokens|corpus|quality|last|seed-\d+|step-\d+")  # every run has such a folder
BETWEEN = ("checkpoints", "partial")  # between these and the folder that has a name


@dataclass(frozen=True)
class Facts:
    """What is known of a model; None where the folder does not say.

    Attributes:
        form, prompt_form: how it answers and how it was asked while tuning.
        splitting: which rows it was tuned on and which are its test part.
        documents: keys of the documents it was tuned on.
        test_hashes: of the test parts it was tuned beside (`rinsho.tasks.splits.hash_of_tests`).
        years: IgakuQA years it was tuned on, which are therefore not asked.
        seen_tokens: of pre-training, that of a base it went on from included; tuning does not count.
        steps: of the stage that made the folder.
        tuned: it was tuned on conversations, so questions are no news to it.
        stage: what made the folder: `pretrain` or `finetune`.
    """

    name: str
    form: AnswerForm | None = None
    splitting: Splitting | None = None
    documents: frozenset[str] | None = None
    prompt_form: PromptForm = "benchmark"
    test_hashes: tuple[str, ...] = ()
    years: tuple[int, ...] = ()
    seen_tokens: int | None = None
    steps: int | None = None
    tuned: bool = False
    stage: str | None = None


def name_of(path: Path) -> str:
    """What to call a model or corpus: its folder's name, after that of the folder above where every run has such a one.

    >>> name_of(Path("/runs/row/finetune")), name_of(Path("/runs/small/pretrain/checkpoints/step-00000100"))
    ('row/finetune', 'small/pretrain/step-00000100')
    """
    path = path.resolve()
    if not NO_NAMES.fullmatch(path.name):
        return path.name
    above = path.parent
    while above.name in BETWEEN and above != above.parent:
        above = above.parent
    return f"{name_of(above)}/{path.name}" if above.name else path.name


def read_facts(folder: Path, name: str | None = None) -> Facts:
    """The facts in `rinsho.json` and in `train_documents.txt` of a model or adapter folder, under its name or another.

    Raises:
        UserError: `rinsho.json` is not JSON, or names a form or split that does not exist.
    """
    path = folder / MANIFEST
    manifest, about = _read_manifest(path)
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
    stage = manifest.get("stage")
    return Facts(
        name or folder.resolve().name, form, _splitting(about), documents, prompt_form, hashes, years,
        _seen_tokens(manifest), _number(about.get("steps") if about else manifest.get("steps")), bool(about),
        stage if isinstance(stage, str) else None,
    )  # fmt: skip


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
        return Facts(
            row["model"], row["form"], _splitting(row), known, row["prompt_form"], hashes, years,
            _number(row.get("seen_tokens")), _number(row.get("steps")), bool(row.get("tuned")), row.get("stage"),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            "not the file that an evaluation wrote", where=beside, expected="model, form, documents, prompt_form"
        ) from None


def write_facts(facts: Facts, folder: Path, keys: Iterable[str], asked: Mapping[str, Any] | None = None) -> None:
    """Leaves the facts in a run folder, and how was asked (`rinsho.evaluate.asked`).

    Of the training documents only those whose keys are among the given ones, of what was asked, are kept.
    """
    documents = None if facts.documents is None else sorted(facts.documents.intersection(keys))
    row: dict[str, Any] = {"model": facts.name, "form": facts.form, "documents": documents}
    row |= {"prompt_form": facts.prompt_form, "test_hashes": facts.test_hashes}
    row |= {"igakuqa_years": facts.years, "seen_tokens": facts.seen_tokens, "steps": facts.steps}
    row |= {"tuned": facts.tuned, "stage": facts.stage}
    if facts.splitting is not None:
        told = facts.splitting
        row |= {"split": told.split, "test_part": told.test_part, "split_seed": told.seed}
    if asked is not None:
        row["asked"] = asked
    write_atomic(folder / ASKED_FILE, json.dumps(row, ensure_ascii=False, indent=1) + "\n")


def _read_manifest(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what the file says, its `finetune` part); empty where there is none."""
    if not path.is_file():
        return {}, {}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        about = manifest.get("finetune") or {}
        return manifest, {**about}
    except (ValueError, AttributeError, TypeError):
        raise UserError("not a JSON object", where=path, expected="the file that finetune wrote") from None


def _seen_tokens(manifest: Mapping[str, Any]) -> int | None:
    """Tokens of pre-training: the folder's own and those of its base; None where neither says."""
    base = manifest.get("base")
    told = [manifest, base] if isinstance(base, dict) else [manifest]
    counts = [count for count in (_number(part.get("seen_tokens")) for part in told) if count is not None]
    return sum(counts) if counts else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _splitting(about: Mapping[str, Any]) -> Splitting | None:
    """What finetune recorded; None for nothing, and for a split of a later version, which cannot be told from it."""
    split: Any = about.get("split")
    part, seed = about.get("test_part", "published"), about.get("split_seed", 1)
    if split not in get_args(Split) or part not in get_args(TestPart) or not isinstance(seed, int):
        return None
    return Splitting(split, part, seed)
