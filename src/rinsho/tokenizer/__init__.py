"""Room 3: corpus and word lists to a tokenizer folder that `AutoTokenizer` opens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from rinsho.document import SUFFIXES, shard_paths
from rinsho.errors import UserError
from rinsho.recipe import Settings
from rinsho.run import Report, Stage, perform, write_atomic

if TYPE_CHECKING:
    from rinsho.tokenization import RinshoTokenizer
    from rinsho.tokenizer.counting import Counts, Selection
    from rinsho.tokenizer.lexicon import Terms
    from rinsho.tokenizer.unigram import Training

FREQUENT_WORDS = 20_000
SMALLEST = 200  # controls, ASCII and some words


class Recipe(Settings):
    """Settings of the tokenizer; the defaults are those of the report, with byte fallback on."""

    vocab_size: int = Field(32_768, ge=300, description="Pieces in all, controls and bytes included (N2.2-4).")
    byte_fallback: bool = Field(True, description="Spell unknown characters in bytes instead of <unk> (N2.2-4).")
    segment: Literal["strict", "plain"] = Field(
        "strict", description="strict: MeCab at run time, the report's; plain: MeCab in training only (N2.2-3)."
    )
    split_digits: bool = Field(True, description="Every digit is a piece of its own, so values stay exact (N2.2-4).")
    shrinking_factor: float = Field(0.75, gt=0, lt=1, description="Share of pieces kept in each pruning (N2.2-4).")
    max_piece_chars: int = Field(16, ge=1, le=64, description="Longest piece in characters (N2.2-4).")
    sub_iterations: int = Field(8, ge=1, description="EM rounds between two prunings (N2.2-4).")
    min_count: int = Field(2, ge=1, description="Occurrences below which a substring is no candidate (N2.2-4).")
    character_coverage: float = Field(
        0.9999, gt=0, le=1, description="Share of all characters whose kinds get a piece of their own (N2.2-4)."
    )
    sources: tuple[str, ...] = Field(
        (), description="Values of `source` to train on; empty for all (the report: Wikipedia and medical, N2.2-4)."
    )
    max_train_mb: float | None = Field(None, gt=0, description="Sample of documents up to this size in MB (N2.2-4).")
    heldout_fraction: float = Field(
        0.02, ge=0, lt=0.5, description="Share of documents kept out of training, to measure on (N2.2-5)."
    )
    heldout_mb: float = Field(5.0, gt=0, description="At most this many MB of the held-out text are measured (N2.2-5).")
    lexicon_column: str = Field("surface", description="Column of the word lists that holds the terms (N2.2-3).")
    lexicon_discount: int = Field(
        3000, ge=0, description="How much cheaper than its own best path a word-list term is for MeCab (N2.2-3)."
    )
    max_broken_fraction: float = Field(0.01, ge=0, le=1, description="Share of broken records that stops the run.")
    workers: int = Field(1, ge=1, description="Processes that count words; the result is the same for any number.")
    seed: int = Field(1, description="Decides which documents are held out and sampled.")


def run(recipe: Recipe, inputs: Sequence[Path], out: Path) -> Report:
    """Trains a tokenizer on corpus folders and word lists; `out` itself is the tokenizer folder.

    Raises:
        UserError: no corpus among the inputs, a broken word list, or too little text for `vocab_size`.

    Source: N2.2-3, N2.2-4, N2.2-5.
    """
    return perform("tokenizer", recipe, inputs, out, lambda stage: _work(recipe, inputs, stage))


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
        corpora, lists = split_inputs(inputs)
        shard_paths(corpora)
        for path in lists:
            if not path.is_file():
                problems.append(UserError("not there", where=path, expected="a word list", todo="check the path"))
                continue
            with path.open(encoding="utf-8-sig") as file:
                if recipe.lexicon_column not in file.readline():
                    problems.append(_no_column(path, recipe.lexicon_column))
    except UserError as error:
        problems.append(error)
    except UnicodeDecodeError:
        problems.append(UserError("a word list is not UTF-8", where="tokenizer inputs", expected="UTF-8 CSV or TSV"))
    return problems


def _no_column(path: Path, column: str) -> UserError:
    return UserError(
        f"no column {column}", where=path, expected=f"a header line with {column}", todo="set tokenizer.lexicon_column"
    )


def split_inputs(inputs: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The inputs as (corpus files and folders, word lists); a folder without documents may hold word lists."""
    corpora, lists = [], []
    for path in inputs:
        if path.is_file() and path.suffix in (".csv", ".tsv"):
            lists.append(path)
        elif path.is_dir() and not any(file.name.endswith(SUFFIXES) for file in path.rglob("*")):
            found = sorted(file for file in path.rglob("*") if file.suffix in (".csv", ".tsv"))
            lists += found
            corpora += [] if found else [path]
        else:
            corpora.append(path)
    if not corpora:
        raise UserError(
            "no corpus to train on",
            where="tokenizer inputs",
            expected="a corpus folder, and word lists as .csv or .tsv",
        )
    return corpora, lists


def _work(recipe: Recipe, inputs: Sequence[Path], stage: Stage) -> Report:
    from rinsho.tokenizer import counting, unigram
    from rinsho.tokenizer.lexicon import build_user_dictionary, read_terms

    corpora, lists = split_inputs(inputs)
    shards = shard_paths(corpora)
    terms = read_terms(lists, recipe.lexicon_column)
    dictionary = stage.partial / "user.dic"
    entries = build_user_dictionary(terms.surfaces, dictionary, recipe.lexicon_discount)
    if terms.rows:
        stage.log(f"{entries} of {terms.rows} word-list rows entered in the user dictionary")
    user_dictionary = dictionary if entries else None
    selection = _selection(recipe, shards)
    counts = counting.count_corpus(shards, selection, user_dictionary, recipe.workers, stage)
    counting.check_sources(counts, recipe.sources)
    _check_broken(counts, recipe)
    stage.log(f"{counts.text_bytes / 1e6:.1f} MB, {counts.words.total()} words, {len(counts.words)} distinct: training")
    training = _training(recipe)
    vocabulary = unigram.train(counts.words, training, stage.partial)
    backend = unigram.to_backend(vocabulary, recipe.byte_fallback, recipe.split_digits)
    tokenizer = _publish(recipe, backend, user_dictionary, stage)
    numbers = {
        "vocab_size": len(tokenizer),
        "train_documents": counts.documents,
        "train_mb": round(counts.text_bytes / 1e6, 3),
        "broken_records": counts.broken,
        "words": counts.words.total(),
        "distinct_words": len(counts.words),
        **_lexicon_numbers(terms, entries),
        **_measure(tokenizer, counts, terms, recipe, counting.heldout_texts(shards, selection, recipe.heldout_mb)),
    }
    return Report(numbers, _markdown(numbers))


def _selection(recipe: Recipe, shards: Sequence[Path]) -> Selection:
    from rinsho.tokenizer.counting import Selection, text_bytes

    everything = Selection(recipe.seed, recipe.sources, 1.0, recipe.heldout_fraction)
    if recipe.max_train_mb is None:
        return everything
    size = text_bytes(shards, everything)
    keep = min(1.0, recipe.max_train_mb * 1e6 / size) if size else 1.0
    return Selection(recipe.seed, recipe.sources, keep, recipe.heldout_fraction)


def _training(recipe: Recipe) -> Training:
    from rinsho.tokenizer.unigram import Training

    return Training(
        vocab_size=recipe.vocab_size,
        byte_fallback=recipe.byte_fallback,
        shrinking_factor=recipe.shrinking_factor,
        sub_iterations=recipe.sub_iterations,
        max_piece_chars=recipe.max_piece_chars,
        min_count=recipe.min_count,
        character_coverage=recipe.character_coverage,
        split_digits=recipe.split_digits,
    )


def _publish(recipe: Recipe, backend: Any, user_dictionary: Path | None, stage: Stage) -> RinshoTokenizer:
    """The tokenizer files at the top of the run folder, one by one atomically; the tokenizer read back from there."""
    from rinsho.tokenization import load, wrap

    aside = stage.partial / "folder"
    wrap(backend, user_dictionary, segment=recipe.segment, split_digits=recipe.split_digits).save_pretrained(aside)
    for path in sorted(aside.iterdir()):
        write_atomic(stage.out / path.name, path.read_bytes())
    return load(stage.out)


def _check_broken(counts: Counts, recipe: Recipe) -> None:
    records = counts.broken + counts.sources.total()
    if records and counts.broken / records > recipe.max_broken_fraction:
        raise UserError(
            f"{counts.broken} of {records} records are broken",
            where="tokenizer inputs",
            expected=f"at most {recipe.max_broken_fraction:.1%}",
            todo="repair the corpus or raise max_broken_fraction",
        )


def _measure(tokenizer: RinshoTokenizer, counts: Counts, terms: Terms, recipe: Recipe, heldout: Any) -> dict[str, Any]:
    from rinsho.segmentation import alone_characters
    from rinsho.tokenizer.measure import measure_texts, single_piece_fraction

    fit = asdict(measure_texts(tokenizer, heldout))
    alone = alone_characters(recipe.split_digits)
    ranked = sorted(counts.words.items(), key=lambda row: (-row[1], row[0]))
    frequent = [word for word, _ in ranked if not any(char in alone for char in word)]
    frequent = frequent[: min(FREQUENT_WORDS, recipe.vocab_size // 2)]
    return {
        **{("heldout_" + key if key in ("documents", "characters", "tokens") else key): fit[key] for key in fit},
        "frequent_words": len(frequent),
        "frequent_words_single_fraction": single_piece_fraction(tokenizer, frequent),
        "lexicon_single_fraction": single_piece_fraction(tokenizer, terms.surfaces),
    }


def _lexicon_numbers(terms: Terms, entries: int) -> dict[str, Any]:
    return {
        "lexicon_rows": terms.rows,
        "lexicon_terms": len(terms.surfaces),
        "user_dictionary_entries": entries,
        "lexicon_refused": dict(sorted(terms.refused.items())),
        "lexicon_refused_lines": terms.refused_lines,
        "lexicon_left_out": dict(sorted(terms.left_out.items())),
    }


def _markdown(numbers: dict[str, Any]) -> str:
    from rinsho.tokenizer.measure import table

    text = "# Tokenizer\n\n" + table(numbers)
    if numbers["lexicon_refused_lines"]:
        text += "\nRefused word-list rows: " + ", ".join(numbers["lexicon_refused_lines"]) + "\n"
    if numbers["round_trip_failures"]:
        text += "\nDocuments that do not come back exactly: " + ", ".join(numbers["failed_ids"]) + "\n"
    return text
