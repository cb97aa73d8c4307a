"""Texts of files, tables and folders, each with an id; what is wrong is told by file and line."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from rinsho.clinical.reading import find_data
from rinsho.clinical.work import PIECE_CHARACTERS, PIECE_DOCUMENTS, pieces, write_table
from rinsho.document import Document, compress
from rinsho.errors import UserError


def rows(*given: Path, **options: str) -> list[tuple[str, str]]:
    data = find_data(given, **options)
    found = [(document.id, document.text) for document in data.documents()]
    assert data.count() == len(found)
    return found


def test_text_files_are_named_by_their_place(tmp_path: Path) -> None:
    for name in ("a/1.txt", "b/1.txt", "b/.hidden.txt", "b/dropped/2.txt", "b/picture.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"発熱 {name}", encoding="utf-8")
    assert rows(tmp_path) == [("a/1.txt", "発熱 a/1.txt"), ("b/1.txt", "発熱 b/1.txt")]
    assert rows(tmp_path / "a/1.txt") == [("1.txt", "発熱 a/1.txt")]


def test_tables(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes('\ufeffno,note\r\n1,"発熱\r\nあり, 咳"\r\n\r\n2,\r\n'.encode())
    (tmp_path / "b.tsv").write_text("id\tnote\nx\t胃癌\n\t肺癌\n", encoding="utf-8")
    assert rows(tmp_path, column="note") == [
        ("a.csv:2", "発熱\r\nあり, 咳"), ("a.csv:5", ""), ("x", "胃癌"), ("b.tsv:3", "肺癌"),
    ]  # fmt: skip
    assert rows(tmp_path / "a.csv", column="note", id_column="no") == [("1", "発熱\r\nあり, 咳"), ("2", "")]


def test_json_lines_and_shards(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.jsonl").write_text('{"body": "発熱"}\n{"id": 7, "body": "咳"}\n', encoding="utf-8")
    assert rows(tmp_path, column="body") == [("a/x.jsonl:1", "発熱"), ("7", "咳")]
    (tmp_path / "s.jsonl.zst").write_bytes(compress([Document("胃癌", "d1", {"source": "x"})]))
    assert rows(tmp_path / "s.jsonl.zst") == [("d1", "胃癌")]


@pytest.mark.parametrize(
    ("name", "content", "wrong"),
    [
        ("a.csv", b"id,body\n1,x\n", r"a.csv:1: no column 'text'; expected one of id, body; .* --column NAME"),
        ("a.csv", b"text,text\nx,y\n", r"a.csv:1: two columns 'text'"),
        ("a.csv", b'id,text\n1,"x\n', r"a.csv:2: not readable as a table"),
        ("a.csv", b"id,text\n1,x,y\n", r"a.csv:2: 3 cells; expected 2"),
        ("a.csv", "id,text\n1,発熱\n".encode("cp932"), r"a.csv:2: not UTF-8.*--set extract.encoding=cp932"),
        ("a.csv", b"id,text\n1,x\n2,y\n1,z\n", r"a.csv:4: the same id as \S*a.csv:2;"),
        ("a.jsonl", b'{"id": 1, "text": ""}\n\n{"id": "1", "text": ""}\n', r"a.jsonl:3: the same id as \S*a.jsonl:1;"),
        ("a.csv", b"id,text\n", r"no text in here"),
        ("a.csv", b"", r"no text in here"),
        ("a.txt", "発熱".encode("cp932"), r"a.txt:1: not UTF-8; expected all text files"),
        ("A.TXT", "a\n胃癌の既往".encode("euc-jp"), r"A.TXT:2: not UTF-8; expected all text files"),
        ("a.jsonl", b'{"note": "x"}\n', r"a.jsonl:1: no text in 'text'.* --column NAME"),
        ("a.jsonl", b'{"note": "x\n', r"a.jsonl:1: not JSON; expected one JSON object per line"),
        ("a.png", b"", r"no documents in here"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, name: str, content: bytes, wrong: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=wrong):
        find_data([tmp_path]).count()


def test_other_encodings(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,発熱①\n", encoding="cp932")
    (tmp_path / "b.txt").write_text("胃癌", encoding="cp932")
    (tmp_path / "c.txt").write_text("肺癌", encoding="utf-8-sig")
    (tmp_path / "d.tsv").write_text("id\ttext\n2\t咳嗽\n", encoding="utf-16")
    found = [("1", "発熱①"), ("b.txt", "胃癌"), ("c.txt", "肺癌"), ("2", "咳嗽")]
    assert rows(tmp_path, encoding="cp932") == found
    assert rows(tmp_path / "c.txt", tmp_path / "d.tsv") == found[2:]
    wrong = {"utf-8": "a.csv:2: not utf-8", "euc-jp": "a.csv:2: not euc-jp", "sjs": "unknown encoding 'sjs'"}
    for encoding, told in {**wrong, "hex": "unknown encoding 'hex'"}.items():
        with pytest.raises(UserError, match=told):
            find_data([tmp_path / "a.csv"], encoding=encoding).count()


def test_ids_are_not_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("no,text\nA1,x\nA1,y\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"a.csv:3: the same id as \S*a.csv:2;.*--id-column") as told:
        find_data([tmp_path], id_column="no").count()
    assert "A1" not in str(told.value).replace(str(tmp_path), "")
    with pytest.raises(UserError, match=r"no column 'number'.*column of the ids: --id-column NAME"):
        find_data([tmp_path], id_column="number").count()


def test_pieces_do_not_depend_on_what_is_read_at_once() -> None:
    short = [Document("発熱", str(number)) for number in range(2 * PIECE_DOCUMENTS + 3)]
    assert [len(piece) for piece in pieces(short)] == [PIECE_DOCUMENTS, PIECE_DOCUMENTS, 3]
    long = Document("あ" * (PIECE_CHARACTERS + 1), "long")
    assert [[d.id for d in piece] for piece in pieces([short[0], long, short[1]])] == [["0"], ["long"], ["1"]]


def test_a_table_that_excel_reads(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", ["id", "p", "ok"], [{"id": '発"熱,\n', "p": None, "ok": True}, {"id": "\ud800"}])
    content = (tmp_path / "t.csv").read_bytes()
    assert content == '\ufeffid,p,ok\r\n"発""熱,\n",,true\r\n\\ud800,,\r\n'.encode()


@pytest.mark.parametrize("word", ["=1+1", "@SUM(A1)", "+cmd|x", "-2+3", "\tx", "\rx"])
def test_no_word_is_a_formula(tmp_path: Path, word: str) -> None:
    write_table(tmp_path / "t.csv", ["id", "text", "p"], [{"id": word, "text": "-3.5", "p": -1}])
    with (tmp_path / "t.csv").open(encoding="utf-8-sig", newline="") as file:
        assert list(csv.reader(file))[1] == [f"'{word}", "-3.5", "-1"]
