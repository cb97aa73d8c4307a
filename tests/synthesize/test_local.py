"""A model folder as a teacher: the same calls, the same kind of answers, kept under the model's content."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from rinsho.chat import TEMPLATE
from rinsho.client import Request, conversation
from rinsho.errors import UserError
from rinsho.run import Stage
from rinsho.synthesize import Recipe, Teacher, check
from rinsho.synthesize.local import Local


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from toy_models import toy_folder

    made = toy_folder(tmp_path_factory.mktemp("model"))
    (made / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return made


def requests(count: int) -> list[Request]:
    return [Request(f"r{n}", conversation(f"{'発熱' * (n % 3)}の患者"), seed=n) for n in range(count)]


def teacher(folder: Path, **changes: Any) -> Teacher:
    return Teacher.model_validate({"folder": str(folder), "max_tokens": 12, "slots": 3, "form": "float32", **changes})


def ask(given: Teacher, folder: Path, count: int = 8) -> tuple[dict[str, Any], Any]:
    folder.mkdir(exist_ok=True)
    with Local(given, folder / "answers.jsonl", Stage("synthesize", folder)) as local:
        list(local.ask([request for request in requests(count) if not local.is_kept(request)]))
        return {request.id: local.kept(request) for request in requests(count)}, local.counts


def test_answers_are_kept_and_depend_on_their_seed_alone(model: Path, tmp_path: Path) -> None:
    found, counts = ask(teacher(model), tmp_path / "a")
    assert counts.attempts == 8 and {answer.finish_reason for answer in found.values()} <= {"stop", "length"}
    assert len({answer.text for answer in found.values()}) > 4
    assert all(answer.prompt_tokens > 3 and answer.completion_tokens <= 12 for answer in found.values())
    assert all((answer.finish_reason == "length") == (answer.completion_tokens == 12) for answer in found.values())
    again, counts = ask(teacher(model), tmp_path / "a")
    assert counts.attempts == 0 and again == found
    parts, _ = ask(teacher(model, slots=1), tmp_path / "b", 3)  # interrupted, and one at a time
    parts, counts = ask(teacher(model), tmp_path / "b")
    assert counts.attempts == 5
    assert {name: answer.text for name, answer in parts.items()} == {
        name: answer.text for name, answer in found.items()
    }


def test_a_model_that_answers_no_requests_is_found_before_it_is_opened(model: Path, tmp_path: Path) -> None:
    (tmp_path / "topics.csv").write_text("topic\n肺炎\n", encoding="utf-8")
    recipe = Recipe(teachers={"own": teacher(model)}, kinds=("textbook",))
    assert check(recipe, [tmp_path / "topics.csv"]) == []
    base = shutil.copytree(model, tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    (problem,) = check(recipe.model_copy(update={"teachers": {"own": teacher(base)}}), [tmp_path / "topics.csv"])
    assert "teachers.own.folder: this is a base model" in str(problem)


def test_another_model_or_setting_is_asked_anew_but_not_another_path(model: Path, tmp_path: Path) -> None:
    ask(teacher(model), tmp_path / "a", 2)
    shutil.copytree(model, tmp_path / "copy")
    assert ask(teacher(tmp_path / "copy"), tmp_path / "a", 2)[1].attempts == 0
    assert ask(teacher(model, temperature=1.5), tmp_path / "a", 2)[1].attempts == 2
    config = tmp_path / "copy" / "generation_config.json"
    config.write_text(config.read_text() + "\n")
    assert ask(teacher(tmp_path / "copy"), tmp_path / "a", 2)[1].attempts == 2


def test_a_prompt_longer_than_the_window_is_an_answer_without_text(model: Path, tmp_path: Path) -> None:
    long = Request("long", conversation("発熱と咳嗽。" * 200), seed=1)
    with Local(teacher(model), tmp_path / "answers.jsonl", Stage("synthesize", tmp_path)) as local:
        found = {answer.id: answer for answer in local.ask([long, *requests(2)])}
    assert found["long"].text == "" and found["long"].finish_reason == "too_long" and len(found) == 3


def test_a_model_without_a_chat_form_is_told(tmp_path: Path) -> None:
    from toy_models import toy_folder

    base = toy_folder(tmp_path / "base", chat=False)
    local = Local(teacher(base), tmp_path / "answers.jsonl", Stage("synthesize", tmp_path))
    with local, pytest.raises(UserError, match="chat"):
        list(local.ask(requests(1)))
