"""Every recipe of the project resolves, and the reference recipe says what the report says."""

import json
import re

import pytest

from rinsho.chain import resolve
from rinsho.cli_parser import STAGES
from rinsho.model import count_parameters
from rinsho.optim import rate_factor
from rinsho.pretrain.data import total_steps
from tiny_chain import ROOT

ROOMS = {stage: module for stage, (module, _, _) in STAGES.items()}


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_resolves_under_its_own_name(path):
    plans, name = resolve(path, [], ROOMS)
    assert plans
    assert name == path.stem


def test_the_reference_recipe_is_the_training_of_the_report():
    """N2.3-1, N2.3-4, N2.4-1."""
    plans, _ = resolve(ROOT / "recipes" / "ncvc-slm-1.yaml", [], ROOMS)
    recipe, tokenizer = plans["pretrain"].recipe, plans["tokenizer"].recipe
    assert count_parameters(recipe.model, tokenizer.vocab_size) == 1_191_282_688
    assert (recipe.model.attention_dropout, recipe.model.residual_dropout) == (0.1, 0.1)
    assert recipe.batch_tokens == 1024 * 2048 == 8 * 4 * 32 * recipe.sequence_length
    assert total_steps(recipe, 0) == 24_000
    assert (recipe.betas, recipe.weight_decay, recipe.grad_clip, recipe.learning_rate) == ((0.9, 0.95), 0.1, 1.0, 1e-3)
    assert (recipe.pack, recipe.document_bounds, recipe.parallelism, recipe.optimizer) == (
        "cut",
        False,
        "zero2",
        "adamw",
    )
    assert 9600 % recipe.keep_every_steps == 0  # the model of 20 billion tokens
    factors = [
        rate_factor(step, 24_000, warmup_steps=recipe.warmup_steps, warmup=recipe.warmup, schedule=recipe.schedule)
        for step in (0, 749, 750, 23_999)
    ]
    assert factors[0] < 0.2 < factors[1] == 1.0 == factors[2]
    assert factors[3] < 1e-6


def finetune(name, *changes):
    plans, _ = resolve(ROOT / "recipes" / f"{name}.yaml", list(changes), ROOMS)
    return plans["finetune"].recipe


def test_the_instruct_recipe_is_the_tuning_of_the_report():
    """N2.4-2."""
    recipe = finetune("instruct")
    assert recipe.batch_tokens == 256 * recipe.sequence_length and not recipe.pack
    assert recipe.batch_tokens // recipe.sequence_length == 32 * recipe.micro_batch_rows
    assert recipe.max_tokens == 890 * recipe.batch_tokens
    assert (recipe.optimizer, recipe.learning_rate, recipe.betas, recipe.weight_decay) == (
        "adamw",
        1e-4,
        (0.9, 0.95),
        0.01,
    )
    assert (recipe.warmup_steps, recipe.schedule, recipe.neftune_alpha, recipe.noise) == (50, "cosine", 5.0, "neftune")
    assert (recipe.split, recipe.learn, recipe.prompt_form, recipe.adapter) == ("row", "answer", "benchmark", None)


def test_the_medalpaca_recipe_has_its_authors_settings():
    """M-3."""
    recipe = finetune("medalpaca")
    adapter = recipe.adapter
    assert (adapter.method, adapter.rank, adapter.alpha, adapter.dropout) == ("lora", 8, 16, 0.1)
    assert adapter.target_modules == ("q_proj", "v_proj")
    assert recipe.batch_tokens == 128 * recipe.sequence_length == 128 * 256 and not recipe.pack
    assert (recipe.epochs, recipe.max_tokens, recipe.learn) == (3, None, "all")
    assert (recipe.learning_rate, recipe.schedule, recipe.warmup_steps) == (2e-5, "cosine", 100)
    assert (recipe.optimizer, recipe.betas, recipe.weight_decay, recipe.grad_clip) == ("adamw", (0.9, 0.999), 0.0, 1.0)
    assert (recipe.chat, recipe.prompt_template, recipe.quantization) == ("plain", "alpaca", "none")


@pytest.mark.parametrize("name", ["instruct", "medalpaca"])
def test_every_variant_that_a_recipe_names_goes_together(name, tmp_path):
    """The `--set` switches in the comments: N2.4-3, and M-3's full and 8-bit forms."""
    from rinsho.finetune import check

    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text('{"max_position_embeddings": 2048}')
    notes = tmp_path / "notes.json"
    notes.write_text(json.dumps([{"instruction": "要約", "input": "", "output": "発熱"}]))
    lines = (ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    variants = [re.findall(r"--set (finetune\.\S+=\S+)", line) for line in lines if line.startswith("#")]
    variants = [[], *filter(None, variants)]
    assert len(variants) >= 3
    recipes = [finetune(name, *changes) for changes in variants]
    for changes, recipe in zip(variants, recipes, strict=True):
        assert not check(recipe, [tmp_path / "model", notes]), changes
    assert len({recipe.model_dump_json() for recipe in recipes}) == len(recipes)
    if name == "medalpaca":
        assert {(recipe.adapter is None, recipe.quantization) for recipe in recipes} >= {
            (True, "none"),
            (False, "int8"),
        }
    else:
        assert recipes[1].max_tokens == 4850 * recipes[1].batch_tokens == 4850 * 1024 * recipes[1].sequence_length
