"""An exercise that a teacher wrote as a JSON object, also inside a code fence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rinsho.document import parse
from rinsho.synthesize.exercise_fields import LETTERS, Fields, option_of

QUESTION = ("question", "問題", "問題文", "設問", "質問")
OPTIONS = ("options", "choices", "選択肢")
ANSWER = (
    "answer", "answers", "correct_answer", "correct_answers", "correct_option", "correct_options", "correct_choice",
    "correct", "answer_idx", "正解", "正答", "答え", "解答",
)  # fmt: skip
EXPLANATION = ("explanation", "rationale", "reason", "解説", "説明", "理由")
STEM = ("case", "stem", "vignette", "症例", "症例文")


def read_json(text: str) -> Fields | str | None:
    r"""The fields of a JSON object, why they are none, or None where the text is no such JSON.

    A number as the answer counts only where the options are numbered: models count from 0 or from 1.

    >>> read_json('```json\n{"問題": "どれか。", "選択肢": ["甲", "乙"], "正解": "b", "解説": "…"}\n```')
    Fields(question='どれか。', options={'a': '甲', 'b': '乙'}, answer=('b',), explanation='…')
    """
    start = min((place for place in (text.find("{"), text.find("[")) if place >= 0), default=-1)
    end = max(text.rfind("}"), text.rfind("]"))
    if start < 0 or end < start or not _alone(text[:start], text[end + 1 :]):
        return None
    try:
        value = parse(text[start : end + 1])
    except (ValueError, RecursionError):
        return None
    rows = value if isinstance(value, list) else [value]
    if not rows or not all(isinstance(row, dict) for row in rows):
        return None
    if len(rows) == 1 and not _first(rows[0], OPTIONS):  # {"exercise": {...}}, {"questions": [...]}
        inner = [one for one in rows[0].values() if isinstance(one, dict | list)]
        rows = inner[0] if len(inner) == 1 and isinstance(inner[0], list) else inner
    if len(rows) != 1 or not isinstance(rows[0], dict):
        return "several_exercises" if len(rows) > 1 else None
    return _fields(rows[0])


def _alone(before: str, after: str) -> bool:
    """Nothing but a code fence and a remark around it."""
    return (not before.strip() or "```" in before or len(before) < 80) and len(after) < 400


def _fields(row: Mapping[str, Any]) -> Fields:
    options = _options(_first(row, OPTIONS))
    given = _first(row, ANSWER)
    answer = [str(one) for one in (given if isinstance(given, list) else [given]) if isinstance(one, str | int)]
    stem, question = _text(_first(row, STEM)), _text(_first(row, QUESTION))
    return Fields("\n".join(part for part in (stem, question) if part), options, tuple(answer), _said(row))


def _said(row: Mapping[str, Any]) -> str:
    value = _first(row, EXPLANATION)
    if isinstance(value, dict):
        return "\n".join(f"{key}: {text}" for key, text in value.items() if isinstance(text, str))
    return "\n".join(one for one in value if isinstance(one, str)) if isinstance(value, list) else _text(value)


def _options(value: Any) -> dict[str, str]:
    """Label -> text of a list of texts, an object, or a list of objects."""
    pairs: list[tuple[str, str]] = []
    rows = list(value.items()) if isinstance(value, dict) else value if isinstance(value, list) else []
    for place, row in enumerate(rows[:10]):
        if isinstance(row, dict):  # {"label": "a", "text": "…"}
            texts = [one for one in row.values() if isinstance(one, str)]
            row = tuple(texts) if len(texts) == 2 else row  # noqa: PLW2901
        if isinstance(row, tuple) and len(row) == 2 and all(isinstance(one, str) for one in row):
            found = option_of(f"{row[0]}. {row[1]}")
            pairs.append((found.label if found else row[0].strip().lower(), row[1].strip()))
        elif isinstance(row, str):
            found = option_of(row)
            own = found is not None and found.place == place and found.text
            pairs.append((found.label, found.text) if found and own else (LETTERS[place], row.strip()))
    options = dict(pairs)
    return options if len(options) == len(pairs) else {}


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    lower = {key.strip().lower(): value for key, value in row.items()}
    return next((lower[name] for name in names if name in lower), None)


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
