"""Topics of word lists: which columns, kinds and names, and errors that name file and line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rinsho.errors import UserError
from rinsho.synthesize.topics import family, in_japanese, read_topics, sort_inputs


def table(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


TERMS = (
    "surface\treading\tkind\tsource\n肺炎\tはいえん\tdisease\tmanbyo\nmg/dL\t\tunit\tunits\n"
    "アムロジピン\tあむろじぴん\tdrug_ingredient\tdrug_price_list\n胸痛\t\tsymptom\tx\n"
)


def test_terms_of_the_lexicon_are_topics_but_for_units(tmp_path) -> None:
    table(tmp_path / "terms.tsv", TERMS)
    found = read_topics([tmp_path], None, None, 1)
    assert [(topic.name, topic.kind, topic.reading) for topic in found] == [
        ("肺炎", "disease", "はいえん"),
        ("アムロジピン", "drug_ingredient", "あむろじぴん"),
        ("胸痛", "symptom", ""),
    ]
    assert [topic.name for topic in read_topics([tmp_path], ("drug", "unit"), None, 1)] == ["mg/dL", "アムロジピン"]
    for kinds in (("diseases",), ("drug", "diseases")):  # one that is misspelt, alone or with another
        with pytest.raises(
            UserError, match=r"topic_kinds.*'diseases' \(did you mean 'disease'.*drug_ingredient, symptom"
        ):
            read_topics([tmp_path], kinds, None, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("出現形,ICDコード,しゅつげんけい\n疼痛,R529,とうつう;icd=R529\n", ("疼痛", "disease", "とうつう")),
        ("番号,標準病名\n1,喘息\n", ("喘息", "disease", "")),
        ("topic,kind\n採血,看護 技術\n", ("採血", "看護_技術", "")),
        ("検査名\tメモ\nＨｂＡ１ｃ\t\n", ("HbA1c", "examination", "")),
        ("nando_id,ja,ja_hira\nN:1,難病,なんびょう\n", ("難病", "disease", "なんびょう")),
        ('\n\ntopic\n\n"急性, 慢性の違い"\n', ("急性, 慢性の違い", "term", "")),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp932", "utf-16"])
def test_tables_are_known_by_their_header(tmp_path, text: str, expected: tuple[str, ...], encoding: str) -> None:
    topics = read_topics([table(tmp_path / "words.csv", text, encoding)], None, None, 1)
    assert [(topic.name, topic.kind, topic.reading) for topic in topics] == [expected]


def test_equal_names_stand_once_and_ids_stay_when_lists_grow(tmp_path) -> None:
    first = table(tmp_path / "a.csv", "topic,kind,reading\n肺炎,disease,\n喘息,disease,ぜんそく\n")
    second = table(tmp_path / "b.csv", "topic,kind,reading\n心不全,disease,\n肺炎,finding,はいえん\n 喘息 ,disease,x\n")
    topics = read_topics([first, second], None, None, 1)
    assert [(topic.name, topic.kind, topic.reading) for topic in topics] == [
        ("肺炎", "disease", "はいえん"),
        ("喘息", "disease", "ぜんそく"),
        ("心不全", "disease", ""),
    ]
    ids = {topic.name: topic.id for topic in topics}
    other = read_topics([table(tmp_path / "c.csv", "kind,topic\ndisease,心不全\ndisease,肺炎\n")], None, None, 2)
    assert {topic.name: topic.id for topic in other} == {name: ids[name] for name in ("心不全", "肺炎")}
    kinds = read_topics([table(tmp_path / "d.csv", "kind,topic\ndrug,肺炎\n")], None, None, 1)
    assert kinds[0].id != ids["肺炎"]


def test_a_sample_is_drawn_by_the_seed_and_stays_when_topics_are_added(tmp_path) -> None:
    names = [f"病{number}" for number in range(400)]
    small = table(tmp_path / "small.csv", "topic\n" + "\n".join(names[:380]))
    large = table(tmp_path / "large.csv", "topic\n" + "\n".join(names))
    one = [topic.name for topic in read_topics([small], None, 100, 1)]
    assert len(one) == 100 and one == sorted(one, key=names.index)
    assert one != [topic.name for topic in read_topics([small], None, 100, 2)]
    again = [topic.name for topic in read_topics([large], None, 100, 1)]
    assert len(set(one) & set(again)) > 85
    assert len(read_topics([small], None, 1000, 1)) == 380


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,code\n肺炎,1\n", r"words\.csv:1: the columns .* rinsho tokenizer lexicon"),
        ("区分,成分名,品名\n内用薬,甲,乙\n", r"words\.csv:1: the columns .* rinsho tokenizer lexicon"),
        ("topic,kind\n肺炎,x\n,disease\n", r"words\.csv:3: a row without a topic"),
        ("kind,topic\ndisease\n", r"words\.csv:2: a row without a topic"),
        ("topic\n" + "".join(map(chr, range(0x4E00, 0x4E00 + 101))) + "\n", r"words\.csv:2: a topic of 101 characters"),
        ('topic\n肺炎\n"喘息\n', r"words\.csv:3: not readable as a table"),
        ("topic\n\n", r"words\.csv: the word list is empty"),
        ("", r"words\.csv:1: the columns"),
    ],
)
def test_errors_name_file_and_line(tmp_path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        read_topics([table(tmp_path / "words.csv", text)], None, None, 1)
    assert "肺炎" not in str(error.value) and "喘息" not in str(error.value)


def test_bytes_that_are_no_text_are_named(tmp_path) -> None:
    (tmp_path / "words.csv").write_bytes("topic\n肺炎\n".encode() + b"\xff\xfe\x80\x81\n")
    with pytest.raises(UserError, match=r"words\.csv:3: neither UTF-8 nor CP932"):
        read_topics([tmp_path / "words.csv"], None, None, 1)


def test_inputs_are_sorted(tmp_path) -> None:
    lexicon, corpus, lists, notes = (tmp_path / name for name in ("lexicon", "corpus", "lists", "notes.txt"))
    for folder in (lexicon, corpus / "shards", lists):
        folder.mkdir(parents=True)
    terms = table(lexicon / "terms.tsv", TERMS)
    table(lexicon / "left_out.tsv", "file\tline\n")
    table(corpus / "shards" / "0.jsonl", '{"text": "甲"}\n')
    words = table(lists / "words.csv", "topic\n肺炎\n")
    table(notes, "本文。")
    assert sort_inputs([lexicon, corpus, lists, notes, words]) == ([terms, words, words], [corpus, notes])
    with pytest.raises(UserError, match="not there"):
        sort_inputs([tmp_path / "nothing"])
    with pytest.raises(UserError, match=r"neither a word list nor documents.*\.csv"):
        sort_inputs([table(tmp_path / "words.xlsx", "x")])


def test_families_and_names() -> None:
    assert [family(kind) for kind in ("drug_product", "test", "疾患", "手技")] == [
        "drug",
        "examination",
        "disease",
        "手技",
    ]
    assert [in_japanese(kind) for kind in ("drug_ingredient", "test", "term", "手技")] == [
        "医薬品の成分",
        "検査",
        "",
        "手技",
    ]


def test_many_terms_are_read_fast(tmp_path) -> None:
    rows = "".join(f"第{number}型症候群\tだい{number}がたしょうこうぐん\tdisease\tx\n" for number in range(100_000))
    path = table(tmp_path / "terms.tsv", "surface\treading\tkind\tsource\n" + rows)
    started = time.process_time()
    assert len(read_topics([path], None, 1000, 1)) == 1000
    assert time.process_time() - started < 4  # 1.1 s
