"""rinsho.tokenizer.counting: exact counts for any number of workers, in bounded memory, after any kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rinsho.document import Document, read_documents, write_documents
from rinsho.progress import Progress
from rinsho.segmentation import segment
from rinsho.text import clean
from rinsho.tokenizer import Recipe, counting
from rinsho.tokenizer.counting import Selection, count_corpus
from rinsho.tokenizer.word_runs import merge_runs, merged, write_run

ALL = Selection(seed=1, sources=(), keep_fraction=1.0, heldout_fraction=0.0)
TEXTS = [
    "患者は発熱を主訴に来院した。\n体温は38.5℃であった。",
    "間質性肺炎と診断した。\n\n体温は38.5℃であった。",
    "体温は38.5℃であった。\n咳嗽が続く。 CRP 1.2 mg/dL",
    "",
    "抗菌薬を投与し、解熱した。咳嗽が続く。",
]


class Scratch:
    """What counting needs of a stage."""

    def __init__(self, partial: Path) -> None:
        self.partial = partial
        partial.mkdir(exist_ok=True)

    def progress(self, label: str, total: int | None, unit: str, done: int = 0) -> Progress:
        return Progress(label, total, unit, done)

    def log(self, message: str) -> None:
        pass


def write_shards(folder: Path, documents: list[Document], shards: int) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = []
    for number in range(shards):
        paths.append(folder / f"part-{number}.jsonl.zst")
        with paths[-1].open("wb") as file:
            write_documents(file, documents[number::shards])
    return paths


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    documents = [
        Document(TEXTS[number % len(TEXTS)] + ("" if number % 3 else f"\n症例{number}"), f"d{number}",
                 {"source": "case" if number % 2 else "wiki"})
        for number in range(60)
    ]  # fmt: skip
    return write_shards(tmp_path / "shards", documents, 3)


def plainly(shards: list[Path], selection: Selection = ALL) -> Counter[str]:
    words: Counter[str] = Counter()
    for path in shards:
        for document in read_documents(path):
            if selection.part(document) == "train":
                words.update(segment(clean(document.text)))
    del words["\n"]
    return words


def counted(shards: list[Path], folder: Path, selection: Selection = ALL, workers: int = 1, **more: int):
    return count_corpus(shards, selection, None, workers, Scratch(folder), **more)  # type: ignore[arg-type]


def test_the_counts_are_those_of_segmenting_every_document(shards: list[Path], tmp_path: Path) -> None:
    counts = counted(shards, tmp_path / "a")
    expected = plainly(shards)
    assert counts.words == expected
    assert (counts.total_words, counts.distinct_words) == (expected.total(), len(expected))
    assert (counts.documents, counts.left_out_words, counts.broken) == (60, 0, 0)
    assert counts.sources == {"case": 30, "wiki": 30}
    assert counts.text_bytes == sum(
        len(clean(document.text).encode()) for path in shards for document in read_documents(path)
    )


def test_workers_spills_and_parts_change_nothing(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = counted(shards, tmp_path / "one")
    assert counted(shards, tmp_path / "two", workers=2) == one
    monkeypatch.setattr(counting, "FLUSH_CHARS", 30)
    monkeypatch.setattr(counting, "SPILL_WORDS", 10)
    monkeypatch.setattr(counting, "PART_BYTES", 300)
    monkeypatch.setattr(counting, "OPEN_FILES", 4)
    small = counted(shards, tmp_path / "small")
    assert small == one
    assert len(list((tmp_path / "small").glob("counts-*/*.json"))) > len(shards)
    assert len(list((tmp_path / "small").glob("counts-*/merged-0-*.tsv"))) > 1


def test_the_order_of_the_shards_changes_only_the_curve(shards: list[Path], tmp_path: Path) -> None:
    selection = replace(ALL, weights={"case": 0.3})
    forth, back = counted(shards, tmp_path / "a", selection), counted(shards[::-1], tmp_path / "b", selection)
    assert replace(forth, growth=[]) == replace(back, growth=[])
    assert list(forth.words) == list(back.words)


def test_weights_multiply_the_words_of_a_source(shards: list[Path], tmp_path: Path) -> None:
    case, wiki = (plainly(shards, replace(ALL, sources=(name,))) for name in ("case", "wiki"))
    counts = counted(shards, tmp_path / "a", replace(ALL, weights={"case": 3, "wiki": 0.5}))
    # The sum is rounded once, half up.
    expected = {word: (6 * case[word] + wiki[word] + 1) // 2 for word in case | wiki}
    assert counts.words == {word: count for word, count in expected.items() if count}
    assert counts.documents == 60
    none = counted(shards, tmp_path / "b", replace(ALL, weights={"case": 0}))
    assert none.words == wiki
    assert none.documents == 30
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValidationError):
            Recipe(source_weights={"case": wrong})


@pytest.mark.parametrize("most", [1, 5, 10, 20, 1000])
def test_the_rarest_words_are_left_out_together(shards: list[Path], tmp_path: Path, most: int) -> None:
    everything = plainly(shards)
    counts = counted(shards, tmp_path / "a", max_words=most)
    least = next(n for n in range(1, 10**6) if sum(count >= n for count in everything.values()) <= most)
    assert counts.words == {word: count for word, count in everything.items() if count >= least}
    assert counts.least_count == least
    assert counts.left_out_words == len(everything) - len(counts.words)
    assert (counts.total_words, counts.distinct_words) == (everything.total(), len(everything))


def test_the_curve_is_exact_at_every_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "GRAIN_BYTES", 200)
    documents = [
        Document(f"症例{number}番は{'発熱' * (number % 4)}と咳{number * 7919}。", f"d{number}") for number in range(90)
    ]
    paths = [*write_shards(tmp_path / "a", documents[:70], 1), *write_shards(tmp_path / "b", documents[70:], 1)]
    growth = counted(paths, tmp_path / "run").growth
    seen: set[str] = set()
    size, truth = 0, {}
    for document in documents:
        seen |= set(segment(clean(document.text))) - {"\n"}
        size += len(document.text.encode())
        truth[round(size / 1e6, 6)] = len(seen)
    assert len(growth) > 5
    assert growth[-1] == (round(size / 1e6, 6), len(seen))
    assert all(truth[megabytes] == words for megabytes, words in growth)


def test_killed_and_continued_counts_the_same(shards: list[Path], tmp_path: Path) -> None:
    whole = counted(shards, tmp_path / "whole")
    folder = tmp_path / "killed"
    counted(shards, folder)
    piece = sorted(folder.glob("counts-*/*.json"))[1]
    for name in json.loads(piece.read_text())["runs"]:
        (piece.parent / name).write_bytes(b"half a li")  # what a kill before the end may leave
    piece.unlink()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("counts-*/*.json")}
    assert counted(shards, folder, workers=2) == whole
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_workers_end_with_the_run_that_started_them(tmp_path: Path) -> None:
    documents = [Document(f"患者{number}は発熱した。" * 400, f"d{number}") for number in range(4000)]
    shards = write_shards(tmp_path / "shards", documents, 2)
    code = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
from rinsho.progress import Progress
from rinsho.tokenizer.counting import Selection, count_corpus
stage = SimpleNamespace(partial=Path(sys.argv[1]), progress=Progress, log=print)
if __name__ == "__main__":
    count_corpus([Path(name) for name in sys.argv[2:]], Selection(1, (), 1.0, 0.0), None, 2, stage)
"""
    script = tmp_path / "count.py"
    script.write_text(code)
    (tmp_path / "run").mkdir()
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "run"), *map(str, shards)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        assert _soon(lambda: len(_session(process.pid)) >= 3, 20), "no workers"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert _soon(lambda: not _session(process.pid), 10), "workers live on"
    finally:
        for pid in _session(process.pid):
            os.kill(pid, signal.SIGKILL)
    assert not list((tmp_path / "run").glob("counts-*/*.json"))


def _soon(true: object, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def _session(leader: int) -> list[int]:
    """Processes of the session that `leader` began, but for ended ones nobody has waited for."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == leader and fields[0] != "Z":
                found.append(int(entry.name))
    return found


ROWS = st.lists(
    st.tuples(
        st.text(st.characters(exclude_characters="\t\n", exclude_categories=("Cs", "Cc")), min_size=1, max_size=4),
        st.integers(0, 500), st.integers(0, 2), st.integers(1, 10**12),
    ),
    max_size=30,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=5))
def test_merged_runs_are_the_sums(
    tmp_path_factory: pytest.TempPathFactory, runs: list[list[tuple[str, int, int, int]]]
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    paths = [folder / f"{number}.tsv" for number in range(len(runs))]
    sums: dict[str, dict[int, int]] = {}
    first: dict[str, int] = {}
    for path, rows in zip(paths, runs, strict=True):
        write_run(path, rows)
        for word, order, kind, count in rows:
            kinds = sums.setdefault(word, {})
            kinds[kind] = kinds.get(kind, 0) + count
            first[word] = min(order, first.get(word, order))
    found = list(merged(paths))
    assert {word.decode(): counts for word, _, counts in found} == sums
    assert {word.decode(): order for word, order, _ in found} == first
    assert [word for word, _, _ in found] == sorted(word.encode() for word in sums)
    merge_runs(paths, folder / "one")
    assert list(merged([folder / "one"])) == found
