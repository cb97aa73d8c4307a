"""Answers do not depend on the batch, log-probabilities are the explicit ones, spans are spans."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import pytest

from rinsho.errors import UserError
from rinsho.generate.batches import by_length, shorten
from rinsho.generate.spans import Passage, Pieces, SpanAnswer, piece_bytes, unique
from rinsho.tasks.item import list_text
from toy_models import toy_folder, toy_tokenizer

PASSAGES = [  # with quotes, backslashes, a line feed, and characters that are known as bytes only
    "急性心筋梗塞の患者は発熱、咳嗽を認め、肺癌の疑いなし。",
    "肺癌あり。",
    "5'-DFUR 200mg/日を投与し、発熱なし。\n2日後に咳嗽、鼻漏を認めた。",
    "鼻漏",
    "a\\b'c\\\\'",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_folder(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def generator(folder: Path):
    from rinsho.generate import Generator

    return Generator(folder)


def prompts_of(generator, count: int) -> list[list[int]]:
    draw = random.Random(7)
    return [[1] + [draw.randrange(259, 300) for _ in range(draw.randrange(1, 40))] for _ in range(count)]


def test_batches_hold_every_index_once_and_keep_their_limits() -> None:
    draw = random.Random(3)
    costs = [draw.randrange(1, 300) for _ in range(200)]
    groups = by_length(costs, max_rows=16, max_cost=1000)
    assert sorted(index for group in groups for index in group) == list(range(200))
    assert all(
        len(group) <= 16 and (len(group) == 1 or len(group) * max(costs[i] for i in group) <= 1000) for group in groups
    )


def test_shorten_keeps_start_and_end() -> None:
    ids = list(range(100))
    cut = shorten(ids, 40)
    assert len(cut) == 40 and cut[0] == 0 and cut[-1] == 99
    assert shorten(ids, 100) == ids and shorten(ids, 0) == []


def test_greedy_equals_stock_generate(generator) -> None:
    import torch

    for prompt in prompts_of(generator, 4):
        stock = generator.model.generate(
            torch.tensor([prompt]),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=2,
            attention_mask=torch.ones(1, len(prompt)),
        )[0, len(prompt) :].tolist()
        stock = stock[: stock.index(2)] if 2 in stock else stock
        assert generator.generate([prompt], 12) == [stock]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_batch_size_changes_no_answer(generator, temperature: float) -> None:
    prompts = prompts_of(generator, 40)
    together = generator.generate(prompts, 16, temperature=temperature)
    generator.max_rows = 3
    few = generator.generate(prompts, 16, temperature=temperature)
    generator.max_rows = 64
    assert together == few
    assert len({tuple(answer) for answer in together}) > 10  # the model does say different things
    assert generator.generate(prompts, 16, temperature=1.0, seed=2) != generator.generate(
        prompts, 16, temperature=1.0, seed=1
    )


def test_stop_ids_end_an_answer(generator) -> None:
    prompt = prompts_of(generator, 1)[0]
    free = generator.generate([prompt], 10, stop_ids=[])[0]
    assert len(free) == 10
    assert generator.generate([prompt], 10, stop_ids=[free[3]])[0] == free[: free.index(free[3])]


def test_stream_gives_the_text_of_generate(generator) -> None:
    whole = 0
    for prompt in prompts_of(generator, 12):
        text = generator.tokenizer.decode(generator.generate([prompt], 24)[0], skip_special_tokens=True)
        pieces = list(generator.stream(prompt, 24))
        assert all(pieces)
        if "\ufffd" not in text:  # bytes that are no UTF-8 have no one way to be shown piece by piece
            assert "".join(pieces) == text
            whole += len(pieces) > 3
    assert whole > 3


def test_choose_equals_explicit_log_probabilities(generator) -> None:
    import torch

    prompts = prompts_of(generator, 9)
    draw = random.Random(5)
    options = [[[draw.randrange(3, 300) for _ in range(draw.randrange(1, 6))] for _ in range(4)] for _ in prompts]
    options[0] = [[5], [6]]  # single ids: no second pass
    found = generator.choose(prompts, options)
    for prompt, group, sums in zip(prompts, options, found, strict=True):
        for option, value in zip(group, sums, strict=True):
            with torch.inference_mode():
                logits = torch.log_softmax(generator.model(torch.tensor([prompt + option])).logits[0], -1)
            explicit = sum(float(logits[len(prompt) - 1 + place, index]) for place, index in enumerate(option))
            assert value == pytest.approx(explicit, abs=1e-4)


def test_spans_are_spans_of_the_passage(generator) -> None:
    draw = random.Random(11)
    passages = [draw.choice(PASSAGES) for _ in range(24)]
    prompts = prompts_of(generator, 24)
    answers = generator.spans(prompts, passages, 40)
    for passage, items in zip(passages, answers, strict=True):
        assert all(item and item in passage and "\n" not in item for item in items)
        assert len(items) == len(set(items))
    assert any(answers)
    generator.max_rows = 5
    assert generator.spans(prompts, passages, 40) == answers
    generator.max_rows = 64


@pytest.mark.parametrize("passage", PASSAGES)
def test_any_legal_path_is_a_python_list_of_spans(passage: str) -> None:
    tokenizer = toy_tokenizer()
    pieces = Pieces(piece_bytes(tokenizer))
    shared = Passage(passage, pieces)
    for seed in range(60):
        draw = random.Random(seed)
        answer, written = SpanAnswer(shared, max_items=4), b""
        while not answer.done:
            legal = answer.allowed()
            assert len(legal)
            index = int(draw.choice(legal.tolist()))
            answer.advance(index)
            written += pieces.bytes[index]
        parsed = ast.literal_eval(written.decode())
        assert parsed == answer.items
        assert len(parsed) <= 4 and all(item and item in passage for item in parsed)


@pytest.mark.parametrize("items", [["発熱", "咳嗽"], ["肺癌"], ["5'-DFUR", "咳嗽"], ["鼻漏"], [], ["a\\b'c", "\\\\'"]])
def test_gold_answers_are_legal(items: list[str]) -> None:
    tokenizer = toy_tokenizer()
    passage = " ".join(PASSAGES)
    answer = SpanAnswer(Passage(passage, Pieces(piece_bytes(tokenizer))))
    for index in tokenizer.encode(list_text(items), add_special_tokens=False):
        assert index in answer.allowed().tolist()
        answer.advance(index)
    assert answer.done and answer.items == items


def test_an_item_stops_at_its_own_quote_and_the_count_at_its_limit() -> None:
    tokenizer = toy_tokenizer()
    pieces = Pieces(piece_bytes(tokenizer))
    answer = SpanAnswer(Passage("肺癌", pieces), max_items=2)
    for index in tokenizer.encode("['肺癌', '肺癌'", add_special_tokens=False)[:-1]:
        answer.advance(index)
    legal = {pieces.bytes[index] for index in answer.allowed().tolist()}
    assert legal == {b"'", b"']"}
    assert unique(["a", "b", "a"]) == ["a", "b"]


def test_a_passage_without_pieces_gives_the_empty_list() -> None:
    pieces = Pieces([b"[", b"]", b"'", None])
    answer = SpanAnswer(Passage("肺癌", pieces))
    assert [pieces.bytes[index] for index in answer.allowed().tolist()] == [b"["]
    answer.advance(0)
    assert [pieces.bytes[index] for index in answer.allowed().tolist()] == [b"]"]


def test_too_long_a_prompt_and_a_wrong_folder_are_said_clearly(generator, tmp_path: Path) -> None:
    from rinsho.generate import Generator

    with pytest.raises(UserError, match="window"):
        generator.generate([[5] * 300], 4)
    with pytest.raises(UserError, match="not a model folder"):
        Generator(tmp_path)


def test_answers_end_at_the_window(generator) -> None:
    prompt = [5] * 250
    assert len(generator.generate([prompt], 50, stop_ids=[])[0]) == 7  # the last one needs no place of its own


def test_truncated_weights_are_a_user_error(folder: Path, tmp_path: Path) -> None:
    import shutil

    from rinsho.generate import Generator

    copy = shutil.copytree(folder, tmp_path / "cut")
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be opened"):
        Generator(copy)
