"""Adapters: PEFT's own files beside a tokenizer and `rinsho.json`, which says by hash what base they belong to.

    adapter_model.safetensors  adapter_config.json  rinsho.json  tokenizer.json ...

`base_model_name_or_path` is the base's path as seen from the adapter's folder, so both can move together. PEFT alone
opens such a folder on its base (grown first, where chat tokens were added). Importing this file loads no torch.

Source: M-3, M-4.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rinsho import bases
from rinsho.bases import ADAPTER_WEIGHTS as WEIGHTS
from rinsho.bases import Quantization, base_digest, grow, need, quantized_base, quiet, readable
from rinsho.errors import UserError
from rinsho.files import write_atomic
from rinsho.model_folder import MANIFEST, read_manifest

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel

CONFIG, TOKENS = "adapter_config.json", "trainable_token_indices"
# Starting values that PEFT takes out of the base matrices: what is left of them fits this adapter alone.
TAKEN_FROM_BASE = ("pissa", "olora", "corda", "lora_ga")


# ---------------------------------------------------------------------- on disk


def is_adapter(folder: Path) -> bool:
    """Whether an adapter lies in the folder, and no whole model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def read_config(folder: Path) -> dict[str, Any]:
    """`adapter_config.json`.

    Raises:
        UserError: there is none, it is not JSON, or the weights are not safetensors.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict) or not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        raise UserError(
            "an adapter saved with pickle, which is not opened" if pickled else "no complete adapter in here",
            where=folder, expected=f"{CONFIG} and {WEIGHTS}",
            todo="save it again as safetensors" if pickled else "give the folder of a finished finetune run",
        )  # fmt: skip
    return config


def find_base(folder: Path, base: Path | None = None) -> Path:
    """The folder of the base that an adapter belongs to: the given one, else the recorded one.

    Adapters that are not ours name a folder and no hash: theirs is not checked.

    Raises:
        UserError: no adapter, a base that is not there, or one with other weights than the adapter was trained on.
    """
    config, recorded = read_config(folder), _recorded(folder)
    name = str(recorded.get("relative") or config.get("base_model_name_or_path") or "")
    found = Path(base) if base is not None else Path(os.path.normpath(folder.resolve() / name))
    if not (found / "config.json").is_file():
        raise UserError(
            f"the base of the adapter is not there ({found})" if base is None else "no base model in here",
            where=folder if base is None else base,
            expected=f"the model folder {recorded.get('name') or name or 'it was trained on'}",
            todo="put it there, or give its folder with --base",
        )
    wanted = str(recorded.get("digest", ""))
    if wanted and (digest := base_digest(found)) != wanted:
        raise UserError(
            f"another base: its weights are {digest[:12]}, the adapter in {folder} was trained on {wanted[:12]}",
            where=found,
            expected=f"the base {recorded.get('name', '')}",
            todo="give the folder of that base with --base",
        )
    return found.resolve()


def save_adapter(  # noqa: PLR0917
    model: PeftModel, tokenizer: Any, folder: Path, base: Path, extra: Mapping[str, Any], home: Path | None = None,
    digest: str | None = None,
) -> None:  # fmt: skip
    """Writes an adapter folder. Existing files of the same names are replaced.

    An adapter that took its starting values out of the base (PiSSA, OLoRA) is written as the LoRA of twice the rank
    that does the same on the untouched base: trained minus start.

    Args:
        model: made by `attach`.
        tokenizer: saved beside it; None saves none.
        folder: made if it is not there.
        base: the folder the model was opened from.
        extra: more entries for `rinsho.json`; entries of its `base` are kept.
        home: where the folder will lie in the end, if not here; the path to the base is told from there.
        digest: `base_digest` of the base when it was opened; None takes that of the folder as it is now.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    with quiet():
        state = get_peft_model_state_dict(model, save_embedding_layers=False)
    config = copy.deepcopy(model.peft_config["default"])
    start = getattr(model, "rinsho_start", None)
    if start is not None:
        state, config = _on_untouched_base(state, start, config)
    relative = os.path.relpath(base.resolve(), (home or folder).resolve())
    config.base_model_name_or_path, config.inference_mode = relative, True
    for key, value in vars(config).items():
        if isinstance(value, set):  # whose order is another one in every process
            setattr(config, key, sorted(value))
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    weights = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)  # safetensors makes files that nobody else may read
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    quantization, dtype = bases.number_form(model)
    about = {"digest": digest or base_digest(base), "name": base.resolve().name, "relative": relative}
    manifest = {
        "form": "adapter",
        "vocab_size": model.get_input_embeddings().weight.shape[0],
        "grown_rows": getattr(model.get_base_model(), "grown_rows", None),
        "parameters": sum(value.numel() for value in weights.values()),
        "quantization": quantization,
        "base_dtype": dtype,
        **extra,
        "base": {**extra.get("base", {}), **about},
    }
    write_atomic(folder / MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=2) + "\n")


def move_home(folder: Path, base: Path, home: Path) -> None:
    """Tells the path to the base anew, for an adapter folder that is going to lie in `home`."""
    relative = os.path.relpath(base.resolve(), home.resolve())
    config, manifest = read_config(folder), read_manifest(folder)
    config["base_model_name_or_path"] = relative
    manifest["base"]["relative"] = relative
    for name, content in ((CONFIG, config), (MANIFEST, manifest)):
        write_atomic(folder / name, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def _on_untouched_base(
    state: Mapping[str, Any], start: Mapping[str, Any], config: PeftConfig
) -> tuple[dict[str, Any], PeftConfig]:
    """W_rest + sBA with W_rest = W - sB0A0 as W + s[B, -B0][A; A0]; scales s stay as they are."""
    import torch

    converted = dict(state)
    for name, value in state.items():
        if ".lora_A." in name:
            converted[name] = torch.cat([value, start[name].to(value)], dim=0)
        elif ".lora_B." in name:
            converted[name] = torch.cat([value, -start[name].to(value)], dim=1)
    settings: Any = config
    factor = 2**0.5 if settings.use_rslora else 2  # rsLoRA divides alpha by the root of the rank
    settings.r, settings.lora_alpha, settings.init_lora_weights = 2 * settings.r, factor * settings.lora_alpha, True
    settings.rank_pattern = {key: 2 * rank for key, rank in (settings.rank_pattern or {}).items()}
    settings.alpha_pattern = {key: factor * alpha for key, alpha in (settings.alpha_pattern or {}).items()}
    return converted, settings


# ---------------------------------------------------------------------- on their base


def attach(model: Any, config: PeftConfig) -> PeftModel:
    """A new adapter on a model, ready to train; the model itself is frozen and changed in place.

    Raises:
        UserError: PEFT cannot put this kind of adapter on this model.
    """
    need("peft")
    from peft import get_peft_model, get_peft_model_state_dict

    with quiet(), readable("adapter", "PEFT refuses it", "a method and layers that fit the model", None):
        adapted: Any = get_peft_model(model, config)
        if _taken_from_base(vars(config)) and not vars(config).get("use_dora"):  # DoRA's update is no such sum
            state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
            adapted.rinsho_start = {name: value.detach().clone() for name, value in state.items() if ".lora_" in name}
    return adapted  # type: ignore[no-any-return]


def open_adapter(
    folder: Path, base: Path | None = None, dtype: str = "float32", quantization: Quantization = "none"
) -> PeftModel:
    """An adapter on its base, in evaluation mode, with rows for the tokens that were added in training.

    Args:
        folder: the adapter's.
        base: the base's folder, where it is not the recorded one.
        dtype: number form of the base; the adapter is in float32.
        quantization: of the base, as in `quantized_base`, which also says on what device the model is.

    Raises:
        UserError: see `find_base` and `quantized_base`; or the adapter is damaged.
    """
    need("peft")
    found = find_base(folder, base)
    model = quantized_base(found, quantization, dtype)
    manifest = read_manifest(folder)
    known, size = manifest.get("grown_rows") or (None, int(manifest.get("vocab_size", 0)))
    grow(model, size, known)
    from peft import PeftModel

    with _whole(folder):
        adapted = PeftModel.from_pretrained(model, str(folder.resolve()), torch_device=str(model.device))
    return adapted.eval()


def add_adapters(model: PeftModel, folders: Mapping[str, Path]) -> None:
    """More adapters on the base of an opened one, by name; `model.set_adapter(name)` chooses.

    The one that was opened first is called `default`. Each answers as if it were opened alone on this form of the
    base; one without the new tokens of the first has untrained rows for them.

    Raises:
        UserError: an adapter of another base or kind, a name that is taken, or one that cannot share its base.
    """
    base = Path(str(model.get_base_model().name_or_path))
    rows = model.get_input_embeddings().weight.shape[0]
    active = model.active_adapter
    for name, folder in folders.items():
        if name in model.peft_config or not name.isidentifier():
            raise UserError(
                f"this name cannot be given to an adapter: {name}", where=folder, expected="a new name of letters"
            )
        find_base(folder, base)
        kind = str(read_config(folder).get("peft_type")).lower()
        if (shared := str(model.active_peft_config.peft_type.value).lower()) != kind:
            what = f"adapters of kinds {shared} and {kind} cannot share a base"
            raise UserError(what, where=folder, expected="adapters of one kind of PEFT's", todo="open it alone")
        if int(read_manifest(folder).get("vocab_size", 0)) > rows or not _has_rows(model, folder):
            raise UserError(
                "the adapter brings more tokens than the one opened first", where=folder, todo="open this one first"
            )
        together = (read_config(folder), *map(vars, model.peft_config.values()))
        if any(_taken_from_base(config) or config.get("kasa_config") for config in together):
            raise UserError(
                "the adapter changes its base and cannot share it", where=folder, expected="adapters that only add",
                todo="merge it, or open it alone",
            )  # fmt: skip
        with _whole(folder):
            _add(model, name, folder)
    model.set_adapter(active)
    model.eval()


def _add(model: PeftModel, name: str, folder: Path) -> None:
    """One more adapter; beside one with trained tokens it gets these, too, as the base's grown rows."""
    trained = [tokens for other in model.peft_config.values() if (tokens := vars(other).get(TOKENS))]
    if not trained or read_config(folder).get(TOKENS):
        model.load_adapter(str(folder.resolve()), adapter_name=name, torch_device=str(model.device))
        return
    from peft import PeftConfig, get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    config: Any = PeftConfig.from_pretrained(str(folder.resolve()))
    setattr(config, TOKENS, copy.deepcopy(trained[0]))
    model.add_adapter(name, config)
    state = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    found = load_file(folder / WEIGHTS)
    if {key for key in state if "trainable_tokens" not in key} - found.keys():
        raise ValueError("weights are missing")
    set_peft_model_state_dict(model, {**state, **found}, adapter_name=name)


def new_rows(folder: Path) -> int:
    """Rows of the embedding up to the last new token of an adapter; 0 where it brought none."""
    return int((read_manifest(folder).get("grown_rows") or (0, 0))[1])


def trained_form(folder: Path) -> tuple[Quantization, str, str | None]:
    """How the base was opened in training, as this machine can open it: quantisation, number form, what is missing.

    An adapter is fitted to the rounding of its base, and answers otherwise on any other. Without bitsandbytes, and for
    DoRA on int8 without a graphics card, a quantised base is taken in full precision; the last part says why.
    """
    from importlib.util import find_spec

    manifest = read_manifest(folder)
    quantization, dtype = manifest.get("quantization", "none"), manifest.get("base_dtype", "float32")
    missing = None
    if quantization != "none" and find_spec("bitsandbytes") is None:
        missing = "bitsandbytes is not installed"
    elif quantization == "int8" and method_of(read_config(folder)) == "dora":
        import torch

        missing = None if torch.cuda.is_available() else "dora on int8 needs a graphics card"
    return (quantization, dtype, None) if missing is None else ("none", "float32", missing)


def _has_rows(model: Any, folder: Path) -> bool:
    """Whether the model has the rows of tokens that this adapter was trained beside."""
    wanted = read_manifest(folder).get("grown_rows")
    have = getattr(model.get_base_model(), "grown_rows", None)
    return not wanted or (have is not None and have[0] == wanted[0] and have[1] >= wanted[1])


def _taken_from_base(config: Mapping[str, Any]) -> bool:
    return str(config.get("init_lora_weights", "")).lower().startswith(TAKEN_FROM_BASE)


# ---------------------------------------------------------------------- for the terminal


def show(folder: Path, base: Path | None = None) -> str:
    """A Markdown page about an adapter: method, size, base and whether that is there, what it was tuned on.

    Raises:
        UserError: no adapter in the folder, or `base` is another base.
    """
    from safetensors import safe_open

    config, manifest = read_config(folder), read_manifest(folder)
    recorded, tuned = _recorded(folder), manifest.get("finetune") or {}
    with readable(folder, "the adapter cannot be opened", WEIGHTS), safe_open(folder / WEIGHTS, "np") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    try:
        state = f"found: {find_base(folder, base)}"
    except UserError as error:
        if base is not None:
            raise
        state = str(error)
    targets = config.get("target_modules")
    if isinstance(targets, list):
        targets = ", ".join(sorted({name.rpartition(".")[2] for name in targets}))
    tokens = config.get(TOKENS) or ()
    tokens = sorted({token for part in tokens.values() for token in part}) if isinstance(tokens, dict) else tokens
    bits, dtype = manifest.get("quantization", "none"), manifest.get("base_dtype")
    facts = {
        "method": method_of(config),
        "rank, alpha": f"{config['r']}, {config.get('lora_alpha', '-')}" if "r" in config else None,
        "layers": targets,
        "parameters": f"{sum(math.prod(shape) for shape in shapes):,}",
        "trained tokens": f"{len(tokens)}" if tokens else None,
        "base as trained": bases.form_name(bits, dtype) if dtype else None,
        "answers on": _answers_on(folder),
        "base": f"{recorded.get('name') or config.get('base_model_name_or_path')} ({state})",
        "digest of the base": str(recorded["digest"])[:12] if recorded.get("digest") else "unknown",
        "tasks": ", ".join(tuned.get("tasks", ())) or None,
        "split": tuned.get("split"),
        "steps": tuned.get("steps"),
    }
    rows = [f"| {name} | {value} |" for name, value in facts.items() if value is not None]
    return "\n".join([f"# Adapter {folder.resolve().name}", "", "| | |", "| --- | --- |", *rows]) + "\n"


def _answers_on(folder: Path) -> str:
    quantization, dtype, missing = trained_form(folder)
    return bases.form_name(quantization, dtype) + (f" ({missing})" if missing else "")


def method_of(config: Mapping[str, Any]) -> str:
    """PEFT's name of an adapter's kind, from its settings.

    >>> method_of({"peft_type": "LORA", "use_dora": True})
    'dora'
    """
    if config.get("peft_type") != "LORA":
        return str(config.get("peft_type", "unknown")).lower()
    variants = {"use_dora": "dora", "use_rslora": "rslora", "kasa_config": "kasa"}
    return next((name for key, name in variants.items() if config.get(key)), "lora")


# ---------------------------------------------------------------------- shared


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[None]:
    """Also refuses an adapter whose file lacks weights: PEFT leaves them at their start and only warns."""
    with quiet(), readable(folder, "the adapter cannot be put on its base", "a complete adapter"):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            yield
        if any("missing adapter keys" in str(warning.message) for warning in seen):
            raise ValueError("weights are missing")


def _recorded(folder: Path) -> dict[str, Any]:
    base = read_manifest(folder).get("base")
    return base if isinstance(base, dict) else {}
