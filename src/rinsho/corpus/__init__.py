"""Room 1: raw text to clean, deduplicated shards, with everything that was dropped beside them and the reason."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Literal

from pydantic import Field

from rinsho.corpus.executors import Slurm
from rinsho.corpus.sources import HuggingFace, Source, files, problem, unused
from rinsho.errors import UserError
from rinsho.recipe import Settings
from rinsho.run import Report, perform

__all__ = ["Recipe", "check", "run"]

MIN_FOUND = 0.95  # of the pairs at the threshold of near duplicates


class Recipe(Settings):
    """Settings of the corpus. Filters with an empty list, 0 or 1 as their limit are off."""

    text_field: str = Field("text", description="Field of a record that holds the text (N2.1-1).")
    id_field: str = Field("id", description="Field with the id; without it file name and line (N2.1-1).")
    source_field: str = Field("source", description="Field with the source; without it the file name (N2.1-7).")
    sources: tuple[Source, ...] = Field((), description="How files are read, by pattern; the first that fits (N2.1-1).")
    huggingface: tuple[HuggingFace, ...] = Field(
        (), description="Hugging Face data sets to fetch; the only thing here that may use the network (N2.1-1)."
    )
    meta_fields: tuple[str, ...] | None = Field(
        None, description="Other fields that travel into the shards; none takes all, names of an export too (N2.1-1)."
    )
    personal: Literal["remove", "placeholder", "keep"] = Field(
        "remove", description="Phone numbers, e-mail, URLs, accounts, postal codes: out, [電話番号], or kept (N2.2-1)."
    )
    literal_numbers: bool = Field(
        False, description="The report's literal rule: ．，become 。、 between digits too, which breaks doses (N2.2-1)."
    )
    min_chars: int = Field(20, ge=0, description="Shorter documents are dropped (characters after cleaning).")
    max_chars: int = Field(1_000_000, ge=1, description="Longer documents are dropped (characters after cleaning).")
    min_japanese_fraction: float = Field(0.3, ge=0, le=1, description="Share of kana and kanji a document must have.")
    max_symbol_fraction: float = Field(0.25, ge=0, le=1, description="Share of symbols a document may have.")
    max_repetition_fraction: float = Field(
        0.6, ge=0, le=1, description="Share of 16-character windows of the text that stood in it before."
    )
    drop_incomplete_sentences: bool = Field(
        True, description="Drop documents that do not consist of complete sentences (N2.1-2)."
    )
    min_complete_fraction: float = Field(
        0.3, ge=0, le=1, description="Share of text in complete sentences a document must have (N2.1-2)."
    )
    drop_copyright: bool = Field(True, description="Drop documents with a copyright notice (N2.1-2).")
    adult_words: tuple[str, ...] | None = Field(
        None, description="Drop documents with these words; none takes the list that comes with rinsho (N2.1-2)."
    )
    max_adult_words: int = Field(1, ge=0, description="Different ones that 1,000 characters may have; 4,000 two times.")
    ad_words: tuple[str, ...] | None = Field(
        None, description="Words of adverts and page furniture; none takes the list that comes with rinsho."
    )
    max_ad_words: int = Field(2, ge=0, description="Different ones that 1,000 characters may have; 4,000 two times.")
    word_lists: dict[str, Path] = Field({}, description="Own lists: reason -> text file, one word a line (N2.1-2).")
    max_listed_words: int = Field(
        0, ge=0, description="Different ones that 1,000 characters may have; 4,000 two times."
    )
    filters: tuple[str, ...] = Field(
        (), description="Own filters as package.module:function, each Document -> Drop or None, after the others."
    )
    trusted_sources: tuple[str, ...] = Field(
        (), description="Sources that only length and own filters apply to, such as hospital notes."
    )
    decontaminate: tuple[Path, ...] = Field(
        (), description="Benchmark files or folders whose passages must not stand in the corpus (N2.1-3)."
    )
    decontamination: Literal["remove", "report"] = Field(
        "remove", description="Drop documents with benchmark passages, or only list them."
    )
    decontamination_chars: int = Field(
        30, ge=8, description="A shared passage has at least this many characters, white space not counted."
    )
    deduplicate: bool = Field(True, description="Keep one of documents equal up to width and white space (N2.1-3).")
    near_duplicates: bool = Field(True, description="Keep one of documents that are nearly the same (N2.1-3).")
    near_threshold: float = Field(
        0.8, gt=0, le=1, description="Near means at least this Jaccard similarity of character n-grams (N2.1-3)."
    )
    near_ngram_chars: int = Field(5, ge=1, description="Length of these n-grams (N2.1-3).")
    near_bands: int = Field(24, ge=1, description="MinHash bands: more find more pairs and cost 8 bytes a document.")
    near_rows: int = Field(5, ge=1, description="MinHash values a band: more let fewer unlike pairs through.")
    sentence_documents: int = Field(
        20, ge=0, description="Sentences in more documents than this are kept in one only; 0 is off (N2.1-3)."
    )
    sentence_min_chars: int = Field(15, ge=1, description="Shorter sentences are never removed (N2.1-3).")
    sentence_keep_sources: tuple[str, ...] = Field(
        (), description="Sources whose documents keep all their sentences, such as clinical notes."
    )
    max_broken_fraction: float = Field(0.01, ge=0, le=1, description="Share of broken records that stops the run.")
    max_size_mb: float | None = Field(
        None, gt=0, description="Take at most this many MB of input text, a sample by hash of the id; none takes all."
    )
    sources_first: tuple[str, ...] = Field(
        (), description="Preferred sources: stay when others repeat them; taken whole before max_size_mb samples."
    )
    max_synthetic_fraction: float = Field(
        0.1, ge=0, le=1, description="Share of the kept bytes that a model wrote from which the report warns (N2.1-5)."
    )
    validation_fraction: float = Field(0.0, ge=0, lt=1, description="Share of documents put into validation/ (NA-4).")
    shard_documents: int = Field(10_000, ge=1, description="Documents a written shard holds at most.")
    piece_mb: float = Field(
        16.0,
        gt=0,
        description="Small files are worked off together up to this size: what a kill costs at most.",
    )
    executor: Literal["pool", "local", "ray", "slurm"] = Field(
        "pool", description="Where the work runs: own processes, or datatrove on this machine, Ray or Slurm."
    )
    slurm: Slurm = Field(default_factory=lambda: Slurm.model_validate({}), description="What a Slurm job is given.")
    workers: int = Field(0, ge=0, description="Processes; 0 is one a core. The product is the same for any number.")
    seed: int = Field(1, description="Decides the sample and the validation documents.")


def run(recipe: Recipe, inputs: Sequence[Path], out: Path) -> Report:
    """Cleans, filters and deduplicates the documents of the inputs into `out/shards/` (and `out/validation/`).

    Raises:
        UserError: no documents, a file that is cut off, too many broken records, or nothing left after the filters.

    Source: SPEC N2.1-1, N2.1-2, N2.1-3, N2.1-7, N2.2-1, N2.2-2.
    """
    from rinsho.corpus.work import work

    local = [Path(settings.dataset) for settings in recipe.huggingface if Path(settings.dataset).is_dir()]
    own = [
        Path(spec.origin) for name in recipe.filters if (spec := _module_of(name)) and spec.has_location and spec.origin
    ]
    all_inputs = [*inputs, *local, *recipe.decontaminate, *recipe.word_lists.values(), *own]
    return perform("corpus", recipe, all_inputs, out, lambda stage: work(recipe, inputs, stage))


def _module_of(name: str) -> ModuleSpec | None:
    """Where a user's filter stands: its code is part of what makes two runs the same."""
    try:
        return importlib.util.find_spec(name.partition(":")[0])
    except (ImportError, ValueError):
        return None


def check(recipe: Recipe, inputs: Sequence[Path]) -> list[UserError]:
    """Everything that can be known before starting: inputs there, limits that can be met, own filters importable."""
    from rinsho.corpus.filters import from_path

    problems = []
    if not inputs and not recipe.huggingface:
        problems.append(UserError("no input", where="corpus", expected="files or folders with documents"))
    elif inputs:
        try:
            files(recipe, [Path(path) for path in inputs])
            problems += [
                UserError(
                    f"the pattern {pattern!r} fits no file", where="corpus.sources", expected="a path below an input"
                )
                for pattern in unused(recipe, [Path(path) for path in inputs])
            ]
        except UserError as error:
            problems.append(error)
    problems += [found for found in map(problem, recipe.huggingface) if found]
    if recipe.min_chars > recipe.max_chars:
        problems.append(
            UserError("min_chars is above max_chars", where="corpus.min_chars", expected="a smaller number")
        )
    probability = 1 - (1 - recipe.near_threshold**recipe.near_rows) ** recipe.near_bands
    if recipe.near_duplicates and probability < MIN_FOUND:
        problems.append(
            UserError(
                f"a pair of similarity {recipe.near_threshold} would be found with probability {probability:.2f}",
                where="corpus.near_rows",
                expected=f"at least {MIN_FOUND} = 1 - (1 - near_threshold ** near_rows) ** near_bands",
                todo="fewer near_rows or more near_bands, for instance 4 and 30 for a threshold of 0.6",
            )
        )
    for name in recipe.filters:
        try:
            from_path(name)
        except UserError as error:
            problems.append(error)
    for path in recipe.decontaminate:
        if not path.exists():
            problems.append(
                UserError("not there", where=path, expected="a file for corpus.decontaminate", todo="check the path")
            )
    return [*problems, *_check_word_lists(recipe)]


def _check_word_lists(recipe: Recipe) -> list[UserError]:
    from rinsho.corpus.filters.wordlists import read_words
    from rinsho.corpus.report.view import REASONS

    problems = []
    taken = {*REASONS, "kept"} - {"adult", "advert"}
    for name, path in recipe.word_lists.items():
        if not re.fullmatch("[a-z][a-z0-9_]*", name) or name in taken:
            problems.append(
                UserError(
                    f"a word list is called {name!r}",
                    where="corpus.word_lists",
                    expected="a-z, 0-9 and _, and no reason that there is already",
                )
            )
        try:
            read_words(path)
        except UserError as error:
            problems.append(error)
    return problems
