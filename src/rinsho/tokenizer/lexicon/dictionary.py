"""Terms to a compiled MeCab user dictionary, in a child process, which MeCab may end as it likes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from rinsho.errors import UserError
from rinsho.segmentation import tagger
from rinsho.tokenizer.lexicon.table import MARKS

CONTEXT_ID = 1285  # general noun of ipadic; its pip package lacks the files from which MeCab would look it up
COST_LIMIT = 32767  # costs are 16 bit
MARK = "rinsho"  # in the place of a third subdivision, by which an entry is told from a word of ipadic
FEATURES = f"名詞,一般,*,{MARK},*,*,*,*,*"
TIMEOUT_SECONDS = 600
SETTLING_ROUNDS = 3
_BUILD = "import sys, fugashi; fugashi.build_dictionary(sys.argv[1])"


def entry_costs(surfaces: Iterable[str], discount: int) -> tuple[dict[str, int], dict[str, str]]:
    """The costs of the terms that need an entry, and why the others need none or cannot have one.

    A term's cost is the cost of its own best path less `discount` for every two words it joins: enough to win where
    the term stands, not enough for a short one to tear ordinary words. Counted by joints, 急性骨髄性白血病 is cheaper
    than 急性 and the entry 骨髄性白血病; with one discount a term, 23 % of the real terms came out in parts.
    `known_word`: MeCab alone already takes the term for one word.
    """
    costs, reasons = {}, {}
    parse = tagger(form="-F. -E%pc").parse  # a dot a word, then the cost of the path at the end
    for surface in surfaces:
        if any(char in MARKS for char in surface):
            reasons[surface] = "mark"
            continue
        answer = parse(surface)
        words = answer.count(".")
        if words > 1:
            cost = int(answer.lstrip(".")) - discount * (words - 1)
            costs[surface] = max(-COST_LIMIT, min(COST_LIMIT, cost))
        else:
            reasons[surface] = "known_word"
    return costs, reasons


def compile_dictionary(costs: Mapping[str, int], target: Path) -> bool:
    """Compiles the terms into the MeCab user dictionary `target`; False, and no file, when there is none.

    The same terms give the same bytes. A file that a tagger has open keeps its content: the new one takes its name.

    Raises:
        UserError: MeCab could not build it, or not in ten minutes.
    """
    target.unlink(missing_ok=True)
    if not costs:
        return False
    source, aside = target.with_suffix(".csv"), target.with_suffix(".aside")
    rows = [f"{surface},{CONTEXT_ID},{CONTEXT_ID},{costs[surface]},{FEATURES}\n" for surface in sorted(costs)]
    try:
        source.write_text("".join(rows), encoding="utf-8")
        _run(source, aside)
        aside.replace(target)
    finally:
        source.unlink(missing_ok=True)
        aside.unlink(missing_ok=True)
    return True


def compile_whole(costs: Mapping[str, int], target: Path, discount: int) -> dict[str, int]:
    """Compiles the terms so that each stands whole against the other terms; returns the costs that do so.

    A term in whose place MeCab prefers parts that are entries too (アドナ and 錠 for アドナ錠) is made cheaper than
    that path, in at most three rounds.

    Raises:
        UserError: as `compile_dictionary`.
    """
    settled = dict(costs)
    for _ in range(SETTLING_ROUNDS):
        if not compile_dictionary(settled, target):
            break
        parse = tagger(str(target), target.stat().st_mtime_ns, "-F. -E%pc").parse
        paths = {term: parse(term) for term in settled}
        whole = next((term for term, path in paths.items() if path.count(".") == 1), None)
        parted = [term for term, path in paths.items() if path.count(".") > 1]
        if whole is None or not parted:
            break
        borders = int(paths[whole].lstrip(".")) - settled[whole]  # what beginning and end of a sentence cost a noun
        for term in parted:
            cost = int(paths[term].lstrip(".")) - borders - discount
            settled[term] = max(-COST_LIMIT, min(settled[term], cost))
    else:
        compile_dictionary(settled, target)
    return settled


def whole_fraction(surfaces: Collection[str], dictionary: Path) -> float | None:
    """The share of the entries that come out as one word when they stand alone; None without entries."""
    if not surfaces:
        return None
    parse = tagger(str(dictionary), dictionary.stat().st_mtime_ns, "-Owakati").parse
    whole = sum(str(parse(surface)) == surface for surface in surfaces)
    return round(whole / len(surfaces), 5)


def _run(source: Path, target: Path) -> None:
    import ipadic

    arguments = f'x -f utf8 -t utf8 -d "{ipadic.DICDIR}" -u "{target.name}" "{source.name}"'
    command = [sys.executable, "-c", _BUILD, arguments]
    try:
        child = subprocess.run(
            command,
            cwd=source.parent,
            capture_output=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
            stdin=subprocess.DEVNULL,
        )
        outcome = f"exit status {child.returncode}"
        done = child.returncode == 0 and target.is_file()
    except subprocess.TimeoutExpired:
        outcome, done = f"no end after {TIMEOUT_SECONDS} s", False
    if not done:
        raise UserError(
            f"MeCab could not build the user dictionary ({outcome})",
            where=source,
            expected="rows that MeCab accepts",
            todo="halve the word list to find the row it refuses",
        )
