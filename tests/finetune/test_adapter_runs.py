"""Whole runs with adapters: stopped and continued, opened, evaluated, merged, one per seed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rinsho.errors import UserError
from rinsho.finetune import Recipe, check, run

SMALL = {
    "max_tokens": 6 * 512, "sequence_length": 128, "batch_tokens": 512, "dtype": "fp32", "threads": 1,
    "prompt_form": "short", "answer_form": "letter", "save_every_steps": 2, "warmup_steps": 1, "learning_rate": 1e-2,
    "adapter": {"method": "lora", "rank": 4, "dropout": 0.1},
}  # fmt: skip
PRODUCTS = ("adapter_model.safetensors", "adapter_config.json", "rinsho.json", "train_documents.txt")


def small(**changes: object) -> Recipe:
    return Recipe.model_validate({**SMALL, **changes})


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, base: Path, data: Path) -> Path:
    out = tmp_path_factory.mktemp("adapter") / "out"
    run(small(), [base, data], out)
    return out


def test_the_product_is_an_adapter_that_answers_on_its_base(tuned: Path, base: Path) -> None:
    from rinsho.chat import Message
    from rinsho.generate.engine import Generator

    assert all((tuned / name).is_file() for name in PRODUCTS) and not (tuned / "model.safetensors").exists()
    about = json.loads((tuned / "rinsho.json").read_text())
    assert (tuned / about["base"]["relative"]).resolve() == base.resolve()
    assert about["finetune"]["adapter"]["rank"] == 4 and about["finetune"]["chat"] == "rinsho"
    numbers = json.loads((tuned / "report.json").read_text())["numbers"]
    assert 0 < numbers["trained_parameters"] < numbers["parameters"] and numbers["method"] == "lora"
    generator = Generator(tuned)
    prompt = generator.prompt([Message("user", "発熱")])
    assert len(generator.generate([prompt], 4)[0]) <= 4


def test_the_rows_of_the_chat_tokens_are_learned_as_fast_as_unfolded_ones(tuned: Path, base: Path) -> None:
    from safetensors.torch import load_file

    from rinsho.model_folder import read_manifest

    scale = read_manifest(base)["embedding_scale"]
    rows = next(tensor for name, tensor in load_file(tuned / PRODUCTS[0]).items() if "token" in name)
    start = load_file(base / "model.safetensors")["model.embed_tokens.weight"].double().mean(0).float()
    moved = (rows - start).abs().max(dim=1).values
    assert len(rows) == 3 and float(moved[1]) > 2 * SMALL["learning_rate"]  # AdamW moves an unscaled one 1e-2 a step
    assert float(moved.max()) < 6 * SMALL["learning_rate"] * scale * 1.5


def test_stop_and_resume_give_the_same_adapter(
    tuned: Path, base: Path, data: Path, tmp_path: Path, interrupted_at_5: Callable[..., None]
) -> None:
    interrupted_at_5(small(), [base, data], tmp_path / "out")
    run(small(), [base, data], tmp_path / "out")
    assert (tmp_path / "out" / PRODUCTS[0]).read_bytes() == (tuned / PRODUCTS[0]).read_bytes()


def test_it_is_evaluated_and_merged(tuned: Path, base: Path, data: Path, tmp_path: Path) -> None:
    from rinsho import evaluate
    from rinsho.adapter_merge import merge
    from rinsho.model_folder import load_unfolded

    recipe = evaluate.Recipe(modes=("constrained",), threads=1)
    alone = evaluate.run(recipe, [tuned, data], tmp_path / "alone").numbers
    done = merge(tuned, tmp_path / "merged")
    assert done.largest_logit_change < 1e-5
    merged = evaluate.run(recipe, [tmp_path / "merged", data], tmp_path / "scores").numbers
    keep = ("task", "n", "score", "leaked", "clean")
    rows = [[{key: row[key] for key in keep} for row in found["scores"]] for found in (alone, merged)]
    assert rows[0] == rows[1] and alone["split"] == "document"
    assert (
        len(load_unfolded(tmp_path / "merged").model.embed_tokens.weight)
        == len(load_unfolded(base).model.embed_tokens.weight) + 3
    )
    merged_again = run(small(adapter=None, max_tokens=512), [tmp_path / "merged", data], tmp_path / "more").numbers
    assert merged_again["steps"] == 1
    assert "rinsho adapter merge" in str(check(small(), [tuned, data])[0])


def test_every_seed_is_an_adapter_that_finds_its_base(base: Path, data: Path, tmp_path: Path) -> None:
    from rinsho.adapters import find_base

    run(small(seeds=(1, 2), max_tokens=512), [base, data], tmp_path / "out")
    for folder in (tmp_path / "out", tmp_path / "out/seed-1", tmp_path / "out/seed-2"):
        assert find_base(folder).resolve() == base.resolve()


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_a_quantised_base_learns_almost_alike(
    tuned: Path, base: Path, data: Path, tmp_path: Path, quantization: str
) -> None:
    changes = {"quantization": quantization, "optimizer": "adamw_8bit"}
    numbers = run(small(**changes), [base, data], tmp_path / "out").numbers
    plain = json.loads((tuned / "report.json").read_text())["numbers"]
    assert numbers["loss"] == pytest.approx(plain["loss"], rel=0.1)
    assert numbers["trained_parameters"] == plain["trained_parameters"]


def test_the_alpaca_way(base: Path, tmp_path: Path) -> None:
    """A foreign model without a chat template: plain form, whole text learned, no token added."""
    from rinsho.generate.engine import Generator
    from toy_models import toy_folder

    foreign = toy_folder(tmp_path / "foreign", chat=False)
    rows = [{"instruction": "答えよ。", "input": f"第{n}問", "output": "発熱あり。"} for n in range(12)]
    (tmp_path / "meadow.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    recipe = small(prompt_template="alpaca_ja", learn="all", sequence_length=256, pack=False)
    numbers = run(recipe, [foreign, tmp_path / "meadow.json"], tmp_path / "out").numbers
    assert numbers["chat"] == "plain"
    task = numbers["tasks"]["meadow"]
    assert task["learned_tokens"] == task["tokens"] - task["rows"]  # all but the first token
    size = len(json.loads((foreign / "tokenizer.json").read_text())["added_tokens"])
    assert len(json.loads((tmp_path / "out/tokenizer.json").read_text())["added_tokens"]) == size
    assert Generator(tmp_path / "out").render.form in ("plain", "own")


def test_another_base_is_refused(tuned: Path, data: Path, tmp_path: Path) -> None:
    from rinsho.generate.engine import Generator
    from toy_models import toy_folder

    other = toy_folder(tmp_path / "other", chat=False)
    from rinsho.adapters import open_adapter

    with pytest.raises(UserError, match="another base"):
        open_adapter(tuned, other)
    assert Generator(tuned)
