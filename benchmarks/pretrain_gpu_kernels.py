"""What a card can do at most, and where the time of a step goes; for `pretrain_gpu.py`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from pretrain_gpu_cases import Sizes

SHOWN_KERNELS = 12


def peak(settings: Any, sizes: Sizes) -> dict[str, Any]:
    """Measured matrix products: a large square, and those of one token of this model with the attention's kernel."""
    side, device, low = sizes.square, sizes.device, torch.bfloat16
    left, right = (torch.randn(side, side, device=device, dtype=low) for _ in range(2))
    square = 2 * side**3 / seconds_of(lambda: left @ right, device)
    from rinsho.hardware import peak_flops
    from rinsho.sizing import flops_per_token

    tokens, d, ff = 8 * sizes.length, settings.hidden_size, settings.intermediate_size
    kv = settings.num_key_value_heads * settings.head_dim
    layers = settings.num_hidden_layers
    shapes = {
        "query, output": (d, d, 2 * layers),
        "key, value": (d, kv, 2 * layers),
        "MLP up": (d, ff, layers),
        "MLP down": (ff, d, layers),
        "head": (d, sizes.vocab, 1),
    }
    table = ["| matrix products (forward, both gradients) | TFLOP/s | ms for 8 rows |", "| --- | ---: | ---: |"]
    table.append(f"| {side} x {side} x {side} | {square / 1e12:,.0f} | |")
    total = 0.0
    for name, (inputs, outputs, count) in shapes.items():
        x, w, g = (
            torch.randn(shape, device=device, dtype=low)
            for shape in ((tokens, inputs), (outputs, inputs), (tokens, outputs))
        )
        each = sum(
            seconds_of(product, device)
            for product in (lambda x=x, w=w: x @ w.T, lambda g=g, w=w: g @ w, lambda g=g, x=x: g.T @ x)
        )
        total += count * each
        table.append(f"| {name} | {6 * tokens * inputs * outputs / each / 1e12:,.0f} | {1e3 * count * each:.2f} |")
    attention = layers * attention_seconds(settings, sizes)
    flops = flops_per_token(settings, sizes.vocab, sizes.length)
    rate = tokens / (total + attention)
    on_card = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_card else "cpu"
    top = peak_flops(name)
    table.append(f"| attention (causal, forward and backward) | | {1e3 * attention:.2f} |")
    share = f"; MFU PaLM {rate * flops.total / top:.1%}" if top else ""
    table.append(f"| together: at most {rate:,.0f} tokens/s{share} | | {1e3 * (total + attention):.2f} |")
    import transformers

    about = {
        "device": name,
        "dense bf16 peak": f"{top / 1e12:,.1f} TFLOP/s" if top else "unknown",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "GFLOP a token (PaLM / causal)": f"{flops.total / 1e9:.3f} / {flops.causal / 1e9:.3f}",
    }
    return {"square_flops": square, "kernel_rate": rate, "table": table, "about": about}


def attention_seconds(settings: Any, sizes: Sizes) -> float:
    """One layer's causal attention on 8 rows, forward and backward."""
    heads = (settings.num_attention_heads, settings.num_key_value_heads, settings.num_key_value_heads)
    shape = (sizes.length, settings.head_dim)
    dtype = torch.bfloat16 if sizes.device.type == "cuda" else torch.float32
    q, k, v = (torch.randn(8, n, *shape, device=sizes.device, dtype=dtype, requires_grad=True) for n in heads)

    def both() -> None:
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        torch.autograd.grad(out, (q, k, v), out)

    return seconds_of(both, sizes.device)


def seconds_of(call: Callable[[], Any], device: torch.device, times: int = 10) -> float:
    """Mean seconds of a call, after three that are not timed."""
    for _ in range(3):
        call()
    wait(device)
    started = time.perf_counter()
    for _ in range(times):
        call()
    wait(device)
    return (time.perf_counter() - started) / times


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# first match counts; names of CUDA kernels, and of torch's operators for the dry run on a processor
GROUPS = {
    "attention": ("flash", "fmha", "attention", "sdpa", "flex"),
    "optimizer and clipping": ("multi_tensor_apply", "adam", "lpnorm", "foreach", "_fused_adam"),
    "matrix products": ("gemm", "nvjet", "cutlass", "cublas", "xmma", "splitk", "aten::mm", "aten::addmm", "aten::bmm"),
    "copies": ("memcpy", "memset", "copy"),
    "elementwise, norms, loss": (
        "triton", "elementwise", "reduce", "softmax", "norm", "dropout", "embedding", "index", "scatter", "gather",
        "fill", "cat", "silu", "aten::",
    ),
}  # fmt: skip


def group_of(kernel: str) -> str:
    """Which part of a step a kernel belongs to.

    >>> group_of("void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<cutlass::bfloat16_t>")
    'attention'
    >>> group_of("nvjet_tst_256x128_64x4_2x1_v_bz_coopA_TNT"), group_of("triton_red_fused__to_copy_add_mean_3")
    ('matrix products', 'elementwise, norms, loss')
    """
    name = kernel.lower()
    if name.startswith("triton") and not any(word in name for word in GROUPS["attention"]):
        return "elementwise, norms, loss"
    return next((group for group, words in GROUPS.items() if any(word in name for word in words)), "other")


def breakdown(kernels: Mapping[str, float], wall: float, matrix_flops: int) -> dict[str, Any]:
    """Seconds of a step by part, from those of its kernels and of the step without the profiler."""
    groups: dict[str, float] = {}
    for name, seconds in kernels.items():
        groups[group_of(name)] = groups.get(group_of(name), 0.0) + seconds
    busy = sum(groups.values())
    table = ["| part of the step | ms | share |", "| --- | ---: | ---: |"]
    groups["idle"] = max(0.0, wall - busy)
    for name, seconds in sorted(groups.items(), key=lambda item: -item[1]):
        table.append(f"| {name} | {1e3 * seconds:.1f} | {seconds / wall:.1%} |")
    table.append(f"| the step, without the profiler | {1e3 * wall:.1f} | 100 % |")
    rate = matrix_flops / groups.get("matrix products", math.nan) / 1e12
    table += [
        "",
        f"The matrix products ran at {rate:,.0f} TFLOP/s.",
        "",
        "| kernel | ms | part |",
        "| --- | ---: | --- |",
    ]
    for name, seconds in sorted(kernels.items(), key=lambda item: -item[1])[:SHOWN_KERNELS]:
        table.append(f"| `{name[:90].replace('|', '/')}` | {1e3 * seconds:.1f} | {group_of(name)} |")
    return {"step_seconds": wall, "busy_seconds": busy, "groups": groups, "matrix_flops": matrix_flops, "table": table}


def kernel_times(profiler: Any, on_card: bool) -> dict[str, float]:
    """Seconds of each kernel, or on a processor of each operator without those it calls."""
    found: dict[str, float] = {}
    for event in profiler.events():
        if on_card:
            # Spans that Python marks ("Optimizer.step#AdamW.step") are shown on the card's time line, too.
            if event.device_type.name != "CUDA" or "#" in event.name or event.name.startswith("ProfilerStep"):
                continue
            seconds = event.time_range.elapsed_us() / 1e6
        else:
            seconds = event.self_cpu_time_total / 1e6
        found[event.name] = found.get(event.name, 0.0) + seconds
    return found
