"""Noise of the papers' sizes, on the rows and at the times it should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rinsho.tokens import Batch
from toy_models import toy_model

WIDTH = 32
POSITIONS = np.array([[0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]])
LENGTHS = [[4] * 4 + [2] * 2 + [6] * 6, [12] * 12]


def batch(positions: np.ndarray = POSITIONS) -> Batch:
    return Batch(np.full_like(positions, 7), positions, np.full_like(positions, -100))


def moved(model: Any, kind: str, alpha: float = 5.0, positions: np.ndarray = POSITIONS, seed: int = 1):
    """What the noise adds to the embeddings of a batch, (rows x copies, time, width)."""
    import torch

    from rinsho.finetune.noise import Noise

    noise = Noise(model, kind, alpha)  # type: ignore[arg-type]
    torch.manual_seed(seed)
    embed = model.get_input_embeddings()
    rows = torch.from_numpy(noise.prepare(batch(positions)).input_ids)
    result = (embed(rows) - embed.weight[7]).detach()
    noise.remove()
    assert torch.equal(embed(rows), embed.weight[rows])  # taken off again
    return result


@pytest.fixture(scope="module")
def model():
    return toy_model(300).train()


def test_every_place_knows_the_length_of_its_own_conversation() -> None:
    from rinsho.finetune.noise import conversation_lengths

    assert conversation_lengths(POSITIONS).tolist() == LENGTHS


def test_neftune_is_uniform_and_its_size_is_that_of_the_conversation(model) -> None:
    import torch

    added = moved(model, "neftune", positions=np.concatenate([POSITIONS] * 40))
    size = 5 / torch.sqrt(torch.tensor(LENGTHS * 40) * WIDTH)
    scaled = (added / size[..., None]).flatten()
    assert 0.999 < float(scaled.abs().max()) <= 1 + 1e-4
    assert float(scaled.mean()) == pytest.approx(0, abs=0.02) and float(scaled.var()) == pytest.approx(1 / 3, rel=0.02)


def test_packed_noise_has_the_size_of_unpacked_noise(model) -> None:
    alone = moved(model, "symnoise", positions=np.arange(4)[None])
    packed = moved(model, "symnoise")
    assert float(alone.abs().min()) == pytest.approx(float(packed[0, :4].abs().min()), rel=1e-4)
    padded = moved(model, "symnoise", positions=np.array([[0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7]]))  # padding restarts
    assert float(padded[0, :4].abs().max()) == pytest.approx(float(alone.abs().max()), rel=1e-4)


def test_symnoise_is_one_draw_of_signs_added_and_taken_away(model) -> None:
    import torch

    added = moved(model, "symnoise")
    assert added.shape == (4, 12, WIDTH)
    assert torch.allclose(added[:2], -added[2:], atol=1e-6)
    size = (5 / torch.sqrt(torch.tensor(LENGTHS) * WIDTH))[..., None].expand(2, 12, WIDTH)
    assert torch.allclose(added[:2].abs(), size, atol=1e-6)
    assert 0.4 < float((added[:2] > 0).float().mean()) < 0.6
    assert not torch.allclose(added[0, 6:].sign(), added[1, 6:].sign())


def test_two_copies_of_a_row_are_a_row_each(model) -> None:
    import torch

    from rinsho.finetune.noise import Noise

    rows = Batch(np.arange(24).reshape(2, 12), POSITIONS, np.arange(24).reshape(2, 12) + 100)
    single, double = Noise(model, "neftune", 1.0), Noise(model, "symnoise", 1.0)
    assert (single.copies, double.copies) == (1, 2)
    assert all((a == b).all() for a, b in zip(single.prepare(rows), rows, strict=True))
    assert all((a == np.concatenate([b, b])).all() for a, b in zip(double.prepare(rows), rows, strict=True))
    single.remove()
    with pytest.raises(RuntimeError):  # rows that were not doubled do not pass unseen
        model.get_input_embeddings()(torch.full((2, 12), 7))
    double.remove()


@pytest.mark.parametrize("kind", ["neftune", "symnoise"])
def test_the_seed_decides_and_evaluation_is_still(model, kind: str) -> None:
    import torch

    from rinsho.finetune.noise import Noise

    assert torch.equal(moved(model, kind), moved(model, kind))
    assert not torch.equal(moved(model, kind), moved(model, kind, seed=2))
    noise = Noise(model, kind, 5.0)  # type: ignore[arg-type]
    ids = torch.full((3, 5), 7)
    embed = model.get_input_embeddings()
    assert torch.equal(embed(ids), embed.weight[ids])  # no lengths yet: no noise
    noise.prepare(batch())
    model.eval()
    assert torch.equal(embed(ids), embed.weight[ids])
    model.train()
    noise.remove()


def test_noise_is_added_after_our_embedding_scale() -> None:
    import torch

    from rinsho.finetune.noise import Noise
    from rinsho.model import ModelSettings, build

    sizes = ModelSettings(
        hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1
    )
    model = build(sizes, 300, 1).train()
    noise = Noise(model, "symnoise", 5.0)
    rows = torch.from_numpy(noise.prepare(batch(np.arange(4)[None])).input_ids)
    embed = model.get_input_embeddings()
    added = embed(rows) - embed.weight[7] * embed.scale
    assert torch.allclose(added.abs(), torch.full_like(added, 5 / (4 * WIDTH) ** 0.5), atol=1e-5)
    noise.remove()
