"""`rinsho model describe`: what a model costs to train and to keep, before anything is trained."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rinsho import chain
from rinsho.errors import UserError
from rinsho.hardware import GIB, Card, card, known_cards
from rinsho.model import PRESETS, ModelSettings, parameters_by_part
from rinsho.model_folder import read_manifest
from rinsho.sizing import Flops, Memory, flops_per_token, recipe_memory, settings_of

VOCABULARY = {"tiny": 4096, "15m": 16_384, "60m": 16_384}  # of a preset; the others have 32,768
USABLE = 0.9  # of a card's memory: the driver, the context and fragments of the allocator take the rest
PRETRAIN = {"pretrain": "rinsho.pretrain"}
SHARES = (0.3, 0.4, 0.5, 0.6)
# settings of a recipe that this page depends on, beside the sizes
COUNTED: tuple[str, ...] = ("sequence_length", "micro_batch_rows", "max_tokens", "optimizer", "dtype")
COUNTED += ("attn_implementation", "document_bounds", "compile", "loss_chunk_tokens")


@dataclass(frozen=True)
class Subject:
    """What is described.

    Attributes:
        title: its name and where it comes from.
        vocab_size: rows of its embedding.
        parts: number of parameters by part, as they are trained.
        settings: sizes of a model that `rinsho pretrain` trains; None for another architecture.
        recipe: of pre-training.
        config: the sizes by transformers' names.
        assumed: nobody has said the vocabulary's size.
    """

    title: str
    vocab_size: int
    parts: Mapping[str, int]
    settings: ModelSettings | None
    recipe: Any
    config: Mapping[str, Any]
    assumed: bool = False


def describe(
    target: str,
    *,
    overrides: Sequence[str] = (),
    rooms: Mapping[str, str] = PRETRAIN,
    vocab_size: int | None = None,
    gpus: int = 1,
    gpu: str | None = None,
    tokens: int | None = None,
) -> str:
    """A page of plain text: parameters, FLOPs, memory while training, cache, and with a card's name the time.

    Args:
        target: a recipe file, the name of a preset, or a model folder.
        overrides: `pretrain.key=value`; a model folder has its own sizes.
        rooms: stage -> module, for the sections of a recipe file.
        vocab_size: of the tokenizer that is not there yet; default: the recipe's, or the preset's.
        gpus: how many cards share a step.
        gpu: the card, by torch's name or a short one.
        tokens: to train on; default: the recipe's max_tokens.

    Raises:
        UserError: no such target or card, a model whose parameters cannot be counted, or other sizes for a folder.
    """
    device = None if gpu is None else _card(gpu)
    subject = _subject(target, overrides, rooms, vocab_size)
    flops = _flops(subject)
    lines = [*_sizes(subject), "", *_parameters(subject), "", *_operations(subject, flops)]
    if subject.settings is not None:
        lines += ["", *_memory(subject, subject.settings, gpus, device)]
    lines += ["", *_cache(subject.config)]
    if device is not None:
        lines += ["", *_time(flops, device, gpus, tokens or subject.recipe.max_tokens)]
    return "\n".join(lines)


def _subject(target: str, overrides: Sequence[str], rooms: Mapping[str, str], vocab_size: int | None) -> Subject:
    path = Path(target)
    if target in PRESETS:
        length = PRESETS[target]["max_position_embeddings"]
        given = [f"pretrain.model.preset={target}", f"pretrain.sequence_length={length}", *overrides]
        recipe: Any = chain.resolve(None, given, PRETRAIN)[0]["pretrain"].recipe
        usual = VOCABULARY.get(target, 32_768)
        return _ours(f"{target} (preset)", recipe.model, vocab_size or usual, recipe, assumed=vocab_size is None)
    if path.is_dir():
        _must_keep_sizes(path, overrides, vocab_size)
        return _folder(path, overrides)
    if not path.is_file():
        expected = f"a recipe file, a model folder, or a preset ({', '.join(PRESETS)})"
        raise UserError("there is no such model", where=target, expected=expected, todo="check the name")
    plans = chain.resolve(path, overrides, rooms)[0]
    if "pretrain" not in plans:
        raise UserError("the recipe has no section 'pretrain'", where=path, expected="a recipe that trains a model")
    recipe = plans["pretrain"].recipe
    if recipe.init_from == "model":
        given = [f" --set pretrain.{key}={getattr(recipe, key)}" for key in COUNTED if key in recipe.model_fields_set]
        todo = f"rinsho model describe FOLDER{''.join(given)}, with the model that training starts from as FOLDER"
        raise UserError("the sizes are those of a model folder", where=f"{path} pretrain", todo=todo)
    if vocab_size is None and "tokenizer" in plans:
        vocab_size = getattr(plans["tokenizer"].recipe, "vocab_size", None)
    return _ours(str(path), recipe.model, vocab_size or 32_768, recipe, assumed=vocab_size is None)


def _must_keep_sizes(folder: Path, overrides: Sequence[str], vocab_size: int | None) -> None:
    """Refuses what a folder decides: its sizes and its vocabulary."""
    given = [f"--set {text}" for text in overrides if text.partition("=")[0].strip().startswith("pretrain.model")]
    given += [] if vocab_size is None else [f"--vocab-size {vocab_size}"]
    if given:
        raise UserError(
            f"the model in {folder} has its sizes already",
            where=given[0],
            expected="settings of the training, for instance --set pretrain.micro_batch_rows=4",
            todo="for other sizes describe a recipe or a preset",
        )


def _ours(title: str, settings: ModelSettings, vocab_size: int, recipe: Any, assumed: bool = False) -> Subject:
    config = settings.model_dump() | {"head_dim": settings.head_dim}
    return Subject(title, vocab_size, parameters_by_part(settings, vocab_size), settings, recipe, config, assumed)


def _folder(folder: Path, overrides: Sequence[str]) -> Subject:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            "no model in here", where=folder, expected="a folder with config.json", todo="check the path"
        ) from None
    except ValueError:
        raise UserError("not valid JSON", where=folder / "config.json", todo="make the model folder again") from None
    config = config if isinstance(config, dict) else {}
    needed = ["hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "vocab_size"]
    needed += ["intermediate_size"] if config.get("model_type") == "arcee" else []
    missing = [key for key in needed if not isinstance(config.get(key), int)]
    if missing or any("expert" in key for key in config):
        what = f"no {', '.join(missing)}" if missing else "a mixture of experts"
        raise UserError(
            f"the model cannot be counted: {what}",
            where=folder / "config.json",
            expected="an Arcee or Llama-like model",
        )
    length = f"pretrain.sequence_length={config['max_position_embeddings']}"
    recipe = chain.resolve(None, [length, *overrides], PRETRAIN)[0]["pretrain"].recipe
    title = f"{folder} ({config.get('model_type', 'unknown type')})"
    if config.get("model_type") == "arcee" and not config.get("attention_bias") and not config.get("mlp_bias"):
        manifest = read_manifest(folder)
        scale = manifest.get("embedding_scale", 1.0)
        was_tied = bool(manifest.get("tied_while_training", config.get("tie_word_embeddings", False)))
        # Training goes on tied where the head is still the embedding without its scale to the last bit. bfloat16 rounds
        # the two apart, unless the scale is a power of two.
        tied = was_tied and (config.get("dtype") == "float32" or math.frexp(scale)[0] == 0.5)
        if was_tied and not tied:
            title = f"{folder} (arcee; its head was trained tied, and bfloat16 has rounded it apart)"
        trained = {
            "embedding_scale": scale,
            "tie_word_embeddings": tied,
            "residual_dropout": manifest.get("residual_dropout_while_training", 0.0),
            "attention_dropout": manifest.get("attention_dropout_while_training", config.get("attention_dropout", 0.0)),
        }
        try:
            return _ours(title, settings_of(config | trained), config["vocab_size"], recipe)
        except ValueError:  # other heads than ours: counted like any other architecture
            pass
    heads = config["num_attention_heads"]
    sizes = {
        "num_key_value_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or config["hidden_size"] // heads,
    }
    return Subject(title, config["vocab_size"], _count_file(folder), None, recipe, config | sizes)


def _count_file(folder: Path) -> dict[str, int]:
    """Parameters by part from the names and shapes in the weights' headers; no weight is read."""
    parts = dict.fromkeys(("embedding", "attention", "mlp", "norms", "head", "other"), 0)
    words = {"embed": "embedding", "lm_head": "head", "norm": "norms", "attn": "attention", "mlp": "mlp"}
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(
            "parameters of this architecture are counted from its weights, and there are none",
            where=folder,
            expected="*.safetensors",
        )
    for file in files:
        header = _header(file)
        for name, tensor in header.items():
            if name != "__metadata__":
                part = next((part for word, part in words.items() if word in name), "other")
                parts[part] += math.prod(tensor["shape"])
    return {part: count for part, count in parts.items() if count or part not in ("head", "other")}


def _header(file: Path) -> dict[str, Any]:
    """Names, types and shapes of a safetensors file: eight bytes of length, then JSON."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        text = stream.read(min(length, file.stat().st_size))
    try:
        header = json.loads(text)
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise UserError("not a safetensors file", where=file, todo="copy the model folder again")
    return header


def _card(name: str) -> Card:
    found = card(name)
    if found is None:
        known = known_cards()
        wanted = name.lower().removeprefix("nvidia ").removeprefix("geforce ")
        # People type H200 for "H200 SXM": names count whole and cut to the length of what was typed.
        names = {card[: len(wanted)].lower(): card for card in reversed(known)} | {card.lower(): card for card in known}
        near = difflib.get_close_matches(wanted, names, n=1)
        guess = f" (did you mean {names[near[0]]!r}?)" if near else ""
        raise UserError(f"unknown card {name!r}{guess}", where=f"--gpu {name}", expected=f"one of {', '.join(known)}")
    return found


def _flops(subject: Subject) -> Flops:
    length = subject.recipe.sequence_length
    if subject.settings is not None:
        return flops_per_token(subject.settings, subject.vocab_size, length)
    multiplied = sum(subject.parts.values()) - subject.parts["embedding"]
    if not subject.parts.get("head"):
        multiplied += subject.parts["embedding"]  # a tied head multiplies with the embedding matrix
    width = subject.config["num_attention_heads"] * subject.config["head_dim"]
    return Flops(6 * multiplied, 12 * subject.config["num_hidden_layers"] * width * length)


def _sizes(subject: Subject) -> list[str]:
    sizes = subject.config
    layers = f"{sizes['num_hidden_layers']} layer{'s' if sizes['num_hidden_layers'] > 1 else ''}"
    shape = (
        f"{layers}, hidden size {sizes['hidden_size']}, "
        f"{sizes['num_attention_heads']} heads of {sizes['head_dim']}, {sizes['num_key_value_heads']} key/value heads"
    )
    lines = [f"model {subject.title}", f"  {shape}"]
    assumed = " (assumed: --vocab-size N gives another)" if subject.assumed else ""
    lines.append(f"  {sizes['max_position_embeddings']:,} positions, vocabulary {subject.vocab_size:,}{assumed}")
    if subject.settings is None:
        return [*lines, "  an architecture that rinsho does not pre-train: no memory table"]
    ours = subject.settings
    head = "tied" if ours.tie_word_embeddings else "untied"
    lines.append(f"  MLP {ours.intermediate_size}, SiLU, not gated; {head} head; embeddings times {ours.scale:.4g}")
    lines.append(f"  dropout: attention {ours.attention_dropout:g}, residual {ours.residual_dropout:g}")
    return lines


def _parameters(subject: Subject) -> list[str]:
    parts, total = subject.parts, sum(subject.parts.values())
    lines = [f"  {part:<10}{count:>16,}{count / total:>9.2%}" for part, count in parts.items()]
    lines = ["parameters", *lines, f"  {'total':<10}{total:>16,}"]
    if subject.settings is not None and subject.settings.tie_word_embeddings:
        total += parts["embedding"]
        lines.append(f"  {'published':<10}{total:>16,}  untied: the head is in the file as a matrix of its own")
    files = ", ".join(f"{kind} {_size(width * total)}" for kind, width in (("bfloat16", 2), ("float32", 4)))
    return [*lines, f"  weights file: {files}"]


def _size(number: int) -> str:
    if number < 1e9:
        return f"{number / 1e6:,.1f} MB ({number / 2**20:,.1f} MiB)"
    return f"{number / 1e9:,.3f} GB ({number / GIB:,.2f} GiB)"


def _operations(subject: Subject, flops: Flops) -> list[str]:
    sizes, length = subject.config, subject.recipe.sequence_length
    factors = (sizes["num_hidden_layers"], sizes["num_attention_heads"], sizes["head_dim"], length)
    return [
        f"FLOPs a token, forward and backward, in rows of {length:,} tokens",
        f"  matrices   {flops.matrices / 1e9:8.4f} G = 6 · {flops.matrices // 6:,} (parameters that multiply)",
        f"  attention  {flops.attention / 1e9:8.4f} G = 12 · {' · '.join(f'{n:,}' for n in factors)}"
        " (layers · heads · head size · row)",
        f"  total      {flops.total / 1e9:8.4f} G   MFU = tokens/s · total / peak (PaLM, arXiv 2204.02311, app. B)",
        f"  causal     {flops.causal / 1e9:8.4f} G   with half the attention, as a causal kernel computes it",
    ]


def _memory(subject: Subject, settings: ModelSettings, gpus: int, device: Card | None) -> list[str]:
    recipe = subject.recipe
    how = [
        f"{recipe.sequence_length:,} tokens a row",
        f"micro_batch_rows {recipe.micro_batch_rows}",
        recipe.optimizer,
        "fp32" if recipe.dtype == "fp32" else "bf16",
        recipe.attn_implementation,
        "document bounds" if recipe.document_bounds else "no document bounds",
        "not compiled" if recipe.compile is False else "compiled",
    ]
    columns = ["weights", "gradients", "optimizer", "activations", "loss", "update", "total", "largest"]
    columns += ["rows that fit"] if device else []
    rows = []
    for parallelism in ("ddp", "zero2", "zero3") if gpus > 1 else ("ddp",):
        for twice in (False, True):
            changes: dict[str, Any] = {"parallelism": parallelism, "activation_checkpointing": twice, "processes": gpus}
            found = recipe_memory(recipe, settings, subject.vocab_size, **changes)
            name = (parallelism if gpus > 1 else "one card") + (", checkpointing" if twice else "")
            fits = [f"{_largest_rows(subject, settings, device, changes)}"] if device else []
            rows.append([name, *(f"{size / GIB:.2f}" for size in _columns(found)), found.largest, *fits])
    lines = [
        f"memory of a training step on {f'each of {gpus} graphics cards' if gpus > 1 else 'a graphics card'}, GiB",
        f"  {', '.join(how)}",
        *_table(["", *columns], rows),
        "  activations with the weights cast to bfloat16; total: the larger of both passes (without update) and the",
        "  optimizer's step (without activations and loss); checkpointing: activation_checkpointing",
    ]
    if device:
        lines.append(f"  rows that fit: the largest micro_batch_rows within {USABLE:.0%} of the {device.name}'s memory")
    if recipe.attn_implementation != "varlen":  # which no processor has
        arithmetic = "bf16" if recipe.dtype == "bf16" else "fp32"
        compiled = "compiled" if recipe.compile is True else "not compiled"
        total = recipe_memory(recipe, settings, subject.vocab_size, device="cpu").total
        lines.append(f"  on a processor instead, {arithmetic}, {compiled}: {total / GIB:.2f} GiB in all")
    return lines


def _columns(found: Memory) -> tuple[int, ...]:
    activations = found.casts + found.activations + found.recomputed
    return found.weights, found.gradients, found.optimizer, activations, found.loss, found.update, found.total


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns, the first to the left."""
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    lines = []
    for first, *others in (head, *rows):
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  " + "  ".join([first.ljust(widths[0]), *cells]))
    return lines


def _largest_rows(subject: Subject, settings: ModelSettings, device: Card, changes: Mapping[str, Any]) -> int:
    """The largest micro_batch_rows whose step fits the card; 0 when not even one row does."""

    def fits(rows: int) -> bool:
        arguments = {**changes, "micro_batch_rows": rows}
        needed = recipe_memory(subject.recipe, settings, subject.vocab_size, **arguments).total
        return needed <= USABLE * device.memory_bytes

    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _cache(config: Mapping[str, Any]) -> list[str]:
    numbers = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"]
    length = config["max_position_embeddings"]
    lines = []
    for kind, size in (("float32", 4 * numbers), ("bfloat16", 2 * numbers), ("8 bit", numbers)):
        lines.append(f"  {kind:<10}{size:>10,} bytes a token, {size * length / 2**20:,.1f} MiB at {length:,} tokens")
    return ["key/value cache while writing", *lines]


def _time(flops: Flops, device: Card, gpus: int, tokens: int | None) -> list[str]:
    peak = f"{device.bf16 / 1e12:,.1f} TFLOP/s dense bf16"
    title = f"time on {gpus} x {device.name} ({peak} each)"
    lines = [f"{title}, {tokens / 1e9:,.2f} G tokens" if tokens else f"{title}; with --tokens N also the days"]
    for share in SHARES:
        speed = gpus * share * device.bf16 / flops.total
        days = f"{tokens / speed / 86_400:>10.2f} days" if tokens else ""
        lines.append(f"  {share:.0%} MFU  {speed:>12,.0f} tokens/s{days}")
    return lines
