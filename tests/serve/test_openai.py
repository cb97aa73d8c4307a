"""OpenAI's own Python client against a real server process with a real (tiny) model."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest

from rinsho.chat import TEMPLATE, Message
from rinsho.generate.engine import Generator
from serve.toy_server import Inside, Process, scripted
from toy_models import toy_folder

pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]
KEY = "kokoro-no-kagi-0815"
TALK: Any = [{"role": "user", "content": "肺癌の疑い"}]
WHOLE = "肺癌発熱咳嗽急性"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = toy_folder(tmp_path_factory.mktemp("model") / "kokoro")
    (made / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def process(folder: Path):
    environment = {"RINSHO_API_KEY": KEY}
    with Process(folder, environment, form="float32", max_new_tokens=60) as running:
        yield running


@pytest.fixture(scope="module")
def client(process: Process):
    with client_of(process.url, KEY) as made:
        yield made


def client_of(url: Any, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=30)


@pytest.fixture(scope="module")
def told():
    """A server whose every word is known, and its client."""
    with Inside(scripted()) as server, client_of(server.url) as made:
        yield made


def test_answers_are_those_of_the_model(client: openai.OpenAI, folder: Path) -> None:
    """Greedy by default, the same ids as the torch engine takes."""
    generator = Generator(folder)
    prompt = generator.prompt([Message("user", "肺癌の疑い")])
    ids = generator.generate([prompt], 24)[0]
    answer = client.chat.completions.create(model="kokoro", messages=TALK, max_completion_tokens=24, logprobs=True)
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and choice.message.content == generator.tokenizer.decode(
        ids, skip_special_tokens=True
    )
    assert answer.usage is not None and choice.logprobs is not None and choice.logprobs.content is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(prompt), len(ids))
    assert choice.finish_reason == ("length" if len(ids) == 24 else "stop") and len(choice.logprobs.content) == len(ids)
    written = b"".join(bytes(entry.bytes or ()) for entry in choice.logprobs.content)
    assert written.decode() == generator.tokenizer.decode(ids)  # special tokens have a name here, and no text above
    assert all(entry.logprob <= 0 for entry in choice.logprobs.content)


def test_a_stream_says_the_same(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="kokoro", messages=TALK, max_tokens=24)
    stream = client.chat.completions.create(
        model="kokoro", messages=TALK, max_tokens=24, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage and chunks[0].usage is None
    assert len({chunk.id for chunk in chunks}) == 1 and {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    without = list(client.chat.completions.create(model="kokoro", messages=TALK, max_tokens=5, stream=True))
    assert all(chunk.choices for chunk in without)


def test_the_clients_stream_helper(told: openai.OpenAI) -> None:
    with told.chat.completions.stream(model="toy", messages=TALK) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].message.content == WHOLE


def test_draws_are_those_of_the_seed(client: openai.OpenAI) -> None:
    def draw(**settings: Any) -> str:
        answer = client.chat.completions.create(model="kokoro", messages=TALK, max_tokens=24, **settings)
        return answer.choices[0].message.content or ""

    assert draw(temperature=1.5, seed=7) == draw(temperature=1.5, seed=7)
    assert len({draw(temperature=1.5, seed=seed) for seed in range(4)}) > 1
    assert len({draw(temperature=1.5) for _ in range(4)}) > 1
    assert draw(temperature=1.5, top_p=1e-6) == draw() == draw(temperature=1.5, extra_body={"top_k": 1})


def test_completions_of_texts_and_of_ids(client: openai.OpenAI, folder: Path) -> None:
    generator = Generator(folder)
    prompt = [generator.tokenizer.bos_token_id, *generator.encode("患者は発熱")]
    expected = generator.tokenizer.decode(generator.generate([prompt], 10)[0], skip_special_tokens=True)
    for given in ("患者は発熱", prompt, ["患者は発熱"], [prompt]):
        answer = client.completions.create(model="kokoro", prompt=given, max_tokens=10, logprobs=2)  # type: ignore[arg-type]
        assert answer.choices[0].text == expected and answer.object == "text_completion"
        kept = answer.choices[0].logprobs
        assert kept is not None and kept.tokens and kept.top_logprobs and kept.text_offset
        assert len(kept.tokens) == len(kept.token_logprobs or ()) == len(kept.text_offset) == 10
        assert all(len(top) <= 2 for top in kept.top_logprobs) and kept.text_offset[0] == 0
    stream = client.completions.create(model="kokoro", prompt="患者は発熱", max_tokens=10, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == expected


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["kokoro"]
    assert client.models.retrieve("kokoro").owned_by == "rinsho"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


def test_errors_are_the_clients_own(client: openai.OpenAI, process: Process) -> None:
    ask = client.chat.completions.create
    with pytest.raises(openai.NotFoundError) as missing:
        ask(model="gpt-9", messages=TALK)
    assert missing.value.code == "model_not_found" and "kokoro" in str(missing.value)
    with pytest.raises(openai.BadRequestError) as many:
        ask(model="kokoro", messages=TALK, n=2)
    assert many.value.param == "n" and many.value.code == "unsupported_value"
    with pytest.raises(openai.BadRequestError, match="window"):
        ask(model="kokoro", messages=[{"role": "user", "content": "発熱" * 400}], stream=True)
    with pytest.raises(openai.BadRequestError, match="last message"):
        ask(model="kokoro", messages=[*TALK, {"role": "assistant", "content": "はい"}])
    with pytest.raises(openai.AuthenticationError):
        client_of(process.url, "wrong").models.list()


def test_the_asynchronous_client(process: Process) -> None:
    async def ask() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=f"{process.url}/v1", api_key=KEY, max_retries=0, timeout=60) as client:
            answers = await asyncio.gather(
                *(client.chat.completions.create(model="kokoro", messages=TALK, max_tokens=12) for _ in range(6))
            )
            return [answer.choices[0].message.content for answer in answers]

    assert len(set(asyncio.run(ask()))) == 1


def test_a_conversation_goes_on_with_what_the_client_was_given(told: openai.OpenAI) -> None:
    first = told.chat.completions.create(model="toy", messages=TALK)
    said: Any = first.choices[0].message
    again = told.chat.completions.create(model="toy", messages=[*TALK, said, *TALK])
    assert again.choices[0].message.content == said.content == WHOLE and again.choices[0].finish_reason == "stop"
    assert told.chat.completions.create(model="toy", messages=[*TALK, said.model_dump(), *TALK]).choices


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ("咳嗽", "肺癌発熱"),
        ("熱咳", "肺癌発"),
        (["性", "熱咳嗽"], "肺癌発"),
        ("肺", ""),
        ("無", WHOLE),
        (["急性無"], WHOLE),
    ],
)
def test_stop_strings_end_an_answer_and_are_not_shown(told: openai.OpenAI, stop: Any, text: str) -> None:
    whole = told.chat.completions.create(model="toy", messages=TALK, stop=stop)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (text, "stop")
    stream = told.chat.completions.create(model="toy", messages=TALK, stop=stop, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == text


def test_lengths(told: openai.OpenAI) -> None:
    for most, text, why in ((1, "肺癌", "length"), (4, WHOLE, "length"), (5, WHOLE, "stop")):
        answer = told.chat.completions.create(model="toy", messages=TALK, max_tokens=most)
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (text, why)


def test_log_probabilities_come_with_their_text(told: openai.OpenAI) -> None:
    stream = told.chat.completions.create(
        model="toy", messages=TALK, logprobs=True, top_logprobs=2, stop="嗽急", stream=True
    )
    text, entries = "", []
    for chunk in stream:
        text += chunk.choices[0].delta.content or ""
        if chunk.choices[0].logprobs:
            entries += chunk.choices[0].logprobs.content or []
    assert text == "肺癌発熱咳" and [entry.token for entry in entries] == ["肺癌", "発熱", "咳嗽"]
    assert all(entry.top_logprobs[0].token == entry.token and len(entry.top_logprobs) == 2 for entry in entries)


def test_a_base_model_continues_and_does_not_chat(tmp_path: Path) -> None:
    opened = scripted()
    opened.tokenizer.chat_template = None
    with Inside(opened) as server, client_of(server.url) as client:
        with pytest.raises(openai.BadRequestError, match="base model"):
            client.chat.completions.create(model="toy", messages=TALK)
        assert client.completions.create(model="toy", prompt="患者は", max_tokens=9).choices[0].text == WHOLE
        assert server.http.get("/v1/about").json()["chat"] is False


def test_questions_are_put_into_the_template_of_the_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    from rinsho.prompting import read_template

    opened = scripted()
    template = dict(read_template("alpaca").text) | {"system": "短く答える。"}
    opened.manifest["finetune"] = {"prompt_template": template}
    asked = []
    monkeypatch.setattr(type(opened), "prompt", lambda self, turns: asked.append(turns) or [5])
    with Inside(opened) as server, client_of(server.url) as client:
        client.chat.completions.create(model="toy", messages=TALK)
        client.chat.completions.create(model="toy", messages=[{"role": "system", "content": "詳しく。"}, *TALK])
    filled = Message("user", read_template("alpaca").fill("肺癌の疑い"))
    assert asked == [[Message("system", "短く答える。"), filled], [Message("system", "詳しく。"), filled]]
