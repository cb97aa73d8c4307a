"""The loop against a plain one, in parts, stopped and continued, and with numbers that are not finite."""

import math

import numpy as np
import pytest
import torch

from rinsho.device import reproducible
from rinsho.errors import UserError
from rinsho.model import build
from rinsho.modeling import next_token_loss
from rinsho.pretrain import Recipe
from rinsho.pretrain.loop import Trainer, total_steps
from rinsho.run import Stage, read_metrics
from rinsho.token_files import TokenFile
from rinsho.tokens import IGNORED, Batch, pack

VOCAB = 64
MODEL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 64}
SETTINGS = {
    "sequence_length": 32,
    "batch_tokens": 128,
    "max_tokens": 128 * 8,
    "learning_rate": 1e-2,
    "warmup_steps": 2,
    "save_every_steps": 3,
    "log_every_steps": 1,
    "validation_every_steps": 4,
    "threads": 1,
    "dtype": "fp32",
    "device": "cpu",
}


def recipe_of(**changes):
    model = {**MODEL, **changes.pop("model", {})}
    return Recipe.model_validate({**SETTINGS, "model": model, **changes})


def rows_of(recipe):
    lengths = np.random.default_rng(0).integers(5, 60, 40)
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    tokens = (np.random.default_rng(1).zipf(1.5, offsets[-1]) % (VOCAB - 3) + 3).astype(np.uint16)
    tokens[offsets[:-1]], tokens[offsets[1:] - 1] = 1, 2
    how, bounds = recipe.pack, recipe.document_bounds
    return pack(TokenFile(tokens, offsets, {}), recipe.sequence_length, how=how, document_bounds=bounds, pad_id=2)


def trainer_of(folder, recipe, **parts):
    stage = Stage("pretrain", folder)
    stage.partial.mkdir(parents=True, exist_ok=True)
    rows = parts.get("rows") or rows_of(recipe)
    return Trainer(recipe, build(recipe.model, VOCAB, recipe.seed), rows, parts.get("validation", rows), stage)


def train(folder, recipe, **parts):
    with reproducible(recipe.threads):
        trainer = trainer_of(folder, recipe, **parts)
        trainer.train()
    return trainer


def losses(folder):
    return [row["loss"] for row in read_metrics(folder) if "loss" in row]


def weights(trainer):
    return {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize("changes", [{}, {"pack": "cut", "document_bounds": False}])
def test_our_loss_curve_equals_a_plain_loop(tmp_path, changes):
    recipe = recipe_of(warmup="log", **changes)
    trainer = train(tmp_path, recipe)
    rows = rows_of(recipe)
    model = build(recipe.model, VOCAB, recipe.seed)
    decayed = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim != 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), eps=1e-8)
    expected = []
    for step in range(8):
        numbers = trainer._order.take(4 * step, 4)
        ids, positions, labels = map(torch.from_numpy, rows.batch(numbers))
        logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        rate = math.log(step + 2) / math.log(3) if step < 2 else 0.5 * (1 + math.cos(math.pi * (step - 2) / 6))
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * rate
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        expected.append(loss.item())
    assert losses(tmp_path) == pytest.approx(expected, rel=1e-4)
    assert expected[-1] < expected[0]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_four_times_two_rows_equal_one_times_eight(tmp_path, optimizer, monkeypatch):
    monkeypatch.setattr("rinsho.device.has_fast_bfloat16", lambda _: False)  # in bf16 the order of sums shows
    settings = {"batch_tokens": 256, "max_tokens": 256 * 4, "optimizer": optimizer}
    parts = train(tmp_path / "a", recipe_of(micro_batch_rows=2, **settings))
    whole = train(tmp_path / "b", recipe_of(micro_batch_rows=8, **settings))
    assert losses(tmp_path / "a") == pytest.approx(losses(tmp_path / "b"), rel=1e-5)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_stopped_and_continued_equals_uninterrupted_bit_for_bit(tmp_path, optimizer):
    recipe = recipe_of(optimizer=optimizer, model={"residual_dropout": 0.1, "attention_dropout": 0.1})
    whole = train(tmp_path / "whole", recipe)
    with reproducible(1):
        stopped = trainer_of(tmp_path / "stopped", recipe)
        real, done = stopped.step, 0

        def step():
            nonlocal done
            done += 1
            if done > 5:
                raise KeyboardInterrupt
            return real()

        stopped.step = step
        with pytest.raises(KeyboardInterrupt):
            stopped.train()
    torch.manual_seed(99)  # whatever happened to the random state in between
    again = train(tmp_path / "stopped", recipe)
    assert_same(weights(whole), weights(again))
    assert_same(whole.optimizer.state_tensors(), again.optimizer.state_tensors())
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    assert [row["step"] for row in read_metrics(tmp_path / "stopped") if "loss" in row] == list(range(1, 9))


class Poisoned:
    """Rows some of whose batches make the loss infinite."""

    def __init__(self, rows, trainer_of_bad, bad):
        self.rows, self.bad, self.calls = rows, bad, 0
        self.poison = trainer_of_bad

    def __len__(self):
        return len(self.rows)

    def batch(self, numbers):
        self.calls += 1
        self.poison(self.calls in self.bad)
        return self.rows.batch(numbers)


def poisoned_trainer(folder, recipe, bad):
    trainer = trainer_of(folder, recipe, validation=None)
    factor = {"now": 1.0}
    trainer.rows = Poisoned(trainer.rows, lambda on: factor.update(now=math.inf if on else 1.0), bad)
    real = trainer._loss
    trainer._loss = lambda batch: real(batch) * factor["now"]
    return trainer


def test_a_step_that_is_not_finite_is_skipped_and_counted(tmp_path):
    trainer = poisoned_trainer(tmp_path, recipe_of(), bad={3, 5})
    end = trainer.train()
    assert (end.step, end.skipped_steps) == (8, 2)
    assert all(torch.isfinite(tensor).all() for tensor in weights(trainer).values())
    assert [row["step"] for row in read_metrics(tmp_path) if "skipped_steps" in row] == [3, 5]


def test_too_many_of_them_stop_the_run(tmp_path):
    trainer = poisoned_trainer(tmp_path, recipe_of(max_skipped_steps=1), bad={2, 3})
    with pytest.raises(UserError, match="not finite"):
        trainer.train()


def test_one_batch_can_be_learned_by_heart(tmp_path):
    recipe = recipe_of(max_tokens=128 * 60, schedule="constant", weight_decay=0.0)
    rows = rows_of(recipe)

    class Same:
        def __len__(self):
            return 4

        def batch(self, numbers):
            return rows.batch([0, 1, 2, 3][: len(numbers)])

    end = train(tmp_path, recipe, rows=Same(), validation=None).at
    assert end.loss < 0.1


def test_bf16_stays_close_to_fp32(tmp_path):
    low, full = train(tmp_path / "low", recipe_of(dtype="bf16")), train(tmp_path / "full", recipe_of())
    assert low.low_precision
    assert not full.low_precision
    assert losses(tmp_path / "low") == pytest.approx(losses(tmp_path / "full"), rel=0.02)
    assert all(tensor.dtype == torch.float32 for tensor in weights(low).values())


def test_validation_loss_is_the_mean_over_all_held_out_tokens(tmp_path):
    recipe = recipe_of(micro_batch_rows=3)
    trainer = trainer_of(tmp_path, recipe)
    rows = trainer.validation
    batch = rows.batch(range(len(rows)))
    with torch.no_grad():
        expected = next_token_loss(trainer.model.eval(), *map(torch.from_numpy, batch)).item() / batch.targets
    assert trainer.held_out_loss() == pytest.approx(expected, rel=1e-5)


def test_steps_come_from_tokens_or_epochs():
    assert total_steps(recipe_of(), rows=1000) == 8
    assert total_steps(recipe_of(max_tokens=None, epochs=2.5), rows=16) == 10
    assert total_steps(recipe_of(max_tokens=1), rows=16) == 1


def test_a_batch_knows_its_targets():
    labels = np.array([[1, IGNORED], [IGNORED, 2]])
    assert Batch(labels, labels, labels).targets == 2
