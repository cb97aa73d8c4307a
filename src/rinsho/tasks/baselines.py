"""What a score has to beat: the commonest answer (of a tag, of a document), n-gram naive Bayes, copying known words.

All of them learn from the training part only. Where a test question has no training row of its tag (or task), they
answer with the commonest label of the task, or with the first option.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rinsho.errors import UserError
from rinsho.tasks.item import Item, labels
from rinsho.tasks.jmed import read_rows

NGRAMS = (1, 2, 3)
SMOOTHING = 0.1
MAX_CHARS = 4_000  # of a question, for naive Bayes
SURFACE_COLUMNS = ("surface", "出現形")  # of our own tables, of the Manbyo dictionary
MIN_ENTITY_CHARS = 2  # single characters stand everywhere inside other words

# Which lexicon kinds a tag asks for (columns of rinsho.samples' terms.csv).
TAG_KINDS: Mapping[str, tuple[str, ...]] = {"d": ("disease", "finding"), "m-key": ("drug",), "m-val": ()}

Group = tuple[str, str]  # (task, tag)


def majority(train: Sequence[Item], tests: Sequence[Item]) -> list[str]:
    """The commonest training label of each test item's task and tag (the alphabetically first of equals).

    A label is the gold letter; of questions with several right letters all of them, joined by commas.
    """
    by_tag: dict[Group, Counter[str]] = {}
    by_task: dict[str, Counter[str]] = {}
    for item in train:
        if item.kind == "choice":
            by_tag.setdefault((item.task, item.tag), Counter())[label(item)] += 1
            by_task.setdefault(item.task, Counter())[label(item)] += 1
    answers = []
    for item in tests:
        counts = by_tag.get((item.task, item.tag)) or by_task.get(item.task) or Counter()
        answers.append(_commonest(counts, item) or ",".join(labels(item)[: len(item.gold)]))
    return answers


def same_document(train: Sequence[Item], tests: Sequence[Item]) -> list[str]:
    """The commonest training label of each test item's task on the same document, whatever was asked about it there.

    Where the training part knows nothing about the document: the majority of the tag. What a model can score that
    remembers training documents and does not read the question (data map, 1.3).
    """
    known: dict[Group, Counter[str]] = {}
    for item in train:
        if item.kind == "choice":
            known.setdefault((item.task, item.document), Counter())[label(item)] += 1
    answers = majority(train, tests)
    for number, item in enumerate(tests):
        answers[number] = _commonest(known.get((item.task, item.document), Counter()), item) or answers[number]
    return answers


def naive_bayes(train: Sequence[Item], tests: Sequence[Item]) -> list[str]:
    """The label that a multinomial naive Bayes on character 1- to 3-grams of the question gives, one per tag.

    The prior of a label is its share of the training rows.
    """
    groups: dict[Group, list[Item]] = {}
    for item in train:
        if item.kind == "choice":
            groups.setdefault((item.task, item.tag), []).append(item)
    fallback = majority(train, tests)
    answers = list(fallback)
    asked: dict[Group, list[int]] = {}
    for number, item in enumerate(tests):
        asked.setdefault((item.task, item.tag), []).append(number)
    for group, numbers in asked.items():
        rows = groups.get(group)
        if rows and len({label(row) for row in rows}) > 1:
            given = _classify(rows, [tests[number] for number in numbers])
            for number, said in zip(numbers, given, strict=True):
                answers[number] = said if _is_legal(said, tests[number]) else fallback[number]
    return answers


def label(item: Item) -> str:
    """The gold letters of a choice as one class: `A`, `A,C`."""
    return ",".join(sorted(item.gold))


def _commonest(counts: Counter[str], item: Item) -> str | None:
    """The commonest of the labels that answer this question (the alphabetically first of equals)."""
    legal = [(-count, name) for name, count in counts.items() if _is_legal(name, item)]
    return min(legal)[1] if legal else None


def _is_legal(name: str, item: Item) -> bool:
    letters = name.split(",")
    return len(letters) == len(item.gold) and set(letters) <= set(labels(item))


def _classify(train: Sequence[Item], tests: Sequence[Item]) -> list[str]:
    """Log-space multinomial naive Bayes over the n-grams that the test questions contain."""
    wanted = [_grams(item.question) for item in tests]
    index: dict[str, int] = {}
    for counts in wanted:
        for gram in counts:
            index.setdefault(gram, len(index))
    classes = sorted({label(item) for item in train})
    table = np.zeros((len(classes), len(index) + 1))  # last column: n-grams no test question has
    rows = np.zeros(len(classes))
    vocabulary: set[str] = set(index)
    for item in train:
        place = classes.index(label(item))
        rows[place] += 1
        grams = _grams(item.question)
        vocabulary.update(grams)
        for gram, count in grams.items():
            table[place, index.get(gram, -1)] += count
    total = table.sum(axis=1, keepdims=True) + SMOOTHING * len(vocabulary)
    weights: npt.NDArray[np.float64] = np.log(table[:, :-1] + SMOOTHING) - np.log(total)
    prior = np.log(rows / rows.sum())
    answers = []
    for counts in wanted:
        places = np.fromiter((index[gram] for gram in counts), dtype=np.int64)
        times = np.fromiter(counts.values(), dtype=np.float64)
        answers.append(classes[int(np.argmax(prior + weights[:, places] @ times))])
    return answers


def _grams(text: str) -> Counter[str]:
    plain = text[:MAX_CHARS]
    found: Counter[str] = Counter()
    for size in NGRAMS:
        found.update(plain[start : start + size] for start in range(len(plain) - size + 1))
    return found


def copy_lexicon(
    train: Sequence[Item], tests: Sequence[Item], lexicon: Mapping[str, Iterable[str]] | None = None
) -> list[list[str]]:
    """For each entity item the known words of its tag that stand in its passage: longest match from the left.

    Known are the gold entities of the training part with that tag (of any task; without tags: of that task) and the
    lexicon's words of the kinds that the tag asks for.

    >>> from rinsho.tasks.prompts import ENTITIES
    >>> first = Item("all/x/0", "nrner", "entities", "d", ENTITIES, "", (), ("発熱", "熱感"), "", "")
    >>> test = Item("nrner/0", "nrner", "entities", "d", ENTITIES, "", (), ("発熱",), "発熱あり、肺炎疑い。", "")
    >>> copy_lexicon([first], [test], {"disease": ["肺炎"]})
    [['発熱', '肺炎']]
    """
    words: dict[str, set[str]] = {}
    for item in train:
        if item.kind == "entities":
            words.setdefault(item.tag or item.task, set()).update(item.gold)
    for tag in {item.tag for item in tests}:
        for kind in TAG_KINDS.get(tag, ()):
            words.setdefault(tag, set()).update((lexicon or {}).get(kind, ()))
    tables = {tag: _by_first(known) for tag, known in words.items()}
    return [_longest_matches(item.passage, tables.get(item.tag or item.task, {})) for item in tests]


def read_lexicon(paths: Sequence[Path], column: str | None = None) -> dict[str, list[str]]:
    """The surfaces by kind of word lists by their columns `column` and `kind` (disease where there is no kind).

    Without `column` it is the first of `SURFACE_COLUMNS` that the table has.

    Raises:
        UserError: a table without such a column.
    """
    found: dict[str, list[str]] = {}
    for path in paths:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        name = column or _surface_column(path, delimiter)
        for row in read_rows(path, [name], delimiter):
            found.setdefault(row.cells.get("kind") or "disease", []).append(row.cells[name])
    return found


def _surface_column(path: Path, delimiter: str) -> str:
    first = path.read_bytes().partition(b"\n")[0].decode("utf-8-sig", "replace") if path.is_file() else ""
    columns = [cell.strip().strip('"') for cell in first.split(delimiter)]
    known = [name for name in SURFACE_COLUMNS if name in columns]
    if first and not known:
        raise UserError(
            "no column that holds the terms", where=f"{path}:1", expected=f"{' or '.join(SURFACE_COLUMNS)}",
            todo=f"set evaluate.lexicon_column to one of its {len(columns)} columns",
        )  # fmt: skip
    return known[0] if known else SURFACE_COLUMNS[0]


def _by_first(words: Iterable[str]) -> dict[str, list[str]]:
    table: dict[str, list[str]] = {}
    for word in words:
        if len(word) >= MIN_ENTITY_CHARS:
            table.setdefault(word[:MIN_ENTITY_CHARS], []).append(word)
    for known in table.values():
        known.sort(key=lambda word: (-len(word), word))
    return table


def _longest_matches(passage: str, table: Mapping[str, Sequence[str]]) -> list[str]:
    found: dict[str, None] = {}
    start = 0
    while start < len(passage):
        word = next(
            (w for w in table.get(passage[start : start + MIN_ENTITY_CHARS], ()) if passage.startswith(w, start)), None
        )
        if word is None:
            start += 1
        else:
            found[word] = None
            start += len(word)
    return list(found)
