"""GGUF files written as a stream: header and settings first, then one tensor after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rinsho.errors import UserError
from rinsho.export.gguf_tensors import Flavour, head_dim, is_ours, plan, rope_of
from rinsho.export.gguf_tokenizer import Vocabulary
from rinsho.export.gguf_types import FILE_TYPES, Type, form_of, in_form, size_of
from rinsho.export.weights import Weights


@dataclass(frozen=True)
class About:
    """What a file says of itself besides the sizes.

    Attributes:
        name: of the model, for people.
        license: as a model card has it; empty where it is not known.
        vocabulary: of our tokenizer; None for a foreign one, whose ids alone are fed.
        special: `bos`, `eos`, `pad` and `unk` to their ids.
        chat_template: Jinja; None for a base model.
    """

    name: str
    license: str = ""
    vocabulary: Vocabulary | None = None
    special: dict[str, int] = field(default_factory=dict)
    chat_template: str | None = None


def write_gguf(weights: Weights, path: Path, flavour: Flavour, type_: Type, about: About) -> None:
    """Writes one file; what is there is replaced. The same model and settings give the same bytes.

    Args:
        weights: of a rinsho model (Arcee's block with SiLU), or of a Llama in the flavour `llama`.
        path: of the file.
        flavour: see `rinsho.export.gguf_tensors`.
        type_: f16, q8_0 or q4_0.
        about: name, tokenizer and more.

    Raises:
        UserError: a model that cannot have this form.

    Source: neither 4.
    """
    need("gguf")
    refuse(weights, flavour)
    from gguf import GGUFWriter

    tensors = plan(weights, flavour)
    forms = [form_of(row.name, row.shape, type_, row.zero) for row in tensors]
    writer: Any = GGUFWriter(None, flavour)
    _general(writer, about, FILE_TYPES[type_])
    _sizes(writer, weights, flavour)
    _tokenizer(writer, about, weights.config["vocab_size"])
    for row, form in zip(tensors, forms, strict=True):
        writer.add_tensor_info(row.name, row.shape, None, size_of(row.shape, form), form)
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        _tensor_data(writer, tensors, forms)
    finally:
        writer.close()


def refuse(weights: Weights, flavour: Flavour) -> None:
    """Raises the error for a model that has no GGUF form of ours."""
    config, where = weights.config, weights.folder
    kind = str(config.get("model_type"))
    if not is_ours(weights) and kind != "llama":
        raise UserError(
            f"no GGUF form of the architecture {kind} ({config.get('hidden_act')})", where=where,
            expected="a rinsho model (arcee with hidden_act silu) or a Llama",
            todo="export it --to hf and convert that with llama.cpp's own convert_hf_to_gguf.py",
        )  # fmt: skip
    if flavour == "mimo2" and not is_ours(weights):
        raise UserError(
            "a Llama has a gate: there is nothing to save", where=where, expected="a rinsho model for mimo2",
            todo="take the flavour llama",
        )  # fmt: skip
    known = ("default", "linear", "llama3") if flavour == "llama" else ("default",)
    if rope_of(weights)["rope_type"] not in known:
        raise UserError(
            f"rotary embedding of the kind {rope_of(weights)['rope_type']}", where=where,
            expected=" or ".join(known), todo="export it --to hf and convert that with llama.cpp's own script",
        )  # fmt: skip


def need(package: str) -> None:
    """Raises the error for a package that is not installed.

    Raises:
        UserError: it is missing.
    """
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise UserError(
            f"the package {package.replace('_', '-')} is not installed", where="export to gguf",
            expected="the extra gguf", todo="pip install 'rinsho[gguf]'",
        )  # fmt: skip


def _general(writer: Any, about: About, file_type: int) -> None:
    writer.add_type("model")
    writer.add_name(about.name)
    if about.license:
        writer.add_license(about.license)
    writer.add_languages(["ja"])
    writer.add_file_type(file_type)
    writer.add_quantization_version(2)


def _sizes(writer: Any, weights: Weights, flavour: Flavour) -> None:
    """Everything that llama.cpp wants to know of the architecture."""
    config, rope, width = weights.config, rope_of(weights), head_dim(weights)
    layers, context = int(config["num_hidden_layers"]), int(config["max_position_embeddings"])
    writer.add_block_count(layers)
    writer.add_context_length(context)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config.get("num_key_value_heads") or config["num_attention_heads"])
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if rope["rope_type"] == "linear":
        from gguf import RopeScalingType

        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if flavour == "mimo2":
        # Demanded of that architecture, and without effect here: no layer has experts, and the window that slides is
        # as long as the context. One layer at least must slide, or llama.cpp stops.
        writer.add_expert_feed_forward_length(config["intermediate_size"])
        writer.add_sliding_window(context)
        writer.add_sliding_window_pattern([True] + [False] * (layers - 1))
        writer.add_rope_freq_base_swa(float(rope["rope_theta"]))


def _tokenizer(writer: Any, about: About, rows: int) -> None:
    if about.vocabulary is None:
        writer.add_tokenizer_model("no_vocab")
    else:
        writer.add_tokenizer_model("t5")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(about.vocabulary.pieces)
        writer.add_token_scores(about.vocabulary.scores)
        writer.add_token_types(about.vocabulary.kinds)
        writer.add_add_space_prefix(False)
        writer.add_remove_extra_whitespaces(False)
        writer.add_add_bos_token(False)  # the chat template writes it
        writer.add_add_eos_token(False)
    for name, number in about.special.items():
        if number < rows:
            getattr(writer, f"add_{name}_token_id")(number)
    if about.chat_template is not None:
        writer.add_chat_template(about.chat_template)


def _tensor_data(writer: Any, tensors: Sequence[Any], forms: Sequence[Any]) -> None:
    """The numbers, each tensor at its place; `gguf` itself writes whole tensors only."""
    (file,) = writer.fout
    for row, form in zip(tensors, forms, strict=True):
        writer.write_padding(file, file.tell())
        written = 0
        for part in in_form(row.make(), form):
            part.tofile(file)
            written += part.nbytes
        if written != size_of(row.shape, form):
            raise ValueError(f"{row.name} has another shape than announced")
    writer.write_padding(file, file.tell())
