"""What a corpus report says, worked out once for the Markdown and for the page: steps, sources, lengths, notes.

Takes the numbers of any version: a missing key is an empty value. Names come from data and may be hostile; `plain`
makes them one short printable line, and whoever writes them escapes them for its format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rinsho.recipe import Settings

SOURCES = 30  # rows of the table; the others are added up
PERSONAL = {
    "phone": "phone numbers",
    "email": "e-mail addresses",
    "url": "web addresses",
    "account": "account names",
    "postal_code": "postal codes",
}
PERSONAL_MODES = {
    "remove": "removed",
    "placeholder": "replaced by marks such as [電話番号]",
    "keep": "left in the text and not counted (personal: keep)",
}
# reason -> what it means, and the settings that change it; in the order of the work (`filters.from_recipe`)
REASONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "too_short": ("fewer characters than wanted, after cleaning", ("min_chars",)),
    "too_long": ("more characters than wanted, after cleaning", ("max_chars",)),
    "not_japanese": ("too few kana and kanji, or kanji without kana", ("min_japanese_fraction",)),
    "symbols": ("too many symbols", ("max_symbol_fraction",)),
    "adult": ("several words of adult pages", ("max_adult_words", "adult_words")),
    "advert": ("several words of adverts or page furniture", ("max_ad_words", "ad_words")),
    "copyright": ("a copyright notice", ("drop_copyright",)),
    "repetition": ("the same passages over and over", ("max_repetition_fraction",)),
    "incomplete": (
        "menus, lists and cut-off pages: too little text in complete sentences",
        ("min_complete_fraction", "drop_incomplete_sentences"),
    ),
    "contaminated": (
        "holds a passage of a benchmark the model is tested on",
        ("decontamination", "decontamination_chars"),
    ),
    "duplicate": ("equal to a kept document up to width and white space", ("deduplicate",)),
    "near_duplicate": ("nearly the same as a kept document", ("near_threshold", "near_duplicates")),
    "boilerplate": (
        "too little left when sentences of many documents were taken out",
        ("sentence_documents", "sentence_min_chars"),
    ),
}
CLEANING = {
    "addresses": "full-width marks inside web and mail addresses made half width, so that they are found",
    "choonpu": "long-vowel mark between letters or digits: hyphen",
    "decimal_points": "full-width point between digits kept as a decimal point",
    "degrees": "°C and °F: ℃ and ℉",
    "ellipsis": "three and more dots: …",
    "enumerators": "circled numbers: (1)",
    "fractions": "fractions set apart from the number before them",
    "hyphens": "hyphens and dashes of all kinds: -",
    "last_resort": "hostile text cut down to kana, kanji and line breaks",
    "line_breaks": "line breaks of all kinds: line feed",
    "list_numbers": "full-width point after a list number kept as a point",
    "not_allowed": "characters outside the allowed set: deleted",
    "periods": "full-width period and comma: 。 and 、",
    "powers": "superscripts after a number: ^",
    "repetition": "five and more of one character: three",
    "symbols": "symbols of like meaning: one form",
    "tag": "hashtags: removed",
    "thousands_commas": "full-width comma between digits kept as a comma",
    "tildes": "tildes of all kinds: ~",
    "white_space": "white space of all kinds: one space",
    "width": "full and half width (NFKC)",
}


@dataclass(frozen=True)
class Step:
    """One line of the funnel: how many documents it starts with and loses; `reason` only where a filter dropped them.

    `share` is of the documents that had come that far (of all that were read for the last line); `before` and `after`
    are shares of all documents.
    """

    label: str
    reason: str
    documents: int
    size_bytes: int | None
    share: float
    before: float
    after: float
    meaning: str
    setting: str


@dataclass(frozen=True)
class SourceRow:
    """One line of the sources table (Table 1 of the report); tokens are None where no tokenizer has counted.

    `synthetic` is the share of the kept bytes that a model wrote, `synthetic_tokens` that of the tokens; None where an
    older version did not count it.
    """

    name: str
    documents_read: int
    documents_kept: int
    bytes_kept: int
    share_of_bytes: float
    tokens: int | None
    share_of_tokens: float | None
    characters_per_token: float | None
    estimated: bool
    synthetic: float | None = None
    synthetic_tokens: float | None = None


def settings_of(recipe: Settings | Mapping[str, Any]) -> dict[str, Any]:
    """The settings as plain values; a recipe that an older version wrote comes as a mapping."""
    return recipe.model_dump(mode="json") if isinstance(recipe, Settings) else dict(recipe)


def plain(name: object, most: int = 60) -> str:
    r"""A name as one short printable line: control and direction characters cannot disturb page or terminal.

    >>> plain("wiki\n\x1b[31m"), plain("ab" * 40, 10)
    ('wiki \ufffd[31m', 'ababababa…')
    """
    text = " ".join(str(name)[: 4 * most].split())
    text = "".join(character if character.isprintable() else "\ufffd" for character in text)
    return text if len(text) <= most else text[: most - 1] + "…"


def size(size_bytes: float) -> str:
    """An amount of text for people, in decimal units.

    >>> size(312), size(45_600), size(2_350_000), size(30_000_000_000)
    ('312 bytes', '45.6 kB', '2.35 MB', '30.0 GB')
    """
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(size_bytes) >= unit:
            amount = size_bytes / unit
            return f"{amount:.2f} {name}" if abs(amount) < 10 else f"{amount:.1f} {name}"
    return f"{size_bytes:.0f} bytes"


def percent(share: float | None) -> str:
    """A share for people; what is there is never 0 %.

    >>> percent(0.654), percent(0.02345), percent(0.00001), percent(0), percent(None)
    ('65.4 %', '2.3 %', '<0.1 %', '0 %', '-')
    """
    if share is None:
        return "-"
    if share == 0:
        return "0 %"
    return "<0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def explained(reason: str, settings: Mapping[str, Any]) -> tuple[str, str]:
    """What a reason means, and the settings that change it as `key: value`."""
    lists = settings.get("word_lists") or {}
    if reason in REASONS:
        meaning, keys = REASONS[reason]
    elif reason in lists:
        file = str(lists[reason]).replace("\\", "/").rpartition("/")[2]
        meaning, keys = f"words of your own list {plain(file)}", ("max_listed_words",)
    else:
        meaning, keys = "an own filter", ("filters",)
    return meaning, ", ".join(f"{key}: {_value(settings[key])}" for key in keys if key in settings)


def in_order(reasons: Iterable[str], settings: Mapping[str, Any]) -> list[str]:
    """Reasons in the order of the work: own word lists stand after those of ours, own filters last."""
    own_lists = [reason for reason in settings.get("word_lists") or {} if reason not in REASONS]
    order = list(REASONS)
    order[order.index("copyright") : order.index("copyright")] = own_lists
    last_filter = order.index("incomplete")
    return sorted(reasons, key=lambda reason: order.index(reason) if reason in order else last_filter + 0.5)


def funnel(settings: Mapping[str, Any], numbers: Mapping[str, Any]) -> list[Step]:
    """From everything that was found to what is kept: one step a reason, in the order of the work."""
    read, not_sampled = numbers.get("documents_read", 0), numbers.get("documents_not_sampled", 0)
    kept, kept_bytes = numbers.get("documents_kept", 0), numbers.get("bytes_kept", 0)
    found, dropped = read + not_sampled, numbers.get("dropped", {})
    all_found = Step(
        "read", "", found, numbers.get("bytes_read", 0), 1.0, 1.0, 1.0, "readable documents of the input", ""
    )
    rows: list[tuple[str, str, int, int | None, str, str]] = []
    if not_sampled:
        all_found = replace(all_found, label="found", size_bytes=None)
        limit = f"max_size_mb: {_value(settings['max_size_mb'])}" if "max_size_mb" in settings else ""
        rows.append(("not sampled", "", not_sampled, None, "beyond the amount of text asked for", limit))
    for reason in in_order(dropped, settings):
        row = dropped[reason]
        rows.append((reason, reason, row.get("documents", 0), row.get("bytes", 0), *explained(reason, settings)))
    steps, left = [all_found], found
    for label, reason, documents, size_bytes, meaning, setting in rows:
        share, before, left = documents / max(1, left), left / max(1, found), max(0, left - documents)
        steps.append(Step(label, reason, documents, size_bytes, share, before, left / max(1, found), meaning, setting))
    if kept:
        rest = numbers.get("bytes_read", 0) - sum(row.get("bytes", 0) for row in dropped.values()) - kept_bytes
        steps.append(Step("cleaning", "", 0, rest, 0.0, 0.0, 0.0, "", ""))
    return [*steps, Step("kept", "", kept, kept_bytes, kept / max(1, read), 0.0, kept / max(1, found), "", "")]


def source_rows(numbers: Mapping[str, Any]) -> list[SourceRow]:
    """The largest sources, and the sum of the others as the last row."""
    known, tokens = numbers.get("sources", {}), numbers.get("tokens", {})
    counted = tokens.get("sources", {})
    names = [*known, *(name for name in counted if name not in known)]
    names.sort(key=lambda name: (-known.get(name, {}).get("bytes_kept", 0), -known.get(name, {}).get("bytes_read", 0)))
    total = max(1, numbers.get("bytes_kept", 0))
    all_tokens = max(1, tokens.get("tokens") or 0)

    def row(label: str, group: list[str]) -> SourceRow:
        figures = [known.get(name, {}) for name in group]
        parts = [counted[name] for name in group if name in counted]
        found = [part["tokens"] for part in parts if part.get("tokens") is not None]
        seen, characters = (sum(part.get(key, 0) for part in parts) for key in ("counted_tokens", "counted_characters"))
        kept_bytes = sum(figure.get("bytes_kept", 0) for figure in figures)
        return SourceRow(
            label,
            sum(figure.get("documents_read", 0) for figure in figures),
            sum(figure.get("documents_kept", 0) for figure in figures),
            kept_bytes,
            kept_bytes / total,
            sum(found) if found else None,
            sum(found) / all_tokens if found else None,
            characters / seen if seen else None,
            any(part.get("estimated", False) for part in parts),
            _share(figures, "synthetic_bytes", "bytes_kept"),
            _share(parts, "synthetic_tokens", "tokens"),
        )

    rows = [row(plain(name), [name]) for name in names[:SOURCES]]
    if len(names) > SOURCES:
        rows.append(row(f"other ({len(names) - SOURCES:,} sources)", names[SOURCES:]))
    return rows


def length_rows(numbers: Mapping[str, Any]) -> list[tuple[int, int | None, int, int]]:
    """Bins of the length histogram as (from, below or None, read, kept), without the empty ones at both ends."""
    lengths = numbers.get("lengths") or {}
    edges, read, kept = (list(lengths.get(key, [])) for key in ("edges", "read", "kept"))
    count = min(len(edges), max(len(read), len(kept)))
    read, kept = ([*counts, *[0] * count][:count] for counts in (read, kept))
    ends = [*edges[1:], None][:count]
    rows = list(zip(edges[:count], ends, read, kept, strict=True))
    used = [place for place, row in enumerate(rows) if row[2] or row[3]]
    return rows[used[0] : used[-1] + 1] if used else []


def summary(settings: Mapping[str, Any], numbers: Mapping[str, Any]) -> str:
    """One paragraph for people who never saw such a report."""
    read, kept = numbers.get("documents_read", 0), numbers.get("documents_kept", 0)
    text = f"Of {read:,} documents that were read ({size(numbers.get('bytes_read', 0))}), {kept:,} are kept "
    text += f"({percent(kept / max(1, read))}): {size(numbers.get('bytes_kept', 0))} of clean text, "
    text += f"{numbers.get('characters_kept', 0):,} characters"
    tokens = numbers.get("tokens", {})
    if tokens.get("tokens"):
        text += f", {'about ' if tokens.get('estimated') else ''}{tokens['tokens']:,} tokens"
    text += "."
    dropped = numbers.get("dropped", {})
    gone = [reason for reason in dropped if dropped[reason].get("documents")]
    top = sorted(gone, key=lambda reason: -dropped[reason]["documents"])
    if top:
        parts = [
            f"{dropped[reason]['documents']:,} as {plain(reason)} ({explained(reason, settings)[0]})"
            for reason in top[:3]
        ]
        text += f" Of the others went {'; '.join(parts)}."
    if numbers.get("documents_not_sampled"):
        text += f" {numbers['documents_not_sampled']:,} more were found but not asked for."
    if numbers.get("documents_validation"):
        text += f" {numbers['documents_validation']:,} of the kept documents are held out in validation/."
    return text


def warnings(settings: Mapping[str, Any], numbers: Mapping[str, Any]) -> list[str]:
    """What a reader must not overlook: more synthetic text than the recipe's limit."""
    share = (numbers.get("synthetic") or {}).get("share_of_bytes", 0)
    limit = settings.get("max_synthetic_fraction")
    if limit is None or share <= limit:
        return []
    return [
        f"{percent(share)} of the kept text was written by a model, above max_synthetic_fraction ({percent(limit)}): "
        "a model that learns from generated text forgets what is rare in real text"
    ]


def all_synthetic(numbers: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """The share of the kept bytes, and of the tokens, that a model wrote; None where it was not counted."""
    synthetic, tokens = numbers.get("synthetic") or {}, numbers.get("tokens") or {}
    return synthetic.get("share_of_bytes"), _share([tokens], "synthetic_tokens", "tokens")


def _share(rows: Iterable[Mapping[str, Any]], part: str, whole: str) -> float | None:
    """The sum of one key over the sum of another; None where no row has the part."""
    having = [row for row in rows if row.get(part) is not None]
    return sum(row[part] for row in having) / max(1, sum(row.get(whole) or 0 for row in having)) if having else None


def _synthetic(numbers: Mapping[str, Any]) -> str:
    """A sentence on synthetic text; empty for a run of a version that did not count it."""
    synthetic = numbers.get("synthetic") or {}
    if "documents_kept" not in synthetic:
        return ""
    documents, read = synthetic["documents_kept"], synthetic.get("documents_read", 0)
    if not read:
        return "No document says that a model wrote it (field synthetic)."
    shares = (f"{percent(synthetic.get(f'share_of_{what}', 0))} of the {what}" for what in ("bytes", "characters"))
    text = f"Written by a model (field synthetic): {documents:,} of the kept documents "
    text += f"({percent(synthetic.get('share_of_documents', 0))}), {', '.join(shares)}"
    if (tokens := all_synthetic(numbers)[1]) is not None:
        text += f", {percent(tokens)} of the tokens"
    text += f"; {synthetic.get('documents_validation', 0):,} of them are held out in validation/."
    return text + (f" {read - documents:,} more were read and dropped." if read > documents else "")


def notes(settings: Mapping[str, Any], numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Title and sentence for what needs no table: synthetic text, sentences, near duplicates, benchmarks, broken."""
    found = []
    if text := _synthetic(numbers):
        found.append(("Synthetic text", text))
    sentences = numbers.get("sentences") or {}
    if sentences.get("frequent") is not None and settings.get("sentence_documents", 1):
        limit = f"more than {settings['sentence_documents']:,}" if settings.get("sentence_documents") else "many"
        text = f"Sentences that stood in {limit} documents (sentence_documents): {sentences['frequent']:,}. "
        text += f"Places where they were removed: {sentences.get('removed', 0):,} "
        text += f"({size(sentences.get('removed_bytes', 0))}) in {sentences.get('documents_changed', 0):,} documents."
        found.append(("Frequent sentences", text))
    near = numbers.get("near") or {}
    if near:
        text = f"Alike means a Jaccard similarity of at least {near.get('threshold', '?')} (near_threshold). "
        text += f"Candidates: {near.get('candidates', 0):,}, pairs compared: {near.get('compared', 0):,}."
        memory, disk = near.get("index_memory_bytes_per_document"), near.get("index_disk_bytes_per_document")
        if memory is not None or disk is not None:
            text += f" The index took {memory or 0:,.0f} bytes of memory and {disk or 0:,.0f} bytes of disk a document."
        found.append(("Near duplicates", text))
    contamination = numbers.get("contamination") or {}
    if contamination and (settings.get("decontaminate") or contamination.get("documents")):
        what = "listed and kept" if contamination.get("mode") == "report" else "dropped"
        text = f"Documents with a passage of the benchmark files, {what}: {contamination.get('documents', 0):,} "
        found.append(("Benchmark passages", text + "(dropped/contamination.jsonl says which)."))
    broken = numbers.get("broken") or {}
    text = f"Records that could not be read: {broken.get('records', 0):,}"
    reasons = [f"{plain(reason)} {count:,}" for reason, count in broken.get("reasons", {}).items()]
    if reasons:
        text += f": {', '.join(reasons)} (dropped/broken.jsonl says where)"
    found.append(("Broken records", text + "."))
    return found


def personal_rows(settings: Mapping[str, Any], numbers: Mapping[str, Any]) -> tuple[str, list[tuple[str, int]]]:
    """What was done with personal data, and how often by kind; no rows where it was left in."""
    mode = str(settings.get("personal", "remove"))
    counts = {} if mode == "keep" else numbers.get("personal") or {}
    return PERSONAL_MODES.get(mode, plain(mode)), [(PERSONAL.get(kind, plain(kind)), counts[kind]) for kind in counts]


def example_rows(settings: Mapping[str, Any], numbers: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Per reason some (id, value), never text."""
    examples = numbers.get("examples") or {}
    return [
        (reason, [(plain(name, 80), plain(value, 80)) for name, value in examples[reason]])
        for reason in in_order(examples, settings)
    ]


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple, dict)):
        return f"{len(value)} given"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "default"}[value]
    return f"{value:,}" if isinstance(value, int) else plain(value)
