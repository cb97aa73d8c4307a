"""Values: what is one, what is none, in every width; no overlap, linear time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rinsho.clinical.values import find_values
from rinsho.text import clean

WIDE = {ord("!") + place: ord("！") + place for place in range(94)}


def values(text: str) -> list[str]:
    return [text[start:end] for start, end in find_values(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("発熱38.5℃、体温３６．９度、39度台の熱", ["38.5℃", "体温３６．９度", "39度台"]),
        ("血圧 120/80 mmHg、脈拍 96回/分、142/88、SpO2 96%", ["血圧 120/80 mmHg", "脈拍 96回/分", "142/88", "SpO2 96%"]),
        ("プレドニゾロン２０㎎／日（１㎎／㎏）", ["２０㎎／日", "１㎎／㎏"]),
        ("5〜10mg、15-20mg/day、100→200ml、36±2℃、<0.3mg/dL", ["5〜10mg", "15-20mg/day", "100→200ml", "36±2℃", "<0.3mg/dL"]),
        ("3×4cmの腫瘤、3cm×4cm大、腫瘍径28mm", ["3×4cm", "3cm×4cm", "28mm"]),
        ("WBC 12,300、Hb9.8g/dl、血小板12万/μL、CRP:5.1", ["WBC 12,300", "Hb9.8g/dl", "血小板12万/μL", "CRP:5.1"]),
        ("CA19-9 37U/mL、HbA1c7.2%、eGFR 45mL/min/1.73m2、8.5×10^3/μL",
         ["CA19-9 37U/mL", "HbA1c7.2%", "eGFR 45mL/min/1.73m2", "8.5×10^3/μL"]),
        ("AST/ALT 45/38 IU/L、K 4.5、Na 140 mEq/L、BE -5.2", ["AST/ALT 45/38 IU/L", "K 4.5", "Na 140 mEq/L", "BE -5.2"]),
        ("5mg1錠 分3、3T 分3、カロナール2T、1/2錠、PSL5mg", ["5mg1錠", "3T", "2T", "1/2錠", "5mg"]),
        ("50.4Gy/28Fr、70mg/m2、2L/分、O2 3L", ["50.4Gy/28Fr", "70mg/m2", "2L/分", "3L"]),
        ("2023年10月12日、10/12、令和5年3月、10:30、12時30分、3日間、2週間後、70歳", []),
        ("5例中2例、1日3回、3個のポリープ、図3、表 2、p.12、第5病日、文献10-12、03-1234-5678", []),
        ("T1c N0、Grade 2、ステージ2A、Stage 3、Day 5、5 months、IL-6、CA19-9、1.5T MRI、リンパ節#4L", []),
        ("3度房室ブロック、熱傷2度、30度挙上、80/120、98/60例", []),
        ("170cm48kg、9mm→約12mm、1秒量、1秒で、5mg 1錠、3錠/日", ["170cm", "48kg", "9mm→約12mm", "1秒", "5mg", "1錠", "3錠/日"]),
        ("10/12 CRP 3.1、2023/10/12 5mg、第1回 5mg", ["CRP 3.1", "5mg", "5mg"]),
        ("", []),
    ],
)  # fmt: skip
def test_examples(text: str, expected: list[str]) -> None:
    assert values(text) == expected


def test_width_changes_no_place() -> None:
    text = "体温38.5℃、BP 120/80mmHg、CRP 12.3mg/dL、5-10mg/日、2023/10/12、WBC 12,300/μL、T1c、3T 分3"
    assert find_values(text) == find_values(text.translate(WIDE)) and len(find_values(text)) == 6


def test_clean_text_has_the_same_values() -> None:
    raw = "体温３８．５℃，ｾﾌﾄﾘｱｷｿﾝ２ｇ／日，ＷＢＣ１２，３００／μＬ．"
    assert [clean(value) for value in values(raw)] == values(clean(raw)) == ["体温38.5℃", "2g/日", "WBC12,300/μL"]


@given(st.text(alphabet="0123456789.,/-〜×→<±: mgdLμ%℃CRPBP血圧日年月錠T\n", max_size=60))
def test_spans_are_ordered_and_hold_a_number(text: str) -> None:
    end = 0
    for start, stop in find_values(text):
        assert end <= start < stop <= len(text)
        assert any(char.isdigit() for char in text[start:stop]) and text[start:stop] == text[start:stop].strip()
        end = stop


@pytest.mark.parametrize(
    "piece",
    ["1-", "1,111", "1/", "CRP ", "血圧は", "<", "1 ", "5mg", "1×10^", "CRP(", "1.1.1.", "γ-GTP/", "5mg/", "1 / "],
)
def test_linear_time(piece: str) -> None:
    find_values("5mg")  # the pattern is made at its first use
    started = time.process_time()
    find_values(piece * (100_000 // len(piece)))
    assert time.process_time() - started < 5
