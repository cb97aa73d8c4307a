"""Which encoding a text is in: UTF-8, UTF-16 with its mark, CP932, EUC-JP, ISO-2022-JP; the whole of it decides."""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from rinsho.errors import UserError

SCORED_CHARS = 1 << 20  # characters at the start that decide between readings which are both free of errors
MIN_SCORE, MIN_LEAD = 0.4, 0.15
JIS_SHIFT = re.compile(rb"\x1b(?:\$[@B]|\(J)")  # what ISO-2022-JP, all of it ASCII bytes, begins its Japanese with
# The 500 most frequent kanji of medical, encyclopaedia and web text: 79 % of the kanji in them.
COMMON_KANJI = frozenset(
    "症性年定行的一用合発要日上大生中分人以度成下数出第状場時動者作後化関法体使療月本血見常部学対能事子型間変所国方期物全病機内前害同断地値異不必重高例自治力"
    "項多障二入診認十理名代書患外明実表特基開小文管立会目心設類条経準当素最長示可等伝形指記三疾神新有在水現低主呼通保遺候手活持家正構加及世検次点業規取原続制"
    "確態語意来連置査気群酸言参初医存画位結身進付他式号無山別字平細受市脈含社支知四様先義面道適象応満戦報過考始流限回天種解選因少質果施炎教又助電色公欠造約川"
    "食照線切東研介究近床除和政器児運引組得頭金起効域室向直女腫難産民筋島程骨感返列更品海元計球量皮説術側共白空移脳利調失徴館養染判何情薬図注該単属死建再科令"
    "追装提反損未際強信改件臨軍口五集伴思安胞予系非問肺視供腎田送接換配抗込員尿私彼増界節北像価与相達区係額院両各労吸野決複容歩択六工臓権併精務族試王張着軽評"
    "製概終音継証半収西由悪県告処験算都録護題総圧広石万則標交格比読降車議南校七静補肝膜歳任影良命町右領境論険末段減師州般今省八放拡完路料求称転九古眼個急演木"
)


class Codec(NamedTuple):
    """An encoding as Python knows it, and how it treats bytes that are not valid in it."""

    setting: str  # utf-8, cp932, euc-jp, iso-2022-jp, utf-16
    name: str
    strict: str  # error handler that refuses them
    escape: str  # error handler that lets them through as lone surrogates U+DC80 to U+DCFF


UTF_8 = Codec("utf-8", "utf-8-sig", "strict", "surrogateescape")
UTF_16 = Codec("utf-16", "utf-16", "strict", "replace")
CP932 = Codec("cp932", "cp932", "strict", "surrogateescape")
EUC_JP = Codec("euc-jp", "euc_jp", "rinsho-euc-jp", "rinsho-euc-jp-escape")
ISO_2022_JP = Codec("iso-2022-jp", "iso2022_jp_ext", EUC_JP.strict, EUC_JP.escape)  # with half-width kana


def codec(setting: str) -> Codec:
    """The codec of a setting `utf-8`, `cp932`, `euc-jp` or `iso-2022-jp`, ready for `bytes.decode`."""
    codecs.register_error(EUC_JP.strict, _vendor_characters)
    codecs.register_error(EUC_JP.escape, _vendor_characters_or_escape)
    return {"utf-8": UTF_8, "cp932": CP932, "euc-jp": EUC_JP, "iso-2022-jp": ISO_2022_JP}[setting]


def detect(read: Callable[[], Iterator[bytes]], where: object) -> Codec:
    """The encoding of what `read` gives, which is called up to twice and read to its end.

    A byte order mark decides; else ISO-2022-JP where it is ASCII with that encoding's shifts; else UTF-8 where all of
    it is valid UTF-8; else CP932 or EUC-JP, whichever all of it is
    valid in. Where it is in both (CP932's half-width kana are halves of EUC-JP's kanji), the one that reads like
    Japanese: kana and common kanji rather than half-width kana, half-width marks and rare kanji.

    Raises:
        UserError: none of them, or no telling which; with the places up to which UTF-8 and the best of them hold.
    """
    utf_8, start, end, shifted = _Trial(UTF_8), b"", b"", False
    for data in read():
        start = start or data[:2]
        utf_8.feed(data)
        if utf_8.failed:
            break
        if b"\x1b" in data or b"\x1b" in end:
            shifted = shifted or JIS_SHIFT.search(end + data) is not None
        end = (end + data[-2:])[-2:]
    if utf_8.finish():
        return _shifted(read, where) if shifted and not utf_8.sample() else UTF_8
    if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return UTF_16
    trials = [_Trial(codec("cp932")), _Trial(codec("euc-jp"))]
    for data in read():
        for trial in trials:
            trial.feed(data)
        if all(trial.failed for trial in trials):
            break
    rows = [(score(trial.sample()), trial.codec) for trial in trials if trial.finish()]
    rows = sorted((row for row in rows if row[0] >= MIN_SCORE), reverse=True)
    if not rows or (len(rows) == 2 and rows[0][0] - rows[1][0] < MIN_LEAD):
        raise _untold(utf_8, trials, where)
    return rows[0][1]


def _shifted(read: Callable[[], Iterator[bytes]], where: object) -> Codec:
    trial = _Trial(codec("iso-2022-jp"))
    for data in read():
        trial.feed(data)
    if trial.finish():
        return trial.codec
    raise _untold(trial, [], where)


def _untold(first: _Trial, others: list[_Trial], where: object) -> UserError:
    """The error with the place up to which the first reading holds, and with that of another which holds longer."""
    told = f"byte {first.offset} in line {first.line} is not {first.codec.setting.upper()}"
    whole = [trial.codec.setting.upper() for trial in others if not trial.failed]
    best = max(others, key=lambda trial: trial.offset, default=first)
    if whole:
        told += f"; {' and '.join(whole)} to the end, but not clearly Japanese"
    elif best.offset > first.offset:
        told += f"; {best.codec.setting.upper()} up to byte {best.offset} in line {best.line}"
    return UserError(
        f"the encoding cannot be told ({told})",
        where=where,
        expected="UTF-8, CP932 (Shift_JIS), EUC-JP or ISO-2022-JP throughout",
        todo="name the `encoding` in corpus.sources, so that single bad records are set aside",
    )


def decode(data: bytes, where: object) -> str:
    """The text of bytes in any of the encodings. Raises as `detect`."""
    found = detect(lambda: iter([data]), where)
    return data.decode(found.name, found.strict)


def score(text: str) -> float:
    """How much the text looks like Japanese, from 0 to 1: kana and common kanji count, half-width kana count half.

    >>> score("発熱を認める。") > 0.8, score("ﾊﾂﾈﾂｦﾐﾄﾒﾙ") == 0.5, score("縺薙ｓ縺ｫ縺｡縺ｯ") < 0.3
    (True, True, True)
    """
    total = points = 0.0
    for char, count in Counter(text).items():
        if char >= "\x80" or (char < " " and char not in "\t\n\r\f\v"):
            total += count
            points += count * _weight(char)
    return max(0.0, points / total) if total else 1.0


def _weight(char: str) -> float:
    if "ぁ" <= char <= "ヿ" or char in "、。" or char in COMMON_KANJI:
        return 1.0
    if "一" <= char <= "鿿" or "｡" <= char <= "･":
        return 0.0
    if char < "\xa1" or "\uf8f0" <= char <= "\uf8f3":  # control characters; CP932's bytes without a character
        return -1.0
    return 0.5


class _Trial:
    """One reading of a stream of bytes: does it hold to the end, and what does its start look like."""

    def __init__(self, tried: Codec) -> None:
        self.codec = tried
        self.failed = False
        self.offset, self.line = 0, 1  # of the first byte that is not valid
        self._decoder = codecs.getincrementaldecoder(tried.name)(tried.strict)
        self._taken = 0
        self._sample: list[str] = []
        self._sampled = 0

    def feed(self, data: bytes, final: bool = False) -> None:
        if self.failed:
            return
        try:
            text = self._decoder.decode(data, final)
        except UnicodeDecodeError as error:
            self.failed = True
            self.offset = self._taken + len(data) - len(error.object) + error.start
            self.line += data[: max(0, self.offset - self._taken)].count(b"\n")
            return
        self._taken += len(data)
        self.line += data.count(b"\n")
        if self._sampled < SCORED_CHARS and not text.isascii():
            self._sample.append(text[: SCORED_CHARS - self._sampled])
            self._sampled += len(self._sample[-1])

    def finish(self) -> bool:
        """True when all that was fed is valid and complete."""
        self.feed(b"", final=True)
        return not self.failed

    def sample(self) -> str:
        return "".join(self._sample)


def _vendor_characters(error: UnicodeError) -> tuple[str, int]:
    """Reads ①, ㎎ and 髙 in EUC-JP, which stand at the places that CP932 has and the standard leaves empty.

    ISO-2022-JP has the same pairs in seven bits.
    """
    if isinstance(error, UnicodeDecodeError):
        pair = error.object[error.start : error.start + 2]
        if len(pair) == 2 and min(pair) >= 0x21 and max(pair) <= 0x7E:
            pair = bytes(byte | 0x80 for byte in pair)
        if len(pair) == 2 and min(pair) >= 0xA1 and max(pair) <= 0xFE:
            row, cell = pair[0] - 0xA1, pair[1] - 0xA1
            lead = row // 2 + (0x81 if row < 62 else 0xC1)
            trail = cell + 0x9F if row % 2 else cell + (0x40 if cell < 63 else 0x41)
            try:
                return bytes((lead, trail)).decode("cp932"), error.start + 2
            except UnicodeDecodeError:
                pass
    raise error


def _vendor_characters_or_escape(error: UnicodeError) -> tuple[str, int]:
    try:
        return _vendor_characters(error)
    except UnicodeDecodeError:
        if isinstance(error, UnicodeDecodeError):  # one byte at a time, so that what follows is read
            return chr(0xDC00 + error.object[error.start]), error.start + 1
        raise
