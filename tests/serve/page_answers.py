"""A report, and what the stand-in behind the page answers about it."""

from __future__ import annotations

import json
from typing import Any

from serve.page_server import found, spoken

# 𠮷 and 🩺 are one code point and two of JavaScript's units; the line break and ｺ stand before what follows
REPORT = "𠮷田様、高血圧症で🩺通院中。\nﾜｰﾌｧﾘﾝ内服。2型糖尿病あり、肺癌の疑いなし。肺癌は否定的。CRP 1.2mg/dL。"
ENTITIES = [
    ("disease", "高血圧症", 0.97), ("disease", "2型糖尿病", 0.91), ("disease", "糖尿病", 0.3), ("disease", "肺癌", 0.41),
    ("medicine", "ﾜｰﾌｧﾘﾝ", 0.62), ("value", "1.2mg/dL", None),
]  # fmt: skip
ANSWER = "肺炎を疑います。\n𠮷と🩺。"


def extraction(body: dict[str, Any]) -> dict[str, Any]:
    return found(body["text"], *(entity for entity in ENTITIES if entity[0] in body["kinds"]))


def classification(body: dict[str, Any]) -> dict[str, Any]:
    shares = [0.2, 0.799, 0.001][: len(body["options"])]
    rows = [{"option": option, "probability": share} for option, share in zip(body["options"], shares, strict=True)]
    return {"options": rows, "best": rows[1]["option"]}


def training_rows(body: dict[str, Any]) -> dict[str, Any]:
    return {"jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in body["rows"])}


ANSWERS = {
    "extract": extraction, "classify": classification, "training-rows": training_rows,
    "chat/completions": lambda body: spoken([ANSWER[:5], ANSWER[5:]]),
    "tokens": lambda body: {
        "tokens": [
            {"id": 7, "piece": "𠮷", "start": 0, "end": 1}, {"id": 8, "piece": "ワーファリン", "start": 1, "end": 7},
            {"id": 9, "piece": "\n", "start": 7, "end": 8}, {"id": 4, "piece": "<0xE8>", "start": 8, "end": 9},
        ],
        "count": 4, "characters": 9,
    },
}  # fmt: skip
