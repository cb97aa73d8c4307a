"""Two processes (gloo, CPU) against one: every layout, optimizer and number of micro-batches gives the same training."""

from itertools import product

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor

from rinsho.distributed import (
    World,
    assign,
    joined,
    last_part,
    parallelise,
    sum_over_ranks,
    tell_all,
    whole,
    world,
)
from rinsho.errors import UserError
from rinsho.model import ModelSettings, build
from rinsho.optim import make_optimizer
from two_processes import run

CPU = torch.device("cpu")
# No size divides evenly: 53 rows of embedding over two processes, three matrices of a shape for two owners.
SIZES = {"hidden_size": 30, "intermediate_size": 45, "num_hidden_layers": 3, "num_attention_heads": 3,
         "num_key_value_heads": 1, "max_position_embeddings": 64}  # fmt: skip
VOCAB, ROWS, TIME, STEPS = 53, 4, 12, 4
LAYOUTS, KINDS = ("ddp", "zero2", "zero3"), ("adamw", "muon")
CONTINUED = (("ddp", "adamw"), ("zero2", "muon"), ("zero3", "adamw"), ("zero3", "muon"))


def batch(step):
    """ROWS packed rows of two documents each, the last label of every document left out."""
    ids = torch.randint(3, VOCAB, (ROWS, TIME), generator=torch.Generator().manual_seed(step))
    cut = 3 + step
    positions = torch.cat([torch.arange(cut), torch.arange(TIME - cut)]).expand(ROWS, -1)
    labels = ids.roll(-1, 1)
    labels[:, cut - 1], labels[:, -1] = -100, -100
    labels[0, : 2 * step] = -100  # processes do not have equally many
    return ids, positions, labels


class Training:
    """The loop's order of calls, on toy rows."""

    def __init__(self, layout="ddp", kind="adamw", tied=False, parts=1, dropout=0.0, **how):
        sizes = ModelSettings(**SIZES, tie_word_embeddings=tied, residual_dropout=dropout, attention_dropout=dropout)
        self.model, self.parts, self.me = build(sizes, VOCAB, 1), parts, world()
        self.module = parallelise(self.model.train(), CPU, parallelism=layout, **how)
        self.optimizer = make_optimizer(self.model.named_parameters(), kind, learning_rate=1e-2, eps=1e-6)
        self.losses, self.norms, self.sharded = [], [], []

    def steps(self, first, last):
        for step in range(first, last):
            torch.manual_seed(100 * step + self.me.rank)
            ids, positions, labels = batch(step)
            targets = int((labels != -100).sum())
            mine = torch.arange(ROWS).chunk(self.me.size)[self.me.rank]
            total = torch.zeros((), dtype=torch.float64)
            for place, rows in enumerate(mine.chunk(self.parts)):
                with last_part(self.module, place == self.parts - 1):
                    loss = self.module(ids[rows], positions[rows], labels[rows]) / targets
                    loss.backward()
                total += loss.detach()
                self.sharded.append(self.is_sharded())
            self.losses.append(sum_over_ranks(total).item())
            self.norms.append(self.optimizer.clip(0.5))
            self.optimizer.step(1.0)
        return self

    def is_sharded(self):
        return isinstance(self.model.model.layers[0].mlp.up_proj.weight, DTensor)

    def tensors(self):
        weights = {f"model/{name}": whole(parameter).detach() for name, parameter in self.model.named_parameters()}
        state = {f"optimizer/{name}": whole(tensor) for name, tensor in self.optimizer.state_tensors().items()}
        return {name: tensor.contiguous() for name, tensor in {**weights, **state}.items()}

    def load(self, tensors):
        for name, parameter in self.model.named_parameters():
            assign(parameter, tensors[f"model/{name}"])
        saved = {name: tensor for name, tensor in tensors.items() if name.startswith("optimizer/")}
        self.optimizer.load_state_tensors({name.removeprefix("optimizer/"): saved[name] for name in saved})
        return self


def in_float32():
    import rinsho.device

    rinsho.device.has_fast_bfloat16 = lambda _: False  # Muon in bf16 would show the order of every sum


def name_of(*key):
    return "-".join(map(str, key))


def every_layout(folder):
    """Runs in both processes: all trainings, their tensors into the folder, their figures back."""
    in_float32()
    me, found = world(), {}
    with joined(me, "cpu"):
        assert tell_all(me.rank + 7) == 7
        assert sum_over_ranks(torch.tensor(me.rank + 1.0)).item() == 3
        for key in product(LAYOUTS, KINDS, (False, True), (1, 2)):
            training = Training(*key).steps(0, STEPS)
            tensors = training.tensors()
            with torch.no_grad():
                total = sum_over_ranks(training.module(*batch(9)))
            after = training.is_sharded()
            if me.main:
                save_file(tensors, f"{folder}/{name_of(*key)}.safetensors")
            found[name_of(*key)] = [training.losses, training.norms, training.sharded, total.item(), after]
        for key in CONTINUED:  # saved by one process, continued by two
            half = load_file(f"{folder}/half-{key[1]}.safetensors")
            tensors = Training(*key).load(half).steps(2, STEPS).tensors()
            if me.main:
                save_file(tensors, f"{folder}/{name_of(*key)}-continued.safetensors")
        dropouts = [Training(layout, dropout=0.2).steps(0, 2).losses for layout in ("ddp", "ddp", "zero3")]
        alike = Training("ddp", dropout=0.2)
        alike.me = World(0, 2, 0)  # the same rows and random numbers in both processes
        found["dropout"] = [*dropouts, alike.steps(0, 2).losses]
        found["checkpointed"] = [
            Training(layout, dropout=0.2, activation_checkpointing=True).steps(0, 2).losses
            for layout in ("ddp", "zero2", "zero3")
        ]
    return found


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Both processes' figures and the folder of tensors."""
    folder = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rinsho.device.has_fast_bfloat16", lambda _: False)
        alone = {}
        for kind, tied in product(KINDS, (False, True)):
            training = Training(kind=kind, tied=tied).steps(0, 2)
            if not tied:
                save_file(training.tensors(), folder / f"half-{kind}.safetensors")
            alone[kind, tied] = training.steps(2, STEPS)
    first, second = run(__file__, "every_layout", folder=str(folder))
    return folder, alone, first, second


def assert_close(tensors, others):
    assert tensors.keys() == others.keys()
    for name, tensor in others.items():
        difference = (tensors[name] - tensor).norm() / tensor.norm().clamp(min=1e-6)
        assert difference < 1e-5, (name, difference)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("parts", [1, 2])
def test_two_processes_train_as_one(two, layout, kind, tied, parts):
    folder, alone, first, second = two
    expected, name = alone[kind, tied], name_of(layout, kind, tied, parts)
    for rank in (first, second):
        losses, norms, _, validation, _ = rank[name]
        assert losses == pytest.approx(expected.losses, rel=1e-5)
        assert norms == pytest.approx(expected.norms, rel=1e-5)
        with torch.no_grad():
            assert validation == pytest.approx(2 * expected.module(*batch(9)).item(), rel=1e-5)
    assert_close(load_file(folder / f"{name}.safetensors"), expected.tensors())


def test_parameters_stand_whole_only_while_the_setting_says_so(two):
    for name, (_, _, sharded, _, after) in ((key, two[2][key]) for key in two[2] if "-" in key):
        layout, parts = name.split("-")[0], int(name.split("-")[-1])
        expected = {"ddp": [False] * parts, "zero2": [False] * (parts - 1) + [True], "zero3": [True] * parts}[layout]
        assert sharded == expected * STEPS, name
        assert after is (layout != "ddp"), name  # after a call without gradients


@pytest.mark.parametrize(("layout", "kind"), CONTINUED)
def test_what_one_process_saved_two_continue(two, layout, kind):
    folder, alone, _, _ = two
    assert_close(load_file(folder / f"{layout}-{kind}-continued.safetensors"), alone[kind, False].tensors())


def test_what_two_processes_saved_one_continues(two, monkeypatch):
    monkeypatch.setattr("rinsho.device.has_fast_bfloat16", lambda _: False)
    folder, alone, _, _ = two
    for kind in KINDS:
        continued = Training(kind=kind).load(load_file(folder / f"zero3-{kind}-False-2.safetensors")).steps(4, 6)
        assert_close(continued.tensors(), Training(kind=kind).load(alone[kind, False].tensors()).steps(4, 6).tensors())


def test_dropout_differs_between_processes_and_repeats_itself(two):
    first, again, sharded, alike = two[2]["dropout"]
    assert first == again
    assert sharded == pytest.approx(first, rel=1e-5)
    assert alike != first
    for losses in two[2]["checkpointed"]:
        assert losses == pytest.approx(first, rel=1e-5)


def test_one_process_needs_no_group(monkeypatch):
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(key, raising=False)
    assert world() == World(0, 1, 0)
    assert world().main
    with joined(world(), "cpu"):
        assert not torch.distributed.is_initialized()
        assert tell_all(3) == 3
        value = torch.ones(2)
        assert sum_over_ranks(value) is not value
        assert torch.equal(sum_over_ranks(value), value)
        assert whole(value) is value
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert world() == World(3, 8, 1)
    assert not world().main


def test_a_tensor_of_another_shape_is_refused():
    with pytest.raises(UserError, match="shape"):
        assign(torch.zeros(3), torch.zeros(4))
