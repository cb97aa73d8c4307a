"""Puts the questions to a model and keeps its raw answers, piece by piece, so that a kill loses one piece.

An answer line (answers.jsonl): `id`, `mode`, `rotation` (0: options as printed; r: printed position p shows option
(p + r) % n), `form`, `answer` (raw text; a letter or a list literal where the answer was chosen; of a rotated question
what was said about the rotated one), `logprobs` (of the legal answers, where they were computed), `tokens`
(generated), `shortened` (the prompt did not fit the model's window and lost its middle), `examples` (solved ones that
stood before the question; only with few-shot), `reasoning_chars` (only where the model thought aloud: length of what
stood before the answer).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rinsho.run import Stage, write_atomic
from rinsho.tasks import Item, labels
from rinsho.tasks.asking import Asking, orders
from rinsho.tasks.examples import group
from rinsho.tasks.item import legal_choices, list_text, rotated

MODES = {"choice": ("free", "constrained", "likelihood"), "entities": ("free", "constrained"), "number": ("free",)}
PIECE_QUESTIONS = 64
BLANK_LINES = 2  # tokens that may end empty lines before a base model's answer
OPENS, CLOSES = "<think>", "</think>"


class Prompt(NamedTuple):
    """A question as ids: how many solved examples stand before it, and whether its middle was cut out."""

    ids: list[int]
    examples: int
    shortened: bool


Prompts = Mapping[str, Prompt]  # item id -> prompt


def answer_all(stage: Stage, asking: Asking, items: Sequence[Item], modes: Sequence[str], rotations: int = 0) -> Path:
    """Writes `answers.jsonl` into the run folder, in the order of the items, and returns its path.

    Pieces are cut from the full list of questions, whatever an interrupted run has already answered: a question
    always shares its batch with the same others, so that a continued run gives the same bytes. Answers are known by
    question, mode and rotation, so that one that ran out of memory may go on with smaller batches: of a piece that is
    half known only the rest is asked.

    Args:
        stage: the run.
        asking: the model and how it is asked.
        items: the questions.
        modes: in which each is asked, as far as it can be (`MODES`).
        rotations: further orders of the options in which every choice is asked (`rinsho.tasks.asking.orders`).
    """
    path = stage.out / "answers.jsonl"
    if path.is_file():
        return path
    folder = stage.partial / "answers"
    folder.mkdir(parents=True, exist_ok=True)
    turns = {item.id: orders(item, rotations, asking.prompt_form) for item in items}
    keys = [
        (item.id, mode, rotation)
        for item in items
        for mode in modes
        if mode in MODES[item.kind]
        for rotation in turns[item.id]
    ]
    files = sorted(folder.glob("*.jsonl"))
    rows = {_key(row): row for file in files for row in _read(file)}
    written = len(files)
    with stage.progress("answers", len(keys), "questions") as progress:
        for _, members in by_task(items):
            for rotation in range(max(len(turns[item.id]) for item in members)):
                turned = [rotated(item, rotation) for item in members if rotation in turns[item.id]]
                prompts = {item.id: _prompt(asking, item) for item in turned}
                for mode in modes:
                    asked = [item for item in turned if mode in MODES[item.kind]]
                    for piece in _pieces(asked, prompts, asking):
                        rest = [item for item in piece if (item.id, mode, rotation) not in rows]
                        if rest:
                            file = folder / f"{written:06d}.jsonl"
                            write_atomic(file, lines(_answer(asking, mode, rotation, rest, prompts)))
                            rows |= {_key(row): row for row in _read(file)}
                            written += 1
                        progress.update(len(piece))
    kept = [rows[key] for key in keys]
    write_atomic(path, lines(kept))
    tell_unfinished(stage, kept, "evaluate.max_new_tokens and evaluate.max_new_tokens_choice")
    return path


def by_task(items: Sequence[Item]) -> list[tuple[str, list[Item]]]:
    """Items grouped by task, in the order of first appearance; IgakuQA by year (`igakuqa-2018`)."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.task if item.year is None else f"{item.task}-{item.year}", []).append(item)
    return list(groups.items())


def lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """JSON lines in UTF-8; a lone surrogate, which UTF-8 cannot hold, becomes its JSON escape."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return text.encode("utf-8", "backslashreplace")


def spoken(text: str, thinking: bool = False) -> dict[str, Any]:
    r"""`answer`, and where the model thought aloud `reasoning_chars`, the length of what stands before it.

    The answer is what follows the last `</think>`. A thought that was begun (in the text, or by the prompt:
    `thinking`) and never ended has no answer: its letters are none. An answer without thoughts stays as it was said.

    >>> spoken("<think>熱がある。Bではない。</think>\n\nA"), spoken("A：熱がある")
    ({'answer': 'A', 'reasoning_chars': 18}, {'answer': 'A：熱がある'})
    >>> spoken("<think>AかBか、それとも")
    {'answer': '', 'reasoning_chars': 16}
    """
    thought, closed, answer = text.rpartition(CLOSES)
    if closed:
        return {"answer": answer.strip(), "reasoning_chars": len(thought)}
    if thinking or text.lstrip().startswith(OPENS):
        return {"answer": "", "reasoning_chars": len(text)}
    return {"answer": text}


def first_lines(text: str, number: int = 1) -> str:
    r"""The first lines that say something, without the white space around them: what a base model answered.

    Empty lines before it are left out, as the IgakuQA authors' script for a base model does; the letter rule of
    JMED-LLM and its reading of lists do not see them.

    >>> first_lines("\n 肺癌 \n質問: 次は"), first_lines("ある\nA\n\n質問", 2)
    ('肺癌', 'ある\nA')
    """
    return "\n".join([line for line in text.split("\n") if line.strip()][:number]).strip()


def _prompt(asking: Asking, item: Item) -> Prompt:
    (ids, shown), room = asking.fit(item), asking.prompt_room(item)
    if len(ids) <= room:
        return Prompt(ids, shown, False)
    from rinsho.generate.batches import shorten

    return Prompt(shorten(ids, room), shown, True)


def _pieces(items: Sequence[Item], prompts: Prompts, asking: Asking) -> Iterator[list[Item]]:
    """Questions of like length, together within `max_batch_tokens`; with few-shot all behind the same examples."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(group(item) if asking.examples else "", []).append(item)
    for members in groups.values():
        piece: list[Item] = []
        longest = 0
        for item in sorted(members, key=lambda item: (-len(prompts[item.id].ids), item.id)):
            size = len(prompts[item.id].ids) + asking.new_tokens(item)
            if piece and (len(piece) == PIECE_QUESTIONS or (len(piece) + 1) * longest > asking.max_batch_tokens):
                yield piece
                piece, longest = [], 0
            longest = longest or size
            piece.append(item)
        yield piece


def _answer(asking: Asking, mode: str, rotation: int, items: Sequence[Item], prompts: Prompts) -> list[dict[str, Any]]:
    ids = [prompts[item.id].ids for item in items]
    if mode == "free":
        given = _free(asking, items, ids) if asking.has_chat else _first_lines(asking, items, ids)
    elif items[0].kind == "entities":
        given = _spans(asking, items, ids)
    else:
        given = _chosen(asking, mode, items, ids)
    rows = []
    for item, answer in zip(items, given, strict=True):
        row = {"id": item.id, "mode": mode, "rotation": rotation, "form": asking.form, **answer}
        row["shortened"] = prompts[item.id].shortened
        rows.append(row | {"examples": prompts[item.id].examples} if asking.examples else row)
    return rows


def _free(asking: Asking, items: Sequence[Item], ids: Sequence[list[int]]) -> list[dict[str, Any]]:
    decode = asking.model.tokenizer.decode
    thinking = decode(ids[0][-8:], skip_special_tokens=False).rstrip().endswith(OPENS)  # some chat forms begin it
    answers = asking.model.generate(ids, max(map(asking.new_tokens, items)))
    rows = []
    for item, answer in zip(items, answers, strict=True):
        kept = answer[: asking.new_tokens(item)]
        said = spoken(decode(kept, skip_special_tokens=True), thinking)
        rows.append(said | {"logprobs": None, "tokens": len(kept)})
    return rows


def _first_lines(asking: Asking, items: Sequence[Item], ids: Sequence[list[int]]) -> list[dict[str, Any]]:
    """Answers of a base model, which goes on with a next question: its first line that says something.

    Generation stops at the end of a line. Where nothing was said yet, the token that ended it is asked for, and the
    answer goes on behind it; so the text is what the model writes when nothing stops it.
    """
    model, decode = asking.model, asking.model.tokenizer.decode
    end_ids = [index for index in (model.tokenizer.eos_token_id,) if index is not None]
    stops = [*end_ids, *asking.line_feeds]
    rooms, wanted = list(map(asking.new_tokens, items)), list(map(asking.lines, items))
    answers: list[list[int]] = [[] for _ in items]
    going = list(range(len(items)))
    for left in range(max(wanted) - 1 + BLANK_LINES, -1, -1):
        given = model.generate([[*ids[row], *answers[row]] for row in going], max(rooms), stop_ids=stops)
        for row, more in zip(going, given, strict=True):
            answers[row] = [*answers[row], *more][: rooms[row]]
        texts = {row: first_lines(decode(answers[row], skip_special_tokens=True), wanted[row]) for row in going}
        going = [
            row for row in going
            if (not texts[row] or texts[row].count("\n") + 1 < wanted[row])
            and len(answers[row]) < rooms[row] and len(ids[row]) + len(answers[row]) < model.window
        ]  # fmt: skip
        if not left or not going:
            break
        ends = model.generate([[*ids[row], *answers[row]] for row in going], 1, stop_ids=end_ids)
        for row, end in zip(going, ends, strict=True):
            answers[row] += end
        going = [row for row, end in zip(going, ends, strict=True) if end]
        if not going:
            break
    return [
        {
            "answer": first_lines(decode(answer, skip_special_tokens=True), number),
            "logprobs": None,
            "tokens": len(answer),
        }
        for answer, number in zip(answers, wanted, strict=True)
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
        options = [[asking.answer(item, option.strip()) for option in item.options] for item in items]
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


def _key(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return row["id"], row["mode"], row["rotation"]


def _read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def tell_unfinished(stage: Stage, rows: Sequence[Mapping[str, Any]], setting: str) -> None:
    """Says how many answers never came because the model was still thinking."""
    lost = sum(bool(row.get("reasoning_chars")) and not row["answer"] for row in rows)
    if lost:
        stage.log(
            f"{lost} of {len(rows)} answers: the model was still thinking at the end of its room; raise {setting}"
        )
