"""Optimizers: their state survives safetensors, they equal torch's; schedules: their corners."""

from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file, save_file

from rinsho.errors import UserError
from rinsho.muon import Muon
from rinsho.optim import make_optimizer, rate_factor


def parameters():
    shapes = {
        "model.embed_tokens.weight": (20, 8),
        "model.layers.0.q_proj.weight": (8, 8),
        "model.layers.0.up_proj.weight": (16, 8),
        "model.layers.1.up_proj.weight": (16, 8),
        "model.layers.0.norm.weight": (8,),
    }
    torch.manual_seed(0)
    return {name: torch.nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}


def give_gradients(named, step):
    torch.manual_seed(step)
    for parameter in named.values():
        parameter.grad = torch.randn_like(parameter)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_state_round_trip_through_safetensors_is_bitwise(tmp_path, kind):
    straight, stopped = parameters(), parameters()
    long = make_optimizer(straight.items(), kind, learning_rate=1e-2)
    for step in range(6):
        give_gradients(straight, step)
        long.step(1.0 - step / 6)
    short = make_optimizer(stopped.items(), kind, learning_rate=1e-2)
    for step in range(3):
        give_gradients(stopped, step)
        short.step(1.0 - step / 6)
    save_file(short.state_tensors(), tmp_path / "state.safetensors")
    resumed = make_optimizer(stopped.items(), kind, learning_rate=1e-2)
    resumed.load_state_tensors(load_file(tmp_path / "state.safetensors"))
    for step in range(3, 6):
        give_gradients(stopped, step)
        resumed.step(1.0 - step / 6)
    for name, parameter in straight.items():
        assert torch.equal(parameter, stopped[name]), name


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest():
    named = parameters()
    optimizer = make_optimizer(named.items(), "muon", learning_rate=1e-2, muon_learning_rate=2e-2)
    give_gradients(named, 0)
    optimizer.step(1.0)
    kinds = {key.rpartition("/")[2] for key in optimizer.state_tensors() if "up_proj" in key}
    assert kinds == {"momentum_buffer"}
    assert "model.embed_tokens.weight/exp_avg" in optimizer.state_tensors()


def test_norm_gains_do_not_decay():
    named = parameters()
    before = {name: parameter.detach().clone() for name, parameter in named.items()}
    optimizer = make_optimizer(named.items(), "adamw", learning_rate=1e-2, weight_decay=0.5)
    for parameter in named.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(1.0)
    for name, parameter in named.items():
        factor = 1.0 if "norm" in name else 1 - 1e-2 * 0.5
        torch.testing.assert_close(parameter.detach(), before[name] * factor)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_parameter_that_is_a_multiple_moves_by_the_multiple(kind):
    """s times E under rate s is s times E under rate 1 after any steps (epsilon aside, gradients being 1/s)."""
    plain, multiple = parameters(), parameters()
    name, scale = "model.embed_tokens.weight", 6.0
    multiple[name] = torch.nn.Parameter(plain[name].detach() * scale)
    first = make_optimizer(plain.items(), kind, learning_rate=1e-2, weight_decay=0.5)
    second = make_optimizer(multiple.items(), kind, learning_rate=1e-2, weight_decay=0.5, rates={name: scale})
    for step in range(4):
        give_gradients(plain, step)
        give_gradients(multiple, step)
        multiple[name].grad /= scale
        first.step(1.0 - step / 6)
        second.step(1.0 - step / 6)
    torch.testing.assert_close(multiple[name].detach(), plain[name].detach() * scale)
    for other in plain.keys() - {name}:
        assert torch.equal(plain[other], multiple[other])


@pytest.mark.parametrize("max_norm", [1.0, 1e6])
def test_clipping_is_the_one_in_torch(max_norm):
    mine, theirs = parameters(), parameters()
    give_gradients(mine, 0)
    give_gradients(theirs, 0)
    mine["model.layers.1.up_proj.weight"].grad = theirs["model.layers.1.up_proj.weight"].grad = None
    norm = make_optimizer(mine.items(), learning_rate=1e-2).clip(max_norm)
    assert norm == float(torch.nn.utils.clip_grad_norm_(theirs.values(), max_norm))
    for name, parameter in mine.items():
        assert (parameter.grad is None and theirs[name].grad is None) or torch.equal(parameter.grad, theirs[name].grad)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 1e-4), (torch.float32, 2e-3)])
def test_muon_equals_the_one_in_torch(dtype, tolerance):
    shapes = [(8, 32), (32, 8), (16, 16), (16, 16)]
    torch.manual_seed(0)
    mine = {str(place): torch.nn.Parameter(torch.randn(shape)) for place, shape in enumerate(shapes)}
    theirs = [torch.nn.Parameter(parameter.detach().clone()) for parameter in mine.values()]
    ours = Muon(mine.values(), 1e-2, 0.1, dtype=dtype)
    reference = torch.optim.Muon(theirs, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(4):
        give_gradients(mine, step)
        for parameter, other in zip(mine.values(), theirs, strict=True):
            other.grad = parameter.grad.clone()
        ours.step()
        reference.step()
    for parameter, other in zip(mine.values(), theirs, strict=True):
        torch.testing.assert_close(parameter, other, rtol=0, atol=tolerance)


def test_state_of_another_model_is_refused():
    optimizer = make_optimizer(parameters().items(), learning_rate=1e-2)
    with pytest.raises(UserError, match="not trained here"):
        optimizer.load_state_tensors({"model.layers.9.up_proj.weight/exp_avg": torch.zeros(1)})


def test_schedules_rise_to_one_and_fall_to_zero():
    for schedule in ("cosine", "linear", "warmup_stable_decay"):
        for warmup in ("linear", "log"):
            factors = [rate_factor(step, 100, warmup_steps=10, warmup=warmup, schedule=schedule) for step in range(101)]
            assert factors[9] == pytest.approx(1.0)
            assert 0 < factors[0] < factors[1] < factors[8] < 1
            assert all(a >= b for a, b in pairwise(factors[9:]))
            assert 0 < factors[99] < 0.06
            assert factors[100] == pytest.approx(0.0)
    log, linear = (rate_factor(3, 100, warmup_steps=10, warmup=kind) for kind in ("log", "linear"))
    assert log > linear
    assert rate_factor(79, 100, schedule="warmup_stable_decay") == 1.0
    assert rate_factor(90, 100, schedule="warmup_stable_decay") == 0.5
    assert rate_factor(55, 100, warmup_steps=10, schedule="cosine") == pytest.approx(0.5)
    assert rate_factor(99, 100, schedule="constant") == 1.0
