"""Some of what a corpus run dropped, or kept, to be read by a person: the only command that prints document text."""

from __future__ import annotations

import difflib
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rinsho.corpus.report import FinishedRun, read_run, view
from rinsho.corpus.writing import read_lines
from rinsho.errors import UserError
from rinsho.recipe import unknown

KEPT = "kept"
PAIRS = ("duplicate", "near_duplicate")  # their value is the id of the document that stayed
CLIPPED_CHARS = 400
DIFFERENT_CHARS = 1_000  # of a pair, beyond what is equal at both ends; difflib takes quadratic time
COMPARED_CHARS = 100_000
CHANGES = 5


def inspect(run: Path, *, reason: str | None, count: int = 10, seed: int = 1, full: bool = False) -> str:
    """A random sample of what was dropped for `reason` ("kept": of what stayed); without one, the list of reasons.

    Every document has the same chance; the same seed gives the same sample. The files are streamed: memory holds the
    sample only. Control characters of the text are written out, so a terminal is safe.

    Raises:
        UserError: not a finished corpus run, an unknown reason, or the files are gone.

    Source: SPEC N2.1-2.
    """
    found = read_run(run)
    if reason is None:
        return _reasons(found)
    known = [*view.in_order(found.numbers.get("dropped", {}), found.settings), KEPT]
    if reason not in known and (reason in view.REASONS or reason in (found.settings.get("word_lists") or {})):
        raise UserError(f"nothing was dropped as {reason!r}", where=found.folder, expected="one of " + ", ".join(known))
    if reason not in known:
        raise unknown(reason, known, str(found.folder), "reason")
    if count < 1:
        raise UserError(f"a sample of {count}", where="--count", expected="1 or more")
    total, rows = _sample(_lines_of(found, reason), count, random.Random(f"{seed}:{reason}"))
    if not rows:
        raise UserError(f"no document with the reason {reason!r} in the files", where=found.folder)
    partners = _partners(found, {str(row.get("value")) for row in rows}) if reason in PAIRS else {}
    what = "kept" if reason == KEPT else f"dropped as {view.plain(reason)}"
    blocks = [f"{len(rows):,} of {total:,} documents {what} (seed {seed})"]
    if reason != KEPT:
        meaning, setting = view.explained(reason, found.settings)
        blocks[0] += f"\n{meaning}" + (f" ({setting})" if setting else "")
    if reason in PAIRS and (found.numbers.get("sentences") or {}).get("removed"):
        blocks[0] += "\nKept documents stand as they were written, after frequent sentences were taken out of them."
    for number, row in enumerate(rows, 1):
        blocks.append(_document(number, row, found.settings, full))
        if reason in PAIRS:
            blocks[-1] += "\n" + _pair(row, partners.get(str(row.get("value"))), found.settings, full)
    return "\n\n".join(blocks)


def safe(text: str) -> str:
    r"""Text that a terminal shows and does not obey: control and direction characters stand as escapes.

    >>> safe("咳\x1b[2J\u202e\n\u3000痛")
    '咳\\x1b[2J\\u202e\n\u3000痛'
    """
    if text.replace("\n", "").replace("\u3000", "").isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in "\n\u3000"
        else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )


def _reasons(run: FinishedRun) -> str:
    """All reasons with their counts and the id of one document each."""
    dropped = run.numbers.get("dropped", {})
    examples = {reason: rows[0][0] for reason, rows in (run.numbers.get("examples") or {}).items() if rows}
    missing = {reason for reason in dropped if reason not in examples}
    if missing:  # the run of an older version
        for row in _dropped(run):
            if row.get("reason") in missing:
                examples[row["reason"]] = row["id"]
                missing.discard(row["reason"])
                if not missing:
                    break
    examples[KEPT] = next((json.loads(line)["id"] for line in _lines_of(run, KEPT)), None)
    counts = {reason: dropped[reason].get("documents", 0) for reason in view.in_order(dropped, run.settings)}
    counts[KEPT] = run.numbers.get("documents_kept", 0)
    lines = [["reason", "documents", "an id"]]
    for reason, count in counts.items():
        lines.append([view.plain(reason), f"{count:,}", view.plain(examples.get(reason) or "-", 80)])
    widths = [max(len(line[column]) for line in lines) for column in range(2)]
    table = [f"{reason:<{widths[0]}}  {count:>{widths[1]}}  {example}" for reason, count, example in lines]
    return "\n".join([*table, "", "To read some of them: rinsho corpus inspect RUN --reason REASON"])


def _lines(paths: Iterable[Path]) -> Iterator[bytes]:
    from zstandard import ZstdError

    for path in paths:
        try:
            yield from read_lines(path)
        except ZstdError:
            raise UserError("the file is damaged", where=path, todo="copy the run folder again") from None


def _dropped(run: FinishedRun) -> Iterator[dict[str, Any]]:
    yield from map(json.loads, _lines(run.files("dropped")))


def _lines_of(run: FinishedRun, reason: str) -> Iterator[bytes]:
    """The lines of all documents with that reason, streamed; only those that may be one of them are parsed."""
    if reason == KEPT:
        yield from _lines([*run.files("shards"), *run.files("validation")])
        return
    plain_mark = b'"reason":' + json.dumps(reason, ensure_ascii=False).encode("utf-8", "surrogatepass")
    ascii_mark = b'"reason":' + json.dumps(reason).encode()
    for line in _lines(run.files("dropped")):
        # parsed too, since the document's own fields may hold the same words
        if (plain_mark in line or ascii_mark in line) and json.loads(line).get("reason") == reason:
            yield line


def _sample(lines: Iterable[bytes], count: int, random_: random.Random) -> tuple[int, list[dict[str, Any]]]:
    """How many documents there are, and `count` of them, each with the same chance, in their order (a reservoir)."""
    chosen: list[tuple[int, bytes]] = []
    total = 0
    for number, line in enumerate(lines):
        total = number + 1
        if len(chosen) < count:
            chosen.append((number, line))
        else:
            place = random_.randrange(total)
            if place < count:
                chosen[place] = (number, line)
    return total, [json.loads(line) for _, line in sorted(chosen)]


def _partners(run: FinishedRun, wanted: set[str]) -> dict[str, dict[str, Any]]:
    """The documents with these ids: among the kept ones, else among those that a later step dropped."""
    found: dict[str, dict[str, Any]] = {}
    prefixes = {b'{"id":' + json.dumps(name, ensure_ascii=False).encode("utf-8", "surrogatepass") for name in wanted}
    prefixes |= {b'{"id":' + json.dumps(name).encode() for name in wanted}
    for folder in ("shards", "validation", "dropped"):
        for line in _lines(run.files(folder)):
            if len(found) == len(wanted):
                return found
            end = line.find(b',"text":')  # unescaped quotes: cannot stand inside the id
            if line.startswith(b'{"id":') and line[:end] not in prefixes:
                continue
            row = json.loads(line)
            if row["id"] in wanted and row.get("reason") not in PAIRS:
                found.setdefault(row["id"], row)
    return found


def _document(number: int, row: Mapping[str, Any], settings: Mapping[str, Any], full: bool) -> str:
    text = row["text"]
    source = row.get("source") or row.get(str(settings.get("source_field", "source")))
    head = [f"[{number}] {view.plain(row['id'], 120)}"]
    if source:
        head.append(f"source {view.plain(source)}")
    head.append(f"{len(text):,} characters")
    if "reason" in row:
        head.append(f"value {view.plain(row.get('value'), 120)}")
    return "  ".join(head) + "\n" + _quoted(_excerpt(text, row, full))


def _excerpt(text: str, row: Mapping[str, Any], full: bool) -> str:
    """The beginning of a text, or the part around what its reason is about, with what is left out told in words."""
    if full or len(text) <= CLIPPED_CHARS:
        return text
    start = 0
    if row.get("reason") == "copyright" and isinstance(row.get("value"), float):
        start = max(0, min(int(row["value"] * len(text)) - CLIPPED_CHARS // 2, len(text) - CLIPPED_CHARS))
    elif row.get("value") == "cut":
        start = len(text) - CLIPPED_CHARS
    after = len(text) - CLIPPED_CHARS - start
    before = f"({start:,} characters before) …" if start else ""
    return before + text[start : start + CLIPPED_CHARS] + (f"… ({after:,} more characters)" if after else "")


def _quoted(text: str, mark: str = "    | ") -> str:
    return "\n".join(mark + line for line in safe(text).split("\n"))


def _pair(row: Mapping[str, Any], partner: Mapping[str, Any] | None, settings: Mapping[str, Any], full: bool) -> str:
    """The document that stayed instead, and in what the two differ."""
    name = view.plain(row.get("value"), 120)
    if partner is None:
        return f"    kept instead: {name} (not found in shards/ or validation/)"
    later = f", dropped later as {view.plain(partner['reason'])}" if "reason" in partner else ""
    head = f"    kept instead: {name}  {len(partner['text']):,} characters{later}"
    lines = [head, _quoted(_excerpt(partner["text"], {}, full)), *_difference(row["text"], partner["text"], settings)]
    return "\n".join(lines)


def _difference(dropped: str, kept: str, settings: Mapping[str, Any]) -> list[str]:
    """How alike two texts are, and the first places where they differ, from the dropped one to the kept one."""
    if dropped == kept:
        return ["    the same text"]
    size = int(settings.get("near_ngram_chars") or 5)
    grams = [
        {text[place : place + size] for place in range(max(1, len(text) - size + 1))}
        for text in (dropped[:COMPARED_CHARS], kept[:COMPARED_CHARS])
    ]
    jaccard = len(grams[0] & grams[1]) / len(grams[0] | grams[1])
    first = _equal_start(dropped, kept)
    rests = [dropped[first:], kept[first:]]
    last = _equal_start(rests[0][::-1], rests[1][::-1])
    rests = [rest[: len(rest) - last] for rest in rests]
    lines = [
        f"    alike: Jaccard {jaccard:.2f} of {size}-character parts; "
        f"the first {first:,} and the last {last:,} characters are equal"
    ]
    clipped = [rest[:DIFFERENT_CHARS] for rest in rests]
    matcher = difflib.SequenceMatcher(None, clipped[0], clipped[1], autojunk=False)
    changes = [change for change in matcher.get_opcodes() if change[0] != "equal"]
    lines += [
        f"    at {first + start + 1:,}: {_piece(clipped[0][start:end])} -> {_piece(clipped[1][kept_start:kept_end])}"
        for _, start, end, kept_start, kept_end in changes[:CHANGES]
    ]
    more = len(changes) - CHANGES
    if more > 0 or clipped != rests:
        lines.append(f"    and {more:,} more places" if clipped == rests else "    and more")
    return lines


def _equal_start(first: str, second: str) -> int:
    """How many characters are equal from the start on."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(second)))


def _piece(text: str, most: int = 40) -> str:
    shown = safe(text[:most]).replace("\n", "\\n")
    return f"「{shown}{'…' if len(text) > most else ''}」"
