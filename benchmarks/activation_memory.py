"""Activation memory of one block with SiLU and with GELU (tanh form), against the report's claim of 28 % less (N2.3-5).

    python benchmarks/activation_memory.py [--preset ncvc-slm-1] [--tokens 256]

Counts what autograd keeps of one block for the backward pass (each storage once, parameters left out), on the
processor. `gelu_tanh` is torch's fused kernel, `gelu_new` the same function written out operation by operation, as
phi-1's code has it and as every framework had it before fused kernels.
"""

from __future__ import annotations

import argparse

import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers.activations import ACT2FN

from rinsho.model import ModelSettings, build

FORMS = {"silu": "silu", "gelu_tanh": "gelu_pytorch_tanh", "gelu_new": "gelu_new"}


def kept_bytes(settings: ModelSettings, form: str, tokens: int, bf16: bool, whole: bool) -> int:
    """Bytes kept of one block (`whole`), or of its MLP alone."""
    block = build(settings, 64, 1).train().model.layers[0]
    block.mlp.act_fn = ACT2FN[FORMS[form]]
    part = block if whole else block.mlp
    own = {parameter.untyped_storage().data_ptr() for parameter in part.parameters()}
    seen: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen.setdefault(storage.data_ptr(), (storage.nbytes(), tensor))
        return tensor

    x = torch.randn(1, tokens, settings.hidden_size, requires_grad=True)
    angles = torch.randn(1, tokens, settings.head_dim)
    arguments = {"position_embeddings": (angles, angles)} if whole else {}
    with saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        result = part(x, **arguments)
    assert result.requires_grad
    casts = 2 * sum(parameter.numel() for parameter in part.parameters() if parameter.dim() == 2) if bf16 else 0
    return sum(size for size, _ in seen.values()) - casts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="ncvc-slm-1")
    parser.add_argument("--tokens", type=int, default=256)
    options = parser.parse_args()
    settings = ModelSettings.model_validate({"preset": options.preset, "num_hidden_layers": 1})
    settings = settings.model_copy(update={"attention_dropout": 0.0, "residual_dropout": 0.0})
    print(f"torch {torch.__version__}, {options.preset}, bytes a token")
    print("| arithmetic | part | SiLU | GELU tanh, fused | SiLU saves | GELU tanh, written out | SiLU saves |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for bf16 in (True, False):
        for whole in (True, False):
            silu, fused, written = (kept_bytes(settings, form, options.tokens, bf16, whole) for form in FORMS)
            cells = [f"{silu // options.tokens:,}"]
            for other in (fused, written):
                cells += [f"{other // options.tokens:,}", f"{1 - silu / other:.1%}"]
            print(f"| {'bf16' if bf16 else 'fp32'} | {'block' if whole else 'MLP'} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
