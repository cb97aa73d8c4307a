"""A model tuned beside a test part of its own is asked that part, and its report says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluate.test_run import answers, use
from evaluate.toy_oracle import Oracle
from rinsho.errors import UserError
from rinsho.evaluate import Recipe, check, run
from rinsho.tasks import Splitting, read_data, read_train
from tasks.toy_pools import toy_pools

RECIPE = Recipe(tasks=("crade", "smdis"), modes=("free",), bootstrap_samples=20, max_batch_tokens=20_000)
OWN = Splitting("document", "own", 3)


def tuned(tmp_path: Path, **changes: object) -> list[Path]:
    """A model folder as fine-tuning leaves it, and the data."""
    data = toy_pools(tmp_path / "data/jmed_llm").parent
    about = {"split": "document", "test_part": "own", "split_seed": 3, "splits": read_train([data], OWN)[1]}
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "model/rinsho.json").write_text(json.dumps({"finetune": about | changes}), encoding="utf-8")
    return [tmp_path / "model", data]


def test_the_models_own_part_is_asked_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = tuned(tmp_path)
    use(monkeypatch, Oracle(lambda prompt: "A"))
    report = run(RECIPE, given, tmp_path / "out")
    ids = {item.id for item in read_data(given[1:], "test", OWN, RECIPE.tasks)}
    assert {identifier for identifier, _ in answers(tmp_path / "out")} == ids
    numbers = report.numbers
    assert [numbers[name] for name in ("split", "test_part", "split_seed")] == ["document", "own", 3]
    assert "Own test part, not the published one: not comparable with published scores" in report.markdown
    assert all(row["share"] == 0 for row in numbers["leakage"]) and numbers["leakage"]
    assert {row["task"] for row in numbers["scores"]} == {"crade", "smdis"}
    assert all(set(row["baselines"]) == {"majority", "naive_bayes"} for row in numbers["scores"])
    oracle = use(monkeypatch, Oracle())
    again = run(RECIPE, [tmp_path / "out/answers.jsonl", given[1]], tmp_path / "again").numbers
    assert oracle.calls == 0
    for name in ("scores", "split", "test_part", "split_seed", "leakage", "training_note"):
        assert again[name] == numbers[name]


def test_the_recipe_can_ask_another_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = tuned(tmp_path)
    use(monkeypatch, Oracle(lambda prompt: "A"))
    recipe = RECIPE.model_copy(update={"test_part": "published"})
    report = run(recipe, given, tmp_path / "published")
    assert report.numbers["test_part"] == "published" and "own test part" not in report.markdown
    assert {identifier.split("/")[0] for identifier, _ in answers(tmp_path / "published")} == {"crade", "smdis"}
    other = run(RECIPE.model_copy(update={"split_seed": 4, "split": "row"}), given, tmp_path / "other").numbers
    assert (other["split"], other["test_part"], other["split_seed"]) == ("row", "own", 4)


def test_another_test_part_than_the_models_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = tuned(tmp_path, splits=[{"test_hash": "0123456789abcdef"}])
    oracle = use(monkeypatch, Oracle())
    assert check(RECIPE, given) == []
    with pytest.raises(UserError, match="another test part is drawn"):
        run(RECIPE, given, tmp_path / "out")
    assert oracle.calls == 0


def test_a_split_of_a_later_version_is_not_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = tuned(tmp_path, split="patient")
    use(monkeypatch, Oracle(lambda prompt: "A"))
    numbers = run(RECIPE, given, tmp_path / "out").numbers
    assert (numbers["split"], numbers["test_part"]) == ("document", "published")
    assert numbers["leakage_source"].startswith("unknown")
