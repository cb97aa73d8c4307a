"""Room 3: corpus and word lists to a tokenizer folder that `AutoTokenizer` opens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from rinsho.document import shard_paths
from rinsho.errors import UserError
from rinsho.recipe import Settings
from rinsho.run import Report, perform
from rinsho.tokenizer import lexicon
from rinsho.tokenizer.lexicon import LexiconSettings

SMALLEST = 200  # controls, ASCII and some words


class Recipe(Settings):
    """Settings of the tokenizer; the defaults are those of the report, with byte fallback on."""

    vocab_size: int = Field(32_768, ge=300, description="Pieces in all, controls and bytes included (N2.2-4).")
    byte_fallback: bool = Field(True, description="Spell unknown characters in bytes instead of <unk> (N2.2-4).")
    split_digits: bool = Field(True, description="Every digit is a piece of its own, so values stay exact (N2.2-4).")
    shrinking_factor: float = Field(0.75, ge=0.5, le=0.95, description="Share of pieces kept in each pruning (N2.2-4).")
    max_piece_chars: int = Field(16, ge=1, le=64, description="Longest piece in characters (N2.2-4).")
    sub_iterations: int = Field(8, ge=1, le=10, description="EM rounds between two prunings (N2.2-4).")
    min_count: int = Field(2, ge=1, description="Occurrences below which a substring is no candidate (N2.2-4).")
    character_coverage: float = Field(
        0.9999, gt=0, le=1, description="Share of all characters whose kinds get a piece of their own (N2.2-4)."
    )
    whole_words_fraction: float = Field(
        0.75, ge=0, le=1, description="Frequent words among the pieces at least, as a share; 0: Unigram alone (N2.2-4)."
    )
    sources: tuple[str, ...] = Field(
        (), description="Values of `source` to train on; empty for all (the report: Wikipedia and medical, N2.2-4)."
    )
    source_weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        {}, description="How often a source's words count; 1 for those not named, 0 leaves one out (N2.2-4)."
    )
    max_words: int = Field(
        4_000_000, ge=1000, description="Distinct words held in memory; beyond it the rarest are left out (N2.2-4)."
    )
    max_train_mb: float | None = Field(None, gt=0, description="Sample of documents up to this size in MB (N2.2-4).")
    heldout_fraction: float = Field(
        0.02, ge=0, lt=0.5, description="Share of documents kept out of training, to measure on (N2.2-5)."
    )
    heldout_mb: float = Field(5.0, gt=0, description="At most this many MB of the held-out text are measured (N2.2-5).")
    lexicon: LexiconSettings = Field(
        default_factory=lambda: LexiconSettings.model_validate({}),
        description="how word lists are read and entered in MeCab (N2.2-3)",
    )
    max_broken_fraction: float = Field(0.01, ge=0, le=1, description="Share of broken records that stops the run.")
    workers: int = Field(1, ge=1, description="Processes that count words; the result is the same for any number.")
    seed: int = Field(1, description="Decides which documents are held out and sampled.")


def run(recipe: Recipe, inputs: Sequence[Path], out: Path) -> Report:
    """Trains a tokenizer on corpus folders and word lists.

    `out` itself is the tokenizer folder of the strict form (MeCab at run time), `out/plain` that of the plain form.

    Raises:
        UserError: no corpus among the inputs, a broken word list, or too little text for `vocab_size`.

    Source: N2.2-3, N2.2-4, N2.2-5.
    """

    def work(stage):  # type: ignore[no-untyped-def]
        from rinsho.tokenizer.work import work

        return work(recipe, inputs, stage)

    return perform("tokenizer", recipe, inputs, out, work)


def check(recipe: Recipe, inputs: Sequence[Path]) -> list[UserError]:
    """Everything that can be known before training: inputs there, word lists readable, vocabulary large enough."""
    problems = []
    smallest = SMALLEST + (256 if recipe.byte_fallback else 0)
    if recipe.vocab_size < smallest:
        problems.append(
            UserError(
                f"{recipe.vocab_size} pieces leave no room for words",
                where="tokenizer.vocab_size",
                expected=f"at least {smallest}",
            )
        )
    try:
        lists, corpora = split_inputs(inputs)
        shard_paths(corpora)
    except UserError as error:
        return [*problems, error]
    return problems + (lexicon.check(recipe.lexicon, lists) if lists else [])


def split_inputs(inputs: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The inputs as (word lists, corpus files and folders); word lists as in `rinsho.tokenizer.lexicon`.

    Raises:
        UserError: there is no corpus.
    """
    lists, corpora = lexicon.sort_inputs(inputs)
    if not corpora:
        raise UserError(
            "no corpus to train on",
            where="tokenizer inputs",
            expected="a corpus folder, and word lists as .csv or .tsv",
        )
    return lists, corpora
