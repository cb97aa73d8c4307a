"""What queries look at, layer by layer: maps and sums of attention weights, one layer's weights at a time.

Shapes: T tokens a row, H heads, L layers. Layers and heads are counted from 1 wherever people read them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rinsho.analyse.attention_rows import Row
from rinsho.errors import UnsuitedError, UserError

FORMS = ("stream", "bounded")  # positions run through; positions restart with every document
MEASURES = ("across", "across_without_first", "others_borders", "row_first", "document_first", "end_marks")
MAP_CELLS = 512  # of a side of a map as it is drawn

Floats = NDArray[np.float64]


class MapKey(NamedTuple):
    """Which map: how the row was read, layer from 1, head from 1 or 0 for the mean of all."""

    form: str
    layer: int
    head: int


@dataclass(frozen=True)
class Measured:
    """What was seen of all rows.

    Attributes:
        shares: of each form (L, H, MEASURES): mean share of a query's attention, over the queries that have another
            document before their own. `others_borders` is the control of `across`: the same sum with the borders of
            the next row, which mean nothing in this one; nan where there is one row.
        even: what `across` would be if every query looked at all tokens up to its own alike.
        queries: how many were counted.
        maps: of the first row, (cells, cells): rows are queries, columns keys; see `thinned`.
    """

    shares: dict[str, Floats]
    even: float
    queries: int
    maps: dict[MapKey, Floats]


def measure(
    model: Any,
    rows: Sequence[Row],
    layers: Sequence[int] | None = None,
    heads: Literal["mean"] | Sequence[int] = "mean",
) -> Measured:
    """Reads every row in both forms and keeps sums and the chosen maps; one layer's weights are held at a time.

    Args:
        model: a causal language model of transformers in evaluation mode.
        rows: what it reads.
        layers: whose maps are kept, from 1; None: the first, middle and last.
        heads: whose maps are kept, from 1; or the mean of all.

    Raises:
        UserError: no such layer or head.
        UnsuitedError: the model's attention cannot be watched.
    """
    import torch

    modules = attention_modules(model)
    config = model.config.get_text_config(decoder=True)
    drawn_layers, drawn_heads = chosen(layers, heads, len(modules), config.num_attention_heads)
    sums = {form: np.zeros((len(modules), config.num_attention_heads, len(MEASURES))) for form in FORMS}
    maps: dict[MapKey, Floats] = {}

    def see(form: str, kinds: Any, first: bool, layer: int, weights: Any) -> None:
        # One product instead of copies of the weights; what the mask shuts out adds exactly 0.
        sums[form][layer] += (kinds.to(weights.device) @ weights.flatten(1).T).T.double().cpu().numpy()
        if first and layer + 1 in drawn_layers:
            for head in drawn_heads:
                drawn = weights[head - 1] if head else weights.mean(0)
                maps[MapKey(form, layer + 1, head)] = thinned(drawn.double().cpu().numpy(), MAP_CELLS)

    for number, row in enumerate(rows):
        kinds = torch.from_numpy(_kinds(row, rows[(number + 1) % len(rows)]))
        for form in FORMS:
            watch(model, row, form == "bounded", partial(see, form, kinds, number == 0))
    counted = [np.flatnonzero(row.owner > 0) for row in rows]
    queries = sum(map(len, counted))
    even = sum(
        float((row.starts[row.owner[places]] / (places + 1)).sum()) for row, places in zip(rows, counted, strict=True)
    )
    shares = {form: total / queries for form, total in sums.items()}
    if len(rows) == 1:
        for each in shares.values():
            each[..., MEASURES.index("others_borders")] = np.nan
    return Measured(shares, even / queries, queries, maps)


def watch(model: Any, row: Row, bounded: bool, see: Callable[[int, Any], None]) -> None:
    """Reads a row and calls `see` with the number of each layer from 0 and its weights (H, T, T), float32.

    Weights are let go of after the call: `output_attentions` would collect those of all layers. Documents are told
    apart as in training: positions that restart, no mask, no cache.
    """
    import torch

    def hook(layer: int) -> Any:
        def seen(_module: Any, _inputs: Any, output: Any) -> Any:
            if not isinstance(output, tuple) or getattr(output[1], "ndim", 0) != 4:
                raise _not_watched("its layers do not give attention weights")
            see(layer, output[1][0].float())
            return (output[0], None, *output[2:])

        return seen

    modules = attention_modules(model)
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the other forms make no weights
    handles = [module.register_forward_hook(hook(layer)) for layer, module in enumerate(modules)]
    try:
        ids, positions = (
            torch.as_tensor(each[None], device=model.device) for each in (row.ids, row.positions(bounded))
        )
        with torch.inference_mode():
            model.get_decoder()(input_ids=ids, position_ids=positions, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
        model.set_attn_implementation(before)


def attention_modules(model: Any) -> list[Any]:
    """The attention of every layer of a Llama-shaped model, in order.

    Raises:
        UnsuitedError: another form of model.
    """
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        raise _not_watched("an adapter with learned prompts, which are no tokens of a document")
    found: dict[Any, list[Any]] = {}
    for module in model.modules():
        if type(module).__name__.endswith("Attention") and hasattr(module, "layer_idx"):
            found.setdefault(module.layer_idx, []).append(module)
    layers = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", 0)
    if not layers or found.keys() != set(range(layers)) or any(len(each) > 1 for each in found.values()):
        raise _not_watched(
            f"a model of type {model.config.model_type} with attention in {len(found)} of {layers} layers"
        )
    return [found[layer][0] for layer in range(layers)]


def chosen(
    layers: Sequence[int] | None, heads: Literal["mean"] | Sequence[int], layer_count: int, head_count: int
) -> tuple[list[int], list[int]]:
    """Layers and heads whose maps are drawn, from 1; head 0 is the mean of all.

    Raises:
        UserError: the model has no such layer or head.

    >>> chosen(None, "mean", 24, 32)
    ([1, 12, 24], [0])
    """
    for name, numbers, most in (("layers", layers, layer_count), ("heads", heads, head_count)):
        for number in numbers if numbers and numbers != "mean" else ():
            if not 1 <= number <= most:
                raise UserError(
                    f"the model has no number {number}", where=f"analyse.attention.{name}", expected=f"1 to {most}"
                )
    wanted = sorted({1, max(1, layer_count // 2), layer_count}) if layers is None else list(dict.fromkeys(layers))
    return wanted, [0] if heads == "mean" else list(dict.fromkeys(heads))


def thinned(weights: Floats, cells: int) -> Floats:
    """A map (T, T) with at most `cells` a side: mean over queries of what goes to a block of keys; rows still sum to 1.

    >>> thinned(np.array([[1.0, 0, 0], [0.5, 0.5, 0], [0.2, 0.3, 0.5]]), 2).tolist()
    [[1.0, 0.0], [0.5, 0.5]]
    """
    places = np.arange(0, len(weights), -(-len(weights) // cells))
    counts = np.diff(np.append(places, len(weights)))
    found: Floats = np.add.reduceat(np.add.reduceat(weights, places, 0), places, 1) / counts[:, None]
    return found


def _kinds(row: Row, other: Row) -> NDArray[np.float32]:
    """(MEASURES, T·T): which weights each measure adds up, for queries that have another document before their own.

    Over all rows the borders of the others have the same places and distances to queries as the real ones: attention
    that only falls with distance crosses both alike.
    """
    size, owner = len(row.ids), row.owner
    key = np.arange(size)[None, :]
    causal, start = key <= key.T, row.starts[owner][:, None]
    across = owner[:, None] != owner[None, :]
    ends = np.zeros(size, bool)
    ends[row.ends] = True
    kinds = (
        across,
        across & (key > 0),
        other.owner[:, None] != other.owner[None, :],
        np.broadcast_to(key == 0, across.shape),
        key == start,
        ends[None, :] & (key < start),
    )
    counted = [causal & (each.owner > 0)[:, None] for each in (row, row, other, row, row, row)]
    wanted = [(kind & some).ravel() for kind, some in zip(kinds, counted, strict=True)]
    return np.stack(wanted).astype(np.float32)


def _not_watched(what: str) -> UnsuitedError:
    return UnsuitedError(
        f"attention maps cannot be made of this model ({what})", where="analyse.attention",
        expected="a Llama-shaped model: softmax attention in every layer (llama, arcee, mistral, qwen, gemma)",
        todo="leave attention out of analyse.parts",
    )  # fmt: skip
