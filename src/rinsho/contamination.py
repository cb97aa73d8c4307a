"""Documents that hold passages of a benchmark: found exactly (see `rinsho.overlap.passages`).

Source: SPEC N2.1-2; decontamination_chars is our choice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rinsho.document import read_documents, shard_paths
from rinsho.errors import UserError
from rinsho.overlap.codes import compact
from rinsho.overlap.passages import MIN_CHARS, Passages
from rinsho.tasks import Item, igakuqa, jmed, passages
from rinsho.tasks.read import find_layouts
from rinsho.text import clean

MAX_ITEMS = 2  # of one benchmark; what stands in more of them is the wording of a template,
PASSAGE_WINDOWS = 4  # unless it is longer than this many windows and one: then they are questions about one text
SHOWN_ITEMS = 3
_CHOOSE = re.compile(r"[(（]?[0-9一二三四五]つ(?:を|だけ)?(?:選べ|選びなさい|選んでください)[。.]?[)）]?[。.]?\Z")


@dataclass(frozen=True)
class Index:
    """The passages of benchmarks, ready to be found in documents; can be pickled.

    Attributes:
        names: `file name:item` of each different passage.
        known: the passages; windows that are wording of a template do not count.
        short: passages of fewer characters than must be shared -> their name; found as a whole text alone (`same`).
    """

    names: tuple[str, ...]
    known: Passages
    short: Mapping[str, str]

    @classmethod
    def from_files(cls, paths: Sequence[Path], chars: int, section: str = "corpus") -> Index:
        """The index of benchmark files and folders: JMED-LLM, IgakuQA, or documents with a text or question field.

        `section` is the recipe's section that errors name.

        Raises:
            UserError: a file is missing or not readable, nothing in it is long enough, or `chars` is below 8.
        """
        return cls.from_passages((item for path in paths for item in _read(Path(path))), chars, section)

    @classmethod
    def from_passages(cls, given: Iterable[tuple[str, str, str]], chars: int, section: str = "corpus") -> Index:
        """The index of (benchmark, name, text); equal texts are one passage under the first name."""
        if chars < MIN_CHARS:
            raise UserError(f"{chars} characters are found everywhere", where=f"{section}.decontamination_chars",
                            expected=f"at least {MIN_CHARS}")  # fmt: skip
        texts: dict[str, tuple[str, str]] = {}
        for benchmark, name, text in given:
            texts.setdefault(text, (benchmark, name))
        found: dict[bytes, tuple[str, str]] = {}
        for text, names_of_it in texts.items():
            found.setdefault(compact(clean(text)).tobytes(), names_of_it)
        long = {data: names for data, names in found.items() if len(data) >= 2 * chars}
        if not long:
            raise UserError("no passage is long enough", where=f"{section}.decontaminate",
                            expected=f"questions or texts of at least {chars} characters")  # fmt: skip
        numbers = {name: number for number, name in enumerate(dict.fromkeys(name for name, _ in long.values()))}
        benchmarks = np.array([numbers[name] for name, _ in long.values()])
        known = Passages.of(
            [np.frombuffer(data, np.uint16) for data in long], chars,
            lambda windows, owners: _template(windows, benchmarks[owners], owners, chars),
        )  # fmt: skip
        short = {_whole(data.decode("utf-16-le", "surrogatepass")): name
                 for data, (_, name) in found.items() if data not in long}  # fmt: skip
        short.pop("", None)
        return cls(tuple(name for _, name in long.values()), known, short)

    def covered(self, text: str) -> tuple[int, tuple[str, ...]]:
        """(characters of a clean text, without white space, in passages shared with a benchmark; up to 3 item names).

        The items are those that most passages are shared with.

        >>> index = Index.from_passages([("exam", "exam.jsonl:1", "62歳の男性。発熱と咳嗽を主訴に来院した。")], 10)
        >>> index.covered("昨日、62歳の男性。発熱と咳嗽があった。")
        (12, ('exam.jsonl:1',))
        """
        units = compact(text)
        change = np.zeros(0, np.int64)
        hits = np.zeros(len(self.names), np.int64)
        for here, there in self.known.shared(units):
            if not len(change):
                change = np.zeros(len(units) + 1, np.int64)
            np.add.at(change, here, 1)
            np.add.at(change, here + self.known.chars, -1)
            hits += np.bincount(self.known.starts.searchsorted(there, side="right") - 1, minlength=len(hits))
        if not len(change):
            return 0, ()
        most = np.lexsort((np.arange(len(hits)), -hits))[:SHOWN_ITEMS]
        names = tuple(self.names[item] for item in most if hits[item])
        return int(np.count_nonzero(np.cumsum(change))), names

    def held(self, text: str, min_fraction: float) -> tuple[str, ...]:
        """Up to 3 names of items of which at least this share of the characters stands in the clean text.

        For texts that are written in the benchmark's own style, such as exercises: that they share the wording of an
        examination says nothing, that they hold most of one of its questions does.

        >>> index = Index.from_passages([("exam", "exam.jsonl:1", "62歳の男性。発熱と咳嗽を主訴に来院した。")], 10)
        >>> index.held("62歳の男性。発熱と咳嗽があった。", 0.5), index.held("62歳の男性。発熱と腹痛があった。", 0.7)
        (('exam.jsonl:1',), ())
        """
        found, chars = self.known.covered(compact(text))
        shares = chars / self.known.lengths[found]
        order = np.lexsort((found, -shares))[:SHOWN_ITEMS]
        return tuple(self.names[found[place]] for place in order if shares[place] >= min_fraction)

    def same(self, text: str) -> str:
        """The name of the short passage that is this clean text, but for 「1つ選べ。」 at the end; empty if none is.

        >>> index = Index.from_passages([("exam", "1", "咳嗽の原因はどれか。2つ選べ。"), ("exam", "2", "発熱" * 9)], 18)
        >>> index.same("咳嗽の原因はどれか。"), index.same("原因はどれか。")
        ('1', '')
        """
        return self.short.get(_whole("".join(text.split())), "")


def _whole(text: str) -> str:
    return _CHOOSE.sub("", text)


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
            todo="name that folder in decontaminate",
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
