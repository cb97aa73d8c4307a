"""Talking through pipes: answers stream, history stays in the window, /exit ends."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest

from rinsho.chat import TEMPLATE, Message
from rinsho.chat_cli import NOTICE, _fitting, chat
from rinsho.conversation import asked
from rinsho.errors import UserError
from rinsho.prompting import read_template, template_of
from toy_models import toy_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = toy_folder(tmp_path_factory.mktemp("chat"), window=96)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return folder


def said(model: Path, lines: str, **options: object) -> list[str]:
    target = io.StringIO()
    chat(model, max_new_tokens=8, stdin=io.StringIO(lines), stdout=target, **options)
    return target.getvalue().split("\n")


def test_every_question_gets_an_answer_until_exit(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = said(model, "発熱\n\n肺癌\n/exit\n咳嗽\n", temperature=1.0)
    assert len(answers) >= 3 and answers[-1] == ""
    assert NOTICE in capsys.readouterr().err
    assert said(model, "発熱\n\n肺癌\n", temperature=1.0) == answers  # the end of the input ends it too, same seed
    assert said(model, "発熱\n\n肺癌\n", temperature=1.0, seed=2) != answers


def test_old_turns_are_forgotten_and_long_questions_cut(model: Path) -> None:
    from rinsho.generate.engine import Generator

    generator = Generator(model)
    history = [Message("user", "発熱" * 10), Message("assistant", "咳嗽" * 10)] * 3
    prompt, told = _fitting(generator, history, Message("user", "肺癌"), 60)
    assert len(prompt) <= 60 and len(history) == 4 and told.startswith("forgotten: 1 earlier")
    assert _fitting(generator, history, Message("user", "肺癌"), 60) == (prompt, "")
    prompt, told = _fitting(generator, history, Message("user", "肺癌" * 200), 60)
    assert len(prompt) == 60 and history == [] and "forgotten: 2" in told and "60 fit" in told and "肺癌" not in told
    assert len(said(model, "発熱" * 200 + "\n")) >= 2


def test_commands_are_no_questions_and_ctrl_c_at_the_prompt_ends(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said(model, "/help\n") == [""] and "no such command; /exit" in capsys.readouterr().err
    lines = io.StringIO("発熱\n")
    read = iter([lines.readline])

    def interrupted() -> str:
        for known in read:
            return known()
        raise KeyboardInterrupt

    monkeypatch.setattr(lines, "readline", interrupted)
    target = io.StringIO()
    chat(model, max_new_tokens=2, stdin=lines, stdout=target)
    assert target.getvalue().count("\n") == 1


def test_a_base_model_is_refused_clearly(tmp_path: Path) -> None:
    folder = toy_folder(tmp_path / "base", chat=False)
    with pytest.raises(UserError, match=r"this is a base model.* rinsho finetune"):
        said(folder, "発熱\n")


def test_questions_are_put_into_the_template_of_the_tuning(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the system turn before them, in every turn; said once."""
    folder = shutil.copytree(model, tmp_path / "tuned")
    template = read_template("alpaca").text | {"system": "短く答える。"}
    filled = asked(
        [Message("user", "発熱"), Message("assistant", "咳"), Message("user", "痛")], template_of(template, "")
    )
    assert [turn.role for turn in filled] == ["system", "user", "assistant", "user"]
    assert filled[1].content == read_template("alpaca").fill("発熱", "") and filled[2].content == "咳"
    plain = said(folder, "発熱\n")
    for text in (template, read_template("none").text):
        (folder / "rinsho.json").write_text(json.dumps({"finetune": {"prompt_template": text}}))
        capsys.readouterr()
        answers = said(folder, "発熱\n咳\n")
        told = capsys.readouterr().err.count("questions are put into the prompt template alpaca, as in its tuning")
        assert told == (text is template)
    assert answers[0] == plain[0]


def test_what_the_model_needs_is_said_first(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(model, "発熱\n", form="float32")
    assert "float32 needs about" in capsys.readouterr().err.split(NOTICE)[0]


def test_a_gguf_file_talks_as_its_folder(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("llama_cpp")
    from generate_many.toy_gguf import export

    folder = export(model, tmp_path / "gguf")
    questions = "発熱\n肺癌の疑い\n" + "咳嗽" * 200 + "\n"
    assert said(folder, questions) == said(model, questions, form="float32")
    assert "needs about" in capsys.readouterr().err
    assert said(folder / "model-f32.gguf", "発熱\n", temperature=1.0) == said(folder, "発熱\n", temperature=1.0)
    template = read_template("alpaca").text | {"system": "短く答える。"}
    (folder / "rinsho.json").write_text(json.dumps({"finetune": {"prompt_template": template}}), encoding="utf-8")
    said(folder, "発熱\n")
    assert "prompt template alpaca" in capsys.readouterr().err
    for options, what in (
        ({"form": "int8"}, "--form is not for GGUF"),
        ({"base": model}, "--base is for adapters"),
        ({"adapters": {"notes": model}}, "a GGUF file takes no adapters"),
    ):
        with pytest.raises(UserError, match=what):
            said(folder, "発熱\n", **options)
    with pytest.raises(UserError, match="no such file"):
        said(tmp_path / "none.gguf", "発熱\n")
