"""Contamination: every shared passage of the given length is found, no shorter one, in all forms of benchmark files."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rinsho.contamination import MAX_ITEMS, Index
from rinsho.errors import UserError
from rinsho.text import clean

CASE = "62歳の男性。3日前からの発熱と咳嗽を主訴に来院した。右下肺野に浸潤影を認める。"
SMALL = st.text(alphabet="あいう", max_size=39)


def index(*texts: str, chars: int = 10) -> Index:
    return Index.from_passages((("exam", f"exam.jsonl:{n}", text) for n, text in enumerate(texts)), chars)


def foreign(count: int) -> str:
    """Characters that stand in no passage; all different."""
    return "".join(chr(0x5000 + 3 * n) for n in range(count))


@settings(deadline=None)
@given(st.integers(8, 40), st.integers(0, 60), st.integers(0, 60), st.integers(0, 50), st.data())
def test_a_passage_of_just_the_length_is_found_and_one_shorter_is_not(
    chars: int, before: int, after: int, start: int, data: st.DataObject
) -> None:
    source = "".join(chr(0x6000 + n) for n in range(start + chars + 7))
    known = index(source, chars=chars)
    spaced = data.draw(st.integers(1, chars - 1))
    passage = source[start : start + chars]
    passage = passage[:spaced] + " \n" + passage[spaced:]
    text = foreign(before) + passage + foreign(after)
    assert known.covered(text) == (chars, ("exam.jsonl:0",))
    assert known.covered(foreign(before) + passage[:-1] + foreign(after)) == (0, ())
    assert known.covered(foreign(before) + passage[1:] + foreign(after)) == (0, ())


def plain(texts: list[str], document: str, chars: int) -> int:
    """Covered characters by brute force, for passages that are longer than no template."""
    distinct = [text for text in dict.fromkeys(texts) if len(text) >= chars]
    windows = [{text[i : i + chars] for i in range(len(text) - chars + 1)} for text in distinct]
    useful = {window for own in windows for window in own if sum(window in other for other in windows) <= MAX_ITEMS}
    covered = set()
    for i in range(len(document) - chars + 1):
        if document[i : i + chars] in useful:
            covered.update(range(i, i + chars))
    return len(covered)


@settings(max_examples=200, deadline=None)
@given(st.lists(SMALL, min_size=1, max_size=5), SMALL, st.integers(8, 14), st.data())
def test_covered_is_that_of_all_windows(texts: list[str], document: str, chars: int, data: st.DataObject) -> None:
    texts = [clean(text) for text in texts]
    if max(map(len, texts)) < chars:
        return
    source = data.draw(st.sampled_from(texts))
    document = clean(document + source[data.draw(st.integers(0, 20)) :] + document[::-1])
    count, names = index(*texts, chars=chars).covered(document)
    assert count == plain(texts, document, chars)
    assert bool(names) == (count > 0)


def test_many_shared_passages_and_long_documents() -> None:
    rng = np.random.default_rng(4)
    texts = ["".join(map(chr, rng.integers(0x4E00, 0x4E40, 300).tolist())) for _ in range(40)]
    document = foreign(40_000) + texts[3] + foreign(33) + texts[7][50:200] + texts[9][:29] + foreign(900)
    count, names = index(*texts, chars=30).covered(document)
    assert (count, names) == (450, ("exam.jsonl:3", "exam.jsonl:7"))
    everything = "".join(text + foreign(5) for text in texts * 20)
    assert index(*texts, chars=30).covered(everything)[0] == 40 * 20 * 300


def test_template_wording_is_ignored_but_questions_about_one_text_are_not() -> None:
    template = "次の文章を読み、以下の問いに最もよく当てはまる選択肢を一つだけ選びなさい。"
    words = [f"{template}{chr(0x5200 + n)}{foreign(20)[n:]}" for n in range(MAX_ITEMS + 1)]
    assert index(*words).covered(f"講座では、{template}と書かれていた。") == (0, ())
    assert index(*words[:MAX_ITEMS]).covered(f"講座では、{template}と書かれていた。")[0] == len(template)
    case = "".join(chr(0x7000 + n) for n in range(60))
    shared = [f"{case}{chr(0x5200 + n)}{foreign(20)[n:]}" for n in range(6)]
    assert index(*shared).covered(foreign(9) + case)[0] == len(case)


def test_width_and_punctuation_do_not_hide_a_passage() -> None:
    known = index("６２歳の男性．発熱（38.5°C）が続く...受診した．", chars=12)
    count, _ = known.covered(clean("症例：62歳の男性。発熱(３８．５℃)が続く…受診した。"))
    assert count == len("62歳の男性。発熱(38.5℃)が続く…受診した。")


def test_the_items_with_most_in_common_are_named() -> None:
    texts = [chr(0x7000 + n) * 2 + "".join(chr(0x6000 + 40 * n + k) for k in range(30)) for n in range(5)]
    document = foreign(3) + texts[1][:12] + texts[2] + texts[3][:20] + texts[4][:25]
    assert index(*texts).covered(document)[1] == ("exam.jsonl:2", "exam.jsonl:4", "exam.jsonl:3")


def test_an_index_travels_to_a_worker() -> None:
    known = pickle.loads(pickle.dumps(index(CASE)))
    assert known.covered(CASE)[0] == len(CASE)


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def jmed_folder(folder: Path) -> Path:
    options = {"optionA": "あり", "optionB": "なし", "answer": "A"}
    question = "次の報告で「{}」はあるか。\n「" + CASE + "」"
    rows = [{"tag": "fever", "question": question.format(word), **options} for word in ("熱", "咳", "痰", "下痢")]
    write_csv(folder / "datasets" / "crade.csv", rows)
    pool = [{"tag": "fever", "question": "次は何か。\n「昨日から頭痛と吐き気がひどくて一日中寝ていた。」", **options}]
    write_csv(folder / "datasets" / "all" / "CRADE.csv", pool)
    return folder


def test_jmed_folders_and_files(tmp_path: Path) -> None:
    """One passage asked about four times is one passage, not a template."""
    folder = jmed_folder(tmp_path / "jmed")
    for path in (folder, folder / "datasets" / "crade.csv"):
        known = Index.from_files([path], 20)
        assert known.covered(clean(CASE)) == (len(clean(CASE)), ("crade.csv:00000",))
    assert Index.from_files([folder], 20).covered("昨日から頭痛と吐き気がひどくて一日中寝ていた。")[1] == (
        "CRADE.csv:00000",
    )
    assert Index.from_files([folder / "datasets" / "crade.csv"], 20).names == ("crade.csv:00000",)
    lone = tmp_path / "mine.csv"
    write_csv(lone, [{"question": "次の報告に熱はあるか。\n「" + CASE + "」"}])
    assert Index.from_files([lone], 20).covered(clean(CASE)) == (len(clean(CASE)), ("mine.csv:00000",))


def test_igakuqa_folders_and_files(tmp_path: Path) -> None:
    path = tmp_path / "exams" / "data" / "2024" / "118-A.jsonl"
    path.parent.mkdir(parents=True)
    problem = {"problem_id": "118A1", "problem_text": CASE, "choices": ["a. 肺炎", "b. 肺癌"], "answer": ["a"], "points": "1",
               "text_only": True}  # fmt: skip
    path.write_text(json.dumps(problem, ensure_ascii=False) + "\n", encoding="utf-8")
    for given_path in (tmp_path / "exams", path):
        assert Index.from_files([given_path], 20).covered(clean(CASE))[1] == ("118-A.jsonl:118A1",)


def test_an_item_is_held_when_enough_of_it_stands_in_the_text() -> None:
    made = Index.from_passages([("exam", "whole", CASE), ("exam", "other", "右膝の腫れと痛みで歩けない。" * 2)], 10)
    text = clean(CASE)
    assert made.held("前置き。" + text + "続き。", 1.0) == ("whole",)
    half = text[: len(text) // 2 + 1]
    assert made.held(half, 0.4) == ("whole",)
    assert made.held(half, 0.8) == ()
    assert made.held("", 0.5) == made.held("腹痛と下痢。", 0.0) == ()


@pytest.mark.parametrize("field", ["text", "question"])
def test_other_document_files(tmp_path: Path, field: str) -> None:
    path = tmp_path / "own" / "mine.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps({field: CASE}, ensure_ascii=False) + "\n", encoding="utf-8")
    for given_path in (path, path.parent):
        assert Index.from_files([given_path], 20).names == ("mine.jsonl:1",)


def test_what_a_user_can_get_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not there"):
        Index.from_files([tmp_path / "absent.jsonl"], 20)
    with pytest.raises(UserError, match="not there"):
        Index.from_files([tmp_path / "absent.csv"], 20)
    with pytest.raises(UserError, match="no passage is long enough"):
        index("短い。", chars=20)
    with pytest.raises(UserError, match="found everywhere"):
        index(CASE, chars=4)
    (tmp_path / "other.jsonl").write_text('{"label": 3}\n', encoding="utf-8")
    with pytest.raises(UserError, match="no benchmark texts in here"):
        Index.from_files([tmp_path / "other.jsonl"], 20)
