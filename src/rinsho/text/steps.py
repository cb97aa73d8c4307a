"""The cleaning rules that look at neighbours: each a pattern with its replacement and a cheap test whether it applies.

`rinsho.text.rules` shows what they do one by one, `rinsho.text.cleaning` runs them fast; both use these definitions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

from rinsho.text import characters, personal
from rinsho.text.personal import Anchor

Replacement = str | Callable[[re.Match[str]], str]


@dataclass(frozen=True)
class Step:
    """One contextual rule: `pattern` is replaced where the text holds one of `guards` (always, when there are none)."""

    name: str
    pattern: re.Pattern[str]
    replacement: Replacement
    guards: tuple[str, ...] = ()
    test: Callable[[str], bool] | None = None  # a cheap test in place of guards; True when in doubt
    fast: Callable[[str], tuple[str, int]] | None = None  # gives what `pattern.subn` gives, sooner
    anchors: tuple[Anchor, ...] = ()  # one of them lies in every line that the rule changes
    needs: tuple[str, ...] = ()  # without any of them there is no use in looking further

    def __call__(self, text: str) -> str:
        """The text with this rule applied, by its pattern."""
        return self.pattern.sub(self.replacement, text) if self.applies(text) else text

    def applies(self, text: str) -> bool:
        """False when the rule surely changes nothing (cheap)."""
        if self.test is not None:
            return self.test(text)
        for guard in self.guards:
            if guard in text:
                return True
        return not self.guards

    def is_needed(self, text: str) -> bool:
        """False when the text holds none of `needs` (cheaper still)."""
        for need in self.needs:  # noqa: SIM110 - runs for every sentence, and generators are slow to start
            if need in text:
                return True
        return False


class Trace:
    """What `clean_counted` and `clean_aligned` want to know: counts by rule, the raw index of each character."""

    def __init__(self, counts: dict[str, int], places: list[int] | None) -> None:
        self.counts, self.places = counts, places

    def add(self, rule: str, count: int) -> None:
        """Counts `count` more changes by a rule."""
        self.counts[rule] = self.counts.get(rule, 0) + count


def apply(steps: Iterable[Step], text: str, trace: Trace | None) -> str:
    """The text with the rules applied one after another; what they change goes into the trace."""
    for step in steps:
        if not step.applies(text):
            continue
        if trace is not None and trace.places is not None:
            text = _apply_aligned(step, text, trace)
        elif step.fast is not None:
            text, count = step.fast(text)
            if trace is not None:
                trace.add(step.name, count)
        elif trace is None:
            text = step.pattern.sub(step.replacement, text)
        else:
            text, count = step.pattern.subn(step.replacement, text)
            trace.add(step.name, count)
    return text


def _apply_aligned(step: Step, text: str, trace: Trace) -> str:
    """One rule with its replacements placed at the start of what they replace."""
    assert trace.places is not None
    parts: list[str] = []
    places: list[int] = []
    position = count = 0
    for match in step.pattern.finditer(text):
        new = match.expand(step.replacement) if isinstance(step.replacement, str) else step.replacement(match)
        parts += [text[position : match.start()], new]
        places += trace.places[position : match.start()]
        old = trace.places[match.start() : match.end() + (match.start() == match.end())]
        places += old[: len(new)] + old[-1:] * (len(new) - len(old))
        position = match.end()
        count += 1
    places += trace.places[position:]
    trace.places = places
    trace.add(step.name, count)
    return "".join([*parts, text[position:]])


_WIDE = r"A-Za-z0-9Ａ-Ｚａ-ｚ０-９_＿\-－‐"  # letters of an address in either width
_REST = r"(?:[!-\-/-~！-＋－／-～]|[.．](?=[!-~！-～]))++"  # what may follow them
_DOMAINS = "|".join(f"{name}|{name.translate(characters.WIDE)}" for name in personal.DOMAINS.split("|"))
_DIGIT = "0-9０-９"
_POWER, _FRACTION = characters.SUPERSCRIPTS, characters.FRACTIONS


_ADDRESS = re.compile(
    rf"(?<![{_WIDE}+%＋％.．])[{_WIDE}+%＋％.．]*+[@＠][{_WIDE}]++(?:[.．][{_WIDE}]++)*+"
    rf"|(?<![A-Za-zＡ-Ｚａ-ｚ])[A-Za-zＡ-Ｚａ-ｚ]++[:：][/／]{{2}}{_REST}|(?i:[wｗ]{{3}})[.．]{_REST}"
    rf"|(?<![{_WIDE}.．])[{_WIDE}]++(?:[.．][{_WIDE}]++)*?[.．](?:{_DOMAINS})[/／](?:{_REST})?"
)


def _half_width_periods(match: re.Match[str]) -> str:
    rest = match[0].lstrip("．")  # a full stop before the address is a full stop
    return "．" * (len(match[0]) - len(rest)) + rest.replace("．", ".")


# a full-width period that is neither the end of a sentence nor between digits, where it is kept anyway
_INNER_PERIOD = re.compile(rf"．(?=[!-~！-～])(?!(?<=[{_DIGIT}]．)[{_DIGIT}])")


def _may_hold_address(text: str) -> bool:
    return "．" in text and _INNER_PERIOD.search(text) is not None


def _half_width_addresses(text: str) -> tuple[str, int]:
    """What the pattern gives, looked for only in the lines that may hold such an address."""
    parts, done, count = [], 0, 0
    match = _INNER_PERIOD.search(text)
    while match:
        start = text.rfind("\n", 0, match.start()) + 1
        end = text.find("\n", match.start())
        end = len(text) if end < 0 else end
        line = text[start:end]
        if any(mark in line for mark in "@＠/／wｗWＷ"):
            line, changed = _ADDRESS.subn(_half_width_periods, line)
            count += changed
        parts += [text[done:start], line]
        done = end
        match = _INNER_PERIOD.search(text, end)
    return "".join([*parts, text[done:]]), count


def _unix_line_breaks(text: str) -> tuple[str, int]:
    count = text.count("\r\n")
    return text.replace("\r\n", "\n"), count


# Before normalisation: what it would destroy. `PREPARE` has to hold every character that one of these changes.
PREPARE = re.compile("[\r．，" + characters.SUPERSCRIPTS + characters.FRACTIONS + "]")
_PROTECT = (
    Step("line_breaks", re.compile("\r\n"), "\n", ("\r",), fast=_unix_line_breaks, needs=("\r",)),
    Step(
        "powers", re.compile(rf"[{_POWER}](?<=[{_DIGIT}].)(?:(?<![⁺⁻])|(?=[⁰¹²³⁴-⁹]))"), r"^\g<0>", needs=tuple(_POWER)
    ),
    Step("fractions", re.compile(rf"[{_FRACTION}](?<=[{_DIGIT}].)"), r" \g<0>", needs=tuple(_FRACTION)),
    Step(
        "addresses",
        _ADDRESS,
        _half_width_periods,
        test=_may_hold_address,
        fast=_half_width_addresses,
        needs=("．",),
    ),
)
PREPARATION = (
    *_PROTECT,
    Step(
        "list_numbers",
        re.compile(rf"(?m:．(?:(?<=^[{_DIGIT}]．)|(?<=^[{_DIGIT}]{{2}}．)|(?<=[#＃][{_DIGIT}]．)))"),
        ".",
        ("．",),
        needs=("．",),
    ),
    Step("decimal_points", re.compile(rf"．(?<=[{_DIGIT}]．)(?=[{_DIGIT}])"), ".", ("．",), needs=("．",)),
    Step("thousands_commas", re.compile(rf"，(?<=[{_DIGIT}]，)(?=[{_DIGIT}])"), ",", ("，",), needs=("，",)),
)
LITERAL_PREPARATION = (  # the report's rule: every full-width period and comma but those of addresses is Japanese
    *_PROTECT,
    Step(
        "addresses",
        re.compile(rf"(?<![{_DIGIT}.．])[0０][{_DIGIT}]{{1,4}}．[{_DIGIT}]{{1,4}}．[{_DIGIT}]{{3,4}}(?![{_DIGIT}.．])"),
        _half_width_periods,
        ("．",),
        needs=("．",),
    ),
)

# After normalisation.
CONTEXT = (
    Step("ellipsis", re.compile("・{3,}"), "…", ("・・・",)),
    Step("ellipsis", re.compile(r"\.\.\.[.…]*"), "…", ("...",)),
    Step("ellipsis", re.compile(r"\.\.?…"), "…", test=lambda text: "…" in text and ".…" in text),
    Step("ellipsis", re.compile("…[.…]+"), "…", test=lambda text: "…" in text and ("……" in text or "…." in text)),
    Step("degrees", re.compile("°C"), "℃", test=lambda text: "°" in text and "°C" in text),
    Step("degrees", re.compile("°F"), "℉", test=lambda text: "°" in text and "°F" in text),
    Step("choonpu", re.compile("ー(?<=[0-9A-Za-z]ー)(?=[0-9A-Za-z(])"), "-", ("ー",)),
)


def _space_at_line_ends(text: str) -> bool:
    return text[:1] == " " or text[-1:] == " " or "\n " in text or " \n" in text


def _strip_lines(text: str) -> tuple[str, int]:
    """Lines of single spaces without those at their ends, and how many there were."""
    stripped = text.replace("\n ", "\n").replace(" \n", "\n").strip(" ")
    return stripped, len(text) - len(stripped)


TIDY = (
    Step("white_space", re.compile("  +"), " ", ("  ",)),
    Step("white_space", re.compile("(?m: (?:(?<=^ )|$))"), "", test=_space_at_line_ends, fast=_strip_lines),
    Step("white_space", re.compile("\n{3,}"), "\n\n", ("\n\n\n",)),
)


def shorten_repetition(text: str) -> tuple[str, int]:
    """What `REPETITION` gives, and how many runs it shortened, four times as fast.

    The text as one large number, compared with itself one character further on: equal neighbours are zero bytes.
    """
    for width, code in ((1, "latin-1"), (2, "utf-16-le"), (4, "utf-32-le")):
        if width > 1 or text.isascii():
            units = text.encode(code, "surrogatepass")
            if len(units) == width * len(text):
                break
    number = int.from_bytes(units, "little")
    equal = (number ^ (number >> (8 * width))).to_bytes(len(units), "little")
    parts, done, count = [], 0, 0
    found = equal.find(bytes(4 * width))
    while found >= 0:
        start = -(-found // width)
        zeros = _ZEROS.match(equal, start * width)
        assert zeros is not None
        last = start + (zeros.end() - start * width) // width  # the run is text[start : last + 1]
        if last - start >= 4 and not _STAYS.match(text, start):
            parts += [text[done : start + 3]]
            done = last + 1
            count += 1
        found = equal.find(bytes(4 * width), max(last * width, found + 1))
    return ("".join([*parts, text[done:]]), count) if count else (text, 0)


_ZEROS = re.compile(rb"\0*")
_STAYS = re.compile(r"[0-9\s]")
REPETITION = Step("repetition", re.compile(r"([^0-9\s])\1{4,}"), r"\1\1\1", fast=shorten_repetition)

# A problem list without numbers looks like hashtags (#糖尿病 #高血圧). A line that begins with one, or has the first
# right behind a heading (【プロブレム】#心不全), is a list and stays: a diagnosis lost costs more than a tag kept.
_TAG = re.compile(r"#(?<![A-Za-z0-9&/#]#)(?=[^\W\d_])\w++")
_PROBLEM_LIST = re.compile(r"\s*#|[^#]*[】:]\s*#")


def _may_hold_tags(line: str) -> bool:
    return "#" in line and _PROBLEM_LIST.match(line) is None


TAG = Step("tag", _TAG, " ", test=_may_hold_tags, anchors=(_TAG,), needs=("#",))
LAST_RESORT = Step("last_resort", re.compile("[^ぁ-ゖァ-ヺ㐀-䶿一-鿿。、\n]+"), "")
ROUNDS = 8  # removing something may bring together another address; hostile text could do so without end


@cache
def removal(mode: str, kinds: tuple[str, ...]) -> tuple[Step, ...]:
    """The rules that take out personal data and web notation of a line; `mode` is "remove" or "placeholder"."""
    steps = [
        Step(kind, form.pattern, _replacement(mode, kind), test=form.may_be_in, anchors=form.anchors, needs=form.needs)
        for kind, form in personal.forms().items()
        if kind in kinds
    ]
    return (*steps, TAG)


@cache
def across_lines(mode: str, kinds: tuple[str, ...]) -> tuple[Step, ...]:
    """The same for what only the next line shows to be personal data, before `removal`."""
    if "postal_code" not in kinds:
        return ()
    test = personal.may_hold_code_before_line
    return (Step("postal_code", personal.POSTAL_BEFORE_LINE, _replacement(mode, "postal_code"), test=test),)


def _replacement(mode: str, kind: str) -> str:
    return " " if mode == "remove" else personal.PLACEHOLDERS[kind]
