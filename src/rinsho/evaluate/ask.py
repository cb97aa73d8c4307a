"""Puts the questions to a model and keeps its raw answers, piece by piece, so that a kill loses one piece.

An answer line (answers.jsonl): `id`, `mode`, `form`, `answer` (raw text; a letter or a list literal where the answer
was chosen), `logprobs` (of the legal answers, where they were computed), `tokens` (generated), `shortened` (the
prompt did not fit the model's window and lost its middle).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rinsho.run import Stage, write_atomic
from rinsho.tasks import Item, labels
from rinsho.tasks.asking import Asking
from rinsho.tasks.item import legal_choices, list_text

MODES = {"choice": ("free", "constrained", "likelihood"), "entities": ("free", "constrained"), "number": ("free",)}
PIECE_QUESTIONS = 64


def answer_all(stage: Stage, asking: Asking, items: Sequence[Item], modes: Sequence[str]) -> Path:
    """Writes `answers.jsonl` into the run folder, in the order of the items, and returns its path.

    Pieces are cut from the full list of questions, whatever an interrupted run has already answered: a question
    always shares its batch with the same others, so that a continued run gives the same bytes.
    """
    path = stage.out / "answers.jsonl"
    if path.is_file():
        return path
    folder = stage.partial / "answers"
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(mode in MODES[item.kind] for item in items for mode in modes)
    with stage.progress("answers", total, "questions") as progress:
        for task, group in by_task(items):
            prompts = {item.id: _prompt(asking, item) for item in group}
            for mode in modes:
                asked = [item for item in group if mode in MODES[item.kind]]
                for number, piece in enumerate(_pieces(asked, prompts, asking)):
                    file = folder / f"{task}.{mode}.{number:04d}.jsonl"
                    if not file.is_file():
                        write_atomic(file, _lines(_answer(asking, mode, piece, prompts)))
                    progress.update(len(piece))
    write_atomic(path, _lines(_in_order(folder, items, modes)))
    return path


def by_task(items: Sequence[Item]) -> list[tuple[str, list[Item]]]:
    """Items grouped by task, in the order of first appearance; IgakuQA by year (`igakuqa-2018`)."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.task if item.year is None else f"{item.task}-{item.year}", []).append(item)
    return list(groups.items())


def _prompt(asking: Asking, item: Item) -> tuple[list[int], bool]:
    """(ids, whether the middle was cut out because the window is too small)."""
    ids, room = asking.prompt(item), asking.prompt_room(item)
    if len(ids) <= room:
        return ids, False
    from rinsho.generate.batches import shorten

    return shorten(ids, room), True


def _pieces(items: Sequence[Item], prompts: dict[str, tuple[list[int], bool]], asking: Asking) -> Iterator[list[Item]]:
    """Groups of questions of like length, each within `batch_tokens`."""
    piece: list[Item] = []
    longest = 0
    for item in sorted(items, key=lambda item: (-len(prompts[item.id][0]), item.id)):
        longest = longest or len(prompts[item.id][0]) + asking.new_tokens(item)
        if piece and (len(piece) == PIECE_QUESTIONS or (len(piece) + 1) * longest > asking.batch_tokens):
            yield piece
            piece, longest = [], len(prompts[item.id][0]) + asking.new_tokens(item)
        piece.append(item)
    if piece:
        yield piece


def _answer(
    asking: Asking, mode: str, items: Sequence[Item], prompts: dict[str, tuple[list[int], bool]]
) -> list[dict[str, Any]]:
    ids = [prompts[item.id][0] for item in items]
    if mode == "free":
        given = _free(asking, items, ids)
    elif items[0].kind == "entities":
        given = _spans(asking, items, ids)
    else:
        given = _chosen(asking, mode, items, ids)
    return [
        {"id": item.id, "mode": mode, "form": asking.form, **answer, "shortened": prompts[item.id][1]}
        for item, answer in zip(items, given, strict=True)
    ]


def _free(asking: Asking, items: Sequence[Item], ids: Sequence[list[int]]) -> list[dict[str, Any]]:
    tokenizer = asking.model.tokenizer
    stops = None
    if not asking.has_chat:  # a base model goes on with a next question: its first line is its answer
        stops = [stop for stop in (tokenizer.eos_token_id, getattr(tokenizer, "newline_id", None)) if stop is not None]
    answers = asking.model.generate(ids, max(map(asking.new_tokens, items)), stop_ids=stops)
    return [
        {"answer": tokenizer.decode(answer, skip_special_tokens=True), "logprobs": None, "tokens": len(answer)}
        for answer in answers
    ]


def _spans(asking: Asking, items: Sequence[Item], ids: Sequence[list[int]]) -> list[dict[str, Any]]:
    found = asking.model.spans(ids, list(map(asking.passage, items)), max(map(asking.new_tokens, items)))
    return [{"answer": list_text(spans), "logprobs": None, "tokens": None} for spans in found]


def _chosen(asking: Asking, mode: str, items: Sequence[Item], ids: Sequence[list[int]]) -> list[dict[str, Any]]:
    """`constrained`: the likeliest whole answer of the model's form, its end included. `likelihood`: the option text
    with the highest mean log-probability per token, without letters; with several answers the best ones."""
    if mode == "constrained":
        legal = [legal_choices(item) for item in items]
        options = [asking.options(item) for item in items]
    else:
        legal = [[(letter,) for letter in labels(item)] for item in items]
        options = [[asking.answer(option.strip()) for option in item.options] for item in items]
    sums = asking.model.choose(ids, options)
    answers = []
    for item, rows, encoded, summed in zip(items, legal, options, sums, strict=True):
        values = summed
        if mode == "likelihood":
            values = [value / len(option) for value, option in zip(summed, encoded, strict=True)]
        order = sorted(range(len(rows)), key=lambda place: (-values[place], place))
        best = order[:1] if mode == "constrained" else order[: len(item.gold)]
        letters = sorted(letter for place in best for letter in rows[place])
        rounded = [round(value, 4) for value in values]
        answers.append({"answer": ",".join(letters), "logprobs": rounded, "tokens": None})
    return answers


def _in_order(folder: Path, items: Sequence[Item], modes: Sequence[str]) -> list[dict[str, Any]]:
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").split("\n"):
            if line:
                row = json.loads(line)
                rows[row["id"], row["mode"]] = row
    return [rows[item.id, mode] for item in items for mode in modes if mode in MODES[item.kind]]


def _lines(rows: Sequence[dict[str, Any]]) -> bytes:
    """JSON lines in UTF-8; a lone surrogate, which UTF-8 cannot hold, becomes its JSON escape."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return text.encode("utf-8", "backslashreplace")
