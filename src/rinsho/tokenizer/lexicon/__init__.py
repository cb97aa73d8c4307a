"""Word lists as they are published to one table of terms and a MeCab user dictionary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rinsho.document import SUFFIXES, shard_paths
from rinsho.errors import UserError
from rinsho.recipe import Settings
from rinsho.run import Report, perform

__all__ = ["Lexicon", "LexiconSettings", "Recipe", "Term", "build", "check", "run", "sort_inputs", "split_inputs"]

UNITS = Path(__file__).with_name("units.tsv")
TABLES = (".csv", ".tsv", ".ttl")  # in a folder; a file that is named may be a .txt as well


class LexiconSettings(Settings):
    """How word lists are read and which terms enter the user dictionary."""

    surface_column: str = Field(
        "", description="Column with the terms; empty when the header is that of a known list (N2.2-3)."
    )
    reading_column: str = Field("", description="Column with the readings, beside surface_column.")
    kind_column: str = Field("", description="Column with the kinds, beside surface_column.")
    kind: str = Field("term", min_length=1, description="Kind of terms whose list does not say one.")
    lowest_reliability: Literal["S", "A", "B", "C", "D", "E", "F"] = Field(
        "C", description="Manbyo rows below this level are left out; D to F were assigned by machine (N2.2-3)."
    )
    discount: int = Field(
        2000,
        ge=0,
        description="How much cheaper than its own best path a term is, a joint of two words (N2.2-3).",
    )
    short_chars: int = Field(
        3, ge=0, description="Terms up to this many characters stay out when they tear ordinary words (N2.2-3)."
    )
    max_false_merge_fraction: float = Field(
        0.5, ge=0, le=1, description="Share of a short term's occurrences in ordinary text that may be false (N2.2-3)."
    )
    units: bool = Field(True, description="Units of clinical values such as mg/dL are terms as well (units.tsv).")
    check_mb: float = Field(10.0, gt=0, description="Ordinary text that is looked at for false merges, in MB.")


Recipe = LexiconSettings


@dataclass(frozen=True, slots=True)
class Term:
    """A term as it stands in cleaned text; `reading` in hiragana or empty; `source` joins lists with `;`."""

    surface: str
    reading: str
    kind: str
    source: str


@dataclass
class Lexicon:
    """All terms, sorted; the compiled dictionary, or None when MeCab knows them all; figures and their report."""

    terms: list[Term]
    dictionary: Path | None
    numbers: dict[str, Any]
    markdown: str


def build(paths: Sequence[Path], settings: LexiconSettings, folder: Path, texts: Iterable[str] = ()) -> Lexicon:
    """The terms of the word lists; writes terms.tsv, left_out.tsv and, when it has entries, user.dic into `folder`.

    Args:
        paths: the lists; where two give the same term, the earlier one decides its kind.
        settings: columns, costs, and what counts as a false merge.
        folder: there already; its path holds no comma, quotation mark or backslash, which MeCab cannot open.
        texts: ordinary raw texts, of which `check_mb` are looked at; without them false merges are not measured.

    Raises:
        UserError: a list is not readable, has no known header or more than 5 % bad rows; MeCab refuses the dictionary.

    Source: N2.2-3.
    """
    from rinsho.tokenizer.lexicon.work import build_lexicon

    return build_lexicon(paths, settings, folder, texts)


def run(recipe: LexiconSettings, inputs: Sequence[Path], out: Path) -> Report:
    """Makes the run folder of `rinsho tokenizer lexicon`: terms.tsv, user.dic, left_out.tsv and the report.

    Raises:
        UserError: as `build`; or no word list among the inputs.

    Source: N2.2-3.
    """
    from rinsho.tokenizer.lexicon.work import work

    return perform("lexicon", recipe, inputs, out, lambda stage: work(recipe, inputs, stage))


def check(recipe: LexiconSettings, inputs: Sequence[Path]) -> list[UserError]:
    """Everything that can be known before starting: lists there, readable and with known columns; a corpus there."""
    from rinsho.tokenizer.lexicon.readers import open_list

    try:
        lists, corpora = split_inputs(inputs)
        if corpora:
            shard_paths(corpora)
    except UserError as error:
        return [error]
    problems = []
    for path in lists:
        try:
            open_list(path, recipe)
        except UserError as error:
            problems.append(error)
    return problems


def split_inputs(inputs: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The inputs as `sort_inputs` sorts them.

    Raises:
        UserError: there is no word list.
    """
    lists, corpora = sort_inputs(inputs)
    if not lists:
        raise UserError(
            "no word list among the inputs",
            where="tokenizer lexicon",
            expected="a .csv, .tsv, .ttl or .txt file, or a folder of such files",
            todo="name one",
        )
    return lists, corpora


def sort_inputs(inputs: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The inputs as (word lists, corpus files and folders).

    A named .csv, .tsv, .ttl or .txt is a word list; so are the .csv, .tsv and .ttl files of a folder without documents.
    Of a folder that holds a terms.tsv (from `rinsho tokenizer lexicon`), that file is the list.
    """
    lists, corpora = [], []
    for path in inputs:
        if (path / "terms.tsv").is_file():
            lists.append(path / "terms.tsv")
        elif path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file())
            found = [file for file in inside if file.suffix.lower() in TABLES]
            documents = any(file.name.endswith(SUFFIXES) for file in inside)
            if found and not documents:
                lists += found
            else:
                corpora.append(path)
        elif path.suffix.lower() in (*TABLES, ".txt") or (path.is_file() and not path.name.endswith(SUFFIXES)):
            lists.append(path)
        else:  # documents, or a folder that an earlier stage is still to make
            corpora.append(path)
    return lists, corpora
