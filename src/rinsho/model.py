"""The report's architecture: sizes and switches in, a model out.

Importing this file loads no torch: recipes nest `ModelSettings`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from rinsho.recipe import Settings

if TYPE_CHECKING:
    from rinsho.modeling import RinshoForCausalLM

# hidden, MLP, layers, heads, key/value heads, positions, tied head. `15m` and `60m` have their size with a
# vocabulary of 16,384, `125m`, `350m` and `ncvc-slm-1` with 32,768.
PRESETS: dict[str, dict[str, Any]] = {
    name: dict(
        zip(
            (
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
                "num_key_value_heads",
                "max_position_embeddings",
                "tie_word_embeddings",
            ),
            sizes,
            strict=True,
        )
    )
    for name, sizes in {
        "tiny": (192, 768, 4, 4, 2, 1024, True),
        "15m": (320, 1280, 8, 5, 5, 1024, True),
        "60m": (640, 2560, 10, 10, 10, 2048, True),
        "125m": (768, 3072, 12, 12, 4, 2048, False),
        "350m": (1024, 4096, 24, 16, 8, 2048, False),
        "ncvc-slm-1": (2048, 8192, 24, 32, 8, 2048, False),
    }.items()
}
PRESETS["ncvc-slm-1"] |= {"attention_dropout": 0.1, "residual_dropout": 0.1}


class ModelSettings(Settings):
    """Sizes and switches of a model; `preset: NAME` (or just the name) fills in what is not given."""

    hidden_size: int = Field(192, ge=8, description="width of the residual stream (N2.3-1)")
    intermediate_size: int = Field(768, ge=8, description="width of the ungated SiLU MLP (N2.3-2)")
    num_hidden_layers: int = Field(4, ge=1, description="attention and MLP blocks (N2.3-1)")
    num_attention_heads: int = Field(4, ge=1, description="query heads (N2.3-1)")
    num_key_value_heads: int = Field(2, ge=1, description="key/value heads of grouped-query attention (N2.3-2)")
    max_position_embeddings: int = Field(1024, ge=8, description="longest sequence in tokens (N2.3-1)")
    rope_theta: float = Field(10_000.0, gt=0, description="base of the rotary positions (N2.3-5)")
    rms_norm_eps: float = Field(1e-5, gt=0, description="epsilon of RMSNorm (N2.3-5)")
    attention_dropout: float = Field(
        0.0, ge=0, lt=1, description="dropout on attention weights; 2.6 to 2.9 times slower on a CPU (N2.3-4)"
    )
    residual_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on both residual branches (N2.3-4)")
    embedding_scale: Literal["sqrt_d", "none"] = Field(
        "sqrt_d", description="token embeddings are multiplied by the root of hidden_size (N2.3-3)"
    )
    tie_word_embeddings: bool = Field(True, description="the output head is the unscaled embedding matrix (N2.3-1)")

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, given: Any) -> Any:
        if isinstance(given, str):
            given = {"preset": given}
        if not isinstance(given, Mapping) or "preset" not in given:
            return given
        name = given["preset"]
        if name not in PRESETS:
            raise ValueError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
        return {**PRESETS[name], **{key: value for key, value in given.items() if key != "preset"}}

    @model_validator(mode="after")
    def _heads_fit(self) -> ModelSettings:
        if self.hidden_size % self.num_attention_heads or self.head_dim % 2:
            raise ValueError("hidden_size must be num_attention_heads times an even head size")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads must be a multiple of num_key_value_heads")
        return self

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def scale(self) -> float:
        """The number token embeddings are multiplied by."""
        return math.sqrt(self.hidden_size) if self.embedding_scale == "sqrt_d" else 1.0


def count_parameters(settings: ModelSettings, vocab_size: int) -> int:
    """Number of parameters, by arithmetic alone (a tied head counts nothing).

    >>> count_parameters(ModelSettings.model_validate("ncvc-slm-1"), 32_768)
    1191282688
    """
    return sum(parameters_by_part(settings, vocab_size).values())


def parameters_by_part(settings: ModelSettings, vocab_size: int) -> dict[str, int]:
    """Number of parameters of embedding, attention, mlp, norms and head."""
    d, layers = settings.hidden_size, settings.num_hidden_layers
    key_value = settings.num_key_value_heads * settings.head_dim
    return {
        "embedding": vocab_size * d,
        "attention": layers * (2 * d * d + 2 * d * key_value),
        "mlp": layers * 2 * d * settings.intermediate_size,
        "norms": (2 * layers + 1) * d,
        "head": 0 if settings.tie_word_embeddings else vocab_size * d,
    }


def build(
    settings: ModelSettings,
    vocab_size: int,
    seed: int,
    *,
    bos_token_id: int | None = None,
    eos_token_id: int | None = None,
    pad_token_id: int | None = None,
    device: str = "cpu",
) -> RinshoForCausalLM:
    """A freshly initialised training model in float32.

    Every matrix is drawn from its own generator (seed and parameter name), so its values depend on neither the other
    matrices nor the number of processes. `device="meta"` gives shapes without values.

    Source: N2.3.
    """
    import torch

    from rinsho.modeling import RinshoForCausalLM, initialise

    config = _config(settings, vocab_size, bos_token_id, eos_token_id, pad_token_id)
    with torch.device(device), no_stock_init():
        model = RinshoForCausalLM(config)
    if device != "meta":
        initialise(model, seed)
    return model


def no_stock_init() -> Any:
    """Keeps transformers from drawing values: they would cost time and move torch's random state."""
    from transformers.initialization import no_init_weights

    return no_init_weights()


def _config(settings: ModelSettings, vocab_size: int, bos: int | None, eos: int | None, pad: int | None) -> Any:
    from rinsho.modeling import RinshoConfig

    return RinshoConfig(
        vocab_size=vocab_size,
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.num_hidden_layers,
        num_attention_heads=settings.num_attention_heads,
        num_key_value_heads=settings.num_key_value_heads,
        head_dim=settings.head_dim,
        max_position_embeddings=settings.max_position_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": settings.rope_theta},
        rms_norm_eps=settings.rms_norm_eps,
        initializer_range=math.sqrt(2 / (5 * settings.hidden_size)),
        hidden_act="silu",
        attention_dropout=settings.attention_dropout,
        residual_dropout=settings.residual_dropout,
        embedding_scale=settings.scale,
        tie_word_embeddings=settings.tie_word_embeddings,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=pad,
        use_cache=False,
    )
