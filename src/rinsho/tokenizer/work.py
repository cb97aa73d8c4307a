"""The training stage step by step: word lists, word counts, vocabulary, the two forms, what they are worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rinsho import segmentation
from rinsho.document import Document, shard_paths
from rinsho.errors import UserError
from rinsho.run import Report, Stage, write_atomic
from rinsho.text import clean
from rinsho.tokenization import RinshoTokenizer, load, wrap
from rinsho.tokenization.backend import Form
from rinsho.tokenizer import Recipe, counting, growth, lexicon, split_inputs, unigram
from rinsho.tokenizer.counting import Counts
from rinsho.tokenizer.lexicon import Lexicon
from rinsho.tokenizer.lexicon.merges import sample_texts
from rinsho.tokenizer.measure import measure_texts, single_piece_fraction, table
from rinsho.tokenizer.selection import Selection, heldout_documents, source_name, text_bytes

FREQUENT_WORDS = 20_000
SOURCES_SHOWN = 20
PLAIN = "plain"  # the folder of the plain form inside the tokenizer folder


def work(recipe: Recipe, inputs: Sequence[Path], stage: Stage) -> Report:
    """Trains and measures; see `rinsho.tokenizer.run`."""
    segmentation.check_path(str(stage.partial))  # MeCab and sentencepiece take a comma for a list of files
    lists, corpora = split_inputs(inputs)
    shards = shard_paths(corpora)
    terms = _lexicon(recipe, lists, shards, stage)
    selection = _selection(recipe, shards)
    counts = counting.count_corpus(
        shards, selection, terms.dictionary if terms else None, recipe.workers, stage, max_words=recipe.max_words
    )
    counting.check_sources(counts, recipe.sources, "sources")
    counting.check_sources(counts, recipe.source_weights, "source_weights")
    _check_broken(counts, recipe)
    stage.log(
        f"{counts.text_bytes / 1e6:.1f} MB, {counts.total_words} words, {counts.distinct_words} distinct: training"
    )
    units = [term.surface for term in terms.terms if term.kind == "unit"] if terms else []
    try:
        vocabulary = unigram.train(counts.words, _training(recipe), stage.partial, units)
    except UserError as error:
        if counts.left_out_words:
            error.todo = f"raise tokenizer.max_words, which left out {counts.left_out_words} words, or lower vocab_size"
        raise
    tokenizer, plain = _publish(recipe, vocabulary, terms, stage)
    numbers = {
        "vocab_size": len(tokenizer),
        "train_documents": counts.documents,
        "train_mb": round(counts.text_bytes / 1e6, 3),
        "broken_records": counts.broken,
        "broken_first": counts.broken_first[:10],
        "words": counts.total_words,
        "distinct_words": counts.distinct_words,
        "left_out_words": counts.left_out_words,
        "lexicon_terms": len(terms.terms) if terms else 0,
        "user_dictionary_entries": terms.numbers["entries"] if terms else 0,
        "lexicon": terms.numbers if terms else None,
    }
    heldout = list(heldout_documents(shards, selection, recipe.heldout_mb))
    numbers |= _measure(tokenizer, plain, heldout, terms)
    numbers |= _frequent_words(recipe, counts, vocabulary, stage)
    numbers["growth"] = counts.growth
    write_atomic(stage.out / "growth.svg", growth.growth_svg(counts.growth))
    return Report(numbers, _markdown(numbers, terms))


def _lexicon(recipe: Recipe, lists: Sequence[Path], shards: Sequence[Path], stage: Stage) -> Lexicon | None:
    if not lists and not recipe.lexicon.units:
        return None
    texts = sample_texts(shards, recipe.lexicon.check_mb)
    folder = stage.partial / "lexicon"
    folder.mkdir(exist_ok=True)
    terms = lexicon.build(lists, recipe.lexicon, folder, texts)
    for path in sorted(folder.glob("*.tsv")):
        write_atomic(stage.out / path.name, path.read_bytes())
    return terms


def _selection(recipe: Recipe, shards: Sequence[Path]) -> Selection:
    weights = dict(sorted(recipe.source_weights.items()))
    everything = Selection(recipe.seed, recipe.sources, 1.0, recipe.heldout_fraction, weights)
    if recipe.max_train_mb is None:
        return everything
    size = text_bytes(shards, everything)
    keep = min(1.0, recipe.max_train_mb * 1e6 / size) if size else 1.0
    return Selection(recipe.seed, recipe.sources, keep, recipe.heldout_fraction, weights)


def _training(recipe: Recipe) -> unigram.Training:
    """The settings of the same names."""
    return unigram.Training(**{field.name: getattr(recipe, field.name) for field in fields(unigram.Training)})


def _publish(
    recipe: Recipe, vocabulary: list[tuple[str, float]], terms: Lexicon | None, stage: Stage
) -> tuple[RinshoTokenizer, RinshoTokenizer]:
    """Both forms as folders, file by file atomically: the strict one at the top, the plain one in it; read back."""
    dictionary = terms.dictionary if terms else None
    forms: list[tuple[Form, Path, Path | None]] = [
        ("strict", stage.out, dictionary),
        ("plain", stage.out / PLAIN, None),
    ]
    for form, home, segments_with in forms:
        aside = stage.partial / form
        wrap(
            vocabulary,
            segments_with,
            segment=form,
            split_digits=recipe.split_digits,
            byte_fallback=recipe.byte_fallback,
        ).save_pretrained(aside)
        home.mkdir(exist_ok=True)
        for path in sorted(aside.iterdir()):
            write_atomic(home / path.name, path.read_bytes())
    return load(stage.out), load(stage.out / PLAIN)


def _check_broken(counts: Counts, recipe: Recipe) -> None:
    records = counts.broken + counts.sources.total()
    if records and counts.broken / records > recipe.max_broken_fraction:
        raise UserError(
            f"{counts.broken} of {records} records are broken (first: {counts.broken_first[0]})",
            where="tokenizer inputs",
            expected=f"at most {recipe.max_broken_fraction:.1%}",
            todo="repair the corpus or raise max_broken_fraction",
        )


def _measure(
    tokenizer: RinshoTokenizer, plain: RinshoTokenizer, heldout: list[Document], terms: Lexicon | None
) -> dict[str, Any]:
    texts = [(document.id, document.text) for document in heldout]
    fit, bare = asdict(measure_texts(tokenizer, texts)), asdict(measure_texts(plain, texts))
    surfaces = [term.surface for term in terms.terms] if terms else []
    return {
        **{("heldout_" + key if key in ("documents", "characters", "tokens") else key): fit[key] for key in fit},
        "plain_characters_per_token": bare["characters_per_token"],
        "plain_round_trip_failures": bare["round_trip_failures"],
        "lexicon_single_fraction": single_piece_fraction(tokenizer, surfaces),
        "heldout_sources": _by_source(tokenizer, heldout),
    }


def _by_source(tokenizer: RinshoTokenizer, heldout: list[Document]) -> dict[str, dict[str, Any]]:
    """Held-out characters and characters a token of each source: who is served badly wants a larger weight."""
    characters: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    cleaned = [clean(document.text) for document in heldout]
    arrays = tokenizer.encode_batch_arrays(cleaned, clean=False)
    for document, text, ids in zip(heldout, cleaned, arrays, strict=True):
        characters[source_name(document)] += len(text)
        tokens[source_name(document)] += len(ids)
    return {
        source: {"characters": count, "characters_per_token": count / tokens[source] if tokens[source] else None}
        for source, count in characters.most_common(SOURCES_SHOWN)
    }


def _frequent_words(
    recipe: Recipe, counts: Counts, vocabulary: list[tuple[str, float]], stage: Stage
) -> dict[str, Any]:
    """How many of the most frequent words are single pieces; the others go to missing_words.tsv with the reason."""
    most = min(FREQUENT_WORDS, recipe.vocab_size * 5 // 8, len(counts.words))
    missing = unigram.missing_words(counts.words, vocabulary, _training(recipe), most)
    rows = [f"{word}\t{count}\t{reason}\n" for word, count, reason in missing]
    write_atomic(stage.out / "missing_words.tsv", "word\tcount\treason\n" + "".join(rows))
    by_design = sum(reason.startswith("stands alone") for _, _, reason in missing)
    others = most - by_design
    return {
        "frequent_words": most,
        "frequent_words_single_fraction": 1 - len(missing) / most,
        "frequent_words_without_digits_single_fraction": 1 - (len(missing) - by_design) / others if others else None,
        "missing_words": dict(Counter(reason.partition(":")[0] for _, _, reason in missing).most_common()),
    }


def _markdown(numbers: dict[str, Any], terms: Lexicon | None) -> str:
    text = "# Tokenizer\n\n" + table(numbers)
    if numbers["missing_words"]:
        reasons = ", ".join(f"{reason} {count}" for reason, count in numbers["missing_words"].items())
        text += f"\nFrequent words that are no single piece ({reasons}): missing_words.tsv\n"
    if numbers["broken_records"]:
        first = ", ".join(numbers["broken_first"])
        text += f"\nRecords that could not be read: {numbers['broken_records']}, for instance {first}\n"
    if len(numbers["heldout_sources"]) > 1:
        text += "\n| source, held-out text | characters | characters per token |\n| --- | ---: | ---: |\n"
        for source, row in numbers["heldout_sources"].items():
            text += f"| {source} | {row['characters']:,} | {row['characters_per_token'] or 0:.3f} |\n"
    if numbers["round_trip_failures"]:
        text += "\nDocuments that do not come back exactly: " + ", ".join(numbers["failed_ids"]) + "\n"
    text += "\nGrowth of the vocabulary (growth.svg):\n"
    for size, words, memory in [] if numbers["train_mb"] < 1 else growth.ahead(numbers["growth"]):
        text += f"\n- {size / 1e3:g} GB of such text: about {words:,} distinct words, {memory:,.0f} MiB to train on all"
    if terms:
        text += "\n\n" + terms.markdown.replace("# Lexicon", "## Word lists", 1)
    return text
