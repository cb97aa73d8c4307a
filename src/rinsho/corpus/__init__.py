"""Room 1: raw text to clean, deduplicated shards, with everything that was dropped beside them and the reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from rinsho.corpus.filters import AD_WORDS, ADULT_WORDS, from_path
from rinsho.document import shard_paths
from rinsho.errors import UserError
from rinsho.recipe import Settings
from rinsho.run import Report, perform

__all__ = ["Recipe", "check", "run"]


class Recipe(Settings):
    """Settings of the corpus. Filters with an empty list, 0 or 1 as their limit are off."""

    text_field: str = Field("text", description="Field of a record that holds the text (N2.1-1).")
    id_field: str = Field("id", description="Field with the id; without it file name and line (N2.1-1).")
    source_field: str = Field("source", description="Field with the source; without it the file name (N2.1-7).")
    personal: Literal["remove", "placeholder", "keep"] = Field(
        "remove", description="Phone numbers, e-mail, URLs, accounts, postal codes: out, [電話番号], or kept (N2.2-1)."
    )
    min_chars: int = Field(20, ge=0, description="Shorter documents are dropped (characters after cleaning).")
    max_chars: int = Field(1_000_000, ge=1, description="Longer documents are dropped (characters after cleaning).")
    min_japanese_fraction: float = Field(0.3, ge=0, le=1, description="Share of kana and kanji a document must have.")
    max_symbol_fraction: float = Field(0.25, ge=0, le=1, description="Share of symbols a document may have.")
    max_repetition_fraction: float = Field(0.5, ge=0, le=1, description="Share of text in repeated sentences.")
    drop_incomplete_sentences: bool = Field(
        True, description="Drop documents that do not consist of complete sentences (N2.1-2)."
    )
    min_complete_fraction: float = Field(
        0.3, ge=0, le=1, description="Share of text in complete sentences a document must have (N2.1-2)."
    )
    drop_copyright: bool = Field(True, description="Drop documents with a copyright notice (N2.1-2).")
    adult_words: tuple[str, ...] = Field(ADULT_WORDS, description="Drop documents with adult words (N2.1-2).")
    max_adult_words: int = Field(1, ge=0, description="Different adult words a document may have per 1,000 characters.")
    ad_words: tuple[str, ...] = Field(AD_WORDS, description="Words of adverts and page furniture.")
    max_ad_words: int = Field(2, ge=0, description="Different advert words a document may have per 1,000 characters.")
    filters: tuple[str, ...] = Field(
        (), description="Own filters as package.module:function, each Document -> Drop or None, after the others."
    )
    deduplicate: bool = Field(True, description="Keep one of documents equal up to width and white space (N2.1-3).")
    max_broken_fraction: float = Field(0.01, ge=0, le=1, description="Share of broken records that stops the run.")
    max_size_mb: float | None = Field(
        None, gt=0, description="Take at most this many MB of input text, a sample by hash of the id; none takes all."
    )
    sources_first: tuple[str, ...] = Field(
        (), description="With max_size_mb: sources taken whole before others are sampled."
    )
    validation_fraction: float = Field(0.0, ge=0, lt=1, description="Share of documents put into validation/ (NA-4).")
    shard_documents: int = Field(10_000, ge=1, description="Documents a written shard holds.")
    workers: int = Field(0, ge=0, description="Processes; 0 is one a core. The product is the same for any number.")
    seed: int = Field(1, description="Decides the sample and the validation documents.")


def run(recipe: Recipe, inputs: Sequence[Path], out: Path) -> Report:
    """Cleans, filters and deduplicates the documents of the inputs into `out/shards/` (and `out/validation/`).

    Raises:
        UserError: no documents, a file that is cut off, too many broken records, or nothing left after the filters.

    Source: SPEC N2.1-2, N2.1-3, N2.1-7, N2.2-1, N2.2-2.
    """
    from rinsho.corpus.work import work

    return perform("corpus", recipe, inputs, out, lambda stage: work(recipe, inputs, stage))


def check(recipe: Recipe, inputs: Sequence[Path]) -> list[UserError]:
    """Everything that can be known before starting: inputs there, limits that can be met, own filters importable."""
    problems = []
    try:
        shard_paths([Path(path) for path in inputs])
    except UserError as error:
        problems.append(error)
    if not inputs:
        problems.append(UserError("no input", where="corpus", expected="files or folders with documents"))
    if recipe.min_chars > recipe.max_chars:
        problems.append(
            UserError("min_chars is above max_chars", where="corpus.min_chars", expected="a smaller number")
        )
    for name in recipe.filters:
        try:
            from_path(name)
        except UserError as error:
            problems.append(error)
    return problems
