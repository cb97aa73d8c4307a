"""JMED-LLM: the eight tests and their pools as items, read with every mistake named by file and line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rinsho.errors import UserError
from rinsho.tasks import prompts
from rinsho.tasks.item import Item, document_key
from rinsho.tasks.score import parse_list

CHOICE_TASKS = ("jmmlu_med", "crade", "rrtnm", "smdis", "jcsts")
ENTITY_TASKS = ("mrner_disease", "mrner_medicine", "nrner")
TASKS = CHOICE_TASKS + ENTITY_TASKS
LINEAR_KAPPA = ("crade", "jcsts")  # ordered answers: the benchmark weights their kappa linearly

# Pool file -> test task; CRNER feeds two tests, by tag.
POOLS = {
    "JMMLU-Med": "jmmlu_med", "CRADE": "crade", "RRTNM": "rrtnm", "SMDIS": "smdis", "JCSTS": "jcsts",
    "CRNER": "mrner", "RRNER": "mrner_disease", "NRNER": "nrner",
}  # fmt: skip
CRNER_TASKS = {"d": "mrner_disease", "m-key": "mrner_medicine", "m-val": "mrner_medicine"}
STS_SOURCE = Path("jcsts_source", "japanese_clinical_sts_pairs.csv")
OPTION_LETTERS = "ABCDEF"


@dataclass(frozen=True, slots=True)
class Row:
    """One CSV record: its cells by column name, its number from 0 and where it stands."""

    cells: dict[str, str]
    number: int
    where: str


def read_test(folder: Path, tasks: Sequence[str] | None = None) -> list[Item]:
    """The test items of all tasks whose file is there, or of `tasks`, which must be there.

    Raises:
        UserError: an asked-for or every test file is missing, a column is missing, a label is wrong.
    """
    wanted = TASKS if tasks is None else [task for task in TASKS if task in tasks]
    cases = _read_cases(folder / "cases.csv")
    items: list[Item] = []
    for task in wanted:
        path = folder / "datasets" / f"{task}.csv"
        if path.is_file():
            items += [_item(row, task, f"{task}/{row.number:05d}", cases) for row in _rows(path, task)]
        elif tasks is not None:
            raise UserError(
                "the test file is not there", where=path, expected="a JMED-LLM test file", todo="check the folder"
            )
    if not items and tasks is None:
        raise UserError("no JMED-LLM test file in here", where=folder / "datasets", expected="smdis.csv and the like")
    return items


def read_pools(folder: Path) -> list[Item]:
    """All pool rows (test rows included), with the name of the test task that each of them trains."""
    items: list[Item] = []
    for pool, task in POOLS.items():
        path = folder / "datasets" / "all" / f"{pool}.csv"
        if path.is_file():
            for row in _rows(path, task):
                name = task if task != "mrner" else _crner_task(row)
                items.append(_item(row, name, f"all/{pool}/{row.number:05d}", {}))
        elif pool == "JCSTS" and (folder / STS_SOURCE).is_file():
            items += _sts_source(folder)
    if not items:
        raise UserError(
            "no JMED-LLM pool in here", where=folder / "datasets" / "all", expected="SMDIS.csv and the like",
            todo="training needs the pools; check the folder",
        )  # fmt: skip
    return items


def pool_of(item: Item) -> str:
    """The pool file of a pool item: `CRNER` of `all/CRNER/00012` and of `own/all/CRNER/00012`."""
    return item.id.split("/")[-2]


def is_layout(folder: Path) -> bool:
    """Whether this folder looks like JMED-LLM."""
    return (folder / "datasets").is_dir()


def _item(row: Row, task: str, identifier: str, cases: dict[tuple[str, int], tuple[str, ...]]) -> Item:
    question, tag = row.cells["question"], row.cells.get("tag", "")
    passage = _passage(question, task)
    no_options: tuple[str, ...] = ()
    if task in ENTITY_TASKS:
        gold, options = _entities(row), no_options
        wording = prompts.ENTITIES
    else:
        options = _options(row)
        gold = _letter(row, options)
        wording = prompts.CHOICE
    return Item(
        id=identifier, task=task, kind="entities" if task in ENTITY_TASKS else "choice", tag=tag,
        wording=wording, question=question, options=options, gold=gold, passage=passage,
        document=document_key(passage), cases=cases.get((task, row.number), ()), ordered=task in LINEAR_KAPPA,
    )  # fmt: skip


def _passage(question: str, task: str) -> str:
    """The text between 「 and 」 from line 2 on; the pair for jcsts; the whole question where there is none."""
    if task == "jmmlu_med":
        return question
    _, newline, rest = question.partition("\n")
    if not newline:
        return question
    inner = rest.strip()
    if task != "jcsts" and inner.startswith("「") and inner.endswith("」") and len(inner) >= 2:
        return inner[1:-1]
    return inner


def _options(row: Row) -> tuple[str, ...]:
    cells = [row.cells.get(f"option{letter}", "") for letter in OPTION_LETTERS]
    filled = [bool(cell) for cell in cells]
    options = tuple(cell for cell in cells if cell)
    if len(options) < 2 or filled[: len(options)] != [True] * len(options):
        raise UserError(
            "fewer than two options, or an empty one before a filled one",
            where=row.where,
            expected="optionA, optionB, ... filled in order",
        )
    return options


def _letter(row: Row, options: Sequence[str]) -> tuple[str, ...]:
    answer, legal = row.cells["answer"].strip(), OPTION_LETTERS[: len(options)]
    if len(answer) != 1 or answer not in legal:
        raise UserError(
            f"the answer is no label of this row ({len(answer)} characters)",
            where=row.where,
            expected="one of " + ", ".join(legal),
        )
    return (answer,)


def _entities(row: Row) -> tuple[str, ...]:
    found = parse_list(row.cells["answer"]) or []
    entities = tuple(entity for entity in found if isinstance(entity, str) and entity)
    if not entities or len(entities) != len(found):
        raise UserError(
            "the answer is not a list of strings", where=row.where, expected="a list such as ['発熱', '咳']"
        )
    return entities


def _crner_task(row: Row) -> str:
    task = CRNER_TASKS.get(row.cells.get("tag", ""))
    if task is None:
        raise UserError("unknown tag", where=row.where, expected="one of " + ", ".join(CRNER_TASKS))
    return task


def _columns(task: str) -> list[str]:
    options = ["optionA", "optionB"] if task in CHOICE_TASKS else []
    return [*([] if task == "jcsts" else ["tag"]), "question", *options, "answer"]


def _rows(path: Path, task: str) -> Iterator[Row]:
    return read_rows(path, _columns(task))


def read_rows(path: Path, columns: Sequence[str], delimiter: str = ",") -> Iterator[Row]:
    """The records of a CSV file (UTF-8, byte order mark allowed), checked for the columns and for empty questions.

    Raises:
        UserError: not UTF-8, a column missing, a record of another length, an unclosed quote.
    """
    reader = csv.reader(io.StringIO(_utf8(path), newline=""), strict=True, delimiter=delimiter)
    main = "question" if "question" in columns else columns[0]
    try:
        header = next(reader, [])
        missing = [column for column in columns if column not in header]
        if missing:
            raise UserError(
                "missing column " + ", ".join(missing), where=f"{path}:1", expected="the columns " + ", ".join(columns)
            )
        start = reader.line_num + 1
        number = 0
        for cells in reader:
            where, start = f"{path}:{start}", reader.line_num + 1
            if not cells:  # an empty line, as editors leave at the end
                continue
            if len(cells) != len(header):
                raise UserError(f"{len(cells)} cells", where=where, expected=f"{len(header)} cells as in the header")
            row = Row(dict(zip(header, cells, strict=True)), number, where)
            if not row.cells[main].strip():
                raise UserError("an empty cell", where=where, expected=f"text in column {main}")
            yield row
            number += 1
    except csv.Error as error:
        raise UserError(
            f"not readable as CSV ({error})",
            where=f"{path}:{reader.line_num}",
            expected="quoted cells with commas between",
        ) from None


def _utf8(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UserError("not there", where=path, expected="a CSV or TSV file", todo="check the path") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        mixed = not raw[: error.start].removeprefix(b"\xef\xbb\xbf").isascii()
        raise UserError(
            "mixed encodings: UTF-8 before this line, something else in it" if mixed else "not UTF-8",
            where=f"{path}:{line}",
            expected="a UTF-8 file",
            todo="convert it, for instance: iconv -f CP932 -t UTF-8 FILE > NEW",
        ) from None


def _sts_source(folder: Path) -> list[Item]:
    """The JCSTS pool from the sheet it was made of: score 5 is option A, score 0 option F."""
    test = next(iter(_rows(folder / "datasets" / "jcsts.csv", "jcsts")), None)
    if test is None:
        raise UserError(
            "no row to take the options from", where=folder / "datasets" / "jcsts.csv", expected="at least one row"
        )
    options = {name: cell for name, cell in test.cells.items() if name.startswith("option")}
    items = []
    for row in read_rows(folder / STS_SOURCE, ["sentence1", "sentence2", "score"]):
        score = row.cells["score"].strip()
        if score not in ("0", "1", "2", "3", "4", "5"):
            raise UserError("the score is not 0 to 5", where=row.where, expected="an integer from 0 to 5")
        question = prompts.STS_QUESTION.format(first=row.cells["sentence1"], second=row.cells["sentence2"])
        cells = {"question": question, "answer": OPTION_LETTERS[5 - int(score)], **options}
        items.append(_item(Row(cells, row.number, row.where), "jcsts", f"all/JCSTS/{row.number:05d}", {}))
    return items


def _read_cases(path: Path) -> dict[tuple[str, int], tuple[str, ...]]:
    """The named hard cases of test rows, if the data set has such a list (the invented samples do)."""
    if not path.is_file():
        return {}
    found: dict[tuple[str, int], tuple[str, ...]] = {}
    for row in read_rows(path, ["task", "row", "case"]):
        number = row.cells["row"].strip()
        if not number.isascii() or not number.isdigit():
            raise UserError("the row is not a number", where=row.where, expected="the row of the test file, from 0")
        key = (row.cells["task"], int(number))
        found[key] = (*found.get(key, ()), row.cells["case"])
    return found
