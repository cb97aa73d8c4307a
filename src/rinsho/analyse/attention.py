"""Attention over packed rows: maps at chosen layers, and how much of it crosses documents in every layer.

The report's Figures 8 to 10 show one packed sequence without document bounds. Here the same tokens are read without
and with bounds (positions that restart), and one figure over all layers tells what the maps only hint at.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from rinsho.analyse.attention_measure import MEASURES, Floats, Measured, chosen, measure, thinned
from rinsho.analyse.attention_rows import Row, corpus_documents, encoded, invented_documents, rows_of
from rinsho.analyse.inputs import config_of
from rinsho.analyse.part import Part
from rinsho.errors import UnsuitedError
from rinsho.files import write_atomic
from rinsho.recipe import Settings, read_yaml

DRAWN_FROM = 4_000  # documents that are looked through for short ones
CSV_CELLS = 64  # of a side of a map in the CSV
SHARES, MAPS = "attention_shares.csv", "attention_maps.csv"
Number = Annotated[int, Field(ge=1)]  # of a layer or head


class AttentionSettings(Settings):
    """What of the attention is looked at."""

    layers: tuple[Number, ...] | None = Field(
        None, description="Layers whose maps are drawn, from 1; none: the first, middle and last (NA-3)."
    )
    heads: Literal["mean"] | tuple[Number, ...] = Field(
        "mean", description="Heads whose maps are drawn, from 1; mean: all of a layer together (NA-3)."
    )
    sequence_length: int = Field(
        512, ge=16, le=8192, description="Tokens of a row; at most what the model has positions for (NA-3)."
    )
    documents: int = Field(
        3,
        ge=2,
        description="Documents that stand in a row at least: those that fit so are taken, else cut ones (NA-3).",
    )
    rows: int = Field(8, ge=1, le=1000, description="Rows that the shares are means of; the first is drawn (NA-3).")
    scale: Literal["log", "linear"] = Field("log", description="Colours of the maps by the logarithm of a share.")


def check(model: Path, settings: AttentionSettings) -> None:
    """Refuses layers and heads that a model does not have, as far as its config.json tells.

    Raises:
        UserError: there is no such layer or head.
    """
    layers, heads, _ = _sizes(config_of(model))
    if layers and heads:
        chosen(settings.layers, settings.heads, layers, heads)


def weights_bytes(model: Path, sequence_length: int) -> int:
    """What watching takes beside the model: two layers' attention weights in float32, and the masks of the measures."""
    _, heads, positions = _sizes(config_of(model))
    tokens = min(sequence_length, positions or sequence_length)
    return 4 * tokens**2 * (2 * (heads or 1) + len(MEASURES))


def _sizes(config: Mapping[str, Any]) -> list[int | None]:
    """Layers, heads and positions by a configuration; None for what it does not tell."""

    def first(*names: str) -> int | None:
        return next((value for name in names if isinstance(value := config.get(name), int)), None)

    return [
        first("num_hidden_layers", "n_layer"), first("num_attention_heads", "n_head"),
        first("max_position_embeddings", "n_positions"),
    ]  # fmt: skip


def attention(model: Path, documents: Sequence[Path], folder: Path, settings: AttentionSettings, seed: int) -> Part:
    """The chapter on attention: figures and CSV in `folder`, numbers and a fragment of the report.

    Args:
        model: folder of a causal language model or an adapter.
        documents: corpora; none: invented documents.
        folder: where files are written; made if it is not there.
        settings: of this part.
        seed: draws the documents.

    Raises:
        UserError: no such layer or head, too few documents, or not enough memory.
        UnsuitedError: no end mark, or a model whose attention cannot be watched.

    Source: NA-3.
    """
    from rinsho import memory
    from rinsho.generate.loading import load_model

    length = settings.sequence_length
    memory.settle(
        model, "float32", window=length, more_bytes=weights_bytes(model, length),
        todo="a smaller analyse.attention.sequence_length, or a machine with more memory",
    )  # fmt: skip
    network: Any = load_model(model, "float32")
    rows = packed_rows(model, documents, settings, seed, _positions(network))
    measured = measure(network, rows, settings.layers, settings.heads)
    folder.mkdir(parents=True, exist_ok=True)
    return _part(measured, rows, folder, settings, trained_with_bounds(model), bool(documents))


def packed_rows(
    model: Path, corpora: Sequence[Path], settings: AttentionSettings, seed: int, positions: int
) -> list[Row]:
    """The rows of tokens that are looked at, of corpora or else invented documents.

    Raises:
        UserError: there are too few documents.
        UnsuitedError: the tokenizer has no end mark.
    """
    from rinsho.generate.loading import load_tokenizer

    tokenizer = load_tokenizer(model)
    if tokenizer.eos_token_id is None:
        raise UnsuitedError("the tokenizer has no end-of-text token", where=model, expected="eos_token in its settings")
    texts = islice(corpus_documents(corpora, seed) if corpora else invented_documents(seed), DRAWN_FROM)
    marks = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    size = min(settings.sequence_length, positions)
    room = max(1, size // settings.documents - 2)  # tokens of a document beside its marks
    return rows_of(encoded(texts, tokenizer, room), size, settings.rows, marks)


def trained_with_bounds(model: Path) -> bool | None:
    """Whether the folder's own pre-training kept documents apart; None where it does not say."""
    try:
        recipe = read_yaml((model / "recipe.resolved.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = recipe.get("document_bounds") if isinstance(recipe, Mapping) else None
    return found if isinstance(found, bool) else None


def _positions(model: Any) -> int:
    config = model.config.get_text_config(decoder=True)
    found = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return int(found) if found else 8192


# ---------------------------------------------------------------------- the chapter


def _part(  # noqa: PLR0917
    measured: Measured,
    rows: Sequence[Row],
    folder: Path,
    settings: AttentionSettings,
    bounds: bool | None,
    corpus: bool,
) -> Part:
    """Writes the files and gives the chapter."""
    numbers = _numbers(measured, rows, settings, bounds, corpus)
    write_atomic(folder / SHARES, _shares_csv(measured))
    write_atomic(folder / MAPS, _maps_csv(measured, len(rows[0].ids)))
    files, shares, maps, note = [SHARES, MAPS], "", [], ""
    try:
        from rinsho.analyse import attention_figure

        shares, names = attention_figure.draw_shares(measured, folder)
        files += names
        for layer in sorted({key.layer for key in measured.maps}):
            drawn, names = attention_figure.draw_map(measured, layer, rows[0], settings.scale, folder)
            maps.append(drawn)
            files += names
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        note = "No figures: matplotlib is not installed (pip install 'rinsho[report]')."
    html = _html(numbers=numbers, shares=shares, maps=maps, note=note, scale=settings.scale)
    return Part("attention", "Attention over packed documents", html, numbers, _markdown(numbers, note), tuple(files))


def _numbers(
    measured: Measured, rows: Sequence[Row], settings: AttentionSettings, bounds: bool | None, corpus: bool
) -> dict[str, Any]:
    first = rows[0]
    ends = [*first.ends.tolist(), None][: len(first.starts)]
    layers = [
        {"layer": layer + 1} | {form: _of_layer(shares[layer]) for form, shares in measured.shares.items()}
        for layer in range(len(measured.shares["stream"]))
    ]
    return {
        "sequence_length": len(first.ids),
        "rows": len(rows),
        "documents": sum(len(row.starts) for row in rows),
        "documents_in_a_row": settings.documents,
        "from_corpus": corpus,
        "queries": measured.queries,
        "trained_with_bounds": bounds,
        "even": measured.even,
        "across_without_bounds": _spread(measured.shares["stream"][:, :, 0]),
        "across_with_bounds_highest": float(measured.shares["bounded"][:, :, 0].max()),
        "layers": layers,
        "drawn": [
            {"number": number, "start": int(start), "end": end}
            for number, (start, end) in enumerate(zip(first.starts, ends, strict=True), 1)
        ],
    }


def _of_layer(shares: Floats) -> dict[str, dict[str, float | None]]:
    return {name: _spread(shares[:, place]) for place, name in enumerate(MEASURES)}


def _spread(values: Floats) -> dict[str, float | None]:
    found = {"mean": values.mean(), "lowest": values.min(), "highest": values.max()}
    return {name: None if np.isnan(value) else float(value) for name, value in found.items()}


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _shares_csv(measured: Measured) -> str:
    """Numbers behind the figure over all layers: a line for each form, layer and head, and the mean of the heads."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["layer", "form", "head", *MEASURES, "even"])
    for form, shares in measured.shares.items():
        for layer, heads in enumerate(shares, 1):
            for head, values in [("mean", heads.mean(0)), *enumerate(heads, 1)]:
                writer.writerow(
                    [
                        layer,
                        form,
                        head,
                        *("" if np.isnan(value) else f"{value:.6g}" for value in values),
                        f"{measured.even:.6g}",
                    ]
                )
    return file.getvalue()


def _maps_csv(measured: Measured, size: int) -> str:
    """The maps with at most CSV_CELLS a side: share of attention from a block of queries to a block of keys."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["layer", "head", "form", "query_start", "key_start", "share"])
    for key, values in sorted(measured.maps.items(), key=lambda item: item[0][1:] + item[0][:1]):
        step = -(-size // len(values)) * -(-len(values) // CSV_CELLS)  # tokens of a cell
        thin = thinned(values, CSV_CELLS)
        for query, key_place in zip(*np.nonzero(np.tril(np.ones_like(thin))), strict=True):
            share = f"{thin[query, key_place]:.4g}"
            writer.writerow([key.layer, key.head or "mean", key.form, query * step, key_place * step, share])
    return file.getvalue()


def _html(**values: Any) -> str:
    from importlib import resources

    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = resources.files("rinsho.analyse").joinpath("attention.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(**values)


def _markdown(numbers: Mapping[str, Any], note: str) -> str:
    lines = [
        "| layer | across documents, no bounds | lowest to highest head | borders of another row | row's first token "
        "| across, with bounds |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for line in numbers["layers"]:
        stream, bounded = line["stream"], line["bounded"]["across"]
        across = stream["across"]
        lines.append(
            f"| {line['layer']} | {across['mean']:.3f} | {across['lowest']:.3f} to {across['highest']:.3f} "
            f"| {_shown(stream['others_borders']['mean'])} | {stream['row_first']['mean']:.3f} "
            f"| {bounded['highest'] and format(bounded['mean'], '.3g')} |"
        )
    lines += ["", f"Even attention would give {numbers['even']:.3f}.", *([note] if note else [])]
    return "\n".join(lines) + "\n"
