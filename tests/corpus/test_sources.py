"""Every form and layout of input gives the documents it holds; what cannot be read is told by place and reason."""

import base64
import csv
import dataclasses
import functools
import gzip
import io
import json
import os
import pickle
import re
import threading
import tracemalloc
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from rinsho.corpus import Recipe
from rinsho.corpus.sources import HuggingFace, Source, SourceFile, fetch, fetched, files, problem, read
from rinsho.corpus.sources.encodings import codec, decode, detect
from rinsho.corpus.sources.fhir import html_text
from rinsho.errors import UserError
from rinsho.run import Stage

NOTE = "主訴：発熱、咳嗽。\nﾛｷｿﾆﾝ錠６０㎎を①回１錠、髙橋医師より処方。"
HALF = "ﾊｲｴﾝﾉｳﾀｶﾞｲ､ﾎﾞｳｶﾞｻﾝﾆﾃｶﾀﾞｲ｡"


def zst(data):
    return zstandard.ZstdCompressor().compress(data)


def lines(*rows):
    return b"".join(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n" for row in rows)


def read_one(path, data, **settings):
    """(documents, [(line, reason)]) of a file with this content."""
    path.write_bytes(data)
    recipe = Recipe(sources=(Source(**settings),))
    [file] = files(recipe, [path])
    broken = []
    found = list(read(file, broken.append))
    return found, [(row.where.removeprefix(str(path)).removeprefix(":"), row.reason) for row in broken]


def texts(path, data, **settings):
    found, broken = read_one(path, data, **settings)
    assert broken == []
    return [document.text for document in found]


# Which file is read how


def test_files_are_sorted_resolved_and_taken_by_the_first_pattern_that_fits(tmp_path):
    for name in (
        "b/x.csv",
        "a/x.jsonl",
        "a/notes.txt",
        "c/AA/wiki_00",
        "dropped/x.csv",
        ".hidden.csv",
        "log.txt",
        "x.pdf",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    recipe = Recipe(sources=(Source(files="b/*", name="hospital", license="own"), Source(files="*.csv", name="never")))
    found = files(recipe, [tmp_path])
    assert [file.name for file in found] == ["a/notes.txt", "a/x.jsonl", "b/x.csv", "c/AA/wiki_00"]
    assert [file.settings.name for file in found] == ["a", "", "hospital", ""], "text files count for their folder"
    assert all(None not in dataclasses.asdict(file.settings).values() for file in found)
    assert pickle.loads(pickle.dumps(found)) == found
    assert isinstance(found[0], SourceFile)


def test_recipe_fields_hold_where_a_source_names_none(tmp_path):
    data = lines({"body": "咳がある。", "nr": 7, "site": "a"})
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    [file] = files(Recipe(text_field="body", id_field="nr", source_field="site"), [path])
    [document] = read(file, print)
    assert (document.text, document.id, document.meta) == ("咳がある。", "7", {"site": "a"})


def test_text_of_several_and_of_nested_fields_is_joined_and_leaves_the_meta(tmp_path):
    row = {"id": "r1", "title": "", "note": {"text": "発熱あり。", "by": "x"}, "parts": [{"t": "咳。"}, {"t": "痰。"}]}
    [document], _ = read_one(tmp_path / "a.ndjson", lines(row), text_field=("title", "note.text", "parts.t"))
    assert document.text == "発熱あり。\n咳。\n痰。"
    assert document.meta == {"title": "", "note": {"by": "x"}} or document.meta == {"note": {"by": "x"}}


def test_license_is_added_where_the_record_has_none(tmp_path):
    found, _ = read_one(tmp_path / "a.jsonl", lines({"text": "a"}, {"text": "b", "license": "CC0"}), license="own")
    assert [document.meta["license"] for document in found] == ["own", "CC0"]
    assert [document.id for document in found] == ["a.jsonl:1", "a.jsonl:2"]


def test_a_wrong_text_field_names_the_fields_and_no_content(tmp_path):
    with pytest.raises(
        UserError, match=r"no record has the text field 'text'.*one of the fields honbun, 種別"
    ) as error:
        read_one(tmp_path / "a.jsonl", lines({"honbun": "秘密の本文", "種別": "記録"}))
    assert "秘密" not in str(error.value)
    for cell in ("山田太郎", "honbun"):  # a first row that looks like names may be a patient's
        with pytest.raises(
            UserError, match=r"no single column 'text'.*column names in the first line, which has 2 fields"
        ) as error:
            read_one(tmp_path / "a.csv", f"{cell},肺炎\n{cell},記録\n".encode())
        assert cell not in str(error.value)
        assert "肺炎" not in str(error.value)


def test_a_text_field_that_holds_numbers_is_told_as_such(tmp_path):
    with pytest.raises(UserError, match=r"the field 'text' holds no text \(numbers or nothing\) in any record"):
        read_one(tmp_path / "a.jsonl", lines(*[{"text": 1}] * 1000))


def test_null_is_an_empty_text_and_a_missing_field_is_broken(tmp_path):
    rows = [{"text": None, "id": "a"}, {"id": "b"}, {"text": 1}, {"text": "咳。", "id": "c"}]
    found, broken = read_one(tmp_path / "a.jsonl", lines(*rows))
    assert [(document.id, document.text, document.meta) for document in found] == [("a", "", {}), ("c", "咳。", {})]
    assert broken == [("2", "no_text"), ("3", "no_text")]
    rows = [{"title": None, "note": {"text": "咳。"}}, {"title": "記録", "note": None}, {"title": None, "note": None}]
    fields = ("title", "note.text")
    assert texts(tmp_path / "a.jsonl", lines(*rows), text_field=fields) == ["咳。", "記録", ""]
    assert texts(tmp_path / "a.jsonl", lines(OSCAR | {"content": None})) == [""]
    assert texts(tmp_path / "a.jsonl", lines({"text": None}), layout="wiki40b") == [""]


@pytest.mark.parametrize("data", [b"", b"\n", b" \r\n\t\n", b"\xef\xbb\xbf"])
def test_an_empty_csv_file_has_no_records(tmp_path, data):
    assert read_one(tmp_path / "a.csv", data) == ([], [])


def test_blank_lines_before_the_header_are_passed_over_and_counted(tmp_path):
    found, broken = read_one(tmp_path / "a.csv", b"\n \ntext,n\na,1\nb\n")
    assert ([document.id for document in found], broken) == (["a.csv:4"], [("5", "wrong_field_count")])


@pytest.mark.parametrize("name", ["A.CSV", "A.JSONL", "A.Txt"])
def test_endings_count_in_any_case(tmp_path, name):
    data = {"A.CSV": b"text\na\n", "A.JSONL": b'{"text": "a"}\n', "A.Txt": b"a"}[name]
    path = tmp_path / name
    path.write_bytes(data)
    [file] = files(Recipe(), [tmp_path / name])
    assert [document.text for document in read(file, print)] == ["a"]


@pytest.mark.parametrize("name, pack", [("a.jsonl", bytes), ("a.ndjson.gz", gzip.compress), ("a.jsonl.zst", zst)])
def test_json_lines_packed_or_not(tmp_path, name, pack):
    data = (
        lines({"text": NOTE}, {"no": 1}) + b"\n{\n" + b'{"text":"\xff"}\n' + lines({"text": "\ud800咳"} | {"n": 2**70})
    )
    found, broken = read_one(tmp_path / name, pack(data.replace(b"\xed\xa0\x80", b"\\ud800")))
    assert [document.text for document in found] == [NOTE, "\ud800咳"]
    assert found[1].meta == {"n": 2**70}
    assert broken == [("2", "no_text"), ("4", "invalid_json"), ("5", "invalid_utf8")]


@pytest.mark.parametrize("name, pack", [("a.csv.gz", gzip.compress), ("a.jsonl.zst", zst), ("a.txt.zst", zst)])
def test_a_file_that_is_cut_off_is_a_user_error(tmp_path, name, pack):
    data = pack(("text\n" + NOTE.replace("\n", "")).encode() * 500)
    with pytest.raises(UserError, match="cut off"):
        read_one(tmp_path / name, data[:-9])


def test_parquet_with_nested_fields(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [{"note": {"text": text}, "id": number} for number, text in enumerate(["咳。", None, "痰。"])]
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    found, broken = read_one(tmp_path / "a.parquet", buffer.getvalue(), text_field="note.text")
    assert [(document.id, document.text) for document in found] == [("0", "咳。"), ("1", ""), ("2", "痰。")]
    assert broken == []
    with pytest.raises(UserError, match="one of the fields note, id"):
        read_one(tmp_path / "a.parquet", buffer.getvalue())
    with pytest.raises(UserError, match="not a complete Parquet file"):
        read_one(tmp_path / "a.parquet", buffer.getvalue()[:-20])


# Hospital exports


@pytest.mark.parametrize("encoding", ["cp932", "euc-jp", "utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_csv_in_every_encoding_and_delimiter(tmp_path, encoding, delimiter):
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator="\r\n")
    writer.writerows(
        [["患者番号", "記録日", "本文"], ["001", "2024/1/2", NOTE], ["002", "", HALF], ["003", "", "あ" * 200_000]]
    )
    data = as_eucjp(buffer.getvalue()) if encoding == "euc-jp" else buffer.getvalue().encode(encoding)
    found, broken = read_one(tmp_path / "a.csv", data, text_field="本文", id_field="患者番号", name="内科")
    assert broken == []
    assert [document.text for document in found] == [NOTE, HALF, "あ" * 200_000]
    assert (found[0].id, found[0].meta) == ("001", {"記録日": "2024/1/2"})


def as_eucjp(text):
    """As exports from Windows write EUC-JP: ①, ㎎ and 髙 at the places of CP932."""
    return b"".join(map(char_as_eucjp, text))


@functools.cache
def char_as_eucjp(char):
    data = char.encode("cp932")
    if len(data) == 1:
        return b"\x8e" + data if data[0] >= 0xA1 else data
    if char == "髙":  # CP932 writes it beyond EUC-JP's rows; NEC's selection of IBM's characters has it too
        return b"\xfc\xe2"
    row = (data[0] - (0x81 if data[0] < 0xA0 else 0xC1)) * 2 + (data[1] >= 0x9F)
    cell = data[1] - 0x9F if data[1] >= 0x9F else data[1] - (0x40 if data[1] < 0x7F else 0x41)
    return bytes((row + 0xA1, cell + 0xA1))


@pytest.mark.parametrize("text", [NOTE, HALF, "診断", "肺炎", "アスピリン", "患者ID,本文\n1," + HALF])
@pytest.mark.parametrize("setting", ["cp932", "euc-jp"])
def test_short_texts_are_told_apart_or_refused(text, setting):
    data = as_eucjp(text) if setting == "euc-jp" else text.encode("cp932")
    assert decode(data, "here") == text


@pytest.mark.parametrize("count", [1, 2, 5, 13])
def test_lists_of_half_width_words_are_not_read_as_kanji(count):
    words = re.split("[ ,]", "ﾛｷｿﾆﾝ,ｱｽﾋﾟﾘﾝ,ﾊｲｴﾝ ｾﾞﾝｿｸ ﾍﾓｸﾞﾛﾋﾞﾝ ｱﾙﾌﾞﾐﾝ ｸﾚｱﾁﾆﾝ ｶﾘｳﾑ ﾋﾞﾘﾙﾋﾞﾝ ｲﾝｽﾘﾝ ﾜｰﾌｧﾘﾝ ﾆﾌｪｼﾞﾋﾟﾝ ｶﾛﾅｰﾙ")
    for start in range(len(words)):
        text = "\n".join((words * 2)[start : start + count])
        assert decode(text.encode("cp932"), "here") == text


def test_an_encoding_that_cannot_be_told_is_refused_with_the_place():
    data = "発熱。\n咳嗽。\n".encode() + b"\xff\xfe\xfd" + "腹痛。".encode()
    for size in (1, 4, 1000):
        blocks = [data[start : start + size] for start in range(0, len(data), size)]
        with pytest.raises(UserError, match=r"here: the encoding cannot be told \(byte 20 in line 3 is not UTF-8\)"):
            detect(lambda blocks=blocks: iter(blocks), "here")


def test_the_encoding_that_holds_longest_is_told_with_its_place():
    data = ("咳嗽と発熱を認める。\n" * 21).encode("cp932") + b"ab\x81\xff"
    place = len(data) - 2
    for size in (1, 7, 10_000):
        blocks = [data[start : start + size] for start in range(0, len(data), size)]
        with pytest.raises(UserError, match=rf"byte 0 in line 1 is not UTF-8; CP932 up to byte {place} in line 22\)"):
            detect(lambda blocks=blocks: iter(blocks), "here")


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_seven_bit_iso_2022_jp_is_told_by_its_shifts(size):
    data = "氏名,本文\n見本,発熱と咳。\n".encode("iso2022_jp") + b"\x1b$B-!-j\x1b(B,\x1b(I6=\x1b(B\n"
    blocks = [data[start : start + size] for start in range(0, len(data), size)]
    found = detect(lambda: iter(blocks), "here")
    assert found.setting == "iso-2022-jp"
    assert data.decode(found.name, found.strict) == "氏名,本文\n見本,発熱と咳。\n①㈱,ｶｽ\n"
    assert detect(lambda: iter([b"\x1b[31mred\x1b[0m"]), "here").setting == "utf-8", "colours of a terminal"
    assert detect(lambda: iter([b"\x1b$B", "咳".encode()]), "here").setting == "utf-8"
    with pytest.raises(UserError, match="byte 3 in line 1 is not ISO-2022-JP"):
        detect(lambda: iter([b"\x1b$B\x7e\x7e\x1b(B"]), "here")


def test_iso_2022_jp_rows_that_are_broken_are_told(tmp_path):
    data = "text,n\n発熱。,1\n".encode("iso2022_jp")
    assert texts(tmp_path / "a.csv", data) == ["発熱。"]
    [file] = files(Recipe(), [tmp_path / "a.csv"])
    file = dataclasses.replace(file, settings=dataclasses.replace(file.settings, encoding="iso-2022-jp"))
    file.path.write_bytes(data + b"\x1b$B~~\x1b(B,2\n" + data[7:])
    broken = []
    assert [document.text for document in read(file, broken.append)] == ["発熱。", "発熱。"]
    assert [row.reason for row in broken] == ["invalid_iso_2022_jp"]


def test_the_whole_file_counts(tmp_path):
    data = b"text\n" + (b"ascii only " * 20 + b"\n") * 10_000 + "咳嗽と発熱を認める。\n".encode("cp932")
    assert texts(tmp_path / "a.csv", data)[-1] == "咳嗽と発熱を認める。"


def test_vendor_characters_of_euc_jp_are_read_in_any_split():
    data = as_eucjp(NOTE)
    found = codec("euc-jp")
    assert data.decode(found.name, found.strict) == NOTE
    assert (data + b"\xff\xa4").decode(found.name, found.escape) == NOTE + "\udcff\udca4"


def test_broken_csv_rows_are_told_by_the_line_they_start_in(tmp_path):
    rows = [
        b"id,text", b'1,"\xe5\x92\xb3\n\xe7\x97\xb0"', b"2", b"3,a,b", b"4,\x00x", b"5,\xff", b'6,"a"b', b"", b"7,ok",
        b'8,"open', b"9,lost", b"10,lost",
    ]  # fmt: skip
    found, broken = read_one(tmp_path / "a.csv", b"\r\n".join(rows) + b"\r\n", encoding="utf-8")
    assert [(document.id, document.text) for document in found] == [("1", "咳\n痰"), ("7", "ok")]
    assert broken == [
        ("4", "wrong_field_count"), ("5", "wrong_field_count"), ("6", "nul_byte"), ("7", "invalid_utf8"),
        ("8", "invalid_csv"), ("11", "open_quotation"), ("12", "open_quotation"), ("13", "open_quotation"),
    ]  # fmt: skip
    found, broken = read_one(tmp_path / "b.csv", "id,text\n1,咳\n2,".encode("cp932") + b"\x81\xff\n", encoding="cp932")
    assert ([document.text for document in found], broken) == (["咳"], [("3", "invalid_cp932")])


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5))
def test_csv_round_trip(tmp_path_factory, rows):
    buffer = io.StringIO()
    csv.writer(buffer).writerows([("text", "other"), *rows])
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    found, broken = read_one(path, buffer.getvalue().encode(), encoding="utf-8")
    assert ([(document.text, document.meta["other"]) for document in found], broken) == (rows, [])


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_json_lines_round_trip(tmp_path_factory, rows):
    data = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in rows)
    assert texts(tmp_path_factory.mktemp("json") / "a.jsonl", data) == rows


def test_json_lines_in_an_encoding_that_is_named(tmp_path):
    data = json.dumps({"text": NOTE}, ensure_ascii=False).encode("cp932") + b"\n\x81\n"
    found, broken = read_one(tmp_path / "a.jsonl", data, encoding="cp932")
    assert ([document.text for document in found], broken) == ([NOTE], [("2", "invalid_cp932")])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp932", "utf-16"])
def test_text_files_are_a_document_each(tmp_path, encoding):
    [document], _ = read_one(tmp_path / "a.txt", NOTE.encode(encoding), license="own")
    assert (document.text, document.id, document.meta) == (NOTE, "a.txt", {"license": "own"})


def test_a_text_file_in_no_known_encoding_is_a_broken_record(tmp_path):
    assert read_one(tmp_path / "a.txt", b"\x81\xff\xfd\xfc") == ([], [("", "unknown_encoding")])
    assert read_one(tmp_path / "a.txt", b"\xff\xa1", encoding="euc-jp") == ([], [("", "invalid_euc_jp")])


# Published layouts

OSCAR = {
    "content": "発熱が続く。\n受診した。",
    "warc_headers": {"warc-record-id": "<urn:uuid:1234-ab>", "warc-target-uri": "https://example.jp/taro"},
    "metadata": {
        "identification": {"label": "ja", "prob": 0.98}, "quality_warnings": ["short_sentences"], "categories": None,
        "sentence_identifications": [{"label": "ja", "prob": 1.0}, None],
    },
}  # fmt: skip


@pytest.mark.parametrize("layout", ["auto", "oscar"])
@pytest.mark.parametrize("hugging_face", [False, True])
def test_oscar(tmp_path, layout, hugging_face):
    row = OSCAR
    if hugging_face:
        row = {"id": 0, "text": OSCAR["content"], "meta": OSCAR["metadata"] | {"warc_headers": OSCAR["warc_headers"]}}
    [document], _ = read_one(tmp_path / "ja_meta_part_1.jsonl.zst", zst(lines(row)), layout=layout)
    assert (document.text, document.id) == (OSCAR["content"], "1234-ab")
    assert document.meta == {
        "quality_warnings": ["short_sentences"], "language": "ja", "language_probability": 0.98, "source": "oscar",
    }  # fmt: skip


def test_an_id_field_that_is_set_holds_for_oscar(tmp_path):
    data = lines(OSCAR | {"nr": 7}, OSCAR)
    found, _ = read_one(tmp_path / "a.jsonl", data, id_field="nr")
    assert [document.id for document in found] == ["7", "1234-ab"]


WIKI = (
    "\n_START_ARTICLE_\n肺炎\n_START_PARAGRAPH_\n肺の炎症である。_NEWLINE_感染による。\n_START_SECTION_\n症状\n"
    "_START_PARAGRAPH_\n発熱を認める。"
)


@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_wiki40b_keeps_article_text_only(tmp_path, quoted, name):
    row = {"wikidata_id": "Q12192", "version_id": "99", "text": WIKI}
    row = {key: repr(value.encode()) for key, value in row.items()} if quoted else row
    buffer = io.StringIO()
    csv.writer(buffer).writerows([row.keys(), row.values()])
    layout = "wiki40b" if quoted else "auto"  # in a bytes literal the mark stands within the first characters too
    for setting in {layout, "auto"}:
        data = lines(row) if name == "a.jsonl" else buffer.getvalue().encode()
        [document], _ = read_one(tmp_path / name, data, layout=setting)
        assert document.text == "肺の炎症である。\n感染による。\n発熱を認める。"
        assert (document.id, document.meta) == ("Q12192", {"source": "wiki40b", "title": "肺炎"})


def test_a_bytes_literal_is_decoded_and_never_evaluated(tmp_path):
    data = lines({"text": "b'_START_ARTICLE_ \\xff'"}, {"text": "b'' + open('x').read() + b'"})
    found, broken = read_one(tmp_path / "a.jsonl", data, layout="wiki40b")
    assert (["open('x')" in document.text for document in found], broken) == ([True], [("1", "invalid_bytes_literal")])


ARTICLES = [("1", "咳嗽", "咳嗽\n\n気道の反射である。\n"), ("2", "空", "空\n\n"), ("3", "せき", "#転送 [[咳嗽]]")]


def test_wikipedia_extract_as_json_and_as_text(tmp_path):
    url = "https://ja.wikipedia.org/wiki?curid="
    rows = [{"id": number, "url": url + number, "title": title, "text": text} for number, title, text in ARTICLES]
    [document], _ = read_one(tmp_path / "wiki_00", lines(*rows))
    assert (document.text, document.id, document.meta["title"]) == ("気道の反射である。", "1", "咳嗽")
    form = '<doc id="{}" revid="9" url="' + url + '" title="{}">\n{}\n</doc>\n'
    data = (
        "".join(form.format(*article) for article in ARTICLES)
        + '<doc id="4" url="u" title="A &amp; "B"">\n本文。\n</doc>\n'
    )
    found, broken = read_one(tmp_path / "wiki_01", data.encode() + b'<doc id="5" url="u" title="x">\n')
    assert [(document.id, document.text) for document in found] == [("1", document.text), ("4", "本文。")]
    assert found[1].meta == {"source": "wikipedia", "url": "u", "title": 'A & "B"'}
    assert broken == [("18", "open_article")]


def test_fhir_text_of_the_usual_resources(tmp_path):
    def attachment(text, kind, encoding="utf-8"):
        return {"attachment": {"contentType": kind, "data": base64.b64encode(text.encode(encoding)).decode()}}

    section = {"text": {"div": "<div><p>発熱&amp;咳。</p><script>x</script><ul><li>肺炎</li></ul></div>"}}
    rows = [
        {"resourceType": "Patient", "id": "p", "name": [{"text": "見本太郎"}]},
        {"resourceType": "DocumentReference", "id": "d1", "status": "current", "subject": {"reference": "Patient/p"},
         "content": [attachment("退院した。", "text/plain; charset=Shift_JIS", "cp932"), attachment("x", "application/pdf"),
                     attachment("<p>再診</p>", "text/html;charset=UTF-8"), attachment("ﾊﾞｲﾀﾙ安定。", "", "cp932")]},
        {"resourceType": "Composition", "id": "c1", "section": [section | {"section": [section]}]},
        {"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "DiagnosticReport", "conclusion": "異常なし。"}},
                                             {"resource": {"resourceType": "Observation", "id": "o", "valueString": "陰性"}}]},
        {"resourceType": "DocumentReference", "id": "d2", "content": [{"attachment": {"data": "%%%"}}]},
    ]  # fmt: skip
    found, broken = read_one(tmp_path / "a.ndjson", lines(*rows))
    assert [(document.id, document.text) for document in found] == [
        ("DocumentReference/d1", "退院した。\n再診\nﾊﾞｲﾀﾙ安定。"), ("Composition/c1", "発熱&咳。\n肺炎\n発熱&咳。\n肺炎"),
        ("a.ndjson:4", "異常なし。"), ("Observation/o", "陰性"),
    ]  # fmt: skip
    assert found[0].meta == {"resourceType": "DocumentReference", "status": "current"}, "nothing about the person"
    assert broken == [("5", "invalid_base64")]
    found, _ = read_one(tmp_path / "a.ndjson", lines(*rows), text_field=("Observation.valueString", "conclusion"))
    assert [document.text for document in found] == ["異常なし。", "陰性"]


@given(st.text(max_size=60))
def test_narratives_are_read_whatever_they_hold(text):
    assert "\n\n" not in html_text(text)
    assert html_text("<div><p>発熱" + "</p>") == "発熱"


# Memory


@pytest.mark.parametrize("name", ["a.jsonl.zst", "a.csv.gz", "wiki_00.gz"])
def test_memory_does_not_grow_with_the_file(tmp_path, name):
    text = "発熱と咳嗽を認め、胸部単純撮影で浸潤影を認めた。" * 100  # 7.2 kB
    form = {
        "a.jsonl.zst": ("", '{"text": "' + text + '"}\n'),
        "a.csv.gz": ("id,text\n", '1,"' + text + '\n"\n'),
        "wiki_00.gz": ("", '<doc id="1" url="u" title="t">\n' + text + "\n</doc>\n"),
    }[name]
    data = (form[0] + form[1] * 7000).encode()
    assert len(data) > 50_000_000
    path = tmp_path / name
    path.write_bytes(zst(data) if name.endswith(".zst") else gzip.compress(data, 1))
    del data
    [file] = files(Recipe(), [path])
    tracemalloc.start()
    try:
        assert sum(1 for _ in read(file, print)) == 7000
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


# Hugging Face


def test_a_local_data_set_is_fetched_by_part_and_not_twice(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for number in range(2):
        rows = [{"key": f"{number}-{n}", "body": f"発熱{n}日目。"} for n in range(3)]
        (folder / f"train-{number}.jsonl").write_bytes(lines(*rows))
    settings = HuggingFace(dataset=str(folder), text_field="body", id_field="key", name="invented", license="CC0")
    assert problem(settings) is None
    stage = Stage("corpus", tmp_path)
    out = fetch(settings, tmp_path / "partial" / "hf", stage)
    parts = sorted(out.glob("*"))
    assert [part.name for part in parts] == ["00000-of-00002.jsonl.zst", "00001-of-00002.jsonl.zst"]
    before = [part.read_bytes() for part in parts]
    parts[0].write_bytes(lines({"key": "untouched", "body": "咳。"}))
    parts[1].unlink()
    fetch(settings, out, stage)
    assert (parts[1].read_bytes(), parts[0].read_bytes() == before[0]) == (before[1], False), "only what was missing"
    parts[0].write_bytes(before[0])
    found = [document for file in fetched(Recipe(), settings, out) for document in read(file, print)]
    assert [document.id for document in found] == ["0-0", "0-1", "0-2", "1-0", "1-1", "1-2"]
    assert found[0].meta == {"license": "CC0"}


@pytest.mark.slow  # three seconds each, to load the package in a process of its own
@pytest.mark.parametrize(
    "change, message", [({"split": "test"}, "no split 'test'"), ({"text_field": "text"}, "no field 'text'; expected one of key, body")]
)  # fmt: skip
def test_what_a_data_set_lacks_is_a_user_error(tmp_path, change, message):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_bytes(lines({"key": "1", "body": "発熱。"}))
    settings = HuggingFace(**{"dataset": str(tmp_path / "set"), **change})
    with pytest.raises(UserError, match=message):
        fetch(settings, tmp_path / "out", Stage("corpus", tmp_path))


def test_a_data_set_of_the_hub_needs_a_revision(tmp_path):
    with pytest.raises(UserError, match="has no revision"):
        fetch(HuggingFace(dataset="someone/invented"), tmp_path, Stage("corpus", tmp_path))


@pytest.mark.slow
@pytest.mark.enable_socket
def test_naming_a_data_set_lifts_offline_for_its_process_alone(tmp_path, monkeypatch):
    asked = []

    class NotFound(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), NotFound)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    try:
        with pytest.raises(UserError, match="someone/invented: no such data set"):
            fetch(HuggingFace(dataset="someone/invented", revision="abc"), tmp_path / "out", Stage("corpus", tmp_path))
    finally:
        server.shutdown()
    assert any("someone/invented" in path for path in asked)
    assert os.environ["HF_HUB_OFFLINE"] == "1"
