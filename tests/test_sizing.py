"""The arithmetic of sizes: the report's figures, and agreement with what torch counts and keeps."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from rinsho.model import PRESETS, ModelSettings, build, count_parameters, parameters_by_part
from rinsho.modeling import LossModule
from rinsho.sizing import flops_per_token, kv_cache_bytes_per_token, recipe_memory, settings_of, training_memory

REPORT = ModelSettings.model_validate("ncvc-slm-1")
NAMES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
SIZES = {
    "wide MLP": dict(zip(NAMES, (64, 320, 2, 4, 2), strict=True)),
    "deep, tied": dict(zip(NAMES, (96, 160, 5, 6, 6), strict=True)),
}


def sizes(name, **changes):
    return ModelSettings(**{**SIZES[name], "max_position_embeddings": 128, **changes})


def memory(settings=REPORT, vocab_size=32_768, **changes):
    given = {"sequence_length": 2048, "micro_batch_rows": 8, "document_bounds": False, **changes}
    return training_memory(settings, vocab_size, **given)


def test_flops_of_the_report_model():
    flops = flops_per_token(REPORT, 32_768, 2048)
    assert flops.matrices == 6 * (1_191_282_688 - 32_768 * 2048) == 6_745_042_944
    assert flops.attention == 12 * 24 * 32 * 64 * 2048
    assert (round(flops.total / 1e9, 2), round(flops.causal / 1e9, 2)) == (7.95, 7.35)


@pytest.mark.parametrize("tied", [True, False])
def test_flops_are_those_that_torch_counts(tied):
    settings, time, vocab_size = sizes("wide MLP", tie_word_embeddings=tied), 24, 50
    model = LossModule(_model(settings, vocab_size, attention="eager"))
    ids = torch.randint(0, vocab_size, (2, time))
    with FlopCounterMode(display=False) as counter:
        model(ids, torch.arange(time).repeat(2, 1), ids).backward()
    norms = 6 * parameters_by_part(settings, vocab_size)["norms"]  # no matrix products
    assert counter.get_total_flops() == 2 * time * (flops_per_token(settings, vocab_size, time).total - norms)


def test_the_cache_is_as_large_as_transformers_makes_it():
    settings = sizes("wide MLP")
    with torch.no_grad():
        cache = _model(settings, 50).model(torch.zeros(1, 7, dtype=torch.int64), use_cache=True).past_key_values
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert kept == 7 * kv_cache_bytes_per_token(settings, 4)
    assert kv_cache_bytes_per_token(REPORT) == 48 * 1024


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"document_bounds": True},
        {"document_bounds": True, "activation_checkpointing": True},
        {"residual_dropout": 0.1},
        {"residual_dropout": 0.1, "attention_dropout": 0.1},
        {"attention": "eager"},
        {"attention": "eager", "attention_dropout": 0.1},
    ],
    ids=str,
)
def test_activations_are_what_autograd_keeps(name, changes, bf16):
    _compare(name, bf16, **changes)


@pytest.mark.slow  # seconds each
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("changes", [{}, {"document_bounds": True, "residual_dropout": 0.1}], ids=str)
def test_activations_of_compiled_blocks_are_what_autograd_keeps(name, changes, bf16):
    _compare(name, bf16, compiled=True, **changes)


def test_weights_gradients_and_moments_are_shared_out():
    whole = 4 * count_parameters(REPORT, 32_768)
    for parallelism in ("ddp", "zero2", "zero3"):
        alone = memory(parallelism=parallelism)
        assert (alone.weights, alone.gradients, alone.optimizer) == (whole, whole, 2 * whole)
    ddp, zero2, zero3 = (memory(parallelism=name, processes=4) for name in ("ddp", "zero2", "zero3"))
    assert (ddp.weights, ddp.gradients, ddp.optimizer) == (whole, whole, 2 * whole)
    assert zero2.weights == whole + whole // 4 and zero2.optimizer == whole // 2
    assert zero3.weights < zero2.weights and zero3.gradients == zero2.gradients < ddp.gradients
    assert zero3.total < zero2.total < ddp.total
    assert memory(parallelism="zero3", processes=8).total < zero3.total


def test_muon_has_half_the_moments_of_the_blocks_and_needs_room_for_its_step():
    adamw, muon = memory(optimizer="adamw"), memory(optimizer="muon")
    parts = parameters_by_part(REPORT, 32_768)
    assert adamw.optimizer - muon.optimizer == 4 * (parts["attention"] + parts["mlp"])
    assert (adamw.update, muon.update) == (0, 14 * parts["mlp"] // 2)
    small = memory(optimizer="muon", micro_batch_rows=1, activation_checkpointing=True)
    assert small.largest == "update" and small.total == small.weights + small.gradients + small.optimizer + small.update


def test_what_makes_memory_grow_and_shrink():
    assert memory(micro_batch_rows=9).total > memory().total
    assert memory(document_bounds=True).total > memory(document_bounds=True, attention="flex_attention").total
    assert memory(attention="flex_attention", document_bounds=True).activations == memory().activations
    assert memory(compiled=True).total < memory().total < memory(bf16=False).total
    assert memory(activation_checkpointing=True).total < memory(compiled=True).total
    assert memory(attention="eager").total > memory(document_bounds=True).total
    assert memory(chunk_tokens=1024).loss < memory(chunk_tokens=8192).loss == memory().loss
    assert memory().largest == "activations" and memory(activation_checkpointing=True).largest == "optimizer"
    bounded = memory(document_bounds=True).activations - memory().activations
    repeated = 24 * 8 * 2048 * 2 * 2 * (32 - 8) * 64  # keys and values of every query head
    assert bounded == repeated + 24 * 8 * 2048 * 2048 * 2 + 8 * 2048 * 2048


def test_the_memory_of_a_recipe_is_that_of_its_settings():
    from rinsho.pretrain import Recipe

    recipe = Recipe(sequence_length=2048, micro_batch_rows=8, document_bounds=False, pack="cut")
    assert recipe_memory(recipe, REPORT, 32_768) == memory(compiled=True)
    assert recipe_memory(recipe, REPORT, 32_768, activation_checkpointing=True, processes=2) == memory(
        compiled=True, activation_checkpointing=True, processes=2
    )
    assert recipe_memory(recipe, REPORT, 32_768, device="cpu") == memory(bf16=False, device="cpu")


@pytest.mark.parametrize("preset", PRESETS)
def test_settings_come_back_from_a_configuration(preset):
    settings = ModelSettings.model_validate(preset)
    config = build(settings, 300, 1, device="meta").config
    assert settings_of(config) == settings_of(config.to_dict()) == settings
    with pytest.raises(ValueError, match="heads of"):
        settings_of(config.to_dict() | {"head_dim": settings.head_dim + 2})


def _model(settings, vocab_size, attention="sdpa"):
    model = build(settings, vocab_size, 1).train()
    model.set_attn_implementation(attention)
    return model


def _compare(name, bf16, attention_dropout=0.0, residual_dropout=0.0, **changes):
    settings = sizes(
        name,
        attention_dropout=attention_dropout,
        residual_dropout=residual_dropout,
        tie_word_embeddings=name.endswith("tied"),
    )
    given = {"sequence_length": 80, "micro_batch_rows": 3, "document_bounds": False, "bf16": bf16, **changes}
    formula = training_memory(settings, 150, device="cpu", **given)
    head = 4 * 3 * 80 * settings.hidden_size + 4 * 150 * settings.hidden_size  # the loss's gradients
    mask = 3 * 80 * 80 if given["document_bounds"] else 0  # the caller keeps it, not autograd
    wanted = formula.activations - mask + (0 if given.get("activation_checkpointing") else formula.casts) + head
    measured = _kept(settings, 150, **given)
    assert measured == pytest.approx(wanted, rel=0.1), (measured, wanted)


def _kept(
    settings, vocab_size, *, sequence_length, micro_batch_rows, document_bounds, bf16,
    activation_checkpointing=False, compiled=False, attention="sdpa",
):  # fmt: skip
    """Bytes of the tensors that a forward pass saves for the backward pass, each storage once, without parameters."""
    from functools import partial

    from torch.utils.checkpoint import checkpoint

    torch._dynamo.reset()
    model = _model(settings, vocab_size, attention)
    for layer in model.model.layers:
        if compiled:  # the partition of forward and backward that inductor makes, without its compiler
            layer.forward = torch.compile(layer.forward, backend="aot_eager_decomp_partition")
        if activation_checkpointing:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    seen = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen.setdefault(storage.data_ptr(), (storage.nbytes(), tensor))  # alive, so that no address comes again
        return tensor

    ids = torch.randint(0, vocab_size, (micro_batch_rows, sequence_length))
    length = sequence_length // 2 if document_bounds else sequence_length
    positions = (torch.arange(sequence_length) % length).repeat(micro_batch_rows, 1)
    with saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = LossModule(model, 1024)(ids, positions, ids)
    assert loss.requires_grad
    return sum(size for size, _ in seen.values())
