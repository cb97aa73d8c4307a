"""A GGUF file answers as the folder that it was made of, whatever was asked before."""

import random

import pytest

from rinsho.chat import Message
from rinsho.errors import UserError
from rinsho.generate.answerer import Answerer
from rinsho.generate.opening import open_model

pytest.importorskip("llama_cpp")

PASSAGES = [
    "急性心筋梗塞の患者は発熱、咳嗽を認め、肺癌の疑いなし。",
    "肺癌あり。",
    "5'-DFUR 200mg/日を投与し、発熱なし。\n2日後に咳嗽。",
]


@pytest.fixture(scope="module")
def answerer(ours_gguf):
    found = Answerer(open_model(ours_gguf, slots=3, threads=1))
    yield found
    found.opened.decoder.close()


@pytest.fixture(scope="module")
def engine(ours):
    from rinsho.generate.engine import Generator

    return Generator(ours)


def questions(answerer, count=12):
    draw = random.Random(4)
    return [answerer.prompt([Message("user", draw.choice(PASSAGES) * draw.randrange(1, 3))]) for _ in range(count)]


def test_prompts_are_those_of_the_folder(answerer, engine):
    messages = [Message("user", "<|user|>発熱は？"), Message("assistant", "あり"), Message("user", "咳嗽\nは？")]
    assert answerer.prompt(messages) == engine.prompt(messages)
    assert answerer.encode(PASSAGES[2]) == engine.encode(PASSAGES[2])
    assert (answerer.end_id, answerer.window) == (engine.end_id, engine.window)
    assert answerer.pieces.bytes == engine.pieces.bytes


def test_answers_are_those_of_the_folder(answerer, engine):
    prompts = questions(answerer)
    found, wanted = answerer.generate(prompts, 12), engine.generate(prompts, 12)
    assert sum(one == other for one, other in zip(found, wanted, strict=True)) >= 11  # keys and values are float16
    options = [[[5, 9], [300, 301, 302], [7]]] * len(prompts)
    for values, others in zip(answerer.choose(prompts, options), engine.choose(prompts, options), strict=True):
        assert values == pytest.approx(others, abs=0.05)
    passages = [PASSAGES[place % 3] for place in range(len(prompts))]
    draw = random.Random(2)
    prompts = [[draw.randrange(300, 600) for _ in range(9)] for _ in prompts]
    spans, others = answerer.spans(prompts, passages, 60), engine.spans(prompts, passages, 60)
    assert sum(one == other for one, other in zip(spans, others, strict=True)) >= 11
    assert any(spans) and all(item in passage for items, passage in zip(spans, passages, strict=True) for item in items)


def test_nothing_is_kept_from_call_to_call(answerer):
    prompts = questions(answerer)
    options = [[[5, 9], [300, 301, 302], [7]]] * len(prompts)

    def ask():
        return answerer.generate(prompts, 9), answerer.choose(prompts, options)

    first = ask()
    answerer.generate(prompts[5:], 3)
    list(answerer.stream(prompts[3], 5))
    assert ask() == first  # to the last bit


def test_stop_ids_and_draws(answerer):
    prompts = questions(answerer, 4)
    free = answerer.generate(prompts, 10, stop_ids=[])
    assert {len(answer) for answer in free} == {10}
    assert answerer.generate(prompts[:1], 10, stop_ids=[free[0][4]])[0] == free[0][: free[0].index(free[0][4])]
    drawn = [answerer.generate(prompts, 10, temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert (
        answerer.generate([prompts[0]] * 2, 10, temperature=1.0)[0]
        != answerer.generate([prompts[0]] * 2, 10, temperature=1.0)[1]
    )


def test_a_stream_is_the_text_of_the_answer_and_remembers_the_conversation(answerer):
    fed = []
    read = answerer.opened.decoder._read
    prompt = questions(answerer, 1)[0]
    text = answerer.tokenizer.decode(answerer.generate([prompt], 24)[0], skip_special_tokens=True)
    pieces = list(answerer.stream(prompt, 24))
    assert "".join(pieces) == text and len(pieces) > 3
    try:
        answerer.opened.decoder._read = lambda call, found: (fed.append(sum(len(part.ids) for _, part in call)), read(call, found))  # fmt: skip
        again = list(answerer.stream([*prompt, *answerer.encode("発熱")], 1))
    finally:
        del answerer.opened.decoder._read
    assert fed[0] < len(prompt) and again is not None
    half = answerer.stream(prompt, 24)
    assert next(half) == pieces[0]
    half.close()  # as Ctrl-C does
    assert list(answerer.stream(prompt, 24)) == pieces


@pytest.mark.parametrize("prompt", [[], [5] * 257])
def test_a_prompt_that_has_no_room_is_told(answerer, prompt):
    for ask in (
        lambda: answerer.generate([[5], prompt], 3),
        lambda: answerer.choose([[5], prompt], [[[5]], [[5]]]),
        lambda: answerer.spans([[5], prompt], ["a", "b"], 3),
        lambda: list(answerer.stream(prompt, 3)),
    ):
        with pytest.raises(UserError, match="tokens"):
            ask()


def test_an_option_that_has_no_room_is_told(answerer):
    with pytest.raises(UserError, match="258 tokens"):
        answerer.choose([[5] * 255], [[[5], [6, 7, 8, 9]]])
