"""`rinsho doctor`: what is installed, what this machine can do, and what is missing for which command."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Mapping
from importlib import metadata, util
from pathlib import Path
from typing import Any

from rinsho.adapters import find_base, is_adapter
from rinsho.bases import ADAPTER_WEIGHTS
from rinsho.gguf_header import read_header
from rinsho.machine import available_bytes, bfloat16_units
from rinsho.memory import gguf_files, table
from rinsho.model_folder import read_manifest
from rinsho.progress import amount
from rinsho.sizing import kv_cache_bytes_per_token, settings_of

# command -> (extra that brings it, modules it needs)
NEEDS = {
    "samples": ("", ("pydantic", "yaml", "zstandard")),
    "corpus": ("", ("pydantic", "yaml", "zstandard", "orjson", "ahocorasick_rs", "numpy")),
    "corpus from Parquet": ("parquet", ("pyarrow",)),
    "corpus on Ray or Slurm": ("cluster", ("datatrove", "ray")),
    "corpus from Hugging Face": ("huggingface", ("datasets",)),
    "quality": ("quality", ("httpx", "floret", "sklearn", "scipy")),
    "tokenizer": ("tokenizer", ("fugashi", "ipadic", "sentencepiece", "tokenizers", "transformers")),
    "pretrain, finetune, chat": ("train", ("torch", "transformers", "safetensors", "fugashi", "ipadic")),
    "export --to gguf, GGUF files": ("gguf", ("gguf", "llama_cpp")),
    "serve": ("serve", ("starlette", "uvicorn", "prometheus_client")),
    "synthesize": ("client", ("httpx",)),
    "analyse": ("analyse", ("torch", "transformers", "sklearn", "matplotlib")),
    "analyse, second projection": ("umap", ("umap",)),
    "finetune.adapter, adapter": ("adapters", ("torch", "peft", "bitsandbytes")),
    "evaluate": ("evaluate", ("torch", "transformers", "sklearn", "scipy")),
    "pretrain.fp8 (Hopper GPUs)": ("fp8", ("torch", "torchao")),
    "report, curves --to png": ("report", ("jinja2", "matplotlib")),
    "curves --to tensorboard": ("tensorboard", ("tensorboard",)),
    "curves --to wandb": ("wandb", ("wandb",)),
}
DISTRIBUTIONS = {
    "yaml": "pyyaml",
    "sklearn": "scikit-learn",
    "llama_cpp": "llama-cpp-python",
    "prometheus_client": "prometheus-client",
}
GIB = 2**30


def doctor(model: Path | None = None) -> str:
    """A page of plain text for the terminal; with a model also its sizes and the memory it needs in each form.

    Args:
        model: a model or adapter folder, a GGUF file, or a folder of them.

    Raises:
        UserError: there are no weights, or an adapter's base is missing.
    """
    lines = ["machine", *(f"  {line}" for line in _machine()), "", "commands"]
    for command, (extra, modules) in NEEDS.items():
        missing = [DISTRIBUTIONS.get(name, name) for name in modules if util.find_spec(name) is None]
        state = f"missing {', '.join(missing)}: pip install 'rinsho[{extra}]'" if missing else "ready"
        lines.append(f"  {command:<30}{state}")
    lines += ["", "packages", *(f"  {line}" for line in _packages())]
    if model is not None:
        lines += ["", "model", *(f"  {line}" for line in _model(model))]
    return "\n".join(lines)


def _machine() -> list[str]:
    memory, units = available_bytes(), bfloat16_units()
    free = shutil.disk_usage(".").free
    lines = [
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} cores",
        f"memory available: {memory / GIB:.1f} GiB" if memory else "memory available: unknown",
        f"disk free here: {free / GIB:.1f} GiB",
        f"fast bf16 on this processor: {f'yes ({units})' if units else 'no: train with dtype fp32'}",
    ]
    if util.find_spec("torch") is None:
        return [*lines, "accelerator: unknown without torch"]
    import torch

    if not torch.cuda.is_available():
        return [*lines, "accelerator: none; everything runs on the processor"]
    return [*lines, *(f"accelerator {i}: {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count()))]


def _packages() -> list[str]:
    names = sorted({name for _, modules in NEEDS.values() for name in modules})
    lines = []
    for name in names:
        distribution = DISTRIBUTIONS.get(name, name)
        try:
            lines.append(f"{distribution:<26}{metadata.version(distribution)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{distribution:<26}not installed")
    return lines


def _model(folder: Path) -> list[str]:
    """Sizes, and what it takes in each form: an adapter's with its base, a GGUF file's as it is."""
    needs = ["one text at a time needs, the program included", *(f"  {line}" for line in table(folder))]
    if files := gguf_files(folder):
        return [*(_gguf(file) for file in files), *needs]
    adapted = is_adapter(folder)
    base = find_base(folder) if adapted else folder
    try:
        config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = {}
    about = [*_sizes(base, config), *_cache(config)] if isinstance(config, dict) else []
    on = [f"adapter, {amount((folder / ADAPTER_WEIGHTS).stat().st_size)}B, on:"] if adapted else []
    return [*on, *about, *needs]


def _gguf(file: Path) -> str:
    header = read_header(file)
    found = [f"layers {header.of('block_count')}", f"hidden size {header.of('embedding_length')}",
             f"positions {header.of('context_length')}"]  # fmt: skip
    return f"{file.name}: {header.architecture} in {header.file_type}: {', '.join(found)}"


def _sizes(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """The architecture in a line, as far as the folder tells it."""
    words = {
        "num_hidden_layers": "layers",
        "hidden_size": "hidden size",
        "vocab_size": "vocabulary",
        "max_position_embeddings": "positions",
    }
    found = [f"{word} {config[key]:,}" for key, word in words.items() if isinstance(config.get(key), int)]
    counted = read_manifest(folder).get("parameters")
    found = [f"parameters {counted:,}", *found] if isinstance(counted, int) else found
    return [f"{config.get('model_type', 'unknown type')}: {', '.join(found)}"] if found else []


def _cache(config: Mapping[str, Any]) -> list[str]:
    """What a conversation adds to the weights, where the sizes tell it."""
    try:
        settings = settings_of(config)
    except (ValueError, KeyError, TypeError):
        return []
    length, one = settings.max_position_embeddings, kv_cache_bytes_per_token(settings)
    whole = f"{one * length / 2**20:,.1f} MiB at {length:,} tokens"
    return [f"key/value cache {one:,} bytes a token in bfloat16, {whole}"]
