"""A small invented JMED-LLM folder, written with the csv module."""

from __future__ import annotations

import csv
from pathlib import Path

OPTIONS_STS = ["同等である。\nS1: あ\nS2: い", "ほぼ同等", "大まかに同等", "同等でない", "話題だけ同じ", "無関係"]
QUESTION_D = "以下の看護記録において、所見を表す表現は？"


def write_csv(path: Path, header: list[str], rows: list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([header, *rows])


def smdis(tag: str, post: str, answer: str) -> list[str]:
    return [tag, f"SNSの投稿者に{tag}はありますか？\n「{post}」", f"{tag}がある", f"{tag}がない", answer]


def entity(tag: str, record: str, answer: str) -> list[str]:
    asked = QUESTION_D if tag == "d" else "以下の記録において、薬品名は？"
    return [tag, f"{asked}\n「{record}」", answer]


def pair(first: str, second: str, answer: str) -> list[str]:
    return [f"以下の2つの文の意味の類似度は？\nS1: {first}\nS2: {second}", *OPTIONS_STS, answer]


REPORTS = [
    "六十代の架空の患者。三日前からの咳嗽を主訴に来院し、患者の希望で外来にて経過をみた。",
    "入院翌日に発熱が出現した。患者は解熱剤を望まず、冷却のみで翌朝には平熱となった。",
    "術後四日目の患者に軽い咳嗽を認めたが、胸部写真では異常なく退院を予定した。",
    "健診で受診した方で、前夜の発熱以外に訴えはなく、採血の結果も基準範囲内であった。",
]


def toy_jmed(folder: Path) -> Path:
    """SMDIS, NRNER, CRNER with both MRNER tests, JCSTS without its pool file; test rows stand in the pools."""
    choice = ["tag", "question", "optionA", "optionB", "answer"]
    tests = [smdis("熱", "昨日から熱がある。", "A"), smdis("咳", "咳はもう出ない。", "B")]
    others = [smdis("咳", "昨日から熱が ある。", "B"), smdis("熱", "平熱だった。", "B"), smdis("熱", "39度の熱。", "A")]
    write_csv(folder / "datasets/smdis.csv", choice, tests)
    write_csv(folder / "datasets/all/SMDIS.csv", choice, [*tests, *others])

    entities = ["tag", "question", "answer"]
    crner_d = [entity("d", report, "['発熱']" if n % 2 else "['咳嗽']") for n, report in enumerate(REPORTS[:4])]
    crner_m = [entity("m-key", report, "['患者']") for report in REPORTS[:3]]
    write_csv(folder / "datasets/mrner_disease.csv", entities, crner_d[:1])
    write_csv(folder / "datasets/mrner_medicine.csv", entities, crner_m[1:2])
    write_csv(folder / "datasets/all/CRNER.csv", entities, [*crner_d, *crner_m])
    nrner = [
        entity("d", "夜間に３８．５℃の発熱あり。", "['発熱']"),
        entity("d", "疼痛の訴えなし。", "['疼痛', '訴え']"),
    ]
    write_csv(folder / "datasets/nrner.csv", entities, nrner[:1])
    write_csv(folder / "datasets/all/NRNER.csv", entities, nrner)

    sts = ["question", *[f"option{letter}" for letter in "ABCDEF"], "answer"]
    write_csv(folder / "datasets/jcsts.csv", sts, [pair("甲は軽快した。", "甲は治癒した。", "B")])
    source = [
        ["1", "甲は軽快した。", "甲は治癒した。", "4"],
        ["2", "甲は 軽快した。", "乙は死亡した。", "0"],
        ["3", "丙は転院した。", "丁は退院した。", "3"],
    ]
    columns = ["row", "sentence1", "sentence2", "score"]
    write_csv(folder / "jcsts_source/japanese_clinical_sts_pairs.csv", columns, source)
    write_csv(folder / "cases.csv", ["task", "row", "case"], [["smdis", "1", "negated"], ["smdis", "1", "other"]])
    return folder
