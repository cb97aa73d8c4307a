"""The chapter on analogies and what `rinsho analyse analogy` prints."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from analyse.toy_space import toy_folder
from rinsho import cli_parser
from rinsho.analyse.analogy import REPORT, AnalogySettings, analogies, as_text, command
from rinsho.analyse.analogy_figure import _end
from rinsho.analyse.analogy_space import parse
from rinsho.errors import UserError
from rinsho.score_figures import in_page_colors

LIST = "a\tb\tc\tanswers\trelation\n肺\t肺癌\t心\t心筋梗塞\torgan\n肺\t肺癌\t咳\t咳嗽\tsign\n𠮷\t肺癌\t心\t癌\tsign\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "list.tsv"
    path.write_text(LIST, encoding="utf-8")
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")  # for spreadsheets
    with path.open(encoding="utf-8-sig", newline="") as opened:
        return list(csv.DictReader(opened))


def test_the_reports_lists_are_five_of_five() -> None:
    assert len(REPORT) == 5
    for expression, rows in REPORT.items():
        assert [term.sign for term in parse(expression)] == [1, -1, 1]
        assert len(rows) == 5
        assert sorted((figure for _, figure in rows), reverse=True) == [figure for _, figure in rows]


def test_the_chapter_its_files_and_numbers(model: Path, file: Path, tmp_path: Path) -> None:
    settings = AnalogySettings(file=file, expressions=("肺癌 - 肺 + 心", "<b>肺 + 𠮷"), count=7, permutations=10)
    part = analogies(model, tmp_path, settings, 1)
    assert part.id == "analogies"
    assert all((tmp_path / name).stat().st_size > 0 for name in part.files)
    near = [row for row in read_csv(tmp_path / "neighbours.csv") if row["expression"] == "肺癌 - 肺 + 心"]
    assert [row["place"] for row in near] == [*"1234567"]
    assert near[0]["token"] == "心筋梗塞"
    assert float(near[0]["cosine"]) > 0.9
    rows = read_csv(tmp_path / "rows.csv")
    assert [row["rank"] for row in rows] == ["1", "1", ""]
    assert rows[2]["problem"] == "not representable: 𠮷"
    relations = read_csv(tmp_path / "relations.csv")
    assert [(row["relation"], row["rows"], row["answerable"], row["top1"]) for row in relations] == [
        ("all", "3", "2", "1.0"), ("organ", "1", "1", "1.0"), ("sign", "2", "1", "1.0"),
    ]  # fmt: skip
    assert json.loads(json.dumps(part.numbers))["relations"][0]["top1"] == 1.0
    assert "&lt;b&gt;肺" in part.html
    assert "<b>肺" not in part.html
    assert "消化管出血" in part.html  # the report's answers stand beside
    assert "| 肺癌 - 肺 + 心 | 心筋梗塞 " in part.markdown


@pytest.mark.slow
def test_the_same_bytes_again(model: Path, file: Path, tmp_path: Path) -> None:
    made = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        part = analogies(model, folder, AnalogySettings(file=file, permutations=3), 1)
        made.append((part, {path.name: path.read_bytes() for path in sorted(folder.iterdir())}))
    assert made[0] == made[1]


def test_the_figure_shows_each_relation(model: Path, file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    part = analogies(model, tmp_path, AnalogySettings(file=file, permutations=3), 1)
    assert {"relations.svg", "relations.png"} <= set(part.files)
    svg = (tmp_path / "relations.svg").read_text(encoding="utf-8")
    assert svg.startswith("<svg")
    assert in_page_colors(svg) in part.html
    assert "var(--ink" in part.html
    for text in ("organ (1)", "sign (1)", "all (2)", "c alone", "permuted vocabulary, mean"):
        assert text in svg


@pytest.mark.parametrize(
    ("top", "high", "end"), [(0.01, 0.03, 0.0315), (0.2, 0.21, 0.25), (0.9, 1.0, 1.02), (0, 0, 0.02)]
)
def test_the_axis_ends_a_little_above_the_largest_mark(top: float, high: float, end: float) -> None:
    rows = [
        {"top5": top, "alone_top5": 0.0, "permuted_top5": None, "interval_top5": (0.0, high)},
        {"top5": 0.0, "alone_top5": top / 2, "permuted_top5": None, "interval_top5": (0.0, 0.8)},  # few rows
    ]
    assert _end(rows) == pytest.approx(end)


def test_without_matplotlib_or_answers_the_tables_remain(
    model: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rinsho.analyse.analogy.importlib.util.find_spec", lambda name: None)
    part = analogies(model, tmp_path, AnalogySettings(file=file), 1)
    assert part.files == ("neighbours.csv", "rows.csv", "relations.csv")
    assert "matplotlib is not installed" in part.html
    monkeypatch.undo()
    file.write_text("a\tb\tc\tanswers\n𠮷\t肺癌\t心\t癌\n", encoding="utf-8")
    part = analogies(model, tmp_path, AnalogySettings(file=file), 1)
    assert "No figure" in part.html
    assert part.numbers["relations"][0]["top1"] is None
    assert "0 of 1 | - | - | - | - | - | - | - |" in part.markdown


def test_relations_in_japanese_without_a_font_make_no_boxes(
    model: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    file.write_text(LIST.replace("organ", "臓器"), encoding="utf-8")
    monkeypatch.setattr("rinsho.analyse.curve_figures.japanese_font", lambda: None)
    part = analogies(model, tmp_path, AnalogySettings(file=file), 1)
    assert {path.name for path in tmp_path.glob("relations.*")} == {"relations.csv", "relations.svg"}
    assert "SVG alone" in part.html


def test_mistakes_are_found_before_the_model_is_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"analyse\.analogies\.expressions: '肺 - ': a sign without a word"):
        analogies(tmp_path / "no", tmp_path, AnalogySettings(expressions=("肺 - ",)), 1)
    with pytest.raises(UserError, match=r"^'肺 - ': a sign without a word"):
        command(tmp_path / "no", ["肺 - "])
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match="a GGUF file has no weights"):
        command(tmp_path / "model.gguf")


def test_expressions_may_stand_after_an_option() -> None:
    options = cli_parser.parse(["analyse", "analogy", "m", "肺", "--count", "3", "肺炎 - 肺", "- 脳 + 心臓"])
    assert (options.expressions, options.count) == (["肺", "肺炎 - 肺", "- 脳 + 心臓"], 3)
    with pytest.raises(SystemExit):
        cli_parser.parse(["analyse", "analogy", "m", "--count", "3", "肺", "--no"])


def test_printed_neighbours(model: Path) -> None:
    text = command(model, ["肺癌－肺＋心", "急性咳嗽", "肺 + 𠮷"], None, 2)
    first, second, third = text.split("\n\n")
    lines = first.splitlines()
    assert lines[0] == "肺癌 - 肺 + 心"
    assert lines[1].split() == ["0.97", "心筋梗塞"]  # 0.96 by hand, and the mean of all taken away
    assert len(lines) == 5
    assert re.fullmatch(r"  all tokens: half below -?0\.\d\d, 95 % below 0\.\d\d", lines[3])
    assert lines[4].startswith("  left out: ")
    assert "急性咳嗽: mean of its tokens 急性|咳嗽" in second
    assert "no answer: not representable: 𠮷" in third


def test_without_expressions_the_reports_lists(model: Path) -> None:
    text = command(model)
    assert [block.splitlines()[0] for block in text.split("\n\n")] == list(REPORT)
    shown = {
        "expression": "a", "words": [], "rows": [{"token": "b", "cosine": 0.5}], "left_out": [], "problem": "",
        "median": 0.1, "high": 0.2,
        "report": [{"token": "c", "figure": 0.85, "cosine": None}],
    }  # fmt: skip
    assert "0.50  b    (report: c 0.85; here not representable)" in as_text(shown)


def test_the_reports_answers_stand_beside_however_its_expression_is_written(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REPORT, "肺癌 - 肺 + 心", (("心筋梗塞", 0.85), ("𠮷", 0.64)))
    lines = command(model, ["肺癌－肺＋心"], None, 3).splitlines()
    assert lines[1].endswith("(report: 心筋梗塞 0.85; here 0.97)")
    assert lines[2].endswith("(report: 𠮷 0.64; here not representable)")
    assert "report" not in lines[3]


def test_a_file_of_expressions_gives_a_table(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("# 例\n肺癌 - 肺 + 心\n\n肺 + 𠮷\n", encoding="utf-8")
    header, first, second = command(model, [], path, 2).splitlines()
    assert header.split("\t") == ["expression", "median of all", "95 % of all", "neighbours"]
    assert first.split("\t")[::3] == ["肺癌 - 肺 + 心", "心筋梗塞 0.97"]
    assert len(first.split("\t")) == 5
    assert second.split("\t") == ["肺 + 𠮷", "", "", "not representable: 𠮷"]
    path.write_text("肺\n肺 - \n", encoding="utf-8")
    with pytest.raises(UserError, match=r"lines\.txt:2: a sign without a word"):
        command(model, [], path)
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(UserError, match="no expressions in here"):
        command(model, [], path)


def test_a_test_list_gives_its_rows_and_accuracy(model: Path, file: Path) -> None:
    table, accuracy = command(model, [], file).split("\n\n")
    rows = list(csv.DictReader(table.splitlines(), delimiter="\t"))
    assert [row["found"] for row in rows] == ["心筋梗塞", "咳嗽", ""]
    assert "| all | 2 of 3 | 100.0% | 100.0% |" in accuracy
