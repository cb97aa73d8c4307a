import gzip
import io

import pytest
import zstandard

from rinsho.document import Document, read_documents, shard_paths, write_documents
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
