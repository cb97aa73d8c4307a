"""A teacher that behaves badly by rule: what it does with a request depends on the request and the attempt alone."""

from __future__ import annotations

import json
import re
from collections import Counter
from random import Random
from typing import Any

from quality.toy_endpoint import Endpoint

SUBJECTS = (
    "患者",
    "家族",
    "主治医",
    "看護師",
    "病変",
    "症状",
    "血圧",
    "検査値",
    "治療",
    "経過",
    "所見",
    "既往",
    "機序",
    "予後",
    "合併症",
)
STATES = (
    "が徐々に悪化した", "は安静で改善する", "を繰り返し確認する", "の評価が重要となる", "は季節により変動する", "に注意して観察する",
    "を早期に説明する", "は年齢とともに増える", "の原因は一つではない", "を画像で確かめる", "は夜間に目立ちやすい", "に応じて薬を選ぶ",
)  # fmt: skip
DEAD = 0.02  # of the requests that no attempt answers
ONCE = (  # what the first attempt may meet, with its share; the next one is answered
    (0.06, {"status": 429, "headers": {"Retry-After": "0"}}),
    (0.05, {"status": 500, "body": b"<html>oops</html>"}),
    (0.03, {"status": 503}),
    (0.05, {"close": True}),
    (0.05, {"cut": True, "content": "半分"}),
    (0.04, {"body": b'{"choices": [{"message"'}),
    (0.01, {"wait": 3.0, "content": "遅すぎる。"}),
)  # fmt: skip
USELESS = (  # answers that come, and are no use
    (0.05, {"content": "This disease is common in adults and is treated with rest and fluids. See a doctor soon."}),
    (0.03, {"content": ""}),
    (0.04, {"content": "申し訳ありませんが、その質問にはお答えできません。"}),
    (0.04, {"content": "同じ文です。" * 60}),
    (0.04, {"content": '```json\n{"question": "途中で切れ', "finish_reason": "length"}),
)  # fmt: skip


class Hostile(Endpoint):
    """Tells requests apart by their last turn and their seed."""

    def __init__(self) -> None:
        super().__init__(self.behave, delay=0.01)
        self.useless: set[str] = set()
        self.dead: set[str] = set()

    def take(self, body: dict[str, Any], key: str | None) -> tuple[str, Any]:
        last = body["messages"][-1]
        last["content"] = f"{body['model']}#{body.get('seed')}#{last['content']}"
        return super().take(body, key)

    def behave(self, text: str, attempt: int) -> Any:
        """What happens at this attempt of this request."""
        draw = Random(text)
        if draw.random() < DEAD:
            self.dead.add(text)
            return {"status": 500}
        wait = draw.random() * 0.1
        bad = _drawn(draw, ONCE)
        useless = _drawn(draw, USELESS)
        if bad is not None and attempt == 1:
            return bad
        if useless is not None:
            self.useless.add(text)
            return useless
        return {"content": written(text, draw), "wait": wait}


def written(text: str, draw: Random) -> str:
    """An exercise where one is asked for, else prose; never twice the same."""
    if "正解" not in text or "解説" not in text:
        return _prose(draw, 12)
    options = "\n".join(f"{label}. {_prose(draw, 1)}" for label in "abcde")
    return (
        f"問題: {_prose(draw, 4)}正しいのはどれか。\n{options}\n正解: {draw.choice('abcde')}\n解説: {_prose(draw, 3)}"
    )


def topics(count: int) -> str:
    """A table of so many invented diseases."""
    return "surface,reading,kind,source\n" + "".join(f"架空第{n}症候群,,disease,test\n" for n in range(count))


def useful(content: str) -> str:
    """What identifies an answer: its Japanese characters."""
    return "".join(re.findall(r"[ぁ-ヿ㐀-鿿]", content))


def _prose(draw: Random, sentences: int) -> str:
    return "".join(
        f"{draw.choice(SUBJECTS)}と{draw.choice(SUBJECTS)}{draw.choice(STATES)}ため、{draw.choice(SUBJECTS)}{draw.choice(STATES)}。"
        for _ in range(sentences)
    )


def _drawn(draw: Random, table: Any) -> Any:
    number = draw.random()
    for share, said in table:
        number -= share
        if number < 0:
            return said
    return None


def paid(endpoint: Hostile) -> Counter[str]:
    """How often each request was answered whole."""
    return Counter({text: count for text, count in endpoint.answered.items() if count})


def shown(body: dict[str, Any]) -> str:
    """A body as one line, for comparing runs."""
    return json.dumps(body, sort_keys=True, ensure_ascii=False)
