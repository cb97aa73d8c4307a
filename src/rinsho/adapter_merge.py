"""`rinsho adapter merge`: an adapter multiplied into its base, and a measure of what that changes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rinsho import adapters, bases
from rinsho.errors import UserError
from rinsho.files import atomic_folder, file_hash, write_atomic
from rinsho.generate.loading import load_tokenizer
from rinsho.model_folder import DOCUMENTS, EMBEDDING, HEAD, MANIFEST, read_manifest

if TYPE_CHECKING:
    from torch import Tensor

RANDOM_PROMPTS, PROMPT_TOKENS, SEED = 4, 64, 1
MAX_TEXTS = 64  # all logits are kept until they are compared
TOLERANCE = 1e-3  # of the logits' spread; merging in float32 stays a hundred times below it
ONLY_ADAPTER = ("form", "vocab_size", "grown_rows", "parameters", "quantization", "base_dtype", "base")
ABOUT_FORM = ("form", "embedding_scale", "tied_while_training")


@dataclass(frozen=True, slots=True)
class Change:
    """How far two models are apart on the same prompts."""

    largest: float  # absolute difference of a logit
    relative: float  # the same in standard deviations of the logits
    same_choice: float  # share of positions with the same most probable token


@dataclass(frozen=True, slots=True)
class Merged:
    """What merging changed; `rounding` and `training` are None where there is nothing to compare."""

    out: Path
    prompts: str  # what the models were compared on
    merging: Change  # merged against the adapter on the same base, both in float32
    rounding: Change | None  # written in bfloat16 against float32
    training: Change | None  # merged, float32, against the adapter on the base as it was in training
    trained_on: str  # number form of the base in training

    @property
    def largest_logit_change(self) -> float:
        """Of merging alone."""
        return self.merging.largest

    @property
    def markdown(self) -> str:
        """The page for the terminal."""
        rows = {"merged, against the adapter on its base (float32)": self.merging}
        if self.rounding is not None:
            rows["rounded to bfloat16"] = self.rounding
        if self.training is not None:
            rows[f"against the adapter on its base as trained ({self.trained_on})"] = self.training
        lines = [f"# Merged into {self.out}", "", f"Logits on {self.prompts}.", ""]
        lines += ["| | largest change | of the spread | same first choice |", "| --- " + "| ---: " * 3 + "|"]
        for name, change in rows.items():
            lines.append(f"| {name} | {change.largest:.1e} | {change.relative:.1e} | {change.same_choice:.1%} |")
        return "\n".join(lines) + "\n"


def merge(
    folder: Path,
    out: Path,
    base: Path | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    prompts: Sequence[str] = (),
) -> Merged:
    """Writes the plain model folder that an adapter and its base amount to, whole or not at all.

    Everything is computed in float32 on the processor, whatever the base was in training. An adapter that was trained
    on a rounded base was fitted to its rounding errors, which the merged model does not have: how far the two are
    apart is measured.

    Args:
        folder: the adapter's.
        out: replaced if it is a merged folder already.
        base: the base's folder, where it is not the recorded one.
        dtype: number form of the written weights.
        prompts: texts to compare on, beside random tokens; their first 64 tokens count.

    Raises:
        UserError: see `rinsho.adapters.open_adapter`; or the adapter's kind cannot be merged, `out` holds something
            else, or the merged model does not answer as before.

    Source: M-4.
    """
    if len(prompts) > MAX_TEXTS:
        raise UserError(f"{len(prompts)} texts to compare on", where="adapter merge", expected=f"at most {MAX_TEXTS}")
    found = adapters.find_base(folder, base)
    _check_out(out, folder, found)
    tokenizer = load_tokenizer(folder, found)
    quantization, trained_dtype = _form(folder)
    model: Any = adapters.open_adapter(folder, found)
    window = min(PROMPT_TOKENS, getattr(model.config, "max_position_embeddings", None) or PROMPT_TOKENS)
    rows = list(_rows(tokenizer, model.get_input_embeddings().weight.shape[0], window, prompts))
    before = _logits(model, rows)
    model = _merged(model, folder)
    after = _logits(model, rows)
    merging, rounding, training = _change(before, after), None, None
    if not merging.relative < TOLERANCE:  # also when it is no number
        raise UserError(
            f"the merged model gives other logits (largest change {merging.largest:.1e})", where=folder,
            expected="an adapter that PEFT merges exactly", todo="use the adapter on its base",
        )  # fmt: skip
    if dtype != "float32":
        _cast(model, dtype)
        rounding = _change(after, _logits(_cast(model, "float32"), rows))
    with atomic_folder(out) as aside:
        _write(_cast(model, dtype), tokenizer, aside, (folder, found))
    del model
    if (quantization, trained_dtype) != ("none", "float32"):
        trained = adapters.open_adapter(folder, found, trained_dtype, quantization)
        training = _change(_logits(trained, rows), after)
    texts = f" and {len(prompts)} given texts" if prompts else ""
    said = f"{RANDOM_PROMPTS} prompts of {window} random tokens (seed {SEED}){texts}"
    trained_on = trained_dtype if quantization == "none" else f"{quantization}, {trained_dtype}"
    return Merged(out, said, merging, rounding, training, trained_on)


def _form(folder: Path) -> tuple[bases.Quantization, str]:
    """Quantisation and number form of the base in training."""
    manifest = read_manifest(folder)
    if manifest.get("quantization", "none") != "none":
        bases.need("bitsandbytes")
    return manifest.get("quantization", "none"), manifest.get("base_dtype", "float32")


def _check_out(out: Path, *sources: Path) -> None:
    """Refuses a folder that would not come back: what is there is deleted before the merged model takes its place."""
    for source in sources:
        if out.resolve() in (source.resolve(), *source.resolve().parents):
            raise UserError(
                "the adapter or its base lies here", where=out, expected="a new folder", todo="choose another --out"
            )
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and "merged_from" not in read_manifest(out)):
        what = "this folder holds something else" if out.is_dir() else "this is a file"
        raise UserError(what, where=out, expected="a new folder", todo="choose another --out")


def _cast(model: Any, dtype: str) -> Any:
    """The same model with its weights in this number form; buffers stay as they are, as on opening a folder."""
    import torch

    for parameter in model.parameters():
        parameter.data = parameter.data.to(getattr(torch, dtype))
    return model


def _rows(tokenizer: Any, vocab_size: int, window: int, prompts: Sequence[str]) -> Iterator[Tensor]:
    """Prompts as ids, (1, tokens) int64: random ones, then the given texts."""
    import torch

    draw = torch.Generator().manual_seed(SEED)
    yield from torch.randint(vocab_size, (RANDOM_PROMPTS, 1, window), generator=draw)
    for text in prompts:
        ids = tokenizer.encode(text, add_special_tokens=False)
        if ids:
            yield torch.tensor([ids[:window]])


def _logits(model: Any, rows: Sequence[Tensor]) -> Tensor:
    """(tokens of all prompts, vocabulary) float32 on the processor."""
    import torch

    with torch.no_grad():
        found = [model(input_ids=row.to(model.device), use_cache=False).logits[0].float().cpu() for row in rows]
    return torch.cat(found)


def _change(before: Tensor, after: Tensor) -> Change:
    largest = float((before - after).abs().max())
    same = float((before.argmax(1) == after.argmax(1)).float().mean())
    return Change(largest, largest / max(float(before.std()), 1e-30), same)


def _merged(model: Any, folder: Path) -> Any:
    """The plain model; the adapter's matrices are gone from it."""
    if not hasattr(model.base_model, "merge_and_unload"):
        raise _not_mergeable(model, folder)
    try:
        with bases.quiet():
            return model.merge_and_unload(safe_merge=True)
    except NotImplementedError:
        raise _not_mergeable(model, folder) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"PEFT cannot merge this adapter ({error})", where=folder) from error


def _not_mergeable(model: Any, folder: Path) -> UserError:
    return UserError(
        f"an adapter of kind {str(model.active_peft_config.peft_type.value).lower()} cannot be merged",
        where=folder,
        expected="one that adds to the base's matrices, for instance lora",
        todo="use it on its base",
    )


def _write(model: Any, tokenizer: Any, aside: Path, sources: tuple[Path, Path]) -> None:
    """Weights, tokenizer and `rinsho.json`: the adapter's entries, and of the base's those about the form."""
    folder, base = sources
    with bases.quiet():
        model.save_pretrained(aside)
    for file in aside.glob("*.safetensors"):
        file.chmod((aside / "config.json").stat().st_mode)
    tokenizer.save_pretrained(aside)
    ours, told = read_manifest(base), read_manifest(folder)
    manifest: dict[str, Any] = {"form": model.config.model_type, "embedding_scale": 1.0}
    manifest |= {key: ours[key] for key in ours if key in ABOUT_FORM or key.endswith("_while_training")}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    weights = model.state_dict()
    if ours.get("tied_while_training"):
        same = (weights[HEAD] * ours["embedding_scale"] == weights[EMBEDDING]).all(1)
        manifest["tied_while_training"] = bool(same.all())  # rows that were trained as inputs alone take the tie apart
        parameters -= int(same.sum()) * weights[HEAD].shape[1]
    about: dict[str, Any] = {key: value for key, value in told.get("base", {}).items() if key != "relative"}
    merged_from: dict[str, Any] = {
        "adapter": file_hash(folder / bases.ADAPTER_WEIGHTS),
        "method": adapters.method_of(adapters.read_config(folder)),
        "base": bases.base_digest(base),
        **{key: told[key] for key in ("quantization", "base_dtype") if key in told},
    }
    manifest |= {"parameters": parameters, **{key: told[key] for key in told if key not in ONLY_ADAPTER}}
    manifest |= {"base": about, "merged_from": merged_from}
    write_atomic(aside / MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=2) + "\n")
    if (folder / DOCUMENTS).is_file():
        write_atomic(aside / DOCUMENTS, (folder / DOCUMENTS).read_bytes())
