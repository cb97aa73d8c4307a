"""What is asked of a local model and kept of its answers: few-shot, other orders, first lines, thoughts, kills."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluate.toy_oracle import FIRST, Oracle
from rinsho.chat import ASSISTANT, BEGIN
from rinsho.evaluate.ask import BLANK_LINES, answer_all, first_lines
from rinsho.run import Stage
from rinsho.tasks import Item
from rinsho.tasks.asking import Asking
from rinsho.tasks.examples import group
from rinsho.tasks.item import unrotated_letter
from rinsho.tasks.prompts import CHOICE, ENTITIES, EXAM, EXAM_NUMBER, USMLE

MODES = ("free", "constrained", "likelihood")


def items() -> list[Item]:
    """Two tags of a task, an examination with a calculation, and lists; lengths differ."""
    found = []
    for number in range(6):
        text = f"第{number}例、{'熱' * (number * 7 % 5)}がある。"
        tag = "熱" if number % 2 else "咳"
        found.append(
            Item(f"smdis/{number}", "smdis", "choice", tag, CHOICE, text, ("はい", "いいえ"), ("A",), text, "")
        )
        options = ("肝", "腎", "肺", "脳")[: 3 + number % 2]
        found.append(
            Item(f"igakuqa/1A{number}", "igakuqa", "choice", "", EXAM, text, options, ("c",), text, "", year=2030)
        )
    found.append(
        Item("igakuqa/1A9", "igakuqa", "number", "", EXAM_NUMBER, "計算せよ。", (), ("26",), "", "", year=2030)
    )
    found.append(Item("nrner/0", "nrner", "entities", "d", ENTITIES, "所見は？", (), ("発熱",), "発熱あり。", ""))
    return found


def shown() -> dict[str, list[Item]]:
    """Two solved examples for each group of the items."""
    found: dict[str, list[Item]] = {}
    for item in items():
        solved = [replace(item, id=f"{item.id}/{n}", question=f"{group(item)}の例題{n}。") for n in range(2)]
        found.setdefault(group(item), solved)
    return found


def stage_in(folder: Path) -> Stage:
    stage = Stage("evaluate", folder)
    stage.partial.mkdir(parents=True, exist_ok=True)
    return stage


def ask(model: Any, folder: Path, asked: list[Item] | None = None, rotations: int = 0, **how: Any) -> list[dict]:
    modes = how.pop("modes", MODES)
    asking = Asking(model, how.pop("form", "letter"), max_batch_tokens=how.pop("max_batch_tokens", 600), **how)
    path = answer_all(stage_in(folder), asking, items() if asked is None else asked, modes, rotations)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_choice_is_asked_in_other_orders(tmp_path: Path) -> None:
    model = Oracle(lambda prompt: "A", lambda prompt, text: 0.0 if text in ("c", "はい", "肺") else -5.0)
    rows = ask(model, tmp_path, rotations=3)
    keys = [(row["id"], row["mode"], row["rotation"]) for row in rows]
    expected = [
        (item.id, mode, rotation)
        for item in items()
        for mode in (MODES if item.kind == "choice" else MODES[:2] if item.kind == "entities" else MODES[:1])
        for rotation in range(len(item.options) if item.kind == "choice" else 1)
    ]
    assert keys == expected
    by_id = {item.id: item for item in items()}
    for row in rows:
        assert "examples" not in row and row["form"] == "letter" and not row["shortened"]
        if row["mode"] == "likelihood":  # the same option whatever letter it has
            gold = by_id[row["id"]].gold[0]
            assert unrotated_letter(by_id[row["id"]], row["answer"], row["rotation"]) == gold
            assert row["logprobs"].count(0.0) == 1
    assert any("A. いいえ\nB. はい\n" in prompt for prompt in model.prompts)
    assert {row["answer"] for row in rows if row["mode"] == "constrained" and "igakuqa" in row["id"]} == {"c"}


def test_options_that_the_short_form_leaves_out_are_asked_once(tmp_path: Path) -> None:
    rows = ask(Oracle(), tmp_path, rotations=9, prompt_form="short", modes=("free",))
    most = {row["id"].split("/")[0]: row["rotation"] for row in rows if row["id"] != "igakuqa/1A9"}
    assert most == {"smdis": 0, "igakuqa": 3, "nrner": 0}


class Batches(Oracle):
    """Remembers which prompts were asked together."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.batches: list[list[str]] = []

    def _count(self, prompts: Any) -> None:
        super()._count(prompts)
        self.batches.append([self._text(prompt) for prompt in prompts])


@pytest.mark.parametrize("chat", [True, False])
def test_questions_behind_the_same_examples_stay_together(tmp_path: Path, chat: bool) -> None:
    model = Batches(chat=chat)
    rows = ask(model, tmp_path, rotations=1, examples=shown(), max_batch_tokens=5000)
    assert all(row["examples"] == 2 for row in rows)
    for batch in model.batches:
        starts = {text[: text.index("の例題0。")] for text in batch}
        assert len(starts) == 1
    assert max(map(len, model.batches)) == 7
    assert all(text.startswith(BEGIN) and text.count(BEGIN) == 1 for text in model.prompts)
    assert all(text.endswith(ASSISTANT if chat else "\n答え:") for text in model.prompts)


def test_what_does_not_fit_loses_examples_and_then_its_middle(tmp_path: Path) -> None:
    model = Oracle(chat=False)
    model.window = 130
    rows = ask(model, tmp_path, examples=shown(), modes=("free",), max_new_tokens=20, max_new_tokens_choice=20)
    assert {row["examples"] for row in rows} == {0, 1, 2}
    assert not any(row["shortened"] and row["examples"] for row in rows)
    model.window = 60
    rows = ask(model, tmp_path / "smaller", examples=shown(), modes=("free",), max_new_tokens=20)
    assert any(row["shortened"] for row in rows) and not any(row["examples"] for row in rows if row["shortened"])


def test_a_kill_at_any_piece_changes_nothing(tmp_path: Path) -> None:
    how: dict[str, Any] = {"rotations": 2, "examples": shown(), "max_batch_tokens": 900}
    whole = Oracle(chat=False)
    ask(whole, tmp_path / "whole", **how)
    expected = (tmp_path / "whole/answers.jsonl").read_bytes()
    assert whole.calls > 20
    for stop in range(1, whole.calls, 7):
        folder = tmp_path / f"killed{stop}"
        dying = Oracle(chat=False, stop_after=stop, on_stop=lambda: os.kill(os.getpid(), signal.SIGKILL))
        process = multiprocessing.get_context("fork").Process(target=ask, args=(dying, folder), kwargs=how)
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL and not (folder / "answers.jsonl").exists()
        rest = Oracle(chat=False)
        ask(rest, folder, **how)
        assert rest.calls == whole.calls - stop
        assert (folder / "answers.jsonl").read_bytes() == expected


def test_a_run_out_of_memory_goes_on_with_smaller_batches(tmp_path: Path) -> None:
    class Full(Exception):
        pass

    def stop() -> None:
        raise Full

    how: dict[str, Any] = {"rotations": 1, "examples": shown()}
    whole = Oracle(chat=False)
    expected = ask(whole, tmp_path / "whole", max_batch_tokens=900, **how)
    for number, size in ((3, 300), (8, 1700), (whole.calls - 1, 1)):
        folder = tmp_path / str(size)
        dying = Oracle(chat=False, stop_after=number, on_stop=stop)
        with pytest.raises(Full):
            ask(dying, folder, max_batch_tokens=900, **how)
        kept = sorted((folder / "partial/answers").glob("*.jsonl"))
        rest = Oracle(chat=False)
        assert ask(rest, folder, max_batch_tokens=size, **how) == expected
        assert kept
        assert sorted([*dying.prompts, *rest.prompts]) == sorted(whole.prompts)  # each once, whatever its piece


class Writer(Oracle):
    """Writes `text` behind any prompt, token by token, until a stop; an end-of-text token stands at its end.

    `pieces` are written as one token each, as vocabularies with `']` and a line feed in one piece do.
    """

    def __init__(self, text: str, pieces: tuple[str, ...] = ()) -> None:
        super().__init__(chat=False)
        self.pieces = [*pieces]
        self.ids = []
        while text:
            piece = next((piece for piece in pieces if text.startswith(piece)), text[0])
            self.ids.append(2_000_000 + pieces.index(piece) if piece in pieces else FIRST + ord(piece))
            text = text[len(piece) :]
        self.ids.append(self.tokenizer.eos_token_id)
        self.tokenizer.decode = self._decode  # type: ignore[method-assign]

    def _decode(self, ids: Any, skip_special_tokens: bool = True) -> str:
        return "".join(self.pieces[i - 2_000_000] if i >= 2_000_000 else chr(i - FIRST) for i in ids if i >= FIRST)

    def generate(self, prompts: Any, max_new_tokens: int, stop_ids: Any = None) -> Any:
        self._count(prompts)
        answers = []
        for prompt in prompts:
            behind = list(prompt[len(prompt) - 1 - list(prompt[::-1]).index(FIRST + ord(":")) + 1 :])
            assert behind == self.ids[: len(behind)]
            rest = self.ids[len(behind) :][:max_new_tokens]
            answers.append(rest[: next((n for n, index in enumerate(rest) if index in stop_ids), len(rest))])
        return answers

    def _text(self, prompt: Any) -> str:
        return ""


@pytest.mark.parametrize(
    ("text", "answer", "tokens"),
    [
        ("A\n質問: 次", "A", 1),
        (" A \n\nB", "A", 3),
        ("\n\nA\nB", "A", 3),
        ("\n", "", 1),
        ("", "", 0),
        ("\n" * (BLANK_LINES + 1) + "A", "", BLANK_LINES),
        ("肺癌" * 20, "肺癌" * 8, 16),
        ("['肺癌']\n['次']\n", "['肺癌']", 9),
    ],
)
def test_the_first_line_of_a_base_model_is_its_answer(tmp_path: Path, text: str, answer: str, tokens: int) -> None:
    row = ask(Writer(text, ("']\n",)), tmp_path, items()[:1], modes=("free",), max_new_tokens_choice=16)[0]
    assert (row["answer"], row["tokens"]) == (answer, tokens)


def test_the_space_before_an_english_answer_is_no_part_of_it(tmp_path: Path) -> None:
    asked = replace(items()[0], wording=USMLE, question="Fever?")
    (row,) = ask(Writer(" A\nQuestion: next"), tmp_path, [asked], modes=("free",))
    assert row["answer"] == "A"


def test_a_base_model_that_says_text_then_letter_has_two_lines(tmp_path: Path) -> None:
    model = Writer("はい\nA\n質問")
    assert ask(model, tmp_path, items()[:1], modes=("free",), form="text_letter")[0]["answer"] == "はい\nA"


def test_thoughts_are_no_answers(tmp_path: Path) -> None:
    said = "<think>Bかもしれない。</think>\n\nA"
    rows = ask(Oracle(lambda prompt: said), tmp_path / "closed", items()[:1], modes=("free",))
    assert (rows[0]["answer"], rows[0]["reasoning_chars"], rows[0]["tokens"]) == ("A", 15, len(said))
    rows = ask(Oracle(lambda prompt: "<think>B" * 99), tmp_path / "open", items()[:1], modes=("free",))
    assert (rows[0]["answer"], rows[0]["reasoning_chars"]) == ("", 64)
    assert "1 of 1 answers: the model was still thinking" in (tmp_path / "open/log.txt").read_text()
    rows = ask(Oracle(lambda prompt: "A\n"), tmp_path / "none", items()[:1], modes=("free",))
    assert rows[0]["answer"] == "A\n" and "reasoning_chars" not in rows[0]  # raw: the untrimmed rule must see it


def test_a_real_base_model_answers_as_if_nothing_stopped_it(tmp_path: Path) -> None:
    """First lines do not depend on the batch, and are those of the text that greedy decoding writes without stops."""
    pytest.importorskip("torch")
    from rinsho.generate.engine import Generator
    from toy_models import toy_folder

    model = Generator(toy_folder(tmp_path / "toy", window=512, chat=False))
    model.model.lm_head.weight.data[model.tokenizer.convert_tokens_to_ids("\n")] *= 3
    how: dict[str, Any] = {"modes": ("free",), "max_new_tokens": 12, "max_new_tokens_choice": 12}
    asked = [item for item in items() if item.kind == "choice"]
    small = ask(model, tmp_path / "small", asked, **how)
    assert small == ask(model, tmp_path / "large", asked, max_batch_tokens=20_000, **how)
    asking = Asking(model, "letter")
    for item, row in zip(asked, small, strict=True):
        (ids,) = model.generate([asking.prompt(item)], 12, stop_ids=[model.tokenizer.eos_token_id])
        text = model.tokenizer.decode(ids, skip_special_tokens=True)
        if row["answer"] or not text.strip():
            assert row["answer"] == first_lines(text)
    assert any(row["answer"] for row in small)
