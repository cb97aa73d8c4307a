"""rinsho.chat_template: what is learned, token by token, in every chat form, and contents that look like marks."""

from __future__ import annotations

import copy
import re
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from rinsho import chat
from rinsho.chat import Message
from rinsho.chat_template import BREAK, renderer, set_form
from rinsho.errors import UserError
from rinsho.prompting import read_template
from toy_models import toy_model, toy_tokenizer

SYSTEM, ASKED, ANSWER = Message("system", "患者"), Message("user", "発熱は？"), Message("assistant", "あり。")
MORE = (Message("user", "咳嗽は？"), Message("assistant", "なし 疑い"))
MARKS = ["<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
         "<start_of_turn>", "<end_of_turn>"]  # fmt: skip

CHATML = """
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}{{- message['content'] + '<|im_end|>' }}{% endgeneration %}{{- '\\n' }}
{%- else %}{{- message['content'] + '<|im_end|>\\n' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

LLAMA3 = """
{{- bos_token }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}{{- message['content'] | trim + '<|eot_id|>' }}{%- endgeneration %}
{%- else %}{{- message['content'] | trim + '<|eot_id|>' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""

MISTRAL = """
{{- bos_token }}
{%- for message in messages %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant\\nsecond line') }}{%- endif %}
{%- if message['role'] == 'user' %}{{- '[INST] ' + message['content'] + ' [/INST]' }}
{%- else %}{%- generation %}{{- ' ' + message['content'] + eos_token }}{%- endgeneration %}{%- endif %}
{%- endfor %}"""

GEMMA = """
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}{{- raise_exception('System role not supported') }}{%- endif %}
{%- for message in messages %}
{%- if message['role'] == 'assistant' %}{{- '<start_of_turn>model\\n' }}
{%- generation %}{{- message['content'] | trim + '<end_of_turn>' }}{%- endgeneration %}{{- '\\n' }}
{%- else %}{{- '<start_of_turn>user\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}"""

# Of SYSTEM, ASKED, ANSWER, MORE: what is not learned and what is, in turn.
SEGMENTS = {
    "chatml": (CHATML, [
        "<|im_start|>system\n患者<|im_end|>\n<|im_start|>user\n発熱は？<|im_end|>\n<|im_start|>assistant\n",
        "あり。<|im_end|>",
        "\n<|im_start|>user\n咳嗽は？<|im_end|>\n<|im_start|>assistant\n", "なし 疑い<|im_end|>", "\n"]),
    "llama3": (LLAMA3, [
        "<s><|start_header_id|>system<|end_header_id|>\n\n患者<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        "発熱は？<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", "あり。<|eot_id|>",
        "<|start_header_id|>user<|end_header_id|>\n\n咳嗽は？<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n", "なし 疑い<|eot_id|>"]),
    "mistral": (MISTRAL, ["<s>[INST] 患者\n\n発熱は？ [/INST]", " あり。</s>",
                          "[INST] 咳嗽は？ [/INST]", " なし 疑い</s>"]),
    "gemma": (GEMMA, [
        "<s><start_of_turn>user\n患者\n\n発熱は？<end_of_turn>\n<start_of_turn>model\n", "あり。<end_of_turn>",
        "\n<start_of_turn>user\n咳嗽は？<end_of_turn>\n<start_of_turn>model\n", "なし 疑い<end_of_turn>", "\n"]),
    "plain": ("plain", ["<s>患者\n\n発熱は？\n", "あり。</s>", "咳嗽は？\n", "なし 疑い</s>"]),
    "rinsho": ("rinsho", ["<s><|system|>患者<|user|>発熱は？<|assistant|>", "あり。</s>",
                          "<|user|>咳嗽は？<|assistant|>", "なし 疑い</s>"]),
}  # fmt: skip

ALONE = {  # what stands before the answer when there is no system turn
    "chatml": "<|im_start|>user\n発熱は？<|im_end|>\n<|im_start|>assistant\n",
    "llama3": "<s><|start_header_id|>user<|end_header_id|>\n\n発熱は？<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<s>[INST] 発熱は？ [/INST]",
    "gemma": "<s><start_of_turn>user\n発熱は？<end_of_turn>\n<start_of_turn>model\n",
    "plain": "<s>発熱は？\n",
    "rinsho": "<s><|user|>発熱は？<|assistant|>",
}


def byte_level(trims: bool) -> Any:
    """A byte-level BPE tokenizer as Llama 3 (offsets without the spaces) and Qwen (with them) have one."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "a"), ("Ġ", "B"), ("Ċ", "Ċ"), ("ã", "ģ")]
    pieces = [*MARKS[:3], *alphabet, *("".join(pair) for pair in merges)]
    backend = Tokenizer(models.BPE({piece: place for place, piece in enumerate(pieces)}, merges))
    words = Regex(r"\p{N}|[^\r\n\p{L}\p{N}]?\p{L}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.post_processor = processors.ByteLevel(trim_offsets=trims)
    backend.decoder = decoders.ByteLevel()
    name = "trimmed" if trims else "kept"
    made = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", name_or_path=name)
    return _with_marks(made)


def unigram() -> Any:
    """A Unigram tokenizer with byte fallback whose begin and end are <s> and </s>."""
    tokenizer = toy_tokenizer(chat=False)
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"})
    return _with_marks(tokenizer)


def _with_marks(tokenizer: Any) -> Any:
    tokenizer.add_special_tokens({"extra_special_tokens": MARKS[3:]})
    return tokenizer


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Any]:
    return {"unigram": unigram(), "bytes": byte_level(trims=False), "bytes trimmed": byte_level(trims=True)}


@pytest.fixture(params=["unigram", "bytes", "bytes trimmed"])
def tokenizer(request: pytest.FixtureRequest, tokenizers: dict[str, Any]) -> Any:
    return copy.deepcopy(tokenizers[request.param])


def unmarked(template: str) -> str:
    return re.sub(r"{%-? (end)?generation %}", "", template)


def rows(messages: Any) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def segments(tokenizer: Any, ids: list[int], mask: list[int]) -> list[str]:
    """The texts of neighbouring tokens with the same mask, the first of them not learned."""
    pairs = groupby(zip(ids, mask, strict=True), key=lambda pair: pair[1])
    found = [(learned, tokenizer.backend_tokenizer.decode([i for i, _ in run], skip_special_tokens=False))
             for learned, run in pairs]  # fmt: skip
    assert [learned for learned, _ in found] == [place % 2 for place in range(len(found))]
    return [text for _, text in found]


def formed(tokenizer: Any, template: str, tmp_path: Path) -> Any:
    if template in ("plain", "rinsho"):
        return set_form(tokenizer, template, "model")
    path = tmp_path / "form.jinja"
    path.write_text(template, encoding="utf-8")
    return set_form(tokenizer, str(path), "model")


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("name", SEGMENTS)
def test_every_template_token_by_token(name: str, marked: bool, tokenizer: Any, tmp_path: Path) -> None:
    template, expected = SEGMENTS[name]
    render = formed(tokenizer, template if marked else unmarked(template), tmp_path)
    assert render.form == (name if template == name else "file")
    talk = [SYSTEM, ASKED, ANSWER, *MORE]
    ids, mask = render(talk)
    assert segments(tokenizer, ids, mask) == expected
    assert ids[[place for place, learned in enumerate(mask) if learned][-1]] == render.end_id

    single = segments(tokenizer, *render([ASKED, ANSWER]))
    assert single == [ALONE[name], expected[1], *(["\n"] if expected[-1] == "\n" else [])]

    # What a model is asked is the beginning of what it was trained on, and nothing of it is learned.
    asked, nothing = render([SYSTEM, ASKED], add_generation_prompt=True)
    assert asked == ids[: mask.index(1)] and not any(nothing)

    joins = name in ("mistral", "gemma")
    plain = [Message("user", f"{SYSTEM.content}\n\n{ASKED.content}"), ANSWER, *MORE] if joins else talk
    apply = tokenizer.apply_chat_template
    assert ids == apply(rows(plain), tokenize=True, return_dict=False)
    if marked and not (name == "mistral" and tokenizer.name_or_path == "trimmed"):  # where transformers' has no token
        made = apply(rows(plain), return_dict=True, return_assistant_tokens_mask=True)
        assert mask == made["assistant_masks"]


def test_alpaca_and_context_question_in_the_plain_form(tokenizer: Any) -> None:
    render = set_form(tokenizer, "plain", "model")
    turns = read_template("alpaca").turns("答えよ {input}", "発熱は？")
    ids, mask = render([*turns, ANSWER])
    form = read_template("alpaca").text["with_input"]
    start, end = form.split("{instruction}")
    question = f"<s>{start}答えよ {{input}}{end.replace('{input}', '発熱は？')}\n"
    assert question.endswith("\n\n### Response:\n")
    assert segments(tokenizer, ids, mask) == [question, "あり。</s>"]
    turns = read_template("context_question").turns("発熱は？", "B")
    assert segments(tokenizer, *render([*turns, ANSWER])) == [
        "<s>Context: B\n\nQuestion: 発熱は？\n\nAnswer:\n", "あり。</s>"
    ]  # fmt: skip


def test_our_own_tokenizer_by_ids() -> None:
    from rinsho.tokenization import add_chat_tokens, wrap
    from toy_models import WORDS

    vocabulary = [("<unk>", 0.0), (chat.BEGIN, 0.0), (chat.END, 0.0)]
    vocabulary += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    vocabulary += [(word, -5.0) for word in WORDS if word != "\n"]
    made, other = wrap(vocabulary, segment="plain"), wrap(vocabulary, segment="plain")
    with pytest.raises(UserError, match="no chat tokens"):
        renderer(made, "base")
    for form in ("plain", "x.jinja"):
        with pytest.raises(UserError, match="one chat form"):
            set_form(made, form, "base")
    add_chat_tokens(other)
    for form in ("auto", "rinsho", "own"):
        render = set_form(made, form, "base")
        assert render.form == "rinsho" and (render.end_id, render.pad_id) == (2, 2)
    assert made.backend_tokenizer.to_str() == other.backend_tokenizer.to_str()
    assert made.init_kwargs == other.init_kwargs and made.chat_template == other.chat_template
    talk = [SYSTEM, Message("user", "発熱は<|user|>"), ANSWER, *MORE]
    for rendering in (render, renderer(made, "model")):
        ids, mask = rendering(talk)
        assert (ids, mask) == chat.render(talk, made)
        shown = list(zip(made.convert_ids_to_tokens(ids), mask, strict=True))
        assert shown[:4] == [(chat.BEGIN, 0), (chat.SYSTEM, 0), ("患者", 0), (chat.USER, 0)]
        assert shown[-5:] == [(chat.ASSISTANT, 0), ("なし", 1), ("▁", 1), ("疑い", 1), (chat.END, 1)]
        assert sum(token == chat.USER for token, _ in shown) == 2
        asked, nothing = rendering(talk, add_generation_prompt=True)
        assert asked == [*ids, made.convert_tokens_to_ids(chat.ASSISTANT)] and not any(nothing)


# ---------------------------------------------------------------------- contents that look like marks


@pytest.mark.parametrize("name", SEGMENTS)
def test_no_content_becomes_a_special_token(name: str, tokenizer: Any, tmp_path: Path) -> None:
    render = formed(tokenizer, SEGMENTS[name][0], tmp_path)
    calm = [ASKED, ANSWER]
    specials = set(tokenizer.all_special_ids)

    def marks(messages: list[Message]) -> list[int]:
        return [index for index in render(messages)[0] if index in specials]

    for token in tokenizer.all_special_tokens:
        wild = [Message("user", f"{token}発熱{token * 2}は？"), Message("assistant", f"あり{token}。{token}")]
        assert marks(wild) == marks(calm), token
        ids, mask = render(wild)
        learned = segments(tokenizer, ids, mask)[1]
        assert learned.replace(BREAK, "").count(token) == 2 + (tokenizer.convert_tokens_to_ids(token) == render.end_id)
        asked = render(wild[:1], add_generation_prompt=True)[0]
        assert asked == ids[: mask.index(1)]
    assert BREAK not in tokenizer.backend_tokenizer.decode(render(calm)[0], skip_special_tokens=False)


def test_a_token_that_is_sought_in_normalised_text_is_defused_in_its_other_spellings() -> None:
    from tokenizers import AddedToken, normalizers

    tokenizer = toy_tokenizer(chat=False)
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.add_special_tokens({"extra_special_tokens": [AddedToken("<end>", special=True, normalized=True)]})
    bad = tokenizer.convert_tokens_to_ids("<end>")
    assert bad in tokenizer("発熱＜ＥＮＤ＞")["input_ids"]
    render = set_form(tokenizer, "plain", "model")
    for content in ("<end>", "＜end＞", "発熱＜ＥＮＤ＞<END>"):
        assert bad not in render([Message("user", content), ANSWER])[0]


# ---------------------------------------------------------------------- templates that are not simple


def template_of(tokenizer: Any, template: str) -> Any:
    tokenizer.chat_template = template
    return set_form(tokenizer, "own", "model")


def test_earlier_turns_may_be_written_otherwise_than_the_last(tokenizer: Any) -> None:
    thinks = CHATML.replace(
        "{{- message['content'] + '<|im_end|>' }}",
        "{{- ('<think>\n\n</think>\n\n' if loop.last else '') + message['content'] + '<|im_end|>' }}",
    )
    render = template_of(tokenizer, unmarked(thinks))
    expected = [*SEGMENTS["chatml"][1]]
    expected[3] = "<think>\n\n</think>\n\n" + expected[3]
    assert segments(tokenizer, *render([SYSTEM, ASKED, ANSWER, *MORE])) == expected


def test_generation_marks_serve_where_the_turns_alone_are_no_beginning(tokenizer: Any) -> None:
    counting = "{{- messages | length }}" + CHATML
    expected = ["5" + SEGMENTS["chatml"][1][0], *SEGMENTS["chatml"][1][1:]]
    talk = [SYSTEM, ASKED, ANSWER, *MORE]
    assert segments(tokenizer, *template_of(tokenizer, counting)(talk)) == expected
    with pytest.raises(UserError, match="does not tell where an answer begins"):
        template_of(tokenizer, unmarked(counting))


def test_a_system_turn_written_beside_the_last_question_is_joined_to_the_first(tokenizer: Any) -> None:
    last = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
{%- if message['role'] == 'user' %}
{{- '[INST] ' + (system + '\n\n' if system is defined and loop.last else '') + message['content'] + ' [/INST]' }}
{%- else %}{{- ' ' + message['content'] + eos_token }}{%- endif %}
{%- endfor %}"""
    talk = [SYSTEM, ASKED, ANSWER, *MORE]
    assert segments(tokenizer, *template_of(tokenizer, last)(talk)) == SEGMENTS["mistral"][1]


def test_a_token_that_begins_before_the_answer_is_not_learned(tokenizers: dict[str, Any]) -> None:
    template = "{{ 'Q: ' + messages[0]['content'] + ' A: ' }}{% if messages[1] %}{{ messages[1]['content'] + eos_token }}{% endif %}"
    for name in ("bytes", "bytes trimmed"):
        tokenizer = copy.deepcopy(tokenizers[name])
        ids, mask = template_of(tokenizer, template)([Message("user", "A"), Message("assistant", "BA")])
        assert tokenizer.convert_ids_to_tokens(ids)[-3:] == ["ĠB", "A", "</s>"]
        assert mask[-4:] == [0, 0, 1, 1]


def test_a_rendering_does_not_depend_on_the_day(tokenizer: Any) -> None:
    render = template_of(tokenizer, "{{ strftime_now('%d %b %Y') }}" + CHATML)
    ids, _ = render([ASKED, ANSWER])
    assert tokenizer.decode(ids).startswith("26 Jul 2024")


def test_a_tokenizer_without_offsets() -> None:
    from transformers import PreTrainedTokenizer

    class Letters(PreTrainedTokenizer):
        vocab_size = 0x4000

        def get_vocab(self) -> dict[str, int]:
            return {chr(code): code for code in range(self.vocab_size)} | dict(self.added_tokens_encoder)

        def _tokenize(self, text: str, **_: Any) -> list[str]:
            return list(text)

        def _convert_token_to_id(self, token: str) -> int:
            return ord(token) % self.vocab_size

        def _convert_id_to_token(self, index: int) -> str:
            return chr(index)

    tokenizer = Letters(bos_token="<s>", eos_token="</s>")
    render = set_form(tokenizer, "plain", "model")
    ids, mask = render(
        [Message("user", "ねつ</s>"), Message("assistant", "あり"), *MORE[:1], Message("assistant", "なし")]
    )
    shown = tokenizer.convert_ids_to_tokens(ids)
    assert [token for token, learned in zip(shown, mask, strict=True) if learned] == [*"あり", "</s>", *"なし", "</s>"]
    assert shown[:4] == ["<s>", "ね", "つ", "<"] and shown[4] == BREAK


# ---------------------------------------------------------------------- forms and errors


def test_auto_takes_what_is_there(tokenizer: Any) -> None:
    assert set_form(tokenizer, "auto", "model").form == "plain"
    tokenizer.chat_template = CHATML
    assert set_form(tokenizer, "auto", "model").form == "own" and tokenizer.chat_template == CHATML


@pytest.mark.parametrize("form", ["plain", "rinsho"])
def test_a_saved_tokenizer_renders_as_it_was_trained(form: str, tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.pad_token = None
    render = set_form(tokenizer, form, "model")
    assert render.pad_id == tokenizer.pad_token_id == tokenizer.eos_token_id
    tokenizer.save_pretrained(tmp_path)
    again = renderer(type(tokenizer).from_pretrained(tmp_path, local_files_only=True), tmp_path)
    talk = [SYSTEM, ASKED, ANSWER, *MORE]
    assert again.form == form and again(talk) == render(talk)
    size = len(tokenizer)
    assert set_form(tokenizer, form, "model")(talk) == render(talk) and len(tokenizer) == size


def test_what_cannot_be_rendered_is_said(tokenizer: Any, tmp_path: Path) -> None:
    for form, problem in (("own", "no chat template"), ("chatml", "unknown chat form"), ("no.jinja", "no such chat")):
        with pytest.raises(UserError, match=problem):
            set_form(tokenizer, form, tmp_path)
    with pytest.raises(UserError, match="no assistant part"):
        template_of(
            tokenizer, "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}"
        )
    with pytest.raises(
        UserError, match=r"the chat template fails \(TemplateSyntaxError: .*; expected .* user, assistant"
    ):
        template_of(tokenizer, "{% for m in messages %}")
    render = template_of(tokenizer, MISTRAL)
    with pytest.raises(UserError, match="roles must alternate") as error:
        render([ASKED, ASKED, ANSWER])
    assert "second line" not in str(error.value) and ASKED.content not in str(error.value)


def test_an_answer_needs_an_end(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.eos_token = None
    for form in ("rinsho", "plain"):
        with pytest.raises(UserError, match="no end-of-text token"):
            set_form(tokenizer, form, "model")
    tokenizer.chat_template = CHATML
    render = set_form(tokenizer, "own", "model")
    assert tokenizer.convert_ids_to_tokens([render.end_id]) == ["<|im_end|>"]
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    with pytest.raises(UserError, match="no token ends an answer"):
        renderer(tokenizer, "model")
    tokenizer.eos_token = "</s>"
    assert renderer(tokenizer, "model").end_id == tokenizer.eos_token_id
    with pytest.raises(UserError, match="never learn to stop"):
        set_form(tokenizer, "own", "model")


def test_a_generator_of_a_model_in_memory_ends_with_the_form() -> None:
    import torch

    from rinsho.generate.engine import Generator

    tokenizer = unigram()
    tokenizer.chat_template = CHATML
    model = toy_model(len(tokenizer))
    generator = Generator.of(model, tokenizer)
    assert generator.end_id == tokenizer.convert_tokens_to_ids("<|im_end|>") != tokenizer.eos_token_id
    prompt = generator.prompt([SYSTEM, ASKED])
    assert prompt == tokenizer.apply_chat_template(
        rows([SYSTEM, ASKED]), add_generation_prompt=True, tokenize=True, return_dict=False
    )
    model.generation_config.pad_token_id = 2
    stock = model.generate(
        torch.tensor([prompt]), max_new_tokens=6, do_sample=False, eos_token_id=generator.end_id, num_beams=1
    )
    answer = generator.generate([prompt], 6)[0]
    assert stock[0, len(prompt) :].tolist()[: len(answer)] == answer
    with pytest.raises(UserError, match="here: the model has no chat form"):
        Generator.of(model, toy_tokenizer(chat=False), where="here").prompt([ASKED])


def test_an_answer_of_unknown_characters_is_learned_whole() -> None:
    """Unigram with byte fallback gives a run of unknown characters one offset; the mark before it may be part of it."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((f"<0x{byte:02X}>", -20.0) for byte in range(256))]
    backend = Tokenizer(models.Unigram([*pieces, ("熱", -3.0)], unk_id=0, byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    ids, mask = set_form(tokenizer, "plain", "here")([Message("user", "熱"), Message("assistant", "鑿")])
    learned = [token for token, learns in zip(ids, mask, strict=True) if learns]
    assert tokenizer.convert_ids_to_tokens(learned) == ["<0xE9>", "<0x91>", "<0xBF>", "</s>"]
