"""What `rinsho finetune data` says of data before training, and what it marks as learned."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rinsho.chat import Message
from rinsho.errors import UserError
from rinsho.finetune import Recipe
from toy_models import toy_tokenizer

NOTE = {"instruction": "要約してください。", "input": "患者は発熱を認め、\n肺癌の疑い。", "output": "肺癌の疑い。"}
LONG = NOTE | {"input": "患者は発熱を認め、" * 40}
TALK = {
    "messages": [
        {"role": "user", "content": "発熱は？"},
        {"role": "assistant", "content": "なし。"},
        {"role": "user", "content": "咳嗽は？"},
        {"role": "assistant", "content": "あり。"},
    ]
}


def written(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer without weights, as `rinsho tokenizer` leaves one; it has no chat template."""
    folder = tmp_path_factory.mktemp("tokenizer")
    toy_tokenizer(chat=False).save_pretrained(folder)
    return folder


def cells(page: str, name: str) -> list[str]:
    """The row of a name in the first table of the page."""
    return next(re.split(r"\s{2,}", line.strip()) for line in page.splitlines() if re.match(rf"{name}\s", line))


def test_lengths_are_those_before_anything_is_cut(tokenizer_folder: Path, tmp_path: Path) -> None:
    from rinsho.finetune.show import show

    files = [written(tmp_path / "notes.jsonl", NOTE, NOTE, LONG), written(tmp_path / "talk.jsonl", TALK)]
    recipe = Recipe(sequence_length=96, batch_tokens=192, chat="rinsho")
    page = show(recipe, [tokenizer_folder, *files], count=0)
    rows, tokens, _, _, _, longest, learned, shortened, left_out = (
        int(cell.replace(",", "")) for cell in cells(page, "notes")[1:]
    )
    assert (rows, shortened, left_out) == (3, 1, 0)
    short = (tokens - longest) // 2
    assert short < 97 < longest and tokens == 2 * short + longest
    answer = toy_tokenizer().encode(NOTE["output"], add_special_tokens=False)
    assert learned == 3 * (len(answer) + 1)
    assert cells(page, "all")[1] == "4"
    shown = show(recipe.model_copy(update={"too_long": "leave_out"}), [tokenizer_folder, *files], count=0)
    assert cells(shown, "notes")[-2:] == ["0", "1"] and "left out, too long for a row: notes/00002" in shown
    refused = show(recipe.model_copy(update={"too_long": "refuse"}), [tokenizer_folder, *files], count=0)
    assert "too_long: refuse ends the run at notes/00002" in refused


def test_the_mixture_follows_weights_and_the_run_is_that_of_training(tokenizer_folder: Path, tmp_path: Path) -> None:
    from rinsho.finetune.show import show

    files = [written(tmp_path / "notes.jsonl", *[NOTE] * 8), written(tmp_path / "talk.jsonl", *[TALK] * 8)]
    recipe = Recipe(sequence_length=128, batch_tokens=256, pack=False, epochs=3, task_weights={"talk": 0.25})
    page = show(recipe, [tokenizer_folder, *files], count=0)
    mixture = page[page.index("An epoch") :]
    assert "An epoch, after weights and balance: 10 rows" in mixture
    assert cells(mixture, "notes")[2] == "8" and cells(mixture, "talk")[2] == "2"
    assert len(cells(mixture, "notes")[1]) == 30 > len(cells(mixture, "talk")[1])
    assert "The run: 15 steps of 256 tokens, 2 rows of 128; 3,840 tokens, 3.00 epochs" in page
    assert "⟦" not in page


def test_splits_and_their_warnings_are_told(tokenizer_folder: Path, data: Path) -> None:
    from rinsho.finetune.show import show

    page = show(Recipe(sequence_length=512), [tokenizer_folder, data], count=1)
    assert "Split document" in page and re.search(r"SMDIS: .*left \d+", page)
    assert page.count("of them learned (between") == 2
    assert "⟦['" in page  # the answer of an entity task
    held = show(Recipe(sequence_length=512, validation_fraction=0.2), [tokenizer_folder, data], count=0)
    assert re.search(r"Held out for validation: [1-9]\d* questions, 0 conversations", held)


def test_of_an_example_the_answer_and_its_end_are_marked(base: Path, tmp_path: Path) -> None:
    from rinsho.finetune.show import show

    talk = written(tmp_path / "talk.jsonl", TALK)
    recipe = Recipe(sequence_length=128)
    page = show(recipe, [base, talk])
    lines = [line.strip() for line in page.splitlines() if line.startswith("  ")]
    assert [line for line in lines if "<|" in line] == [
        "<|begin_of_text|><|user|>発熱は?",
        "<|assistant|>⟦なし。<|end_of_text|>⟧",
        "<|user|>咳嗽は?",
        "<|assistant|>⟦あり。<|end_of_text|>⟧",
    ]
    colored = show(recipe, [base, talk], color=True)
    assert "<|assistant|>\x1b[32mあり。<|end_of_text|>\x1b[0m" in colored and "⟦" not in colored
    everything = show(recipe.model_copy(update={"learn": "all"}), [base, talk])
    assert "<|begin_of_text|>⟦<|user|>発熱は?⟧" in everything


def test_what_was_cut_out_and_control_characters_are_visible(tokenizer_folder: Path, tmp_path: Path) -> None:
    from rinsho.finetune.show import show

    note = LONG | {"instruction": "要約\x1b[2J"}
    page = show(Recipe(sequence_length=64), [tokenizer_folder, written(tmp_path / "notes.jsonl", note)])
    assert "\x1b" not in page and "\\x1b[2J" in page
    assert re.search(r"65 tokens, shortened from \d+ at ✂", page)
    shown = page.splitlines()[-1]
    assert shown.count("✂") == 1 and shown.endswith("⟦肺癌の疑い。<|end_of_text|>⟧")


TEMPLATES = {
    "chatml": (
        "{% for m in messages %}{{ '<s>' + m.role + '\n' + m.content + '</s>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}",
        ["<s>user↵発熱は？</s>↵", "<s>assistant↵⟦なし。</s>⟧↵", "<s>user↵咳嗽は？</s>↵", "<s>assistant↵⟦あり。</s>⟧↵"],
    ),
    "headers": (
        "{{ '<b>' }}{% for m in messages %}{{ '<h>' + m.role + '</h>\n\n' + m.content + '</s>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<h>assistant</h>\n\n' }}{% endif %}",
        [
            "<b><h>user</h>↵↵発熱は？</s>", "<h>assistant</h>↵↵⟦なし。</s>⟧",
            "<h>user</h>↵↵咳嗽は？</s>", "<h>assistant</h>↵↵⟦あり。</s>⟧",
        ],
    ),
    "inst": (
        "{{ '<b>' }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
        "{% else %}{{ ' ' + m.content + '</s>' }}{% endif %}{% endfor %}",
        ["<b>[INST] 発熱は？ [/INST]⟦ なし。</s>⟧", "[INST] 咳嗽は？ [/INST]⟦ あり。</s>⟧"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES)
def test_turns_of_any_template_stand_on_lines_of_their_own(name: str) -> None:
    from rinsho.chat_template import renderer
    from rinsho.finetune.show import marked

    template, wanted = TEMPLATES[name]
    tokenizer = toy_tokenizer(chat=False)
    tokenizer.add_special_tokens({"eos_token": "</s>", "extra_special_tokens": ["<s>", "<b>", "<h>", "</h>"]})
    tokenizer.chat_template = template
    turns = [Message(row["role"], row["content"]) for row in TALK["messages"]]
    assert marked(*renderer(tokenizer, "tests")(turns), tokenizer).split("\n") == wanted


def test_of_pairs_both_answers_are_shown(tokenizer_folder: Path, tmp_path: Path) -> None:
    from rinsho.finetune.show import show

    pair = {"prompt": TALK["messages"][:3], "chosen": "あり。", "rejected": "患者は咳嗽を認め、発熱なし。"}
    recipe = Recipe(objective="dpo", sequence_length=128, batch_tokens=256, epochs=4)
    page = show(recipe, [tokenizer_folder, written(tmp_path / "pairs.jsonl", pair, pair)])
    assert cells(page, "pairs chosen")[1] == "2" and "The run: 8 steps of 1 pairs" in page
    assert page.count("⟦") == 2 + 2 and "⟦あり。<|end_of_text|>⟧" in page  # the answer before is not learned


def test_what_is_missing_is_said(tokenizer_folder: Path, tmp_path: Path) -> None:
    from rinsho.finetune.show import show

    notes = written(tmp_path / "notes.jsonl", NOTE)
    for inputs, what in (
        ([], "inputs are missing"),
        ([notes], "no tokenizer in here"),
        ([tokenizer_folder], "no data was given"),
        ([tokenizer_folder, tmp_path / "no.jsonl"], "not there"),
    ):
        with pytest.raises(UserError, match=what):
            show(Recipe(), inputs)
    with pytest.raises(UserError, match="no multiple"):
        show(Recipe(batch_tokens=1000), [tokenizer_folder, notes])
