"""The table of terms: what is refused and left out, what two lists make of the same term, and its file."""

from pathlib import Path

import pytest

from rinsho.errors import UserError
from rinsho.tokenizer.lexicon import LexiconSettings
from rinsho.tokenizer.lexicon.table import read_table, write_left_out, write_terms

SETTINGS = LexiconSettings()


def _list(path: Path, *rows: str, header: str = "surface,reading,kind") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_terms_are_cleaned_sorted_and_counted(tmp_path: Path) -> None:
    rows = [
        "肺炎球菌,,d",
        "ＭＲＳＡ肺炎,,d",
        "MRSA肺炎,,d",
        "あ,,d",
        "癌,,d",
        "a b,,d",
        "123,,d",
        "いろは" * 22 + ",,d",
    ]
    table = read_table([_list(tmp_path / "a.csv", *rows)], SETTINGS)
    assert [term.surface for term in table.terms] == ["MRSA肺炎", "a b", "癌", "肺炎球菌"]
    assert table.lists[0].rows == 8
    assert table.lists[0].left_out == {"repeated": 1, "too_short": 1, "digits_only": 1, "too_long": 1}
    assert ("a.csv", 4, "repeated") in table.rows_left_out
    assert not table.lists[0].refused


def test_bad_rows_are_refused_by_line_number(tmp_path: Path) -> None:
    good = [f"肺炎{chr(0x3042 + number)}型,,d" for number in range(80)]
    path = _list(tmp_path / "a.csv", *good, ",,d", '"1,25-ビタミン",,d', "肺\x07炎,,d", '"肺""炎",,d')
    table = read_table([path], SETTINGS)
    assert table.lists[0].refused == {"empty": 1, "comma": 1, "control_character": 1, "quote": 1}
    assert table.rows_left_out == [
        ("a.csv", 82, "empty"),
        ("a.csv", 83, "comma"),
        ("a.csv", 84, "control_character"),
        ("a.csv", 85, "quote"),
    ]
    with pytest.raises(UserError, match=r"b.csv:3 \(empty\).*2 of 3 rows"):
        read_table([path, _list(tmp_path / "b.csv", "肺炎球菌,,d", ",,d", ",,x")], SETTINGS)


def test_the_first_list_decides_and_later_ones_fill_in(tmp_path: Path) -> None:
    first = _list(tmp_path / "first.csv", "霧島病,,disease", "足先冷感,あしさきれいかん,finding")
    second = _list(tmp_path / "second.csv", "霧島病,ｷﾘｼﾏﾋﾞｮｳ,other", "足先冷感,ちがう,other", "ナガレチン,,drug")
    table = read_table([first, second], SETTINGS)
    assert [(term.surface, term.reading, term.kind, term.source) for term in table.terms] == [
        ("ナガレチン", "ながれちん", "drug", "second"),
        ("足先冷感", "あしさきれいかん", "finding", "first;second"),
        ("霧島病", "きりしまびょう", "disease", "first;second"),
    ]
    assert [counts.terms for counts in table.lists] == [2, 1]
    assert table.first_list == {"霧島病": 0, "足先冷感": 0, "ナガレチン": 1}


def test_the_written_table_reads_as_it_is(tmp_path: Path) -> None:
    first = _list(tmp_path / "first.csv", "霧島病,きりしまびょう,disease", "a b,,x y")
    second = _list(tmp_path / "second.csv", "霧島病,,other")
    table = read_table([first, second], SETTINGS)
    target = tmp_path / "terms.tsv"
    write_terms(table.terms, target)
    assert target.read_text(encoding="utf-8").splitlines() == [
        "surface\treading\tkind\tsource",
        "a b\t\tx_y\tfirst",
        "霧島病\tきりしまびょう\tdisease\tfirst;second",
    ]
    assert read_table([target], SETTINGS).terms == table.terms


def test_left_out_rows_and_terms_without_their_text(tmp_path: Path) -> None:
    table = read_table([_list(tmp_path / "a.csv", "霧島病,,d", "霧島病,,d", "足先冷感,,d")], SETTINGS)
    write_left_out(table, {"霧島病": "false_merge"}, tmp_path / "left_out.tsv")
    assert (tmp_path / "left_out.tsv").read_text(encoding="utf-8").splitlines() == [
        "file\tline\tleft_out_of\treason",
        "a.csv\t3\tterms.tsv\trepeated",
        "terms.tsv\t3\tuser.dic\tfalse_merge",
    ]
