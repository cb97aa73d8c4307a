"""The work of the lexicon: table, dictionary, false merges, report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from rinsho.document import shard_paths
from rinsho.errors import UserError
from rinsho.run import Report, Stage, write_atomic
from rinsho.tokenizer.lexicon import UNITS, Lexicon, LexiconSettings, split_inputs
from rinsho.tokenizer.lexicon.dictionary import compile_dictionary, compile_whole, entry_costs, whole_fraction
from rinsho.tokenizer.lexicon.merges import Checked, check_merges, sample_texts, unchecked_traps, write_false_merges
from rinsho.tokenizer.lexicon.table import Counts, Table, read_table, write_left_out, write_terms

PRODUCTS = ("terms.tsv", "left_out.tsv", "false_merges.tsv", "user.dic")


def build_lexicon(paths: Sequence[Path], settings: LexiconSettings, folder: Path, texts: Iterable[str]) -> Lexicon:
    """See `rinsho.tokenizer.lexicon.build`."""
    table = read_table([*paths, UNITS] if settings.units else paths, settings)
    costs, not_entered = entry_costs((term.surface for term in table.terms), settings.discount)
    dictionary = folder / "user.dic"
    costs = compile_whole(costs, dictionary, settings.discount)
    checked = _check(texts, costs, dictionary, settings)
    traps = unchecked_traps(costs, settings.short_chars) if checked is None else checked.kept_out
    not_entered |= dict.fromkeys(traps, "short_hiragana" if checked is None else "false_merge")
    costs = {term: cost for term, cost in costs.items() if term not in not_entered}
    if traps and checked is None:
        compile_dictionary(costs, dictionary)
    for term in costs:
        table.lists[table.first_list[term]].entries += 1
    write_terms(table.terms, folder / "terms.tsv")
    write_left_out(table, not_entered, folder / "left_out.tsv")
    if checked is not None:
        write_false_merges(checked, folder / "false_merges.tsv")
    numbers = {
        **_table_numbers(table, not_entered),
        "entries": len(costs),
        "entries_whole_fraction": whole_fraction(costs, dictionary),
        **_merge_numbers(checked, settings.short_chars),
    }
    return Lexicon(table.terms, dictionary if costs else None, numbers, markdown(numbers))


def work(recipe: LexiconSettings, inputs: Sequence[Path], stage: Stage) -> Report:
    """See `rinsho.tokenizer.lexicon.run`."""
    lists, corpora = split_inputs(inputs)
    texts = sample_texts(shard_paths(corpora), recipe.check_mb) if corpora else ()
    folder = stage.partial / "lexicon"
    folder.mkdir(exist_ok=True)
    lexicon = build_lexicon(lists, recipe, folder, texts)
    if corpora and lexicon.dictionary is not None and not lexicon.numbers["false_merges_measured"]:
        raise UserError(
            "no text to look for false merges in",
            where=", ".join(map(str, corpora)),
            expected="documents with text",
            todo="name another corpus, or none",
        )
    for name in PRODUCTS:
        if (folder / name).is_file():
            write_atomic(stage.out / name, (folder / name).read_bytes())
    return Report(lexicon.numbers, lexicon.markdown)


def markdown(numbers: Mapping[str, Any]) -> str:
    """The report for people: lists, kinds, what stays out of the dictionary, and false merges."""
    lines = ["# Lexicon", "", f"{numbers['terms']} terms, {numbers['entries']} entries in the user dictionary.", ""]
    lines += ["| list | form | encoding | rows | new terms | rows refused | names left out | entries |"]
    lines += ["| --- | --- | --- | ---: | ---: | --- | --- | ---: |"]
    for row in numbers["lists"]:
        lines.append(
            f"| {row['name']} | {row['form']} | {row['encoding']} | {row['rows']} | {row['terms']} "
            f"| {_counted(row['refused'])} | {_counted(row['left_out'])} | {row['entries']} |"
        )
    lines += ["", "| kind | terms |", "| --- | ---: |"]
    lines += [f"| {kind} | {count} |" for kind, count in numbers["kinds"].items()]
    lines += ["", f"Terms without an entry: {_counted(numbers['terms_without_entry'])}.", ""]
    if not numbers["false_merges_measured"]:
        lines += ["False merges were not measured: no ordinary text was given.", ""]
        return "\n".join(lines)
    short = numbers["short_chars"]
    lines += [
        f"False merges a million words, on {numbers['checked_mb']} MB of ordinary text "
        f"({numbers['checked_words']} words, {numbers['term_occurrences']} occurrences of terms):",
        "",
        "| | before | after |",
        "| --- | ---: | ---: |",
    ]
    for label, key in ((f"terms up to {short} characters", "_short"), ("all terms", "")):
        before, after = (numbers[f"false_merges{key}_per_million_words_{time}"] for time in ("before", "after"))
        lines.append(f"| {label} | {before} | {after} |")
    lines += [
        "",
        f"The terms: false_merges.tsv. {numbers['kept_out']} of them kept out of the dictionary. "
        f"Sentences changed without a term: {numbers['changed_without_term']}.",
        "",
    ]
    return "\n".join(lines)


def _check(
    texts: Iterable[str], costs: Mapping[str, int], dictionary: Path, settings: LexiconSettings
) -> Checked | None:
    """What the check found, or None when there is no text; the dictionary then lacks the terms kept out."""
    rest = iter(texts)
    first = next(rest, None)
    if first is None or not costs:
        return None
    return check_merges(chain([first], rest), costs, dictionary, settings)


def _table_numbers(table: Table, not_entered: Mapping[str, str]) -> dict[str, Any]:
    return {
        "lists": [_list_numbers(counts) for counts in table.lists],
        "rows": sum(counts.rows for counts in table.lists),
        "terms": len(table.terms),
        "kinds": dict(Counter(term.kind for term in table.terms).most_common()),
        "with_reading": sum(bool(term.reading) for term in table.terms),
        "refused": _sorted(sum((counts.refused for counts in table.lists), Counter())),
        "left_out": _sorted(sum((counts.left_out for counts in table.lists), Counter())),
        "terms_without_entry": _sorted(Counter(not_entered.values())),
    }


def _list_numbers(counts: Counts) -> dict[str, Any]:
    return {
        "name": counts.name,
        "form": counts.form,
        "encoding": counts.encoding,
        "rows": counts.rows,
        "terms": counts.terms,
        "entries": counts.entries,
        "refused": _sorted(counts.refused),
        "left_out": _sorted(counts.left_out),
    }


def _merge_numbers(checked: Checked | None, short_chars: int) -> dict[str, Any]:
    if checked is None:
        return {"false_merges_measured": False}
    return {
        "false_merges_measured": True,
        "short_chars": short_chars,
        "checked_mb": round(checked.text_bytes / 1e6, 3),
        "checked_words": checked.words,
        "term_occurrences": checked.before.seen.total(),
        "false_merges_before": checked.before.false(),
        "false_merges_after": checked.after.false(),
        "false_merges_per_million_words_before": checked.per_million(checked.before),
        "false_merges_per_million_words_after": checked.per_million(checked.after),
        "false_merges_short_per_million_words_before": checked.per_million(checked.before, short_chars),
        "false_merges_short_per_million_words_after": checked.per_million(checked.after, short_chars),
        "kept_out": len(checked.kept_out),
        "changed_without_term": checked.changed_without_term,
    }


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items()))


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in counts.items()) or "none"
