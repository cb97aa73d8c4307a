"""The loss as a module, and what may change how it is computed but not what it is: chunks, checkpoints, kernels."""

import sys

import pytest
import torch

from rinsho import attention
from rinsho.attention import VARLEN, register_varlen, use_attention
from rinsho.distributed import joined, parallelise, world
from rinsho.errors import UserError
from rinsho.fp8 import to_fp8
from rinsho.model import ModelSettings, build
from rinsho.modeling import LossModule, default_chunk_tokens, next_token_loss
from two_processes import run

CPU = torch.device("cpu")
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip
VOCAB = 53


def model_of(**changes):
    return build(ModelSettings(**{**SIZES, **changes}), VOCAB, 1)


def packed(rows=2, time=16, seed=0):
    """Rows of two documents, cut at another place in each."""
    ids = torch.randint(3, VOCAB, (rows, time), generator=torch.Generator().manual_seed(seed))
    cuts = [5 + 3 * row for row in range(rows)]
    positions = torch.stack([torch.cat([torch.arange(cut), torch.arange(time - cut)]) for cut in cuts])
    labels = ids.roll(-1, 1)
    labels[:, -1] = -100
    return ids, positions, labels


def loss_and_gradients(model, module, batch, seed=0):
    torch.manual_seed(seed)
    loss = module(*batch)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    return loss.detach(), gradients


def assert_same(first, second, tolerance=0.0):
    assert first[0].item() == pytest.approx(second[0].item(), rel=tolerance, abs=0)
    assert first[1].keys() == second[1].keys()
    for name, gradient in second[1].items():
        assert (first[1][name] - gradient).norm() <= tolerance * gradient.norm(), name


@pytest.mark.parametrize("chunk", [None, 3])
def test_the_module_is_the_loss(chunk):
    model, batch = model_of(), packed()
    assert LossModule(model, chunk)(*batch).item() == pytest.approx(next_token_loss(model, *batch).item(), rel=1e-6)
    assert (default_chunk_tokens("cpu"), default_chunk_tokens("cuda")) == (1024, 8192)


def test_a_batch_without_labels_has_loss_and_gradients_zero():
    model, (ids, positions, labels) = model_of(), packed()
    loss, gradients = loss_and_gradients(model, LossModule(model), (ids, positions, labels.fill_(-100)))
    assert loss == 0
    assert all(not gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize("low", [False, True])
def test_activation_checkpointing_changes_no_gradient_with_dropout(low):
    changes = {"residual_dropout": 0.2, "attention_dropout": 0.2}
    plain, repeated, batch = model_of(**changes).train(), model_of(**changes).train(), packed()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
        first = loss_and_gradients(plain, parallelise(plain, CPU), batch)
        second = loss_and_gradients(repeated, parallelise(repeated, CPU, activation_checkpointing=True), batch)
        other = loss_and_gradients(plain, LossModule(plain), batch, seed=1)
    assert_same(first, second)
    assert other[0] != first[0]


def test_a_low_residual_stream_is_low_and_close():
    model, batch = model_of(), packed()
    seen = []
    model.model.layers[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        high = LossModule(model)(*batch).item()
        model.model.embed_tokens.residual_bf16 = True
        low = LossModule(model)(*batch).item()
    LossModule(model)(*batch)
    assert seen == [torch.float32, torch.bfloat16, torch.float32]
    assert low != high
    assert low == pytest.approx(high, rel=0.01)


def test_residual_dropout_stays_when_the_branches_matrices_are_replaced():
    model, batch = model_of(residual_dropout=0.5).train(), packed()
    for layer in model.model.layers:
        for branch, name in ((layer.self_attn, "o_proj"), (layer.mlp, "down_proj")):
            fresh = torch.nn.Linear(getattr(branch, name).in_features, 32, bias=False)
            setattr(branch, name, fresh)
    assert LossModule(model)(*batch) != LossModule(model)(*batch)


def by_document(query, key, value, starts, ends, _longest, _longest_key, dropout, causal, _debug, *, scale):
    """What the flash kernel computes, document by document."""
    assert causal
    assert dropout == 0
    assert torch.equal(starts, ends)
    shared = query.shape[1] // key.shape[1]
    output = torch.empty_like(query)
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        q, k, v = (x[begin:end].transpose(0, 1) for x in (query, key, value))
        k, v = k.repeat_interleave(shared, 0), v.repeat_interleave(shared, 0)
        one = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        output[begin:end] = one.transpose(0, 1)
    return (output,)


def test_attention_by_document_equals_the_mask(monkeypatch):
    monkeypatch.setattr(attention, "_flash", by_document)
    model, batch = model_of(), packed()
    masked = loss_and_gradients(model, LossModule(model), batch)
    register_varlen()
    model.set_attn_implementation(VARLEN)
    assert_same(loss_and_gradients(model, LossModule(model), batch), masked, 1e-5)
    repeated = parallelise(model, CPU, activation_checkpointing=True)
    assert_same(loss_and_gradients(model, repeated, batch), masked, 1e-5)


def test_eager_attention_equals_sdpa_and_varlen_needs_a_card():
    model, batch = model_of(), packed()
    first = loss_and_gradients(model, LossModule(model), batch)
    use_attention(model, "eager", CPU)
    assert_same(loss_and_gradients(model, LossModule(model), batch), first, 1e-5)
    with pytest.raises(UserError, match="CUDA only"):
        use_attention(model, VARLEN, CPU)


def test_fp8_says_what_is_missing(monkeypatch):
    with pytest.raises(UserError, match=r"does not work on a cpu device.*Hopper"):
        parallelise(model_of(), CPU, fp8=True)
    with pytest.raises(UserError, match="size 24, 40"):
        to_fp8(model_of(intermediate_size=40, hidden_size=48, num_key_value_heads=2), CPU, emulate=True)
    monkeypatch.setitem(sys.modules, "torchao.float8", None)
    with pytest.raises(UserError, match=r"rinsho\[fp8\]"):
        to_fp8(model_of(), CPU, emulate=True)


def test_fp8_rounds_the_blocks_alone():
    pytest.importorskip("torchao", reason="needs the extra fp8")
    model, batch = model_of(), packed()
    loss, gradients = loss_and_gradients(model, LossModule(model), batch)
    to_fp8(model, CPU, emulate=True)
    rough, others = loss_and_gradients(model, LossModule(model), batch)
    assert type(model.lm_head) is torch.nn.Linear
    assert rough != loss
    assert rough.item() == pytest.approx(loss.item(), rel=0.01)
    assert others.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert (others[name] - gradient).norm() < 0.3 * gradient.norm(), name


def bounded(model, batch):
    """Whether the second document of each row stays the same when the first changes, and the first does not."""
    ids, positions, _ = batch
    other = ids.clone()
    first = (positions == torch.arange(ids.shape[1])).cumprod(1).bool()  # of every row
    other[first] = 7
    with torch.no_grad():
        a, b = (model(input_ids=each, position_ids=positions, use_cache=False).logits for each in (ids, other))
    return torch.equal(a[~first], b[~first]) and not torch.equal(a[first], b[first])


@pytest.mark.slow
def test_compiled_layers_keep_documents_apart_and_give_the_same_gradients():
    plain, compiled = model_of(), model_of()
    module = parallelise(compiled, CPU, compile=True)
    loss_module = LossModule(compiled, 5, compile_loss=True)  # chunks of 5 tokens and a rest
    for seed in range(2):
        expected = loss_and_gradients(plain, LossModule(plain), packed(seed=seed))
        assert_same(loss_and_gradients(compiled, module, packed(seed=seed)), expected, 1e-5)
        assert_same(loss_and_gradients(compiled, loss_module, packed(seed=seed)), expected, 1e-5)
    assert bounded(plain, packed())
    assert bounded(compiled, packed())
    repeated = parallelise(compiled, CPU, activation_checkpointing=True)
    assert_same(
        loss_and_gradients(compiled, repeated, packed()), loss_and_gradients(plain, LossModule(plain), packed()), 1e-5
    )


def compiled_layouts():
    """Loss and gradient norm of a compiled model in each layout."""
    real = torch.compile
    torch.compile = lambda *inputs, **how: real(*inputs, **{**how, "backend": "aot_eager"})  # tracing is what matters
    found = []
    with joined(world(), "cpu"):
        for layout in ("ddp", "zero2", "zero3"):
            for repeat in (False, True):
                model = model_of()
                module = parallelise(model, CPU, parallelism=layout, compile=True, activation_checkpointing=repeat)
                for _ in range(2):
                    model.zero_grad()
                    loss = module(*packed())
                    loss.backward()
                gradients = [parameter.grad for parameter in model.parameters()]
                norm = torch.nn.utils.get_total_norm(gradients)
                norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
                found.append([loss.item(), norm.item()])
    return found


@pytest.mark.slow
def test_compiled_layers_work_in_every_layout():
    model = model_of()
    loss, gradients = loss_and_gradients(model, LossModule(model), packed())
    norm = 2 * torch.nn.utils.get_total_norm(gradients.values()).item()  # both processes have the same rows
    for found in run(__file__, "compiled_layouts"):
        for pair in found:
            assert pair == pytest.approx([loss.item(), norm], rel=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("name", [VARLEN, "flex_attention"])
def test_attention_kernels_of_a_card_keep_documents_apart(name, compile):
    device = torch.device("cuda")
    plain, model = model_of().to(device), model_of()
    module = parallelise(model, device, compile=compile)
    use_attention(model, name, device)
    batch = [tensor.to(device) for tensor in packed(time=128)]
    with torch.autocast("cuda", dtype=torch.bfloat16):
        expected = loss_and_gradients(plain, LossModule(plain), batch)
        assert_same(loss_and_gradients(model, module, batch), expected, 0.05)
        changed = batch[0].clone()
        changed[0, :5] = 7  # the first document of the first row: the loss of the second row's labels stays
        labels = batch[2].clone()
        labels[0, :5] = -100
        a, b = (module(ids, batch[1], labels) for ids in (batch[0], changed))
    assert a == b


@pytest.mark.gpu
def test_varlen_attention_knows_dropout():
    device = torch.device("cuda")
    model = model_of(attention_dropout=0.3).train()
    module = parallelise(model, device)
    use_attention(model, VARLEN, device)
    batch = [tensor.to(device) for tensor in packed(time=128)]
    with torch.autocast("cuda", dtype=torch.bfloat16):
        first, same = (loss_and_gradients(model, module, batch, seed=0)[0] for _ in range(2))
        other = loss_and_gradients(model, module, batch, seed=1)[0]
    assert first == same
    assert first != other


@pytest.mark.gpu
def test_fp8_trains_on_a_card():
    pytest.importorskip("torchao", reason="needs the extra fp8")
    device = torch.device("cuda")
    if torch.cuda.get_device_capability() < (9, 0):
        with pytest.raises(UserError, match=torch.cuda.get_device_name()):
            parallelise(model_of(), device, fp8=True)
        return
    plain, model = model_of().to(device), model_of()
    module = parallelise(model, device, fp8=True, compile=True)
    batch = [tensor.to(device) for tensor in packed(time=128)]
    with torch.autocast("cuda", dtype=torch.bfloat16):
        expected, found = LossModule(plain)(*batch), module(*batch)
    found.backward()
    assert found.item() == pytest.approx(expected.item(), rel=0.02)
