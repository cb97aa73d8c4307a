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
    from rinsho.generate.engine import Generator

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
    from rinsho.generate.engine import Generator

    with pytest.raises(UserError, match="window"):
        generator.generate([[5] * 300], 4)
    with pytest.raises(UserError, match="not a model folder"):
        Generator(tmp_path)


def test_answers_end_at_the_window(generator) -> None:
    prompt = [5] * 250
    assert len(generator.generate([prompt], 50, stop_ids=[])[0]) == 7  # the last one needs no place of its own


def test_truncated_weights_are_a_user_error(folder: Path, tmp_path: Path) -> None:
    import shutil

    from rinsho.generate.engine import Generator

    copy = shutil.copytree(folder, tmp_path / "cut")
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be opened"):
        Generator(copy)


def toy_of(kind: str):
    """A generator of a tiny random model of another family, its tokenizer, and whether it can share beginnings."""
    import torch
    import transformers

    from rinsho.generate.engine import Generator

    tokenizer = toy_tokenizer()
    same = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256,
        "initializer_range": 0.3, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
    }  # fmt: skip
    recurrent = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 16}
    name, more = {
        "llama": ("Llama", {}),
        "qwen2": ("Qwen2", {}),
        "mistral": ("Mistral", {"sliding_window": 8}),
        "gemma3": ("Gemma3", {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
        "hybrid": ("FalconH1", recurrent),
        "longrope": ("Phi3", {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, "factor": 2.0,
                                                  "short_factor": [1.0] * 4, "long_factor": [2.0] * 4,
                                                  "original_max_position_embeddings": 128}}),
    }[kind]  # fmt: skip
    config = getattr(transformers, f"{name}TextConfig" if kind == "gemma3" else f"{name}Config")(**same, **more)
    torch.manual_seed(1)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    return Generator.of(model, tokenizer, f"a toy {kind}")


def beginning_alike(count: int, shared: int, most: int = 30) -> list[list[int]]:
    draw = random.Random(9)
    start = [1, *(draw.randrange(259, 300) for _ in range(shared - 1))]
    return [
        [*start, 259 + row, *(draw.randrange(259, 300) for _ in range(draw.randrange(most)))] for row in range(count)
    ]


@pytest.mark.parametrize(
    ("kind", "shares"),
    [("llama", True), ("qwen2", True), ("mistral", False), ("gemma3", False), ("hybrid", False), ("longrope", False)],
)
def test_prompts_that_begin_alike_are_answered_as_alone(kind: str, shares: bool) -> None:
    import torch

    generator = toy_of(kind)
    prompts = sorted(beginning_alike(7, 40), key=len, reverse=True)
    with torch.inference_mode():
        together = generator._reader.read(prompts, 4).logits
        assert (generator._reader.prefix is not None) == shares == generator._reader.in_place
        alone = torch.cat([generator.model(torch.tensor([prompt])).logits[:, -1] for prompt in prompts])
    assert (together - alone).abs().max() < 1e-5 * max(1.0, float(alone.abs().max()))
    answers = generator.generate(prompts, 12)
    assert answers == [generator.generate([prompt], 12)[0] for prompt in prompts]
    assert len(set(map(tuple, answers))) > 1
    options = [[[5, 261], [6], [7, 262, 263]] for _ in prompts]
    for prompt, sums in zip(prompts, generator.choose(prompts, options), strict=True):
        assert sums == pytest.approx(generator.choose([prompt], options[:1])[0], abs=1e-4)


def test_a_beginning_is_read_once_for_batches_with_the_same_one(folder: Path) -> None:
    from rinsho.generate.engine import Generator

    generator = Generator(folder)
    read: list[tuple[int, ...]] = []
    generator.model.register_forward_pre_hook(
        lambda _model, _args, given: read.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    prompts = beginning_alike(4, 120, most=5)
    answers = generator.choose(prompts, [[[5], [6]]] * 4)
    assert read[0] == (1, 120) and read[1][0] == 4 and read[1][1] < 6
    read.clear()
    assert generator.choose(prompts, [[[5], [6]]] * 4) == answers  # to the last bit
    assert len(read) == 1 and read[0][0] == 4
    read.clear()
    generator.choose(prompts[:1], [[[5], [6]]])
    generator.choose([prompt[60:] for prompt in prompts], [[[5], [6]]] * 4)
    assert read[0][0] == 1 and read[1] == (1, 60)


def test_a_model_in_memory_may_change_between_calls() -> None:
    import torch

    generator = toy_of("llama")
    prompts = beginning_alike(4, 120, most=5)
    before = generator.choose(prompts, [[[5], [6]]] * 4)
    with torch.no_grad():
        for weight in generator.model.parameters():
            weight.mul_(0.9)
    after = generator.choose(prompts, [[[5], [6]]] * 4)
    for prompt, old, new in zip(prompts, before, after, strict=True):
        assert new == pytest.approx(generator.choose([prompt], [[[5], [6]]])[0], abs=1e-4)
        assert new != pytest.approx(old, abs=1e-3)


def test_parts_and_growth_change_no_answer(generator, monkeypatch: pytest.MonkeyPatch) -> None:
    from rinsho.generate import cache

    prompts = [*prompts_of(generator, 30), *beginning_alike(6, 50)]
    whole = generator.generate(prompts, 20), generator.generate(prompts[-6:], 20)
    monkeypatch.setattr(cache, "READ_TOKENS", 64)
    monkeypatch.setattr(cache, "GROWTH", 3)
    assert (generator.generate(prompts, 20), generator.generate(prompts[-6:], 20)) == whole


def test_guessing_repeats_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    from rinsho.generate import cache, engine

    generator = toy_of("llama")
    for layer in generator.model.model.layers:  # the last token says nearly all, so that answers end in loops
        layer.self_attn.o_proj.weight.data *= 0.02
    prompts = prompts_of(generator, 12)
    steps: list[tuple[int, ...]] = []
    hook = generator.model.register_forward_pre_hook(
        lambda _model, _args, given: steps.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    answers = {}
    for stops in ((), (2, 263, 270)):
        for name, wasted, width in (("plain", 128, 0), ("guessing", 128, 15), ("closing up", 0, 4)):
            steps.clear()
            monkeypatch.setattr(cache, "WASTED_COLUMNS", wasted)
            monkeypatch.setattr(engine, "width_of", lambda guessing, _rows, width=width: width if guessing else 0)
            answers[name, stops] = generator.generate(prompts, 120, stop_ids=stops), sum(rows for rows, _ in steps)
        plain, calls = answers["plain", stops]
        for name in ("guessing", "closing up"):
            found, fewer = answers[name, stops]
            assert found == plain
            assert fewer < 0.9 * calls
    hook.remove()
    window = generator.generate([[5] * 200], 100, stop_ids=[])[0]
    assert len(window) == 57 and window[:20] == generator.generate([[5] * 200], 20, stop_ids=[])[0]
    assert generator.generate(prompts, 0) == [[]] * 12


def test_a_model_with_missing_weights_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from rinsho.generate.loading import load_model

    folder = toy_folder(tmp_path / "toy")
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(name for name in weights if "norm" in name))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"weights of a causal language model are missing \(1 tensors\)"):
        load_model(folder)
