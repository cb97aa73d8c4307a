"""Reading what was dropped: a fair sample, safe for a terminal, with the document that stayed instead."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus_run import write_run
from rinsho.corpus import Recipe
from rinsho.corpus import run as corpus_run
from rinsho.corpus.report import rewrite
from rinsho.corpus.report.inspect import inspect, safe
from rinsho.document import Document
from rinsho.errors import UserError

NOTE = "患者は58歳の男性で、発熱と咳嗽を主訴に来院した。胸部CTで右下葉に浸潤影を認め、肺炎と診断した。"


def dropped(name: str, text: str, reason: str, value: float | str, **meta: object) -> Document:
    return Document(text, name, {"source": "web", **meta, "reason": reason, "value": value})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    kept = [
        Document(NOTE + "抗菌薬を7日間投与した。", "keep-1", {"source": "hospital"}),
        Document("急性心筋梗塞の疑いで入院した。", 'odd "id",\\ \ud800', {"source": "web"}),
    ]
    gone = [
        *(dropped(f"short-{n}", f"短い{n}。", "too_short", 4) for n in range(6)),
        dropped("near-1", NOTE + "抗菌薬を10日間投与した。", "near_duplicate", "keep-1"),
        dropped("near-2", "急性心筋梗塞の疑いで入院した。", "near_duplicate", 'odd "id",\\ \ud800'),
        dropped("near-3", "どこにもない。", "near_duplicate", "lost"),
        dropped("near-4", NOTE, "near_duplicate", "empty-1"),
        dropped("empty-1", NOTE, "boilerplate", 2),
        dropped("evil", "咳\x1b[2J\u202e\n\ud800", "advert", 3, own={"reason": "too_short"}),
        dropped("long", "あ" * 5_000 + "© 2024 見本クリニック" + "い" * 900, "copyright", 0.844),
        dropped("cut", "本文。" * 300 + "続きを読む", "incomplete", "cut"),
    ]
    return write_run(tmp_path / "corpus", [kept], [gone[:4], gone[4:]], settings={"min_chars": 20})


def test_reasons_with_counts_and_one_id_each(run: Path) -> None:
    lines = [" ".join(line.split()) for line in inspect(run, reason=None).splitlines()]
    assert lines[0] == "reason documents an id"
    assert {"too_short 6 short-0", "near_duplicate 4 near-1", "advert 1 evil", "kept 2 keep-1"} <= set(lines)
    assert [line.split()[0] for line in lines[1:8]] == [  # in the order of the work
        "too_short", "advert", "copyright", "incomplete", "near_duplicate", "boilerplate", "kept",
    ]  # fmt: skip
    assert lines[-1] == "To read some of them: rinsho corpus inspect RUN --reason REASON"


def test_ids_in_the_report_are_not_looked_for_again(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    report["numbers"]["examples"] = {reason: [[f"first-{reason}", 1]] for reason in report["numbers"]["dropped"]}
    (run / "report.json").write_text(json.dumps(report))
    for path in (run / "dropped").iterdir():
        path.unlink()
    assert "first-advert" in inspect(run, reason=None)


def test_sample_of_one_reason(run: Path) -> None:
    text = inspect(run, reason="too_short", count=3)
    assert text.startswith(
        "3 of 6 documents dropped as too_short (seed 1)\nfewer characters than wanted, after cleaning"
    )
    assert "(min_chars: 20)" in text
    assert text.count("短い") == 3
    assert "source web  4 characters  value 4" in text
    assert "evil" not in inspect(run, reason="too_short", count=99)  # its own field says too_short too
    assert text == inspect(run, reason="too_short", count=3)


def test_every_document_has_the_same_chance(run: Path) -> None:
    found: Counter[str] = Counter()
    for seed in range(300):
        text = inspect(run, reason="too_short", count=2, seed=seed)
        found.update(line.split()[1] for line in text.splitlines() if line.startswith("["))
    assert sorted(found) == [f"short-{n}" for n in range(6)]
    assert all(65 < count < 135 for count in found.values())  # 100 of 600 each; four standard deviations are 33


def test_kept_documents(run: Path) -> None:
    text = inspect(run, reason="kept")
    assert text.startswith("2 of 2 documents kept (seed 1)")
    assert "抗菌薬を7日間投与した。" in text
    assert "value" not in text


def test_pairs_show_the_document_that_stayed_and_what_differs(run: Path) -> None:
    text = inspect(run, reason="near_duplicate")
    assert "kept instead: keep-1  " in text
    assert "at 54: 「10」 -> 「7」" in text
    assert "the first 53 and the last 7 characters are equal" in text
    assert "    the same text" in text
    assert "kept instead: lost (not found in shards/ or validation/)" in text
    assert f"kept instead: empty-1  {len(NOTE)} characters, dropped later as boilerplate" in text


def test_jaccard_is_that_of_the_n_grams(run: Path) -> None:
    texts = [NOTE + f"抗菌薬を{days}日間投与した。" for days in (10, 7)]
    one, other = ({text[n : n + 5] for n in range(len(text) - 4)} for text in texts)
    assert f"alike: Jaccard {len(one & other) / len(one | other):.2f} of 5-character parts" in inspect(
        run, reason="near_duplicate"
    )


def test_text_is_clipped_around_what_matters(run: Path) -> None:
    text = inspect(run, reason="copyright")
    assert "© 2024 見本クリニック" in text
    assert "characters before)" in text
    assert len(text) < 900
    assert "あ" * 5_000 in inspect(run, reason="copyright", full=True)
    assert inspect(run, reason="incomplete").endswith("続きを読む")


def test_a_terminal_is_safe(run: Path) -> None:
    text = inspect(run, reason="advert")
    assert r"咳\x1b[2J\u202e" in text
    text.encode()
    inspect(run, reason="near_duplicate").encode()


@given(st.text(st.characters(exclude_categories=[])))
def test_safe_text_is_printable_and_the_rest_is_as_it_was(text: str) -> None:
    shown = safe(text)
    assert shown.replace("\n", "").replace("\u3000", "").isprintable()
    if text.isprintable():
        assert shown == text


def test_what_a_user_can_get_wrong(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown reason 'to_short' \(did you mean 'too_short'\?\)"):
        inspect(run, reason="to_short")
    with pytest.raises(UserError, match="nothing was dropped as 'adult'; expected one of too_short, "):
        inspect(run, reason="adult")
    with pytest.raises(UserError, match="a sample of 0"):
        inspect(run, reason="advert", count=0)
    with pytest.raises(UserError, match="not a run folder"):
        inspect(tmp_path / "corpus" / "shards", reason="advert")
    (run / "DONE").unlink()
    with pytest.raises(UserError, match="this run has not finished"):
        inspect(run, reason=None)


def test_files_that_are_gone_or_changed(run: Path) -> None:
    path = run / "dropped/00001-000.jsonl.zst"
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    with pytest.raises(UserError, match=r"00001-000\.jsonl\.zst: a product is missing or was changed"):
        inspect(run, reason="advert")
    path.write_bytes(b"\0" * len(data))
    with pytest.raises(UserError, match=r"00001-000\.jsonl\.zst: the file is damaged"):
        inspect(run, reason="advert")
    path.unlink()
    with pytest.raises(UserError, match="a product is missing"):
        inspect(run, reason="advert")
    assert "keep-1" in inspect(run, reason="kept")


def test_a_real_run_can_be_inspected_and_its_report_rewritten(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    rows = [
        {"id": f"d-{n}", "text": f"第{n}病日に{word}を認め、{word}として治療を開始した。", "source": "web"}
        for n, word in enumerate(("肺炎", "心不全", "脳梗塞", "腎盂腎炎", "胆嚢炎", "気胸"))
    ]
    rows += [{"id": "short", "text": "短い。"}, {"id": "copy", "text": rows[0]["text"] + "　"}]
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "in/web.jsonl").write_text("\n".join(lines))
    report = corpus_run(Recipe(workers=1), [tmp_path / "in"], tmp_path / "out")
    assert {"too_short", "duplicate"} <= report.numbers["dropped"].keys()
    for reason, row in report.numbers["dropped"].items():
        text = inspect(tmp_path / "out", reason=reason, count=99)
        assert f"{row['documents']} of {row['documents']} documents dropped as {reason} " in text
    kept = report.numbers["documents_kept"]
    assert inspect(tmp_path / "out", reason="kept").startswith(f"{kept} of {kept} documents kept")
    assert "kept instead: " in inspect(tmp_path / "out", reason="duplicate")
    assert rewrite(tmp_path / "out") == report
    again = corpus_run(Recipe(workers=1), [tmp_path / "in"], tmp_path / "out")
    assert again == report


def test_memory_does_not_grow_with_the_number_of_documents(tmp_path: Path) -> None:
    peaks = []
    for shards in (2, 20):
        gone = [[dropped(f"{shard}-{n}", NOTE * 20, "advert", 3) for n in range(100)] for shard in range(shards)]
        run = write_run(tmp_path / f"{shards}", [[Document(NOTE, "k", {"source": "web"})]], gone)
        del gone
        tracemalloc.start()
        inspect(run, reason="advert", count=5)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
