"""The Modelfile: its Go template gives the very text of the chat template of the tokenizer folder."""

import re
import sys
from pathlib import Path

import jinja2
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import card_parts as parts

from rinsho.chat import TEMPLATE as JINJA
from rinsho.export.modelfile import TEMPLATE, allowed, file_of, modelfile

ACTION = re.compile(r"\{\{(.*?)\}\}")


def go(template, messages):
    """What Go's text/template makes of the few actions that ours has."""
    parts_ = ACTION.split(template)  # text, action, text, action, ...

    def run(place, message, write):
        out = []
        while place < len(parts_):
            if place % 2 == 0:
                out.append(parts_[place])
                place += 1
                continue
            action = parts_[place].strip()
            if action == "range .Messages":
                for each in messages:
                    text, end = run(place + 1, each, write)
                    out.append(text)
                place = end
            elif action.startswith("if eq .Role "):
                yes = message["role"] == action.removeprefix("if eq .Role ").strip('"')
                first, middle = run(place + 1, message, write)
                second, place = run(middle, message, write) if parts_[middle - 1].strip() == "else" else ("", middle)
                out.append(first if yes else second)
            elif action in ("else", "end"):
                return "".join(out), place + 1
            else:
                out.append({".Content": message["content"], ".Role": message["role"]}[action])
                place += 1
        return "".join(out), place

    return run(0, None, True)[0]


CONVERSATIONS = [
    [("user", "発熱がある。")],
    [("system", "短く答える。"), ("user", "3日前から咳嗽。\n病名は？")],
    [("user", "a {{ .Role }} b"), ("assistant", "はい\nA"), ("user", " 次は？ ")],
]


@pytest.mark.parametrize("turns", CONVERSATIONS)
def test_the_go_template_is_the_chat_template(turns):
    messages = [{"role": role, "content": content} for role, content in turns]
    jinja = re.sub(r"\{%\s*(end)?generation\s*%\}", "", JINJA)
    wanted = jinja2.Template(jinja).render(messages=messages, add_generation_prompt=True)
    assert go(TEMPLATE, messages) == wanted


def test_it_names_file_window_and_stops_and_does_not_sample():
    lines = modelfile(parts.export("gguf"), 'Licence: "mine".').splitlines()
    assert lines[0] == "FROM ./model-llama-q8_0.gguf"
    assert {'PARAMETER stop "<|end_of_text|>"', "PARAMETER temperature 0", "PARAMETER num_ctx 256"} <= set(lines)
    assert "PARAMETER repeat_penalty 1" in lines
    assert lines[-1] == 'LICENSE """Licence: \'mine\'."""'


def test_ollama_gets_the_file_without_ternary_matrices():
    files = [{"name": "a-q8_0.gguf", "type": "q8_0"}, {"name": "a-f16.gguf", "type": "f16"}]
    assert file_of(files, ternary=True) == "a-f16.gguf"
    assert file_of(files, ternary=False) == file_of(files[:1], ternary=True) == "a-q8_0.gguf"


def test_only_an_exact_tokenizer_and_our_chat_form_allow_one():
    exact = {"exact_inside": True}
    assert allowed(parts.export("gguf", **exact), True)
    assert not allowed(parts.export("gguf"), True)
    assert not allowed(parts.export("gguf", **exact), False)
    assert not allowed(parts.export("gguf", **exact, chat=False), True)
    assert not allowed(parts.export("gguf", **exact, flavour="mimo2"), True)
    assert not allowed(parts.export("hf", **exact), True)
