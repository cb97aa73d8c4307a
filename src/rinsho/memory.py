"""What a model needs before it is loaded, and what the machine has; the smaller form where that is not enough.

Sizes come from the headers of the weight files: nothing is loaded. Figures of programs and working space were measured
(docs/memory.md). Importing this file loads no torch; it is loaded where a model folder may go to a graphics card.

Source: M-6.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import util
from pathlib import Path
from typing import Any, Literal

from rinsho.adapters import find_base, is_adapter, trained_form
from rinsho.bases import ADAPTER_WEIGHTS, Quantization
from rinsho.errors import UserError
from rinsho.gguf_header import read_header
from rinsho.machine import available_bytes, bfloat16_units, card_bytes
from rinsho.recipe import unknown
from rinsho.weight_sizes import GGUF_BYTES, converted_bytes, exported_bytes, largest_matrix, read_tensors, torch_bytes

MIB, GIB = 2**20, 2**30
TORCH_FORMS = ("float32", "bfloat16", "int8", "int4")
# Measured: the program with its libraries and the tokenizer, before the weights.
PROGRAM_BYTES = {"transformers": 460 * MIB, "llama.cpp": 160 * MIB}
QUANTIZED_BYTES = 280 * MIB  # more with bitsandbytes: itself, and what its operations leave in the C library's store
GGUF = ".gguf"
LARGEST_WINDOW = 8_192  # of a slot where none is asked for: some models have room for more than any machine
BATCH_TOKENS = 512  # ids of a call of the model; the working space is for these

Runtime = Literal["transformers", "llama.cpp"]


@dataclass(frozen=True)
class Need:
    """What a model takes in one form.

    Attributes:
        form: float32, bfloat16, int8 (LLM.int8), int4 (NF4), or a type of GGUF.
        runtime: what opens it.
        weights_bytes: of the weights in that form.
        cache_bytes: keys and values of all slots when each is full; 0 where the configuration does not tell.
        other_bytes: the program, and the larger of its working space and what loading takes beside the weights.
        ready: it can be opened as it lies there; else it is exported first.
    """

    form: str
    runtime: Runtime
    weights_bytes: int
    cache_bytes: int
    other_bytes: int
    ready: bool = True

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + self.cache_bytes + self.other_bytes


# ---------------------------------------------------------------------- forms


def usual_form(path: Path) -> str:
    """The form that a model is opened in where none is asked for.

    A GGUF file is what it is; an adapter's base is as it was in training; other models are in bfloat16 where the
    graphics card or the processor is fast in it, else in float32.
    """
    if files := gguf_files(path):
        return read_header(files[0]).file_type
    if is_adapter(path):
        quantization, dtype, _ = trained_form(path)
        return {"int8": "int8", "nf4": "int4"}.get(quantization, dtype)
    return "bfloat16" if _fast_bfloat16() else "float32"


def numbers(form: str) -> tuple[Quantization, str]:
    """(quantisation, number form of what is not quantised) of a form that transformers opens.

    Raises:
        UserError: no such form.
    """
    if form not in TORCH_FORMS:
        raise unknown(form, TORCH_FORMS, "--form", "form")
    if form in ("float32", "bfloat16"):
        return "none", form
    return ("int8" if form == "int8" else "nf4"), ("bfloat16" if _fast_bfloat16() else "float32")


def _fast_bfloat16() -> bool:
    if card_bytes() is not None:
        import torch

        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(bfloat16_units())


# ---------------------------------------------------------------------- needs


def needs(path: Path, slots: int = 1, window: int | None = None, base: Path | None = None) -> list[Need]:
    """What a model needs in every form that it can be opened in or exported to, as it lies there first.

    Args:
        path: a model or adapter folder, a GGUF file, or a folder of them.
        slots: texts at a time.
        window: tokens of each; None: as many as the model has positions.
        base: of an adapter, where it is not the recorded one.

    Raises:
        UserError: no weights there, or an adapter without its base.
    """
    files = gguf_files(path)
    if files:
        return [_gguf_need(file, slots, window) for file in files]
    adapter = (path / ADAPTER_WEIGHTS).stat().st_size if is_adapter(path) else 0
    folder = find_base(path, base) if is_adapter(path) else path
    tensors, config = read_tensors(folder), _config(folder)
    tokens = slots * text_window(config, window)
    cached = cache_numbers(config) or 0
    found = []
    for form in TORCH_FORMS:
        if form.startswith("int") and util.find_spec("bitsandbytes") is None:
            continue
        number = 4 if numbers(form)[1] == "float32" else 2
        weights = torch_bytes(tensors, form, number) + adapter
        working = _working_bytes(config, number)
        if form.startswith("int"):
            working = QUANTIZED_BYTES + max(working + largest_matrix(tensors) * 4, converted_bytes(tensors, number))
        other = PROGRAM_BYTES["transformers"] + working
        found.append(Need(form, "transformers", weights, tokens * cached * number, other))
    if config.get("model_type") in ("arcee", "llama"):
        other = PROGRAM_BYTES["llama.cpp"] + _working_bytes(config, 4)
        found += [
            Need(form, "llama.cpp", exported_bytes(tensors, form), tokens * cached * 2, other, ready=False)
            for form in GGUF_BYTES
        ]
    return found


def cache_numbers(config: Mapping[str, Any]) -> int | None:
    """Numbers that a token keeps in the key/value cache, by a model's configuration; None where that does not tell.

    >>> cache_numbers({"num_hidden_layers": 24, "hidden_size": 2048, "num_attention_heads": 32,
    ...                "num_key_value_heads": 8})
    24576
    """

    def first(*names: str) -> int | None:
        return next((value for name in names if isinstance(value := config.get(name), int) and value > 0), None)

    layers, width = first("num_hidden_layers", "n_layer"), first("hidden_size", "n_embd")
    heads = first("num_attention_heads", "n_head")
    if layers is None or width is None or heads is None:
        return None
    return 2 * layers * (first("num_key_value_heads") or heads) * (first("head_dim") or width // heads)


def _working_bytes(config: Mapping[str, Any], number: int) -> int:
    """What a call of the model takes beside weights and cache: rows of the block, and logits of as many ids."""
    sizes = [config.get("hidden_size"), config.get("intermediate_size"), config.get("vocab_size")]
    width, inner, words = (size if isinstance(size, int) else 0 for size in sizes)
    return BATCH_TOKENS * (number * (8 * width + 3 * inner) + 4 * words)


def text_window(config: Mapping[str, Any], window: int | None) -> int:
    """Tokens that a slot is made for: those asked for; else the model's positions, at most `LARGEST_WINDOW`."""
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    return min(positions if isinstance(positions, int) else LARGEST_WINDOW, window or LARGEST_WINDOW)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(config, dict):
        return {}
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, dict) else config


def gguf_files(path: Path) -> list[Path]:
    """The GGUF file that a path is, or those of a folder without safetensors; none for other models.

    Pickled weights (*.bin) do not count: rinsho opens none.
    """
    if not path.is_dir():
        return [path] if path.suffix == GGUF else []
    return [] if any(path.glob("*.safetensors")) else sorted(path.glob("*" + GGUF))


def _gguf_need(path: Path, slots: int, window: int | None) -> Need:
    header = read_header(path)

    def number(key: str, default: int = 0) -> int:
        value = header.of(key, default)
        return max(value, default=0) if isinstance(value, list) else value

    heads, layers = number("attention.head_count", 1), number("block_count")
    size = number("embedding_length") // max(1, heads)
    length = number("attention.key_length", size) + number("attention.value_length", size)
    kept = header.of("attention.head_count_kv", heads)
    kept = sum(kept) if isinstance(kept, list) else layers * kept
    # llama.cpp makes room for multiples of 256 tokens, in float16
    tokens = -(-text_window({"n_positions": number("context_length")}, window) // 256) * 256
    words = (header.shapes.get("token_embd.weight") or (0,))[-1]
    config = {"hidden_size": number("embedding_length"), "intermediate_size": number("feed_forward_length"),
              "vocab_size": words}  # fmt: skip
    other = PROGRAM_BYTES["llama.cpp"] + _working_bytes(config, 4)
    return Need(header.file_type, "llama.cpp", header.size_bytes, slots * tokens * kept * length * 2, other)


# ---------------------------------------------------------------------- before loading


def settle(  # noqa: PLR0917
    path: Path, form: str | None = None, slots: int = 1, window: int | None = None, base: Path | None = None,
    more_bytes: int = 0, todo: str = "",
) -> str:  # fmt: skip
    """What a model is about to take and what the machine has, in a line; called before it is loaded.

    Args:
        path: a model or adapter folder, a GGUF file, or a folder with one.
        form: what it will be opened in; None: `usual_form`.
        slots: texts at a time.
        window: tokens of each; None: as many as the model has positions, at most `LARGEST_WINDOW`.
        base: of an adapter, where it is not the recorded one.
        more_bytes: what is done with it takes beside the program.
        todo: what to do where it does not fit; else a smaller form is named.

    Raises:
        UserError: it does not fit; says which smaller form or window does. Or there is no such form of it.
    """
    found = [replace(need, other_bytes=need.other_bytes + more_bytes) for need in needs(path, slots, window, base)]
    files = gguf_files(path)
    if files and form is not None:
        raise UserError(
            "--form is not for GGUF files", where=path, expected="the numbers that are in the file",
            todo="leave --form out, or give the model's folder",
        )  # fmt: skip
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise UserError(
            "several models in one folder", where=path, expected="one of them", todo=f"give the file itself: {names}"
        )
    wanted = found[0].form if files else form or usual_form(path)
    if not files:
        numbers(wanted)  # refuses a form that there is not
    need = next((need for need in found if need.form == wanted), None)
    if need is None:
        return f"{wanted}: what it needs is not known"  # without bitsandbytes, which says so itself when it is loaded
    free, where = _free(need)
    has = f"{where} has {size(free)} free" if free is not None else "what this machine has is not known"
    line = f"{need.form} needs about {size(need.total_bytes)} ({_parts(need)}); {has}"
    if free is not None and need.total_bytes > free:
        todo = todo or _advice(path, need, found, slots, free)
        raise UserError(
            f"{need.form} needs about {size(need.total_bytes)} ({_parts(need)})", where=path,
            expected=f"no more than {where} has free, {size(free)}", todo=todo,
        )  # fmt: skip
    return f"memory: {line}"


def table(path: Path, slots: int = 1, window: int | None = None) -> list[str]:
    """`needs` as lines for the terminal, each with whether it fits on this machine now.

    Raises:
        UserError: see `needs`.
    """
    lines = [f"{'form':<10}{'weights':>11}{'cache':>11}{'program':>11}{'in all':>11}"]
    for need in needs(path, slots, window):
        free, _ = _free(need)
        verdict = "unknown" if free is None else "fits" if need.total_bytes <= free else "does not fit"
        how = "" if need.ready else ", after rinsho export --to gguf"
        parts = (need.weights_bytes, need.cache_bytes, need.other_bytes, need.total_bytes)
        sizes = "".join(f"{size(part):>11}" for part in parts)
        lines.append(f"{need.form:<10}{sizes}  {verdict}{how}")
    return lines


def size(number: float) -> str:
    """Bytes for people.

    >>> size(81_000_000), size(2.4e9)
    ('77 MiB', '2.24 GiB')
    """
    return f"{number / GIB:.2f} GiB" if number >= GIB else f"{number / MIB:.0f} MiB"


def _free(need: Need) -> tuple[int | None, str]:
    """Free memory of where the model goes, and what that is called."""
    card = card_bytes() if need.runtime == "transformers" else None
    return (available_bytes(), "this machine") if card is None else (card, "the graphics card")


def _parts(need: Need) -> str:
    return f"weights {size(need.weights_bytes)}, cache {size(need.cache_bytes)}, program {size(need.other_bytes)}"


def _advice(path: Path, need: Need, found: Sequence[Need], slots: int, free: int) -> str:
    """The largest smaller form that fits as it lies there, the largest one after an export, and a smaller window."""
    ways = []
    for ready in (True, False):
        fitting = [
            other for other in found if other.ready is ready and need.total_bytes > other.total_bytes
            and other.total_bytes <= (_free(other)[0] or 0)
        ]  # fmt: skip
        if fitting:
            best = max(fitting, key=lambda other: other.total_bytes)
            command = f"rinsho export {path} --to gguf --set export.types='[{best.form}]' --out FOLDER"
            ways.append(f"{f'--form {best.form}' if ready else command} ({size(best.total_bytes)})")
    rest = free - need.weights_bytes - need.other_bytes
    if slots > 1 and need.cache_bytes and rest > need.cache_bytes // slots:
        ways.append(f"--slots {rest * slots // need.cache_bytes}")
    return "smaller: " + ", or ".join(ways) if ways else "close other programs, or take a machine with more memory"
