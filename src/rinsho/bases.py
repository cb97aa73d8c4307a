"""Bases of adapters: told apart by their weights, opened in float32, bfloat16, LLM.int8 or NF4, grown by new tokens.

Importing this file loads no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from rinsho.errors import UnsuitedError, UserError

Quantization = Literal["none", "int8", "nf4"]
ADAPTER_WEIGHTS = "adapter_model.safetensors"  # lies beside a base's own weights in some folders
BLOCK_COLUMNS = 64  # of a matrix whose rows are averaged in float64
AGAIN = "copy it again, or run the stage that made it again"


def base_digest(folder: Path) -> str:
    """SHA-256 over the bytes of a base's weight files in the order of their names, 64 hex digits.

    Names and `config.json` do not count. A file that did not change is read once in the life of the process.

    Raises:
        UserError: there are no safetensors.
    """
    stats = [(path.resolve(), path.stat()) for path in _weight_files(folder)]
    return _digest(tuple((str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats))


def _weight_files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.glob("*.safetensors") if path.name != ADAPTER_WEIGHTS)
    if not files:
        raise UserError(
            "no weights as safetensors in here", where=folder, expected="config.json and *.safetensors",
            todo="check the path; other forms of weights cannot be opened",
        )  # fmt: skip
    return files


@lru_cache(maxsize=8)
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, *_ in files:
        with Path(name).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def quantized_base(folder: Path, quantization: Quantization = "none", dtype: str = "float32") -> Any:
    """The causal language model of a folder in evaluation mode, in LLM.int8, in NF4, or as it is.

    LLM.int8 keeps outlier columns (beyond 6.0) in 16 bit, NF4 quantises its constants too; embeddings and head stay
    in `dtype`. A quantised model is on the graphics card if there is one, any other on the processor.

    Raises:
        UserError: no model, damaged weights, weights in another form than safetensors, or no bitsandbytes.

    Source: M-3, M-6.
    """
    _weight_files(folder)
    import torch
    import transformers

    more: dict[str, Any] = {}
    number = getattr(torch, dtype)
    with quiet(), readable(folder, "the model cannot be opened", "a complete model folder"):
        if quantization != "none":
            need("bitsandbytes")
            more["quantization_config"] = transformers.BitsAndBytesConfig(  # type: ignore[no-untyped-call]
                load_in_8bit=quantization == "int8",
                load_in_4bit=quantization == "nf4",
                llm_int8_threshold=6.0,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=number,
            )
            more["device_map"] = {"": 0 if torch.cuda.is_available() else "cpu"}
        opened: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=number, local_files_only=True, trust_remote_code=False, use_safetensors=True,
            output_loading_info=True, **more,
        )  # fmt: skip
    model, missing = opened[0], opened[1]["missing_keys"]
    if missing:  # transformers fills them with random numbers
        raise UnsuitedError(
            f"weights of a causal language model are missing ({len(missing)} tensors)", where=folder,
            expected="a whole model that continues text; masked models (BERT) do not",
        )  # fmt: skip
    for module in model.modules():
        # On some processors the first forward in evaluation mode would repack a 4-bit matrix for a kernel that rounds
        # its constants, has no backward pass, and wants widths in multiples of 64.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model.eval()


def number_form(model: Any) -> tuple[Quantization, str]:
    """(quantisation, number form of what is not quantised) of the base under an adapter."""
    dtype = str(model.get_input_embeddings().weight.dtype).removeprefix("torch.")
    settings = getattr(model.config, "quantization_config", None)
    if settings is None:
        return "none", dtype
    return ("int8" if getattr(settings, "load_in_8bit", False) else "nf4"), dtype


def form_name(quantization: str, dtype: str) -> str:
    """A form of a base in words.

    >>> form_name("none", "bfloat16")
    'bfloat16, not quantized'
    """
    return f"{dtype}, not quantized" if quantization == "none" else f"{quantization}, {dtype}"


def token_count(tokenizer: Any) -> int:
    """Rows of an embedding that the tokenizer has ids for; with gaps in the ids more than it has tokens."""
    return max([len(tokenizer), *(int(index) + 1 for index in tokenizer.added_tokens_decoder)])


def grow(model: Any, vocab_size: int, known: int | None = None) -> None:
    """Rows of embeddings and head for new tokens, each exactly the mean of the known ones.

    The mean is taken in float64 and rounded once, so every machine gets the same rows: they are made anew whenever
    the adapter is opened, and only what was trained of them is saved. What was made stands in `model.grown_rows`.

    Args:
        model: changed in place; made larger where it is too small.
        vocab_size: rows it needs.
        known: rows of the tokens there were; the rest, up to `vocab_size`, becomes new, also where the matrix had room
            to spare. None: all the matrix has.
    """
    old = model.get_input_embeddings().weight.shape[0]
    known = old if known is None else min(known, old)
    if vocab_size <= known:
        return
    modules = (model.get_input_embeddings, model.get_output_embeddings)
    means = [_means(module(), known) for module in modules]
    if vocab_size > old:
        model.resize_token_embeddings(vocab_size, mean_resizing=False)
    for module, mean in zip(modules, means, strict=True):
        for name, values in mean.items():
            getattr(module(), name).data[known:vocab_size] = values
    model.grown_rows = known, vocab_size


def _means(module: Any, known: int) -> dict[str, Any]:
    """Mean of the first rows of a module's weight and of its bias, float32."""
    import torch

    found = {name: getattr(module, name, None) for name in ("weight", "bias")}
    return {
        name: torch.cat([
            block.detach().double().mean(0, keepdim=block.ndim == 1) for block in _columns(matrix[:known])
        ]).to(torch.float32)
        for name, matrix in found.items() if matrix is not None
    }  # fmt: skip


def _columns(matrix: Any) -> Any:
    return matrix.split(BLOCK_COLUMNS, dim=1) if matrix.ndim == 2 else (matrix,)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, warnings or advice of transformers, PEFT and bitsandbytes in the block."""
    import transformers

    _silence()
    log: Any = transformers.utils.logging
    log.disable_progress_bar()
    before = log.get_verbosity()
    log.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(before)


@contextlib.contextmanager
def readable(where: object, what: str, expected: str, todo: str | None = AGAIN) -> Iterator[None]:
    """Whatever libraries raise at damaged or unfit files becomes a `UserError`."""
    import safetensors

    kinds = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, safetensors.SafetensorError)
    try:
        yield
    except kinds as error:
        first_line = (str(error).splitlines() or [""])[0][:200]
        raise UserError(
            f"{what} ({type(error).__name__}: {first_line})", where=where, expected=expected, todo=todo
        ) from error


def need(module: str) -> None:
    """Raises `UserError` where a package of the extra `adapters` is missing; keeps bitsandbytes from talking."""
    from importlib.util import find_spec

    _silence()
    if find_spec(module) is None:
        raise UserError(f"{module} is not installed", where="adapters", todo="pip install 'rinsho[adapters]'")


def _silence() -> None:
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it speaks when imported, and of every layer
