"""An exercise that a teacher wrote as labelled lines: which line is question, option, answer, explanation."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from rinsho.synthesize.exercise_fields import DIGITS, LETTERS, NARROW, Fields, Option, option_of

MAX_SAID_CHARS = 300  # a longer line that has no heading is prose
HEAD_CHARS = 40  # a heading ends before
SENTENCE_CHARS = 12  # more behind `正解は` than an answer said again
SEVERAL_OPTIONS = 3  # lines in an explanation that look like those of another exercise

# Patterns look at lines in which the full-width forms of ASCII are narrow: one character for one.
_MARKS = re.compile(r"(?:[#>\s]+|[●■◆◇□▼★]\s*|[-*•・]+(?=[\s【])\s*)+")
_BOXED = re.compile(
    r"\${0,2}\\boxed\{(?:\\text\{)?([^{}\n]{1,200})\}{1,2}\${0,2}"
)  # as models end what they worked out
_RULE = re.compile(r"[-=_*~─━―]{3,}|```[a-z]*")
_BEGIN = r"[【\[(〈《<]?\s*(?:"
_END = r")\s*(?:[:】\])〉》>.]+\s*|$|\s+)"
_NUMBER = r"\s*(?:第?\s*\d{1,4}|\(\d{1,4}\)|[A-Z]\d{1,4})?"
_HEADS = {
    "explanation": re.compile(
        _BEGIN
        + r"(?:(?:解答|正解|正答|答え)\s*(?:[・と/&]|および)?\s*)?(?:解説|説明|理由|根拠)|Explanation|Rationale"
        + _END,
        re.I,
    ),
    "stem": re.compile(_BEGIN + r"症例文?|事例|臨床経過|患者情報)" + _NUMBER + r"\s*[:】\]]+\s*"),
    "question": re.compile(
        _BEGIN
        + r"(?:練習|演習|予想|模擬|例|新作|症例|事例|臨床)?(?:[問问][題题]文?|設問|質問文?)"
        + _NUMBER
        + r"|第\s*\d{1,4}\s*問"
        + _END
    ),
    "short": re.compile(
        _BEGIN + r"問い?|Q|Question)(?:" + _NUMBER + r"\s*[:】\]).]+\s*|\s*\d{1,4}\s+|\s*\d{0,4}\s*$)", re.I
    ),
    "options": re.compile(_BEGIN + r"選択肢|解答群|Options?|Choices" + _END, re.I),
    "answer": re.compile(
        _BEGIN + r"(?:(?:この|本)(?:問題|設問|問い?)の)?(?:正解|正答|解答|回答|答え?|正しい(?:答え|選択肢|解答))"
        r"(?:肢|番号|の?選択肢|の?記号)?|最も適切な選択肢(?=は[\s:、]*[「(]?(?:[a-j](?![a-z])|\d))"
        r"|(?:The\s*)?(?:(?:Correct\s*)?Answer|Correct\s*Option)(?:\s+is(?=[\s:]))?)"
        r"(?:\s*は(?=$|[\s:、「『(a-j0-9①-⑩ア-コ]))?\s*(?:[:】\])〉》>.]+\s*|$|\s+|(?<=は)、?)",
        re.I,
    ),
}
_SAME_LINE = re.compile(r"[\s　、。]*[【\[(（]?(?:解説|説明|理由)\s*[:：】\])）]+\s*")
_INLINE = re.compile(r"(?:^|[\s、,;/])[(]?([a-j]|[1-9①-⑨])[).:]\s*", re.I)
_NUMBERED = re.compile(r"[(（]?\d{1,3}[.．)）](?!\d)\s*")
_ASKS = re.compile(r"(?:どれか|何か|誰か|どこか|選べ|選びなさい|選んで(?:ください|下さい)|[?？])[。.)）」]*$")
_WHY = re.compile("なぜ|どうして|理由")
_PREAMBLE = re.compile(
    r"(?:はい|もちろん|承知|かしこまり|了解|以下|それでは|次に|ご依頼|ご要望|「[^」]{1,60}」に関する|[^。]{0,40}問題を(?:1|一)?問?作成).{0,80}"
)


@dataclass(slots=True)
class _Parts:
    """The lines of each part."""

    body: list[str] = field(default_factory=list)
    options_at: int = -1  # line of the body behind the heading of the options
    answer: list[str] = field(default_factory=list)
    explanation: list[str] = field(default_factory=list)
    options_in_explanation: int = 0  # lines there that look like options
    headed: bool = False


def read_lines(text: str) -> Fields | str:
    """The fields of labelled lines, or why there are none; a second question makes them none."""
    parts = _parts(_lines(text))
    if parts is None or _another(parts.explanation):
        return "several_exercises"
    found = _options(parts)
    if isinstance(found, str):
        return found
    question, options = found
    return Fields(_question(question, parts.headed), options, tuple(parts.answer), "\n".join(parts.explanation))


def said_answer(text: str) -> tuple[bool, list[str]]:
    r"""Whether an answer to an exercise has a heading (正解: …), and the lines that may name it.

    There are none where a second exercise follows, or where a question stands without an answer.

    >>> said_answer("この問題の正解はbです。\n解説: …"), said_answer("b\n\n理由: …")
    ((True, ['bです。']), (False, ['b']))
    """
    parts = _parts(_lines(text))
    if parts is None or parts.answer or parts.headed:
        return True, [] if parts is None else parts.answer
    return False, [line for line in parts.body if len(line) <= MAX_SAID_CHARS]


def _lines(text: str) -> list[str]:
    """The lines that say something, without Markdown's marks."""
    text = _BOXED.sub(r"\n正解: \1\n", text.replace("\r\n", "\n").replace("\r", "\n"))
    return [bare for line in text.split("\n") if (bare := _bare(line)) and not _RULE.fullmatch(bare)]


def _bare(line: str) -> str:
    """A line without Markdown's marks and outer spaces."""
    line = line.replace("**", "").replace("__", "").strip()
    marks = _MARKS.match(line.translate(NARROW))
    return line[marks.end() :] if marks else line


def _parts(lines: Sequence[str]) -> _Parts | None:
    """The lines by part; None where a second exercise begins."""
    parts, now = _Parts(), "body"
    for line in lines:
        head, rest = _head(line)
        if head == "question" and (now in ("answer", "explanation") or parts.options_at >= 0):
            return None
        if head in ("question", "stem"):
            if not parts.headed:
                parts.body, parts.headed = [], True  # what stood before is a preamble
            parts.body += [rest] if rest else []
        elif head == "options" and now == "body":
            if parts.options_at < 0:
                parts.options_at = len(parts.body)
            parts.body += [rest] if rest else []
        elif head == "answer":
            if _second(parts, now, rest):
                return None
            now = _answer(parts, now, line, rest)
        elif head == "explanation" and (now != "body" or parts.body):
            now = "explanation"
            parts.explanation += [rest] if rest else []
        elif now == "answer" and parts.answer and not (option_of(line) and option_of(parts.answer[0])):
            now = "explanation"  # an explanation without its heading
            parts.explanation.append(line)
        else:
            getattr(parts, now).append(line)
            parts.options_in_explanation += now == "explanation" and option_of(line) is not None
    return parts


def _second(parts: _Parts, now: str, rest: str) -> bool:
    """Whether this heading of an answer is that of a second exercise: options before it, or another answer."""
    if now != "explanation" or not parts.answer:
        return False
    other = len(rest) <= SENTENCE_CHARS and _key(rest) != _key(parts.answer[0])
    return other or parts.options_in_explanation >= SEVERAL_OPTIONS


def _answer(parts: _Parts, now: str, line: str, rest: str) -> str:
    """Takes a line with the heading of the answer; the part that goes on behind it."""
    if now == "explanation" and parts.answer:  # the same again, or a sentence: 正解はbである。…
        parts.explanation += [line] if len(rest) > SENTENCE_CHARS else []
        return now
    said = _SAME_LINE.search(rest[: HEAD_CHARS * 4])
    if said:
        parts.answer += [rest[: said.start()]]
        parts.explanation += [rest[said.end() :]]
        return "explanation"
    parts.answer += [rest] if rest else []
    return "answer"


def _head(line: str) -> tuple[str, str]:
    """The kind of heading that a line begins with, if any, and what follows it."""
    start = line[:HEAD_CHARS].translate(NARROW)
    for kind, pattern in _HEADS.items():
        if match := pattern.match(start):
            return "question" if kind == "short" else kind, line[match.end() :].strip()
    return "", line


def _another(lines: Sequence[str]) -> bool:
    """Whether an explanation holds a second exercise: options in order behind a question."""
    found = [option_of(line) for line in lines]
    for place, line in enumerate(lines[:-3]):
        if _ASKS.search(line[-HEAD_CHARS:]) and not _WHY.search(line):
            run = [option.place for option in found[place + 1 : place + 5] if option]
            if run == [0, 1, 2, 3]:
                return True
    return False


def _key(answer: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFKC", answer).lower() if char.isalnum())[:1]


def _options(parts: _Parts) -> tuple[list[str], dict[str, str]] | str:
    """The lines of the question, and the options: the last run of labels in order; else why there is none."""
    first = max(parts.options_at, 0)
    lines = parts.body[first:]
    found = [option_of(line) for line in lines]
    run = _run(found)
    if isinstance(run, str):
        return run
    if len(run) < 2:
        for place, line in enumerate(lines):
            if inline := _inline(line):
                start, options = inline
                return [*parts.body[: first + place], *([start] if start else [])], options
        return [*parts.body], {}
    options = {}
    for place, after in zip(run, [*run[1:], len(lines)], strict=True):
        option = found[place]
        assert option is not None
        options[option.label] = "\n".join([option.text, *lines[place + 1 : after]]).strip()
    return parts.body[: first + run[0]], options


def _run(found: Sequence[Option | None]) -> list[int] | str:
    """Places of the lines a, b, c … that begin last, of the style that begins last."""
    runs: dict[str, list[int]] = {}
    wrong: set[str] = set()
    for place, option in enumerate(found):
        if option is None:
            continue
        run = runs.get(option.style, [])
        if option.place == 0:
            runs[option.style] = [place]
            wrong.discard(option.style)
        elif run and option.place == len(run):
            run.append(place)
        elif run:
            wrong.add(option.style)
    style = max((style for style, run in runs.items() if len(run) > 1), key=lambda style: runs[style][0], default="")
    return "options_out_of_order" if style in wrong else runs.get(style, [])


def _inline(line: str) -> tuple[str, dict[str, str]] | None:
    """Options that all stand in one line, and what stands before them."""
    marks: list[tuple[str, re.Match[str]]] = []
    for match in _INLINE.finditer(line.translate(NARROW)):
        label = unicodedata.normalize("NFKC", match[1]).lower()
        labels = LETTERS if label in LETTERS else DIGITS
        if labels.find(label) == len(marks) and (not marks or marks[0][0] in labels):
            marks.append((label, match))
    if len(marks) < 3:
        return None
    ends = [*(match.start() for _, match in marks[1:]), len(line)]
    options = {
        label: line[match.end() : end].strip(" 　、,;/") for (label, match), end in zip(marks, ends, strict=True)
    }
    return line[: marks[0][1].start()].strip(), options


def _question(lines: Sequence[str], headed: bool) -> str:
    """The question; without a heading, a first line in which the teacher only announces it is left out."""
    if not headed and len(lines) > 1 and _PREAMBLE.fullmatch(lines[0]) and not lines[0].endswith(("か。", "べ。")):
        lines = lines[1:]
    if lines and (number := _NUMBERED.match(lines[0])):
        lines = [lines[0][number.end() :], *lines[1:]]
    return "\n".join(lines).strip()
