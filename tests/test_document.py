import gzip
import io
import json

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from rinsho.document import Document, parse, read_documents, shard_paths, write_documents
from rinsho.errors import UserError

TEXTS = ["発熱と咳嗽を認める。", "改行\nと「括弧」", "", "😀𠮷"]


def documents():
    return [Document(text, f"d{number}", {"source": "invented"}) for number, text in enumerate(TEXTS)]


def write(path, content):
    path.write_bytes(content)
    return path


def packed(items):
    buffer = io.BytesIO()
    write_documents(buffer, items)
    return buffer.getvalue()


def test_zstd_round_trip_keeps_text_id_and_meta(tmp_path):
    path = write(tmp_path / "a.jsonl.zst", packed(documents()))
    assert list(read_documents(path)) == documents()


def test_equal_documents_give_equal_bytes():
    assert packed(documents()) == packed(documents())


def test_gzip_and_plain_and_parquet_read_alike(tmp_path):
    import pyarrow
    import pyarrow.parquet

    lines = b"".join(document.to_line() for document in documents())
    write(tmp_path / "a.jsonl", lines)
    write(tmp_path / "a.jsonl.gz", gzip.compress(lines))
    rows = [{"id": d.id, "text": d.text, "source": "invented"} for d in documents()]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.jsonl.gz", "a.parquet"):
        assert list(read_documents(tmp_path / name)) == documents()


def test_several_zstd_frames_are_read_to_the_end(tmp_path):
    path = write(tmp_path / "a.jsonl.zst", packed(documents()[:2]) + packed(documents()[2:]))
    assert list(read_documents(path)) == documents()


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_truncated_zstd_is_a_user_error(tmp_path, cut):
    path = write(tmp_path / "a.jsonl.zst", packed(documents() * 100)[:-cut])
    with pytest.raises(UserError, match=r"a\.jsonl\.zst: the file is cut off"):
        list(read_documents(path))


def test_zstd_cut_between_two_blocks_of_a_frame_is_a_user_error(tmp_path):
    whole = zstandard.ZstdCompressor().compress(b'{"text": "x"}\n' * 50_000)
    path = write(tmp_path / "a.jsonl.zst", whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cut off"):
        list(read_documents(path))


def test_truncated_gzip_is_a_user_error(tmp_path):
    path = write(tmp_path / "a.jsonl.gz", gzip.compress(packed(documents()))[:-6])
    with pytest.raises(UserError, match="cut off"):
        list(read_documents(path))


def test_broken_records_are_told_by_line_and_reason(tmp_path):
    path = write(
        tmp_path / "a.jsonl", b'{"text": "a"}\n{"text": \n\xff\xfe\n{"id": "x"}\n[1]\n{"text": 3}\n{"text": "b"}\n'
    )
    broken = []
    assert [document.text for document in read_documents(path, on_broken=broken.append)] == ["a", "b"]
    assert [(row.where.rpartition(":")[2], row.reason) for row in broken] == [
        ("2", "invalid_json"), ("3", "invalid_utf8"), ("4", "no_text"), ("5", "no_text"), ("6", "no_text"),
    ]  # fmt: skip


def test_broken_record_without_a_place_to_put_it_is_a_user_error(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"text": "a"}\n{\n')
    with pytest.raises(UserError, match=r"a\.jsonl:2: broken record \(invalid_json\)"):
        list(read_documents(path))


def test_missing_and_empty_inputs_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="not there"):
        shard_paths([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="no documents in here"):
        shard_paths([tmp_path])


def test_run_folders_do_not_offer_their_dropped_documents_or_metrics(tmp_path):
    for name in ("shards/0.jsonl.zst", "dropped/0.jsonl.zst", "metrics.jsonl", "partial/x.jsonl", ".hidden.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, b"")
    assert [path.name for path in shard_paths([tmp_path])] == ["0.jsonl.zst"]
    assert len(shard_paths([tmp_path / "dropped"])) == 1, "named by the user it is read"


def test_zstd_cut_anywhere_is_a_user_error_and_whole_it_is_read(tmp_path):
    frames = [
        zstandard.ZstdCompressor(write_checksum=True).compress(b" " * 300_000 + b'{"text": "x"}\n'),  # has RLE blocks
        b"\x54\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"aside",  # a frame that readers skip
        zstandard.ZstdCompressor(write_content_size=False).compress(b'{"text": "%d"}\n' % 7),
        packed(documents() * 30),
    ]
    whole = b"".join(frames)
    ends = {sum(map(len, frames[:number])) for number in range(5)}
    path = tmp_path / "a.jsonl.zst"
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        if cut in ends:
            assert sum(1 for _ in read_documents(path)) in (0, 1, 2, 122)
            continue
        with pytest.raises(UserError, match="cut off"):
            list(read_documents(path))


@pytest.mark.parametrize("read_bytes", [1, 2, 3, 7, 1 << 17])
def test_headers_are_found_however_the_file_is_cut_into_reads(tmp_path, monkeypatch, read_bytes):
    monkeypatch.setattr("rinsho.document.READ_BYTES", read_bytes)
    path = write(tmp_path / "a.jsonl.zst", packed(documents()) + packed([]) + packed(documents()))
    assert list(read_documents(path)) == documents() * 2
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="cut off"):
        list(read_documents(path))


def test_garbage_behind_a_zstd_frame_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="damaged"):
        list(read_documents(write(tmp_path / "a.jsonl.zst", packed(documents()) + b"garbage")))


def test_a_byte_order_mark_is_no_broken_record(tmp_path):
    path = write(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + b"".join(document.to_line() for document in documents()))
    assert list(read_documents(path)) == documents()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.text(st.characters(categories=["Cs", "Cc", "Lo"]), max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_a_line_is_parsed_as_json_parses_it(value):
    for line in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        try:
            encoded = line.encode()
        except UnicodeEncodeError:
            continue
        assert repr(parse(encoded)) == repr(json.loads(encoded))


@pytest.mark.parametrize(
    "line", ["-0", "-0.0", "1e400", "18446744073709551616", "-9223372036854775809", "NaN", '"\\ud800"', "[1,]", "", "{"]
)
def test_numbers_and_escapes_at_the_edges_are_parsed_as_json_parses_them(line):
    def outcome(read):
        try:
            return repr(read(line.encode()))
        except ValueError:
            return "refused"

    assert outcome(parse) == outcome(json.loads)


NAMES = st.text(max_size=4).filter(lambda name: name not in ("id", "text"))  # a document has its own


@given(st.dictionaries(NAMES, JSON, max_size=4), st.text(st.characters(), max_size=10))
def test_lines_have_the_bytes_that_json_gives_them(meta, text):
    row = {"id": "d", "text": text, **meta}
    try:
        expected = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    except UnicodeEncodeError:
        expected = json.dumps(row, separators=(",", ":")).encode() + b"\n"
    assert Document(text, "d", meta).to_line() == expected


@pytest.mark.parametrize("value", [1e-7, 1e22, 1e16, 0.1, float("nan"), float("inf"), 2**64, 2**63, {1: "a"}, ("a", 1)])
def test_values_that_orjson_writes_otherwise_keep_their_bytes(value):
    expected = json.dumps({"id": "d", "text": "咳", "m": value}, ensure_ascii=False, separators=(",", ":"))
    assert Document("咳", "d", {"m": value}).to_line() == expected.encode() + b"\n"
