"""Checkpoints: whole or not at all whatever happens, verified, the newest kept."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rinsho.checkpoint import (
    RESUME,
    STATE,
    TENSORS,
    Saver,
    load_checkpoint,
    open_checkpoint,
    publish_checkpoint,
    save_checkpoint,
    step_folder,
)
from rinsho.errors import UserError
from rinsho.model import ModelSettings, build
from rinsho.model_folder import load_folded, publish, save_folded


def save_one(root, step, value=None, **given):
    tensors = {"a": torch.full((4, 3), float(step if value is None else value))}
    return save_checkpoint(root, step, {"model": tensors}, {"rows": 10 * step}, **given)


def names(root):
    return sorted(path.name for path in root.iterdir())


def bits(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist()


def test_round_trip_keeps_tensors_and_state_and_only_the_newest(tmp_path):
    shared = torch.randn(3, 4)
    for step in (1, 2, 3):
        parts = {"model": {"a": shared + step, "b": shared}, "optimizer": {"a/step": torch.tensor(float(step))}}
        save_checkpoint(tmp_path, step, parts, {"rows": 10 * step, "loss": 0.1 + step}, keep=2)
    assert names(tmp_path) == ["step-00000002", "step-00000003"]
    found = load_checkpoint(tmp_path)
    assert (found.step, found.state, found.passed_over) == (3, {"rows": 30, "loss": 3.1}, ())
    assert torch.equal(found.part("model")["a"], shared + 3)
    assert list(found.part("optimizer")) == ["a/step"]
    assert found.part("optimizer")["a/step"].item() == 3
    assert len(found.part("nothing")) == 0
    with pytest.raises(KeyError):
        found.part("model")["a/step"]


@pytest.mark.parametrize("background", [False, True])
def test_every_kind_of_tensor_comes_back_and_the_library_reads_the_file(tmp_path, background):
    tied = torch.randn(5, 2)
    tensors = {
        "odd": torch.arange(3, dtype=torch.uint8),  # before wider numbers it would move them off their places
        "bool": torch.tensor([True, False]),
        "low": torch.randn(3, 3).bfloat16(),
        "half": torch.randn(2).half(),
        "long": torch.arange(4),
        "double": torch.randn(2, 2, dtype=torch.float64),
        "scalar": torch.tensor(7.0),
        "empty": torch.zeros(0, 3),
        "turned": tied.T,
        "tied": tied,
        "trained": torch.nn.Parameter(torch.tensor([float("nan"), float("inf"), -0.0])),
    }
    saver = Saver(tmp_path, background=background)
    saver.save(1, {"all": tensors}, {})
    saver.wait()
    by_library = load_file(tmp_path / "step-00000001" / RESUME / TENSORS)
    found = load_checkpoint(tmp_path).part("all")
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert bits(found[name]) == bits(by_library[f"all/{name}"]) == bits(tensor), name


def test_a_change_after_save_does_not_reach_the_file(tmp_path):
    first, go = torch.ones(1000), threading.Event()
    saver = Saver(tmp_path, background=True)
    saver.save(1, {"model": {"a": first}}, {"rows": 1}, lambda *_: go.wait(10))
    first.fill_(2)
    assert load_checkpoint(tmp_path) is None  # the thread waits in publish
    go.set()
    saver.save(2, {"model": {"a": first}}, {"rows": 2})
    saver.wait()
    assert torch.equal(open_checkpoint(step_folder(tmp_path, 1)).part("model")["a"], torch.ones(1000))
    assert torch.equal(load_checkpoint(tmp_path).part("model")["a"], torch.full((1000,), 2.0))


def test_what_goes_wrong_in_the_background_is_raised_by_the_next_call_and_leaves_nothing(tmp_path):
    def fail(*_):
        raise OSError(28, "No space left on device")

    saver = Saver(tmp_path, background=True)
    save_one(tmp_path, 1)
    saver.save(2, {"model": {}}, {}, fail)
    with pytest.raises(OSError, match="No space"):
        saver.save(3, {"model": {}}, {})
    saver.save(4, {"model": {}}, {}, fail)
    with pytest.raises(OSError, match="No space"):
        saver.wait()
    saver.wait()
    assert names(tmp_path) == ["step-00000001"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        saver.save(5, {}, {"loss": float("nan")})


def test_sharded_tensors_are_made_whole_one_by_one_in_the_same_order_by_every_process(tmp_path):
    parts = {"model": {"a": torch.ones(2), "n": torch.tensor(1)}, "optimizer": {"a": torch.ones(2)}}
    orders = []
    for rank, background in ((0, False), (0, True), (1, True)):
        orders.append([])

        def whole(tensor):
            orders[-1].append((tensor.dtype, tensor.shape))
            return tensor * 3

        saver = Saver(tmp_path / f"{rank}{background}", 2, background, writes=rank == 0)
        saver.save(1, parts, {}, whole=whole)
        saver.wait()
    assert orders[0] == orders[1] == orders[2]
    assert names(tmp_path) == ["0False", "0True"]
    for name in names(tmp_path):
        assert torch.equal(load_checkpoint(tmp_path / name).part("optimizer")["a"], torch.full((2,), 3.0))


@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_is_a_model_folder_too_and_that_can_be_kept_for_good(tmp_path, tied):
    model = build(ModelSettings(hidden_size=16, num_hidden_layers=1, tie_word_embeddings=tied), 30, 1)
    saver = Saver(tmp_path / "checkpoints", keep=1, background=True)
    for step in (1, 2):
        parts = {"model": dict(model.named_parameters())}
        saver.save(step, parts, {}, lambda weights, folder: publish(model.config, weights, None, folder, {"x": 1}))
        saver.wait()
        if step == 1:
            publish_checkpoint(tmp_path / "checkpoints/step-00000001", tmp_path / "out/step-00000001")
    save_folded(model, None, tmp_path / "plain", {"x": 1})
    assert names(tmp_path / "out/step-00000001") == names(tmp_path / "plain")
    for path in (tmp_path / "plain").iterdir():
        assert path.read_bytes() == (tmp_path / "out/step-00000001" / path.name).read_bytes(), path.name
    assert names(tmp_path / "checkpoints") == ["step-00000002"]
    ids = torch.arange(10)[None]
    stock = load_folded(tmp_path / "checkpoints/step-00000002")
    assert torch.equal(stock(ids).logits, model.eval()(ids).logits)


def flip_a_bit(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip_a_bit(folder / TENSORS, -1),
        lambda folder: flip_a_bit(folder / TENSORS, 20),
        lambda folder: os.truncate(folder / TENSORS, 30),
        lambda folder: os.truncate(folder / TENSORS, 0),
        lambda folder: (folder / TENSORS).unlink(),
        lambda folder: os.truncate(folder / STATE, 60),
        lambda folder: (folder / STATE).write_text("[1]"),
        lambda folder: (folder / STATE).write_text((folder / STATE).read_text().replace('"rows": 30', '"rows": 31')),
        lambda folder: (folder / STATE).unlink(),
        lambda folder: (folder / STATE).write_bytes(b"\xff\xfe"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path, damage):
    for step in (1, 2, 3):
        save_one(tmp_path, step, keep=3)
    damage(tmp_path / "step-00000003" / RESUME)
    found = load_checkpoint(tmp_path)
    assert (found.step, found.state) == (2, {"rows": 20})
    assert [path.name for path in found.passed_over] == ["step-00000003"]
    with pytest.raises(UserError, match="step-00000003"):
        open_checkpoint(tmp_path / "step-00000003")


def test_no_checkpoint_is_none_and_only_damaged_ones_are_an_error(tmp_path):
    assert load_checkpoint(tmp_path / "nothing") is None
    flip_a_bit(save_one(tmp_path, 1) / RESUME / TENSORS, -1)
    with pytest.raises(UserError, match=r"step-00000001.*hash.*delete it"):
        load_checkpoint(tmp_path)
    assert open_checkpoint(tmp_path / "step-00000001", verify=False).step == 1


def test_later_and_half_written_checkpoints_do_not_crowd_out_the_new_one(tmp_path):
    for step in (100, 200, 300):
        save_one(tmp_path, step, keep=9)
    (tmp_path / ".step-00000400.aside").mkdir()
    flip_a_bit(tmp_path / "step-00000300" / RESUME / TENSORS, -1)
    assert load_checkpoint(tmp_path).step == 200
    save_one(tmp_path, 250, keep=2)
    assert names(tmp_path) == ["step-00000200", "step-00000250"]
    save_one(tmp_path, 250, value=7, keep=1)  # the same step again
    assert names(tmp_path) == ["step-00000250"]
    assert load_checkpoint(tmp_path).part("model")["a"][0, 0] == 7


def test_the_folder_says_what_is_in_it(tmp_path):
    record = json.loads((save_one(tmp_path, 5) / RESUME / STATE).read_text())
    assert (record["step"], record["torch"], record["state"]) == (5, torch.__version__, {"rows": 50})
    assert set(record["tensors"]) == {"model/a"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_file_operation_leaves_the_last_whole_checkpoint(tmp_path):
    """A child saves two checkpoints in the background and is killed at its 1st, 2nd, 3rd … file operation."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("killed_saver.py")
    command = [sys.executable, script, tmp_path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    steps = json.loads(done.stdout)
    assert len(steps) > 20
    assert steps[0] is None
    assert steps[-1] == 2
    reached = [step or 0 for step in steps]
    assert reached == sorted(reached)
    assert set(reached) == {0, 1, 2}
