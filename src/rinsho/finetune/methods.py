"""Adapters by PEFT's names: settings in, PEFT's configuration and the wrapped model out.

Everything an adapter draws at random comes from the recipe's seed, so the same base and recipe give the same model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from rinsho.errors import UserError
from rinsho.finetune import Adapter
from rinsho.packing import number_of

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel

# PEFT's configuration of each method, and what makes it that method.
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("LoraConfig", {}),
    "rslora": ("LoraConfig", {"use_rslora": True}),
    "dora": ("LoraConfig", {"use_dora": True}),
    "pissa": ("LoraConfig", {"init_lora_weights": "pissa"}),
    "olora": ("LoraConfig", {"init_lora_weights": "olora"}),
    "kasa": ("LoraConfig", {"kasa_config": {}}),
    "miss": ("MissConfig", {}),
    "randlora": ("RandLoraConfig", {}),
    "vera": ("VeraConfig", {}),
    "ia3": ("IA3Config", {}),
    "adaption_prompt": ("AdaptionPromptConfig", {}),
}
QUANTIZED = ("lora", "rslora", "dora", "randlora", "vera", "ia3")  # those that PEFT has on 8-bit and 4-bit layers
OURS = ("r", "target_modules", "trainable_token_indices", "projection_prng_key")  # set by other settings
FIXED = ("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision")
STARTS = ("gaussian", "orthogonal", "pissa", "olora")  # starts of A and B that need no data
PROMPT_TOKENS, PROMPT_LAYERS = 10, 30  # of an adaption prompt. Source: arXiv 2303.16199, section 4.1
IA3_LAYERS, IA3_INPUTS = ("k_proj", "v_proj", "down_proj"), ("down_proj",)  # Source: arXiv 2205.05638, section 3.3


def peft_config(
    adapter: Adapter, model: Any, new_token_ids: Sequence[int], seed: int = 1, todo: str = "take another method"
) -> PeftConfig:
    """PEFT's configuration for an adapter on this model.

    Settings that a method does not have (IA3 has no rank) are not passed.

    Args:
        adapter: the settings.
        model: a transformers model; its type and the names of its layers matter.
        new_token_ids: tokens whose rows of the embedding are trained beside the adapter.
        seed: of what is drawn once and not saved (VeRA, RandLoRA).
        todo: what to do where the method cannot train new tokens.

    Raises:
        UserError: an option that the method does not have, a method that this PEFT or model type does not have, new
            tokens with a method that cannot train their rows.
    """
    from rinsho.bases import need

    need("peft")
    import peft

    name, made = FORMS[adapter.method]
    form: Any = getattr(peft, name, None)
    known = {field.name for field in fields(form) if field.init} if form else set()
    if not made.keys() <= known or not known:
        raise UserError(f"PEFT {peft.__version__} has no {adapter.method}", where="adapter.method",
                        expected="a newer release of peft, or another method")  # fmt: skip
    alpha = int(adapter.alpha) if adapter.alpha == int(adapter.alpha) else adapter.alpha
    values: dict[str, Any] = {"r": adapter.rank, "projection_prng_key": seed}
    values |= dict.fromkeys(("lora_alpha", "randlora_alpha"), alpha)
    values |= dict.fromkeys(("lora_dropout", "miss_dropout", "randlora_dropout", "vera_dropout"), adapter.dropout)
    _check_options(adapter, known, values)
    values |= _places(adapter, model)
    if new_token_ids:
        if "trainable_token_indices" not in known:
            raise UserError(f"base without chat tokens, and {adapter.method} cannot train their rows",
                            where="adapter.method", expected="lora or one of its kin",
                            todo=todo)  # fmt: skip
        values["trainable_token_indices"] = list(new_token_ids)
    values = {key: value for key, value in values.items() if key in known}
    try:
        config: PeftConfig = form(task_type="CAUSAL_LM", **{**values, **made, **adapter.options})
    except (ValueError, TypeError) as error:
        raise UserError(f"PEFT refuses these settings ({str(error)[:200]})", where="adapter",
                        expected=f"what PEFT's {name} takes") from error  # fmt: skip
    return config


def adapt(
    model: Any, adapter: Adapter, new_token_ids: Sequence[int], seed: int, todo: str = "take another method"
) -> PeftModel:
    """The model frozen, with an adapter of float32 to train on it.

    PiSSA, OLoRA and KaSA take part of the base's weights away. `rinsho.adapters.save_adapter` puts back what the first
    two took; opening a KaSA adapter takes the same part away again.

    Raises:
        UserError: as `peft_config`; settings that do not fit the model's layers.
    """
    import torch

    from rinsho.adapters import attach

    config: Any = peft_config(adapter, model, new_token_ids, seed, todo)
    start = getattr(config, "init_lora_weights", True)
    if getattr(model, "is_quantized", False) and (adapter.method not in QUANTIZED or _takes(start)):
        raise UserError(f"{adapter.method} needs the base's weights as they are", where="quantization",
                        expected="none, or one of the methods " + ", ".join(QUANTIZED))  # fmt: skip
    if getattr(config, "use_dora", False) and getattr(model, "is_loaded_in_8bit", False) and model.device.type == "cpu":
        # PEFT copies the layer's weight before every pass, and bitsandbytes loses the scales of the copy.
        raise UserError("dora on an int8 base works on a graphics card only", where="quantization",
                        expected="nf4 or none, or another method")  # fmt: skip
    torch.manual_seed(number_of(f"{seed}:adapter"))
    return attach(model, config)


def penalty(model: Any) -> Any:
    """What a method adds once to the mean loss of a step: KaSA's two penalties (float32 scalar); else None.

    Source: arXiv 2412.06071, equations 9 to 11.
    """
    config = getattr(model, "peft_config", {}).get("default")
    return model.base_model._get_kasa_loss() if getattr(config, "kasa_config", None) is not None else None


def _places(adapter: Adapter, model: Any) -> dict[str, Any]:
    """Which layers get an adapter, in the method's own terms."""
    if adapter.method == "adaption_prompt":
        from peft.tuners.adaption_prompt.config import TRANSFORMERS_MODEL_CONFIG

        if model.config.model_type not in TRANSFORMERS_MODEL_CONFIG:
            raise UserError(f"adaption_prompt does not know models of type {model.config.model_type}",
                            where="adapter.method", expected="one of " + ", ".join(TRANSFORMERS_MODEL_CONFIG),
                            todo="choose another method")  # fmt: skip
        layers = min(PROMPT_LAYERS, model.config.num_hidden_layers)
        return {"adapter_len": PROMPT_TOKENS, "adapter_layers": layers}
    given: Any = adapter.target_modules
    if adapter.method == "ia3":
        names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
        given = [name for name in IA3_LAYERS if name in names] if given == "all-linear" else list(given)
        inputs = [name for name in given if name in IA3_INPUTS]
        return {"target_modules": given, "feedforward_modules": inputs} if given else {}  # else PEFT's own for the type
    return {"target_modules": given if given == "all-linear" else list(given)}


def _check_options(adapter: Adapter, known: set[str], settings: Mapping[str, Any]) -> None:
    possible = known - {*settings, *OURS, *FIXED}
    wrong = sorted(adapter.options.keys() - possible)
    if wrong:
        raise UserError(f"{adapter.method} has no option {', '.join(map(repr, wrong))}", where="adapter.options",
                        expected="of " + ", ".join(sorted(possible)))  # fmt: skip
    start = adapter.options.get("init_lora_weights", True)
    if isinstance(start, str) and not start.lower().startswith(STARTS):
        raise UserError(f"init_lora_weights {start!r} needs data, which an adapter does not get here",
                        where="adapter.options", expected="true, false, " + ", ".join(STARTS))  # fmt: skip
    made = {**FORMS[adapter.method][1], **adapter.options}
    takes = _takes(made.get("init_lora_weights")) or "kasa_config" in made
    together = sorted(key for key in ("use_dora", "lora_bias") if made.get(key)) if takes else []
    if together:
        raise UserError(f"{adapter.method} does not go together with {' and '.join(together)}",
                        where="adapter.options", expected="one of the two")  # fmt: skip


def _takes(start: Any) -> bool:
    """Whether LoRA matrices that start so are taken out of the base's weights."""
    return str(start).lower().startswith(("pissa", "olora"))
