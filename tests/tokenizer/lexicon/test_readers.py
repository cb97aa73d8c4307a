"""Word lists as they are published: known by their header, in any usual encoding."""

from pathlib import Path

import pytest

from rinsho.errors import UserError
from rinsho.tokenizer.lexicon import LexiconSettings, Term
from rinsho.tokenizer.lexicon.readers import open_list
from rinsho.tokenizer.lexicon.table import read_table


def _list(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path


def _terms(path: Path, **settings: object) -> list[tuple[str, str, str, str]]:
    table = read_table([path], LexiconSettings.model_validate(settings))
    return [(term.surface, term.reading, term.kind, term.source) for term in table.terms]


def test_manbyo_in_its_three_forms(tmp_path: Path) -> None:
    mini = _list(
        tmp_path / "a.txt",
        "出現形\tICDコード\t標準病名\tしゅつげんけい\t頻度",
        "夜間咳嗽\tR05\t咳嗽\tやかんがいそう\t7",
    )
    assert _terms(mini) == [("夜間咳嗽", "やかんがいそう", "disease", "manbyo")]
    assert open_list(mini, LexiconSettings()).form == "manbyo"
    header = "出現形,出現形よみ,ICDコード,標準病名,信頼度レベル,頻度レベル"
    rows = [
        "夜間咳嗽,ヤカンガイソウ,R05,咳嗽,S,高",
        "足先冷感,あしさきれいかん,R208,冷感,C,低",
        "夜だけ咳,よるだけせき,R05,咳嗽,D,低",
    ]
    new = _list(tmp_path / "b.csv", header, *rows)
    assert [row[:2] for row in _terms(new)] == [("夜間咳嗽", "やかんがいそう"), ("足先冷感", "あしさきれいかん")]
    assert len(_terms(new, lowest_reliability="D")) == 3
    assert len(_terms(new, lowest_reliability="S")) == 1
    assert read_table([new], LexiconSettings()).rows_left_out == [("b.csv", 4, "reliability")]
    header = "出現形,ICDコード,標準病名,しゅつげんけい;icd=ICDコード;lv=信頼度LEVEL/freq=頻度LEVEL;標準病名"
    rows = [
        "夜間咳嗽,R05,咳嗽,やかんがいそう;icd=R05;lv=A/freq=高;咳嗽",
        "夜だけ咳,R05,咳嗽,よるだけせき;icd=R05;lv=E/freq=低;咳嗽",
    ]
    assert [row[:2] for row in _terms(_list(tmp_path / "c.csv", header, *rows))] == [("夜間咳嗽", "やかんがいそう")]


def test_nando_labels_synonyms_and_what_stands_before_a_bracket(tmp_path: Path) -> None:
    path = _list(
        tmp_path / "nando.tsv",
        "nando_id\tja\tja_hira\ten\tja_synonyms\tmondo",
        "NANDO:1\t霧島病（軽症型）\tきりしまびょう（けいしょうがた）\tKirishima disease\t霧島型石灰症|Kirishima病\t",
    )
    assert _terms(path) == [
        ("Kirishima病", "", "disease", "nando"),
        ("霧島型石灰症", "", "disease", "nando"),
        ("霧島病", "きりしまびょう", "disease", "nando"),
        ("霧島病(軽症型)", "きりしまびょう(けいしょうがた)", "disease", "nando"),
    ]


def test_nando_as_turtle(tmp_path: Path) -> None:
    head = "<http://example.org/ontology/NANDO_"
    path = _list(
        tmp_path / "nando.ttl",
        "@prefix owl: <http://www.w3.org/2002/07/owl#> .",
        "",
        f"{head}1>",
        "    a owl:Class ;",
        '    rdfs:label "Kirishima disease"@en, "きりしまびょう"@ja-Hira, "霧島病"@ja ;',
        '    skos:altLabel "KD"@en, "霧島型石灰症"@ja ;',
        '    skos:prefLabel "霧島病"@ja .',
        "",
        f"{head}2>",
        '    rdfs:label "古い病"@ja ;',
        "    owl:deprecated true .",
        "",
        "<http://example.org/ontology/hasNumber>",
        '    rdfs:label "告示番号"@ja .',
    )
    assert [row[:2] for row in _terms(path)] == [("霧島型石灰症", ""), ("霧島病", "きりしまびょう")]


def test_the_price_list_gives_ingredients_and_products_as_notes_write_them(tmp_path: Path) -> None:
    path = _list(
        tmp_path / "prices.csv",
        "区分,薬価基準収載医薬品コード,成分名,規格,品名,メーカー名",
        "内用薬,1,ナガレチン塩酸塩水和物,５ｍｇ１錠,ナガレチン塩酸塩ＯＤ錠５ｍｇ「ミナト」,ミナト製薬",
        "内用薬,2,ナガレチン塩酸塩水和物,１０ｍｇ１錠,ナガレール１０ｍｇ錠,ミナト製薬",
        "内用薬,3,,１ｇ,霧島湯エキス顆粒（医療用）,",
        encoding="cp932",
    )
    found = {surface: kind for surface, _, kind, _ in _terms(path)}
    ingredients = {"ナガレチン塩酸塩水和物", "ナガレチン"}
    products = {
        "ナガレチン塩酸塩OD錠",
        "ナガレチン塩酸塩OD",
        "ナガレチン塩酸塩",
        "ナガレール錠",
        "ナガレール",
        "霧島湯エキス顆粒",
        "霧島湯",
    }
    assert found == dict.fromkeys(ingredients, "drug_ingredient") | dict.fromkeys(products, "drug_product")
    assert {row[0]: row[1] for row in _terms(path)}["ナガレチン"] == "ながれちん"
    assert open_list(path, LexiconSettings()).encoding == "cp932"


def test_named_columns_and_lists_without_a_header(tmp_path: Path) -> None:
    path = _list(tmp_path / "own list.csv", "番号,用語,かな,分類", "1,足先冷感,アシサキレイカン,所見", "2,霧島病,,")
    named = {"surface_column": "用語", "reading_column": "かな", "kind_column": "分類", "kind": "misc"}
    assert _terms(path, **named) == [
        ("足先冷感", "あしさきれいかん", "所見", "own_list"),
        ("霧島病", "", "misc", "own_list"),
    ]
    with pytest.raises(UserError, match=r"own list.csv: the columns of this word list are not known"):
        _terms(path)
    with pytest.raises(UserError, match="no column よみ"):
        _terms(path, surface_column="用語", reading_column="よみ")
    with pytest.raises(UserError, match="no column term"):
        _terms(path, surface_column="term")
    plain = _list(tmp_path / "plain.txt", "足先冷感", "", "霧島病")
    assert [row[:3] for row in _terms(plain, kind="finding")] == [
        ("足先冷感", "", "finding"),
        ("霧島病", "", "finding"),
    ]
    both = read_table([path, _list(tmp_path / "b.csv", "surface", "夜間咳嗽")], LexiconSettings(surface_column="用語"))
    assert [counts.form for counts in both.lists] == ["named columns", "terms"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp932", "utf-16"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    path = _list(tmp_path / "a.csv", "surface,kind", "霧島病,d", encoding=encoding)
    assert _terms(path) == [("霧島病", "", "d", "a")]
    assert open_list(path, LexiconSettings()).encoding == encoding.removesuffix("-sig")


def test_a_title_above_the_header_and_blank_rows(tmp_path: Path) -> None:
    path = _list(tmp_path / "a.csv", "院内用語集,,", "surface,kind,", ",,", "霧島病,d,")
    assert [row[0] for row in _terms(path)] == ["霧島病"]


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not there"):
        _terms(tmp_path / "nowhere.csv")
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"save it as CSV \(UTF-8\)"):
        _terms(tmp_path / "a.xlsx")
    (tmp_path / "b.csv").write_bytes(b"surface\n\x81\x20\n")
    with pytest.raises(UserError, match="neither UTF-8 nor CP932"):
        _terms(tmp_path / "b.csv")
    with pytest.raises(UserError, match=r"c.csv:3: not readable as a table"):
        _terms(_list(tmp_path / "c.csv", "surface,kind", "霧島病,d", '"足先冷感,d', "夜間咳嗽,d"))


def test_a_term_is_a_plain_row() -> None:
    assert Term("霧島病", "", "disease", "nando") == Term("霧島病", "", "disease", "nando")
