"""Documents that hold passages of a benchmark: found exactly, at the cost of one look at every few characters.

Texts are compared as `rinsho.text.clean` gives them, without white space (clean text is NFKC but for … and ℃, which
both sides have). A shared passage of `chars` characters holds a seed, a shorter run of characters, that starts at a
multiple of a step; so only the seeds of a document at these places are looked up among all seeds of the benchmark,
and what is found is compared character by character.

Source: SPEC N2.1-2; decontamination_chars is our choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rinsho.corpus.dedup.codes import codes
from rinsho.corpus.dedup.sketch import LINE_FEED, SPACE, constants, window_hashes
from rinsho.document import read_documents, shard_paths
from rinsho.errors import UserError
from rinsho.tasks import Item, igakuqa, jmed, passages
from rinsho.tasks.read import find_layouts
from rinsho.text import clean

MAX_ITEMS = 2  # of one benchmark; what stands in more of them is the wording of a template,
PASSAGE_WINDOWS = 4  # unless it is longer than this many windows and one: then they are questions about one text
SHOWN_ITEMS = 3
PAIRS = 20_000  # places compared together
MIN_CHARS = 8
WORD = 4  # code units in 64 bits
ITEM_END, TEXT_END = 0xFFFF, 0xFFFE  # equal to nothing
KNOWN_BITS = 24  # 16 MB; a few per cent of it are set for a million seeds


@dataclass(frozen=True)
class Index:
    """The passages of benchmarks, ready to be found in documents; can be pickled.

    Attributes:
        chars: length of the shared passages that count, in characters without white space.
        names: `file name:item` of each different passage.
        units: uint16, the code units of all passages, ITEM_END before, between and after them.
        counts: bool like `units`: a window that starts here counts (no template, inside one passage).
        seeds, places: uint64 and int64 (n,): the sorted hashes of all seeds, and where they start in `units`.
        starts: int64, where each passage starts in `units`.
        known: bool, whether any seed's hash begins with these bits.
        short: passages of fewer than `chars` characters, which cannot be found.
    """

    chars: int
    names: tuple[str, ...]
    units: np.ndarray
    counts: np.ndarray
    seeds: np.ndarray
    places: np.ndarray
    starts: np.ndarray
    known: np.ndarray
    short: int

    @classmethod
    def from_files(cls, paths: Sequence[Path], chars: int) -> Index:
        """The index of benchmark files and folders: JMED-LLM, IgakuQA, or documents with a text or question field.

        Raises:
            UserError: a file is missing or not readable, nothing in it is long enough, or `chars` is below 8.
        """
        return cls.from_passages((item for path in paths for item in _read(Path(path))), chars)

    @classmethod
    def from_passages(cls, given: Iterable[tuple[str, str, str]], chars: int) -> Index:
        """The index of (benchmark, name, text); equal texts are one passage under the first name."""
        if chars < MIN_CHARS:
            raise UserError(f"{chars} characters are found everywhere", where="corpus.decontamination_chars",
                            expected=f"at least {MIN_CHARS}")  # fmt: skip
        texts: dict[str, tuple[str, str]] = {}
        for benchmark, name, text in given:
            texts.setdefault(text, (benchmark, name))
        found: dict[bytes, tuple[str, str]] = {}
        for text, names_of_it in texts.items():
            found.setdefault(_compact(clean(text)).tobytes(), names_of_it)
        long = {data: names for data, names in found.items() if len(data) >= 2 * chars}
        if not long:
            raise UserError("no passage is long enough", where="corpus.decontaminate",
                            expected=f"questions or texts of at least {chars} characters")  # fmt: skip
        end = np.full(chars, ITEM_END, np.uint16)
        parts = [end]
        for data in long:
            parts += [np.frombuffer(data, np.uint16), end]
        units = np.concatenate(parts)
        lengths = np.array([len(data) // 2 for data in long])
        starts = np.cumsum(np.append(chars, lengths + chars))[:-1]
        windows, owners = _runs(starts, lengths - chars + 1)
        numbers = {name: number for number, name in enumerate(dict.fromkeys(name for name, _ in long.values()))}
        groups = np.array([numbers[name] for name, _ in long.values()])[owners]
        counts = np.zeros(len(units), bool)
        counts[windows] = ~_template(window_hashes(units, chars)[windows], groups, owners, chars)
        size = _seed_chars(chars)
        places, _ = _runs(starts, lengths - size + 1)
        before = np.append(0, np.cumsum(counts))
        places = places[before[places + 1] > before[places - (chars - size)]]  # those in a window that counts
        seeds = _seed_hashes(units, size, 1)[places]
        sort = np.argsort(seeds, kind="stable")
        names = tuple(name for _, name in long.values())
        known = np.zeros(1 << KNOWN_BITS, bool)
        known[seeds >> np.uint64(64 - KNOWN_BITS)] = True
        return cls(chars, names, units, counts, seeds[sort], places[sort], starts, known, len(found) - len(long))

    def covered(self, text: str) -> tuple[int, tuple[str, ...]]:
        """(characters of a clean text, without white space, in passages shared with a benchmark; up to 3 item names).

        The items are those that most passages are shared with.

        >>> index = Index.from_passages([("exam", "exam.jsonl:1", "62歳の男性。発熱と咳嗽を主訴に来院した。")], 10)
        >>> index.covered("昨日、62歳の男性。発熱と咳嗽があった。")
        (12, ('exam.jsonl:1',))
        """
        units = _compact(text)
        size = _seed_chars(self.chars)
        if len(units) < self.chars:
            return 0, ()
        step = self.chars - size + 1
        hashes = _seed_hashes(units, size, step)
        some = self.known.take((hashes >> np.uint64(64 - KNOWN_BITS)).view(np.int64))
        if not np.count_nonzero(some):
            return 0, ()
        at = np.flatnonzero(some)
        first = self.seeds.searchsorted(hashes[at])
        number = self.seeds.searchsorted(hashes[at], side="right") - first
        if not number.any():
            return 0, ()
        return self._compare(units, at * step, first, number)

    def _compare(
        self, units: np.ndarray, at: np.ndarray, first: np.ndarray, number: np.ndarray
    ) -> tuple[int, tuple[str, ...]]:
        """Like `covered`, for seeds at the places `at` of a document that have `number` candidates from `first` on."""
        end = np.full(self.chars, TEXT_END, np.uint16)
        padded = np.concatenate([end, units, end])
        change = np.zeros(len(padded) + 1, np.int64)
        hits = np.zeros(len(self.names), np.int64)
        ends = np.cumsum(number)
        for start in range(0, int(ends[-1]), PAIRS):
            pairs = np.arange(start, min(start + PAIRS, int(ends[-1])))
            owner = ends.searchsorted(pairs, side="right")
            places = self.places[first[owner] + pairs - (ends - number)[owner]]
            for here, there in self._windows(padded, at[owner] + self.chars, places):
                np.add.at(change, here, 1)
                np.add.at(change, here + self.chars, -1)
                hits += np.bincount(self.starts.searchsorted(there, side="right") - 1, minlength=len(hits))
        most = np.lexsort((np.arange(len(hits)), -hits))[:SHOWN_ITEMS]
        names = tuple(self.names[item] for item in most if hits[item])
        return int(np.count_nonzero(np.cumsum(change))), names

    def _windows(
        self, padded: np.ndarray, at: np.ndarray, places: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(starts in the document, starts in the index) of the equal windows that count and hold these seeds."""
        size = _seed_chars(self.chars)
        around = np.arange(size - self.chars, self.chars)
        equal = padded[at[:, None] + around] == self.units[places[:, None] + around]
        same = np.zeros((len(at), len(around) + 1), np.int32)
        np.cumsum(equal, axis=1, out=same[:, 1:])
        for offset in range(size - self.chars, 1):
            column = offset + self.chars - size
            good = (same[:, column + self.chars] - same[:, column] == self.chars) & self.counts[places + offset]
            if good.any():
                yield at[good] + offset, places[good] + offset


def _compact(text: str) -> np.ndarray:
    units: np.ndarray = codes(text)
    units = units[(units != SPACE) & (units != LINE_FEED)]
    return units


def _runs(starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(start, start + 1, ... for each start, as many as its length; which start each belongs to)."""
    owners = np.repeat(np.arange(len(starts)), lengths)
    return np.arange(len(owners)) + (starts - np.cumsum(lengths) + lengths)[owners], owners


def _seed_chars(chars: int) -> int:
    """Length of the seeds: a multiple of a word, about two thirds of the passages that count."""
    return 2 * chars // 3 // WORD * WORD


def _seed_hashes(units: np.ndarray, size: int, step: int) -> np.ndarray:
    """A hash, uint64, of the `size` units from positions 0, `step`, 2 * `step`, ... on, read four units at a time."""
    count = max(len(units) - size + step, 0) // step
    words = np.ndarray((count, size // WORD), "<u8", np.ascontiguousarray(units), strides=(2 * step, 2 * WORD))
    hashes: np.ndarray = words @ (constants(size // WORD) | np.uint64(1))
    return hashes


def _template(windows: np.ndarray, groups: np.ndarray, owners: np.ndarray, chars: int) -> np.ndarray:
    """Which windows (hashes in the order of the passages, with benchmark and passage) are wording of a template."""
    sort = np.lexsort((owners, groups, windows))
    windows, groups, one = windows[sort], groups[sort], owners[sort]
    new = np.append(True, (windows[1:] != windows[:-1]) | (groups[1:] != groups[:-1]))
    another = new | np.append(True, one[1:] != one[:-1])
    run = np.cumsum(new) - 1
    template = np.empty(len(sort), bool)
    template[sort] = np.bincount(run, weights=another)[run] > MAX_ITEMS
    edges = np.flatnonzero(np.append(True, (template[1:] != template[:-1]) | (owners[1:] != owners[:-1])))
    lengths = np.diff(np.append(edges, len(template)))
    template &= np.repeat(lengths <= PASSAGE_WINDOWS * chars, lengths)
    return template


def _read(path: Path) -> Iterator[tuple[str, str, str]]:
    """(benchmark, file name:item, text) of the passages of a benchmark file or folder."""
    if path.is_dir():
        yield from _read_folder(path)
    elif path.suffix == ".csv":
        above = path.parent.parent if path.parent.name == "all" else path.parent
        if above.name == "datasets" and (path.stem in jmed.TASKS or path.stem in jmed.POOLS):
            yield from _read_jmed(above.parent, lambda name: name == path.name)
        else:
            for row in jmed.read_rows(path, ["question"]):
                yield path.name, f"{path.name}:{row.number:05d}", _quoted(row.cells["question"])
    elif path.suffix == ".jsonl" and _is_exam(path):
        for item in igakuqa.read_problems(path):
            yield "igakuqa", f"{path.name}:{item.id.split('/')[-1]}", item.passage
    else:
        yield from _read_any(path)


def _read_folder(path: Path) -> Iterator[tuple[str, str, str]]:
    try:
        jmed_folders, exam_folders = find_layouts([path])
    except UserError:  # neither layout
        for file in shard_paths([path]):
            yield from _read(file)
        return
    for folder in jmed_folders:
        yield from _read_jmed(folder, lambda _: True)
    for folder in exam_folders:
        for file in sorted(folder.glob("data/*/*.jsonl")):
            if not file.stem.endswith(igakuqa.OTHER_FILES):
                yield from _read(file)


def _read_jmed(folder: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, str, str]]:
    """Test rows, then pool rows where there are pools, of the files whose name is wanted."""
    items: list[Item] = jmed.read_test(folder)
    if (folder / "datasets" / "all").is_dir():
        items += jmed.read_pools(folder)
    for item in items:
        *_, file, row = item.id.split("/")
        if wanted(f"{file}.csv"):
            for text in passages(item):
                yield item.task, f"{file}.csv:{row}", text


def _read_any(path: Path) -> Iterator[tuple[str, str, str]]:
    """Documents with the field `text`, or else `question`."""
    problem: UserError | None = None
    for name in ("text", "question"):
        try:
            for document in list(read_documents(path, text_field=name)):
                yield path.name, f"{path.name}:{document.id.removeprefix(path.name + ':')}", document.text
            return
        except UserError as error:
            problem = problem or error
        except FileNotFoundError:
            raise UserError("not there", where=path, expected="a benchmark file", todo="check the path") from None
    if problem:
        raise UserError(
            "no benchmark texts in here",
            where=path,
            expected="documents with a field text or question, or the top folder of JMED-LLM or IgakuQA",
            todo="name that folder in corpus.decontaminate",
        )


def _is_exam(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return b'"problem_text"' in file.readline()


def _quoted(question: str) -> str:
    """The text between 「 and 」 from line 2 on; the whole question where there is none."""
    inner = question.partition("\n")[2].strip()
    return inner[1:-1] if inner.startswith("「") and inner.endswith("」") and len(inner) >= 2 else question
