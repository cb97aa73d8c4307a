"""False merges: where a term of the user dictionary tears ordinary words, measured on ordinary text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rinsho.document import Broken, byte_length, read_documents
from rinsho.files import write_atomic
from rinsho.progress import Progress
from rinsho.segmentation import SENTENCES, SPACE, tagger
from rinsho.text import clean
from rinsho.tokenizer.lexicon import LexiconSettings
from rinsho.tokenizer.lexicon.dictionary import MARK, compile_dictionary

MIN_FALSE = 2  # one sighting is no evidence
MAX_ROUNDS = 5  # a term that is taken out may uncover a shorter one

_HIRAGANA = re.compile(r"[ぁ-ゖー]+")
_RUN = re.compile(r"[ァ-ヶー]{2}|[^\W\d_ぁ-ヿ㐀-鿿]{2}")  # two characters between which nobody would cut
_FUNCTION_WORDS = ("助詞", "助動詞", "接続詞", "感動詞", "フィラー", "連体詞")
_VERB_ENDINGS = ("非自立", "接尾")
_PLAIN = r'-F"%m\t%f[0]\t%f[1]\t%s\n" -E"\n"'  # four cells a word; MeCab prints nothing for a feature that is *
_ENTRIES = r'-F"%m\t%f[3]\n" -E"\n"'
_UNKNOWN = "1"


@dataclass
class Sightings:
    """Occurrences of entries in the text that was looked at, by term; torn and swallowed ones are false."""

    seen: Counter[str] = field(default_factory=Counter)
    tears: Counter[str] = field(default_factory=Counter)
    swallows: Counter[str] = field(default_factory=Counter)

    def false(self, max_chars: int | None = None) -> int:
        """False merges, of terms up to `max_chars` characters or of all."""
        both = self.tears + self.swallows
        return sum(count for term, count in both.items() if max_chars is None or len(term) <= max_chars)

    def offenders(self, max_chars: int, max_fraction: float) -> list[str]:
        """The terms of whose occurrences more than `max_fraction` are false, sorted.

        Only terms up to `max_chars` characters and terms in hiragana alone are judged: a longer term in kanji that
        cuts a word of plain MeCab is right more often than not (上気|道|閉塞 and 気道閉塞).
        """
        both = self.tears + self.swallows
        return sorted(
            term
            for term, count in both.items()
            if (len(term) <= max_chars or _HIRAGANA.fullmatch(term))
            and count >= MIN_FALSE
            and count > max_fraction * self.seen[term]
        )


@dataclass
class Checked:
    """What was looked at and found, before and after the worst short terms were taken out."""

    text_bytes: int
    words: int
    before: Sightings
    after: Sightings
    kept_out: list[str]
    changed_without_term: int  # sentences in which another segmentation came without any term: always 0

    def per_million(self, sightings: Sightings, max_chars: int | None = None) -> float:
        """False merges a million words of plain segmentation."""
        return round(1e6 * sightings.false(max_chars) / max(self.words, 1), 3)


def write_false_merges(checked: Checked, path: Path) -> None:
    """false_merges.tsv: the terms with false occurrences before any was kept out, the worst first."""
    both = checked.before.tears + checked.before.swallows
    rows = [
        f"{term}\t{checked.before.seen[term]}\t{count}\t{'no' if term in checked.kept_out else 'yes'}\n"
        for term, count in sorted(both.items(), key=lambda row: (-row[1], row[0]))
    ]
    write_atomic(path, "term\toccurrences\tfalse\tin_user_dic\n" + "".join(rows))


def check_merges(
    texts: Iterable[str], costs: Mapping[str, int], dictionary: Path, settings: LexiconSettings
) -> Checked:
    """Measures false merges, compiles `dictionary` again without the worst short terms, and measures once more.

    An occurrence of an entry is false when

    * it begins or ends inside a word of plain MeCab (a tear): a word that ipadic knows, or inside a run of katakana or
      of letters. Other words that MeCab itself only guessed (苔|癬化) prove nothing.
    * its first or last word there is a function word or a verb's ending (a swallow), all words there are known, and
      the term is written in hiragana alone or is read otherwise when it stands alone. So がん read as a noun is
      right, が and ん read as particles are not; the の of 手足のしびれ is the term's own.

    Args:
        texts: raw ordinary text; reading ends at `check_mb` of the settings.
        costs: the entries.
        dictionary: compiled from them; afterwards without the terms that were taken out.
        settings: `short_chars` (longer terms are measured too, but taken out only when they are hiragana alone),
            `max_false_merge_fraction` and `check_mb`.
    """
    found, words, size, unexplained = _with_entries(texts, dictionary, settings.check_mb)
    readings = [(sentence, times, _read(sentence)) for sentence, times in found.items()]
    alone: dict[str, tuple[str, ...]] = {}
    before = after = _sightings(readings, dictionary, alone)
    kept_out: list[str] = []
    for _ in range(MAX_ROUNDS):
        worst = after.offenders(settings.short_chars, settings.max_false_merge_fraction)
        if not worst:
            break
        kept_out += worst
        left = {term: cost for term, cost in costs.items() if term not in set(kept_out)}
        after = _sightings(readings, dictionary, alone) if compile_dictionary(left, dictionary) else Sightings()
    return Checked(size, words, before, after, sorted(kept_out), unexplained)


def unchecked_traps(costs: Mapping[str, int], short_chars: int) -> list[str]:
    """The terms kept out when there is no text to check them on: short ones in hiragana, as particles are."""
    return sorted(term for term in costs if len(term) <= short_chars and _HIRAGANA.fullmatch(term))


def sample_texts(shards: Sequence[Path], limit_mb: float) -> Iterator[str]:
    """Texts from the start of every shard, an equal share of `limit_mb` each; what one leaves, the next ones get."""
    left = limit_mb * 1e6
    for place, path in enumerate(shards):
        share = left / (len(shards) - place)
        for document in read_documents(path, on_broken=_skip):
            if share <= 0:
                break
            size = byte_length(document.text)
            share -= size
            left -= size
            yield document.text


def _skip(_: Broken) -> None:
    """A broken record is not ordinary text."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """Plain MeCab's words of a sentence: where each ends, what it is, and where a cut would tear one."""

    ends: dict[int, int]  # character position -> number of words before it
    words: list[str]  # surface and part of speech
    function: list[bool]
    unknown: list[bool]
    inside: frozenset[int]


def _with_entries(texts: Iterable[str], dictionary: Path, limit_mb: float) -> tuple[dict[str, int], int, int, int]:
    """The sentences in which an entry is taken and how often they stand there, the words and bytes of all sentences,
    and the sentences that the dictionary changes without an entry."""
    plain = tagger(form=_ENTRIES).parse
    with_terms = tagger(str(dictionary), dictionary.stat().st_mtime_ns, _ENTRIES).parse
    found: Counter[str] = Counter()
    words, size, unexplained = 0, 0, 0
    limit = limit_mb * 1e6
    with Progress("lexicon: looking for false merges", round(limit), "bytes") as progress:
        for text in texts:
            if size >= limit:
                break
            encoded = clean(text).encode()[: int(limit - size)]
            cleaned = encoded.decode(errors="ignore")
            for sentence in SENTENCES.findall(cleaned.replace(" ", SPACE)):
                if sentence == "\n":
                    continue
                answer = plain(sentence)
                words += answer.count("\n") + 1
                other = with_terms(sentence)
                if f"\t{MARK}" in other:
                    found[sentence] += 1
                else:
                    unexplained += other != answer
            size += len(encoded)
            progress.update(len(encoded))
    return dict(found), words, size, unexplained


def _read(sentence: str) -> _Reading:
    ends, words, function, unknown, inside, place = {0: 0}, [], [], [], set(), 0
    for surface, part, finer, state in _cells(tagger(form=_PLAIN).parse(sentence), 4):
        for cut in range(place + 1, place + len(surface)):
            if state != _UNKNOWN or _RUN.match(sentence, cut - 1, cut + 1):
                inside.add(cut)
        place += len(surface)
        words.append(f"{surface}/{part}")
        function.append(part in _FUNCTION_WORDS or (part == "動詞" and finer in _VERB_ENDINGS))
        unknown.append(state == _UNKNOWN)
        ends[place] = len(words)
    return _Reading(ends, words, function, unknown, frozenset(inside))


def _sightings(
    readings: Iterable[tuple[str, int, _Reading]], dictionary: Path, alone: dict[str, tuple[str, ...]]
) -> Sightings:
    found = Sightings()
    parse = tagger(str(dictionary), dictionary.stat().st_mtime_ns, _ENTRIES).parse
    for sentence, times, reading in readings:
        start = 0
        for surface, mark in _cells(parse(sentence), 2):
            end = start + len(surface)
            if mark == MARK:
                found.seen[surface] += times
                if start in reading.inside or end in reading.inside:
                    found.tears[surface] += times
                elif _swallows(surface, reading, start, end, alone):
                    found.swallows[surface] += times
            start = end
    return found


def _swallows(term: str, reading: _Reading, start: int, end: int, alone: dict[str, tuple[str, ...]]) -> bool:
    first, last = reading.ends.get(start), reading.ends.get(end)
    if first is None or last is None or any(reading.unknown[first:last]):
        return False  # MeCab guessed there
    if not (reading.function[first] or reading.function[last - 1]):
        return False
    if _HIRAGANA.fullmatch(term):
        return True
    if term not in alone:
        alone[term] = tuple(_read(term).words)
    return alone[term] != tuple(reading.words[first:last])


def _cells(answer: str, count: int) -> Iterator[list[str]]:
    """The lines of a MeCab answer as cells; fugashi strips empty ones off its end."""
    for line in answer.split("\n"):
        cells = line.split("\t")
        yield cells + [""] * (count - len(cells))
