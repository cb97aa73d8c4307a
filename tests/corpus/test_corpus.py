"""The corpus room: what is kept, what is dropped and why; the same bytes whatever the workers, order or kills."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rinsho.corpus import Recipe, check, run
from rinsho.document import Document, read_documents, shard_paths, write_documents
from rinsho.errors import UserError

SENTENCES = (
    "患者は{n}歳の男性で、発熱と咳嗽を主訴に来院した。",
    "胸部ＣＴで右下葉に浸潤影を認め、肺炎と診断した。",
    "抗菌薬を{n}日間投与し、第{n}病日に解熱した．",
    "既往に高血圧と２型糖尿病があり、アムロジピン{n}．５ｍｇを内服している。",
)


def plain(**settings: object) -> Recipe:
    """A recipe for texts that are made alike on purpose: four pieces, no near duplicates, no frequent sentences."""
    defaults = {"near_duplicates": False, "sentence_documents": 0, "piece_mb": 0.001}
    return Recipe.model_validate(defaults | settings)


def good(number: int) -> str:
    return "\n".join(sentence.format(n=number) for sentence in SENTENCES)


JUNK = {
    "too_short": "短い。",
    "not_japanese": "This page is written in English only and says nothing. 痛い。\n" * 3,
    "copyright": good(901) + "\nCopyright © 2024 見本 All Rights Reserved.",
    "advert": "送料無料！今すぐクリックして、初回限定の激安サプリをカートに入れるだけで健康になれます。",
    "adult": "無修正のアダルト動画と出会い系の情報をまとめてお届けするページです。ぜひどうぞ。",
    "incomplete": "ホーム\n病気を調べる\n呼吸器内科の一覧\n人気の記事ランキング\n文字の大きさを変える",
    "repetition": "今日も一日元気に過ごしましょう。" * 8,
    "symbols": "■■■□□□◆◆◆☆☆☆痛いです。つらいです。困った。痛みが続く。",
}


def write(path: Path, documents: list[Document]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_documents(file, documents)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for shard in range(4):
        documents = [Document(good(shard * 20 + n), f"doc-{shard}-{n:02d}", {"source": f"s{n % 2}"}) for n in range(20)]
        documents += [Document(text, f"junk-{reason}-{shard}") for reason, text in JUNK.items()]
        documents.append(Document(good(5).translate({ord("ＣＴ"[0]): "C"}) + "　", f"copy-{shard}"))
        documents.append(
            Document(good(100 + shard) + "\n電話０３－１２３４－５６７８、〒100-0001", f"personal-{shard}")
        )
        write(folder / f"{shard}.jsonl.zst", documents)
    return folder


def product(out: Path) -> dict[str, str]:
    files = [
        path for path in sorted(out.rglob("*.jsonl*")) if "partial" not in path.parts and path.name != "metrics.jsonl"
    ]
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def documents_in(folder: Path) -> list[Document]:
    return [document for path in sorted(folder.glob("*.zst")) for document in read_documents(path)]


def test_what_is_kept_and_what_is_dropped_and_why(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = run(plain(shard_documents=30), [source], out)
    kept, dropped = documents_in(out / "shards"), documents_in(out / "dropped")
    assert len(kept) == report.numbers["documents_kept"] == 84
    assert sorted(path.name for path in (out / "shards").iterdir()) == [f"{n:05d}-000.jsonl.zst" for n in range(4)]
    assert kept[0].id == "doc-0-00"
    assert "胸部CTで右下葉" in kept[0].text
    assert "アムロジピン0.5mg" in kept[0].text
    assert "解熱した。" in kept[0].text
    for reason in JUNK:
        rows = [document for document in dropped if document.meta["reason"] == reason]
        assert [row.id for row in rows if row.id == f"junk-{reason}-0"], reason
        assert report.numbers["dropped"][reason]["documents"] == len(rows) == 4
        assert all(row.meta["value"] is not None and row.text for row in rows)
    copies = [row for row in dropped if row.meta["reason"] == "duplicate"]
    alike = ["copy-0", "copy-1", "copy-2", "copy-3", "doc-0-05"]
    (stays,) = [document.id for document in kept if document.id in alike]
    assert sorted((row.id, row.meta["value"]) for row in copies) == [(name, stays) for name in alike if name != stays]
    numbers = report.numbers
    assert numbers["documents_read"] == numbers["documents_kept"] + numbers["documents_dropped"] == 4 * 30
    assert numbers["bytes_kept"] == sum(len(document.text.encode()) for document in kept)
    assert numbers["sources"]["s0"]["documents_kept"] + numbers["sources"]["s1"]["documents_kept"] == 79
    assert numbers["personal"] == {"url": 0, "email": 0, "postal_code": 4, "account": 0, "phone": 4}
    assert numbers["cleaning"]["decimal_points"] > 0
    assert "| dropped: advert | -4 |" in report.markdown
    assert not any("1234" in document.text for document in kept)
    assert shard_paths([out / "shards"])
    json.dumps(numbers)


def test_placeholders_and_keep(source: Path, tmp_path: Path) -> None:
    for mode, expected in (("placeholder", "電話[電話番号]、[郵便番号]"), ("keep", "電話03-1234-5678、〒100-0001")):
        out = tmp_path / mode
        run(plain(personal=mode), [source], out)  # type: ignore[arg-type]
        texts = {document.id: document.text for document in documents_in(out / "shards")}
        assert texts["personal-0"].endswith(expected)


def test_same_bytes_for_any_number_of_workers(source: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    run(plain(workers=1, validation_fraction=0.1), [source], one)
    run(plain(workers=2, validation_fraction=0.1), [source], two)
    assert product(one) == product(two)
    assert any(name.startswith("validation/") for name in product(one))


def test_same_documents_for_any_order_of_files(source: Path, tmp_path: Path) -> None:
    files = sorted(source.iterdir())
    run(plain(validation_fraction=0.1, max_size_mb=0.03), files, tmp_path / "one")
    run(plain(validation_fraction=0.1, max_size_mb=0.03), files[::-1], tmp_path / "two")
    for folder in ("shards", "validation"):
        found = [{(d.id, d.text) for d in documents_in(tmp_path / name / folder)} for name in ("one", "two")]
        assert found[0] == found[1]


def test_sample_of_a_given_size(source: Path, tmp_path: Path) -> None:
    whole = run(plain(), [source], tmp_path / "whole").numbers
    half = run(plain(max_size_mb=whole["bytes_read"] / 2e6), [source], tmp_path / "half").numbers
    assert 0.4 * whole["bytes_read"] < half["bytes_read"] <= 0.5 * whole["bytes_read"]
    assert half["documents_read"] + half["documents_not_sampled"] == whole["documents_read"]
    first = run(plain(max_size_mb=0.025, sources_first=("s1",)), [source], tmp_path / "first").numbers
    assert first["sources"]["s1"]["documents_read"] == 40


def test_validation_depends_on_ids_only(source: Path, tmp_path: Path) -> None:
    report = run(plain(validation_fraction=0.2), [source], tmp_path / "out")
    held_out = {document.id for document in documents_in(tmp_path / "out" / "validation")}
    assert len(held_out) == report.numbers["documents_validation"]
    assert 5 < len(held_out) < 35
    assert not held_out & {document.id for document in documents_in(tmp_path / "out" / "shards")}


def test_broken_records_are_set_aside(source: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"id": f"x{n}", "text": good(300 + n)}, ensure_ascii=False).encode() for n in range(50)]
    lines[3], lines[4], lines[5] = b'{"id": "cut", "text": "', b'{"id": "none"}', b'{"text": "\xff\xfe"}'
    (source / "z.jsonl").write_bytes(b"\n".join(lines))
    report = run(plain(max_broken_fraction=0.03), [source], tmp_path / "out")
    assert report.numbers["broken"] == {"records": 3, "reasons": {"invalid_json": 1, "invalid_utf8": 1, "no_text": 1}}
    rows = [json.loads(line) for line in (tmp_path / "out/dropped/broken.jsonl").read_text().splitlines()]
    assert rows[0] == {"where": "z.jsonl:4", "reason": "invalid_json"}
    with pytest.raises(UserError, match=r"3 of 170 records are broken, the first: .*z\.jsonl:4 \(invalid_json\)"):
        run(plain(max_broken_fraction=0.01), [source], tmp_path / "strict")


@pytest.mark.parametrize("workers", [1, 2])
def test_truncated_file(source: Path, tmp_path: Path, workers: int) -> None:
    path = source / "2.jsonl.zst"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"2\.jsonl\.zst: the file is cut off"):
        run(plain(workers=workers), [source], tmp_path / "out")
    assert not (tmp_path / "out" / "DONE").exists()


def test_nothing_left(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.jsonl.zst", [Document("短い。", "a")])
    with pytest.raises(UserError, match=r"no document passed the filters \(of 1: too_short 1\)"):
        run(plain(), [tmp_path / "in"], tmp_path / "out")


def test_check_names_every_problem(tmp_path: Path) -> None:
    problems = check(plain(min_chars=9, max_chars=5, filters=("no.such:thing",)), [tmp_path / "none"])
    assert [problem.what.split()[0] for problem in problems] == ["not", "min_chars", "no"]
    assert check(plain(), []) != []


def test_own_filter(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    write(source / "own.jsonl.zst", [Document(good(700) + "猫がいる。", "cat")])
    report = run(plain(filters=("slow_filter:slow",), workers=1), [source], tmp_path / "out")
    assert report.numbers["dropped"]["own"]["documents"] == 1


def test_unchanged_is_skipped(source: Path, tmp_path: Path) -> None:
    first = run(plain(), [source], tmp_path / "out")
    before = product(tmp_path / "out")
    again = run(plain(), [source], tmp_path / "out")
    assert (again, product(tmp_path / "out")) == (first, before)
    assert not (tmp_path / "out" / "partial").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_and_started_again(source: Path, tmp_path: Path, workers: int) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-m", "rinsho", "corpus", str(source), "--set", "corpus.filters=['slow_filter:slow']"]
    command += ["--set", f"corpus.workers={workers}", "--set", "corpus.validation_fraction=0.1"]
    command += ["--set", "corpus.piece_mb=0.001", "--set", "corpus.near_threshold=0.999", "--out"]
    slow = environment | {"SLOW_FILTER_SECONDS": "0.02"}
    run_ = subprocess.Popen(
        [*command, str(tmp_path / "out")], env=slow, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    pieces = tmp_path / "out" / "partial" / "pieces"
    while not (pieces.exists() and any(path.name[0] != "." for path in pieces.iterdir())):
        assert run_.poll() is None
        time.sleep(0.005)
    run_.send_signal(signal.SIGKILL)
    run_.wait()
    assert not (tmp_path / "out" / "DONE").exists()
    finished = {path: path.stat().st_mtime_ns for path in pieces.glob("0*/counts.json")}
    for out in ("out", "whole"):
        subprocess.run([*command, str(tmp_path / out)], env=environment, check=True, capture_output=True)
    assert finished
    assert product(tmp_path / "out") == product(tmp_path / "whole")
    assert json.loads((tmp_path / "out/report.json").read_text()) == json.loads(
        (tmp_path / "whole/report.json").read_text()
    )


def test_product_names_no_path_of_this_machine(source: Path, tmp_path: Path) -> None:
    (source / "z.jsonl").write_text('{}\n{"text": "短い。"}\n', encoding="utf-8")
    run(plain(max_broken_fraction=0.1), [source], tmp_path / "out")
    assert str(tmp_path) not in (tmp_path / "out/dropped/broken.jsonl").read_text()
    assert str(tmp_path) not in (tmp_path / "out/report.json").read_text()


def test_other_fields_of_the_names_id_and_text_give_way(tmp_path: Path) -> None:
    row = {"id": "患者1", "note_id": "n1", "経過": good(3), "text": "生のまま 090-1234-5678"}
    write_path = tmp_path / "in" / "a.jsonl"
    write_path.parent.mkdir()
    write_path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    numbers = run(plain(text_field="経過", id_field="note_id"), [tmp_path / "in"], tmp_path / "out").numbers
    (kept,) = documents_in(tmp_path / "out/shards")
    assert (kept.id, kept.text.startswith("患者は3歳")) == ("n1", True)
    assert numbers["bytes_kept"] == len(kept.text.encode())


def test_names_with_lone_surrogates_travel_as_escapes(tmp_path: Path) -> None:
    names = ["短\ud800", "doc\udfff", "doc\udffe"]
    write(
        tmp_path / "in/a.jsonl.zst",
        [Document("短い。", names[0], {"source": "s\ud800"}), Document(good(1), names[1]), Document(good(1), names[2])],
    )
    numbers = run(plain(), [tmp_path / "in"], tmp_path / "out").numbers
    assert numbers["documents_kept"] == 1
    assert numbers["examples"]["too_short"] == [["短\\ud800", 3]]
    assert "s\\ud800" in numbers["sources"]


def test_values_that_json_has_no_form_for(tmp_path: Path) -> None:
    import datetime

    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    (tmp_path / "in").mkdir()
    columns = {"id": ["a"], "text": [good(1)], "when": [datetime.datetime(2020, 1, 2)], "raw": [b"\xff"]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "in/a.parquet")
    run(plain(), [tmp_path / "in"], tmp_path / "out")
    assert documents_in(tmp_path / "out/shards")[0].meta["when"].startswith("2020-01-02")


def test_two_inputs_with_files_of_one_name(tmp_path: Path) -> None:
    for number, folder in enumerate("AB"):
        write_path = tmp_path / folder / "x.jsonl"
        write_path.parent.mkdir()
        write_path.write_text(json.dumps({"text": good(number)}, ensure_ascii=False) + "\n", encoding="utf-8")
    run(plain(), [tmp_path / "A", tmp_path / "B"], tmp_path / "out")
    assert [d.id for d in documents_in(tmp_path / "out/shards")] == ["x.jsonl:1", "1/x.jsonl:1"]


def test_a_sample_with_repeated_ids_keeps_to_its_size(tmp_path: Path) -> None:
    write(tmp_path / "in/a.jsonl.zst", [Document(good(n), f"patient{n % 3}") for n in range(300)])
    numbers = run(plain(max_size_mb=0.05), [tmp_path / "in"], tmp_path / "out").numbers
    assert 0 < numbers["bytes_read"] <= 50_000
    with pytest.raises(UserError, match="not even one document fits"):
        run(plain(max_size_mb=0.01), [tmp_path / "in"], tmp_path / "none")


@pytest.mark.parametrize(("name", "error"), [("wrong", "TypeError"), ("odd", "TypeError"), ("fails", "ValueError")])
def test_an_own_filter_that_gives_something_else(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: str
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    with pytest.raises(UserError, match=f"failed with {error}"):
        run(plain(filters=(f"slow_filter:{name}",), workers=1), [source], tmp_path / "out")


def test_settings_that_name_nothing(source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "w.txt").write_text("猫\n")
    recipe = plain(sources=[{"files": "*.nothing", "name": "x"}], word_lists={"duplicate": tmp_path / "w.txt"})
    assert [problem.where for problem in check(recipe, [source])] == ["corpus.sources", "corpus.word_lists"]
    run(plain(trusted_sources=("s9",)), [source], tmp_path / "out")
    assert "trusted_sources names 's9', but no document is of that source" in capfd.readouterr().err


def test_a_changed_own_filter_is_another_run(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_filter.py").write_text("def keep(document):\n    return None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    run(plain(filters=("mine_filter:keep",), workers=1), [source], tmp_path / "out")
    (tmp_path / "mine_filter.py").write_text("def keep(document):\n    return None  # changed\n")
    with pytest.raises(UserError, match="made from other inputs"):
        run(plain(filters=("mine_filter:keep",), workers=1), [source], tmp_path / "out")
