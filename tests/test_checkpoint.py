"""Checkpoints: whole or not at all, verified, the newest kept."""

import torch

from rinsho.checkpoint import STATE, TENSORS, load_checkpoint, random_state, restore_random_state, save_checkpoint


def test_round_trip_keeps_tensors_and_state_and_only_the_newest(tmp_path):
    shared = torch.randn(3, 4)
    for step in (1, 2, 3):
        parts = {"model": {"a": shared + step, "b": shared}, "optimizer": {"a/step": torch.tensor(float(step))}}
        save_checkpoint(tmp_path, step, parts, {"rows": 10 * step, "loss": 0.1 + step}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]
    found = load_checkpoint(tmp_path)
    assert (found.step, found.state) == (3, {"rows": 30, "loss": 3.1})
    assert torch.equal(found.part("model")["a"], shared + 3)
    assert found.part("optimizer")["a/step"].item() == 3


def test_tensors_that_share_memory_are_written_twice(tmp_path):
    tied = torch.randn(2, 2)
    save_checkpoint(tmp_path, 1, {"model": {"a": tied, "b": tied}}, {})
    assert torch.equal(load_checkpoint(tmp_path).part("model")["b"], tied)


def test_a_damaged_or_half_deleted_checkpoint_is_passed_over(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"model": {"a": torch.full((4,), float(step))}}, {}, keep=3)
    tensors = tmp_path / "step-00000003" / TENSORS
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"\xff")
    (tmp_path / "step-00000002" / STATE).unlink()
    assert load_checkpoint(tmp_path).step == 1
    assert load_checkpoint(tmp_path / "nothing") is None


def test_the_random_state_comes_back(tmp_path):
    torch.manual_seed(1)
    save_checkpoint(tmp_path, 1, {"random": random_state()}, {})
    first = torch.rand(3)
    restore_random_state(load_checkpoint(tmp_path).part("random"))
    assert torch.equal(torch.rand(3), first)
