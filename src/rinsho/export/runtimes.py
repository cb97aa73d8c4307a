"""Which runtime may open which form of an export, and which must not.

What was run here is called checked; the rest is read from sources and manuals of the runtimes and called so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

SAFE, LIKELY, UNSAFE = "safe", "by its source, not run here", "**not safe**"


class Runtime(NamedTuple):
    """A line of the table."""

    name: str
    verdict: str
    why: str


SQUARED_RELU = "`arcee` is squared ReLU there, SiLU here"
IDS = "with ids from rinsho's tokenizer"
INT8 = Runtime(
    "transformers with bitsandbytes (LLM.int8, NF4)", "works, other numbers",
    "the weights are rounded again and no check here covers it; evaluate that form itself before use",
)  # fmt: skip


def table(export: Mapping[str, Any], ours: bool, our_tokenizer: bool, ternary: bool = False) -> list[Runtime]:
    """The lines for an export, safe ones first.

    Args:
        export: what was exported (`rinsho.export.card`).
        ours: the model has rinsho's block.
        our_tokenizer: it has rinsho's tokenizer.
        ternary: files of fewer bits than 16 hold their zero matrices as TQ2_0.
    """
    to = export["to"]
    if to == "gguf":
        return _gguf(export, ours, our_tokenizer, ternary)
    checked = "checked when it was exported" + (f"; {IDS}" if our_tokenizer else "")
    rows = [Runtime("transformers 5, rinsho serve", SAFE, checked)]
    if to == "llama":
        return rows + (_llama() if ours else _stock()) + [INT8]
    return rows + (_arcee() if ours else _stock()) + [INT8]


def _arcee() -> list[Runtime]:
    return [
        Runtime(
            "vLLM or SGLang with `--model-impl transformers`", LIKELY,
            f"without that option their own Arcee classes refuse the model: {SQUARED_RELU}",
        ),
        Runtime(
            "llama.cpp's convert_hf_to_gguf.py, Ollama or LM Studio on this folder", UNSAFE,
            f"they convert it without a word and answer garbage: {SQUARED_RELU}; take `rinsho export --to gguf`",
        ),
        Runtime(
            "any other runtime with an `arcee` class of its own", UNSAFE,
            f"unless its logits were compared with transformers': {SQUARED_RELU} in the known ones",
        ),
    ]  # fmt: skip


def _llama() -> list[Runtime]:
    return [
        Runtime("vLLM", LIKELY, "its Llama reads `mlp_bias`"),
        Runtime(
            "llama.cpp's convert_hf_to_gguf.py", "weights right",
            "but not the tokenizer: `rinsho export --to gguf` writes both and compares them",
        ),
        Runtime(
            "SGLang's Llama", UNSAFE,
            "it leaves out the biases without a word; every MLP then gives zero. Take the form `hf` with"
            " `--model-impl transformers`",
        ),
        Runtime(
            "a runtime or converter that ignores `mlp_bias`", UNSAFE,
            "the up projection is zero and its bias one: without the bias every MLP gives zero",
        ),
        Runtime("fine-tuning in this form", UNSAFE, "it trains the zero matrices too; tune the form `hf` with rinsho"),
    ]  # fmt: skip


def _stock() -> list[Runtime]:
    return [Runtime("others that know this architecture", "not run here", "compare logits before use")]


def _gguf(export: Mapping[str, Any], ours: bool, our_tokenizer: bool, ternary: bool) -> list[Runtime]:
    mimo2, exact = export.get("flavour") == "mimo2", bool(export.get("exact_inside"))
    rows = [Runtime("rinsho serve, rinsho chat", SAFE, f"checked when it was exported; {IDS}")]
    rows.append(Runtime("llama-cpp-python, llama.cpp's C interface", SAFE, f"checked when it was exported; {IDS}"))
    old = "only versions that know `mimo2` and take it without a gate; older ones refuse the file" if mimo2 else ""
    if our_tokenizer and exact:
        why = "the tokenizer inside gave rinsho's ids for all probe texts, once cleaned as rinsho cleans"
        rows.append(Runtime("llama-server, llama-cli", SAFE, "; ".join(filter(None, [why, old]))))
    else:
        why = "they read texts with the tokenizer inside the file: other ids (see Tokenizer), worse answers, no error"
        rows.append(
            Runtime("llama-server, llama-cli, LM Studio with texts", UNSAFE, "; ".join(filter(None, [why, old])))
        )
    rows.append(_ollama(mimo2, exact and bool(export.get("chat")), ternary))
    if ternary:
        why = "the zero matrices are TQ2_0, for which not every graphics backend has kernels; f16 files have none"
        rows.append(Runtime("llama.cpp on a graphics card", "not run here", why))
    rows.append(Runtime(
        "a GGUF file of this model whose `general.architecture` is `arcee`", UNSAFE,
        f"made elsewhere: {SQUARED_RELU}. This one says `{export.get('flavour', 'llama')}`",
    ) if ours else Runtime("quantising a quantised file again", UNSAFE, "export that type instead"))  # fmt: skip
    return rows


def _ollama(mimo2: bool, exact: bool, ternary: bool) -> Runtime:
    if mimo2:
        return Runtime("Ollama", UNSAFE, "it may not know `mimo2`; export the flavour `llama`")
    if exact:
        why = "its list of types has no TQ2_0: if it refuses a file, take the one in f16" if ternary else ""
        return Runtime("Ollama", "not run here", "; ".join(filter(None, ["through the Modelfile", why])))
    return Runtime("Ollama", UNSAFE, "it can only read texts with the tokenizer inside; go through `rinsho serve`")
