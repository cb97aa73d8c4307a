"""Every recipe of the project resolves, and the reference recipe says what the report says."""

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
