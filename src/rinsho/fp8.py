"""Matrix products in FP8 through torchao, for Hopper and newer cards; weights and optimizer stay float32."""

from __future__ import annotations

import torch

from rinsho.errors import UserError
from rinsho.modeling import RinshoForCausalLM

HOPPER = (9, 0)  # compute capability
ALIGNED = 16  # the kernels multiply only sizes that are multiples of it


def to_fp8(model: RinshoForCausalLM, device: torch.device, *, emulate: bool = False) -> None:
    """Replaces the blocks' linear layers, in place, by torchao's; head, embedding and norms stay as they are.

    Input, weight and gradient of each product are scaled per tensor, dynamically. Only worth it when compiled. Tokens
    of a micro-batch must be a multiple of 16, too.
    `emulate` computes the same roundings in float32 on any machine, for tests.

    Raises:
        UserError: no Hopper card, torchao missing, or sizes that are no multiples of 16.
    """
    if not emulate:
        must_be_hopper(device)
    matrices = [module.weight for module in model.model.modules() if isinstance(module, torch.nn.Linear)]
    odd = sorted({size for matrix in matrices for size in matrix.shape if size % ALIGNED})
    if odd:
        raise UserError(
            f"fp8 cannot multiply matrices of size {', '.join(map(str, odd))}",
            expected=f"hidden, MLP and key/value widths that are multiples of {ALIGNED}",
            todo="choose other sizes, or fp8: false",
        )
    try:
        from torchao.float8 import Float8LinearConfig, convert_to_float8_training
    except ImportError:
        raise UserError("fp8 needs torchao", todo="pip install 'rinsho[fp8]', or fp8: false") from None
    convert_to_float8_training(model.model, config=Float8LinearConfig(emulate=emulate))


def must_be_hopper(device: torch.device) -> None:
    """Raises a `UserError` that names the device when it cannot multiply in fp8."""
    if device.type != "cuda":
        found = f"a {device.type} device"
    elif torch.cuda.get_device_capability(device) < HOPPER:
        found = torch.cuda.get_device_name(device)
    else:
        return
    raise UserError(f"fp8 does not work on {found}", expected="a Hopper GPU or a newer one", todo="fp8: false")
