"""Larger invented pools: enough documents, with rare answers, for a test part to be drawn from."""

from __future__ import annotations

import random
from pathlib import Path

from tasks.toy_jmed import entity, pair, smdis, write_csv

CHOICE = ["tag", "question", "optionA", "optionB", "optionC", "optionD", "answer"]
WORDS = "患者は発熱と咳嗽を主訴に来院した胸部写真で浸潤影肺炎抗菌薬投与翌朝軽快退院外来経過観察採血結果基準範囲"
REPORTS = 36
QUOTED = 5  # this report holds a sentence of the pairs


def text_of(name: str, length: int = 60) -> str:
    draw = random.Random(name)
    return "".join(draw.choice(WORDS) for _ in range(length)) + "。"


def crade(report: str, drug: int, answer: str) -> list[str]:
    return ["medicine", f"「薬{drug}」は有害事象に関係するか？\n「{report}」", "無関係", "低い", "高い", "確実", answer]


def stage(tag: str, report: str, answer: str) -> list[str]:
    return [tag, f"以下の読影レポートの{tag}は？\n「{report}」", "零", "一", "二", "三", answer]


def report_text(number: int) -> str:
    return text_of(f"report{number}") + (text_of("sentence3", 20) if number == QUOTED else "")


def toy_pools(folder: Path) -> Path:
    """CRADE (B, C and D in every 6th report) and CRNER on the same reports, SMDIS, RRTNM and JCSTS."""
    base, tests = folder / "datasets/all", folder / "datasets"
    reports = [report_text(number) for number in range(REPORTS)]
    rows = [crade(text, drug, "A") for text in reports for drug in range(3)]
    rows += [crade(text, 9, "BCD"[number // 2 % 3]) for number, text in enumerate(reports) if number % 2]
    write_csv(base / "CRADE.csv", CHOICE, rows)
    write_csv(tests / "crade.csv", CHOICE, rows[::30])
    spaced = [text[:30] + " \n" + text[30:] for text in reports]
    rows = [entity(tag, text, f"['{text[:2]}']") for text in spaced for tag in ("d", "m-key")]
    write_csv(base / "CRNER.csv", ["tag", "question", "answer"], rows)
    write_csv(tests / "mrner_disease.csv", ["tag", "question", "answer"], rows[:4:2])
    rows = [smdis(tag, text_of(f"post{n}", 20), "BA"[n % 4 == 0]) for n in range(60) for tag in ("熱", "咳")]
    write_csv(base / "SMDIS.csv", ["tag", "question", "optionA", "optionB", "answer"], rows)
    write_csv(tests / "smdis.csv", ["tag", "question", "optionA", "optionB", "answer"], rows[::20])
    rows = [stage(tag, text_of(f"image{n}"), "ABCD"[n % 4]) for n in range(24) for tag in "TN"]
    write_csv(base / "RRTNM.csv", CHOICE, rows)
    write_csv(tests / "rrtnm.csv", CHOICE, rows[:6])
    sentences = [text_of(f"sentence{n}", 20) for n in range(60)]
    write_csv(tests / "jcsts.csv", ["question", *(f"option{x}" for x in "ABCDEF"), "answer"],
              [pair(sentences[3], sentences[4], "A")])  # fmt: skip
    pairs = [[str(n), sentences[n], sentences[n + 1], str(n // 2 % 6)] for n in range(0, 59, 2)]
    pairs += [["90", sentences[4], sentences[9], "2"]]
    columns = ["row", "sentence1", "sentence2", "score"]
    write_csv(folder / "jcsts_source/japanese_clinical_sts_pairs.csv", columns, pairs)
    return folder
