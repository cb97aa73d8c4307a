"""Corpus to token files, which pre-training takes in its place.

rinsho tokenizer encode TOKENIZER CORPUS... --out DIR
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from rinsho.document import shard_paths, training_folder
from rinsho.errors import UserError
from rinsho.recipe import Settings
from rinsho.run import Report, Stage, perform

if TYPE_CHECKING:
    from rinsho.token_files import Parts, SourceRow
    from rinsho.token_pieces import Tally

LISTED_SOURCES, SHOWN_SOURCES = 100, 20  # in report.json and in report.md, by their tokens; the others are one row


class EncodeRecipe(Settings):
    """Settings of the token files; those of the same names in pre-training mean the same and have the same defaults."""

    validation_fraction: float = Field(
        0.01, ge=0, lt=1, description="Share of documents held out of a corpus that has no validation folder (N2.4-1)."
    )
    copy_fraction: float = Field(
        0.0, ge=0, le=1, description="Share of documents followed by copies of spans of themselves (N2.4-1)."
    )
    copy_window: int = Field(
        256, ge=16, description="Copied are the last tokens of a document, this many; half of a row or less (N2.4-1)."
    )
    max_broken_fraction: float = Field(0.01, ge=0, le=1, description="Share of unreadable documents that is tolerated.")
    workers: int = Field(0, ge=0, description="Processes; 0 is one a core. The product is the same for any number.")
    seed: int = Field(1, description="Decides which documents are held out and which are followed by copies.")


Recipe = EncodeRecipe


def run(recipe: EncodeRecipe, inputs: Sequence[Path], out: Path) -> Report:
    """Encodes corpora into `out/train` and `out/validation`; see `rinsho.token_files` for the form.

    `inputs` are the tokenizer's folder, then one or more corpora. The training documents of a corpus go to `train`,
    its `validation` folder, or where no corpus has one a share of the documents, to `validation`: just as
    pre-training does it with the corpora themselves.

    Raises:
        UserError: what `check` finds, no documents, or too many that cannot be read.

    Source: N2.2-5, N2.4-1.
    """
    for problem in check(recipe, inputs):
        raise problem
    return perform("tokens", recipe, inputs, out, lambda stage: _work(recipe, inputs, stage))


def check(recipe: EncodeRecipe, inputs: Sequence[Path]) -> list[UserError]:  # noqa: ARG001 (as in every room)
    """Everything that can be known before encoding: a tokenizer, and documents in every corpus."""
    if len(inputs) < 2:
        return [UserError("inputs are missing", where="tokenizer encode", expected="TOKENIZER CORPUS...")]
    tokenizer, *corpora = inputs
    found = []
    if not (tokenizer / "tokenizer.json").is_file():
        found.append(UserError("no tokenizer in here", where=tokenizer, expected="a folder with tokenizer.json"))
    for corpus in corpora:
        try:
            shard_paths([training_folder(corpus)])
        except UserError as problem:
            found.append(problem)
    return found


def _work(recipe: EncodeRecipe, inputs: Sequence[Path], stage: Stage) -> Report:
    from rinsho.token_files import check_broken
    from rinsho.token_pieces import Copying, Tally
    from rinsho.token_writing import encode_corpora

    tokenizer, *corpora = inputs
    tally = Tally()
    parts = encode_corpora(
        corpora,
        tokenizer,
        stage.out,
        scratch=stage.partial / "pieces",
        validation_fraction=recipe.validation_fraction,
        copying=Copying(recipe.copy_fraction, recipe.copy_window, recipe.seed),
        workers=recipe.workers,
        label=f"{stage.name}: encode",
        tally=tally,
    )
    if not parts.training.manifest["documents"]:
        raise UserError(
            "the corpus has no documents",
            where=corpora[0],
            expected="text to encode",
            todo="check the folder and validation_fraction",
        )
    check_broken(parts.training, recipe.max_broken_fraction, corpora[0])
    numbers = _numbers(parts, tally)
    return Report(numbers, _markdown(numbers))


def _numbers(parts: Parts, tally: Tally) -> dict[str, Any]:
    made = parts.training.manifest
    numbers = {key: made[key] for key in ("tokenizer", "vocab_size", "dtype", "documents", "tokens", "characters")}
    numbers["text_mb"] = round(made["text_bytes"] / 1e6, 3)
    numbers["characters_per_token"] = round(made["characters"] / max(1, made["tokens"]), 4)
    numbers["broken_records"] = made["broken_records"]
    held_out = parts.validation.manifest if parts.validation else {"documents": 0, "tokens": 0}
    numbers |= {f"validation_{key}": held_out[key] for key in ("documents", "tokens")}
    numbers["sources"] = _sources(parts.training.sources)
    rate = tally.text_bytes / 1e6 / tally.seconds if tally.text_bytes else None  # nothing was left to encode
    numbers["mb_per_second"] = rate and round(rate, 2)
    numbers["worker_memory_gib"] = round(tally.peak_memory_bytes / 2**30, 3)
    return numbers


def _sources(rows: Sequence[SourceRow]) -> list[dict[str, Any]]:
    """The sources by falling number of tokens; a text may have as many sources as documents, so only the first ones."""
    ranked = sorted(rows, key=lambda row: (-row.tokens, row.corpus, row.name))
    keys = ("corpus", "documents", "tokens", "characters")
    found = [{"source": row.name} | {key: getattr(row, key) for key in keys} for row in ranked[:LISTED_SOURCES]]
    rest = ranked[LISTED_SOURCES:]
    if rest:
        counts = {key: sum(getattr(row, key) for row in rest) for key in keys[1:]}
        found.append({"source": f"({len(rest)} others)", "corpus": "", **counts})
    return found


def _markdown(numbers: dict[str, Any]) -> str:
    rate = numbers["mb_per_second"]
    rows = [
        ("documents", f"{numbers['documents']:,}"),
        ("tokens, begin and end marks included", f"{numbers['tokens']:,} ({numbers['dtype']})"),
        ("text", f"{numbers['text_mb']:,} MB, {numbers['characters']:,} characters"),
        ("characters per token", f"{numbers['characters_per_token']:.3f}"),
        ("held out", f"{numbers['validation_documents']:,} documents, {numbers['validation_tokens']:,} tokens"),
        ("records that cannot be read", f"{numbers['broken_records']:,}"),
        ("speed", "-" if rate is None else f"{rate:.1f} MB of text a second"),
        ("peak memory of a worker", f"{numbers['worker_memory_gib']:.2f} GiB"),
        ("tokenizer", numbers["tokenizer"]),
    ]
    lines = ["# Token files", "", "| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)]
    lines += ["", "| corpus | source | documents | tokens | share |", "| --- | --- | --- | --- | --- |"]
    for row in numbers["sources"][:SHOWN_SOURCES]:
        names = f"{row['corpus']} | {row['source'] or '(none)'}"
        share = row["tokens"] / max(1, numbers["tokens"])
        lines.append(f"| {names} | {row['documents']:,} | {row['tokens']:,} | {share:.1%} |")
    return "\n".join([*lines, ""])
