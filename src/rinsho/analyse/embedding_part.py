"""The chapter of the token embeddings: maps, pictures, tables, and how far tokens of one kind lie together."""

from __future__ import annotations

import base64
import importlib.util
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rinsho.analyse import map_figure, projection
from rinsho.analyse.embeddings import Embeddings, EmbeddingSettings
from rinsho.analyse.map_figure import Map
from rinsho.analyse.page import fragment
from rinsho.analyse.part import Part, write_csv
from rinsho.analyse.token_kinds import OTHER, Kinds, asked, kinds_of, read_words, together
from rinsho.errors import UnsuitedError
from rinsho.fonts import HOW, japanese_font
from rinsho.progress import Progress, duration

TITLE = "Map of the token embedding"
TABLE = "neighbours.csv"
COLUMNS = ("kind", "tokens", "share", "chance", "chance_low", "chance_high", "p_value")
FEWEST = 20  # tokens that make a map
ASKED = 32_768  # tokens whose neighbours among all are looked up; of 150,000 x 4,096 about 15 min of one core


@dataclass(frozen=True)
class _Near:
    """Who is near whom.

    Attributes:
        all: how many tokens there are.
        graph: neighbours of the drawn tokens among themselves.
        drawn: places of the drawn tokens among all.
        asked: places of the tokens that were asked for their neighbours among all; it does not depend on the drawn.
        places: (asked, count) these neighbours.
    """

    all: int
    graph: projection.Graph
    drawn: NDArray[np.int64]
    asked: NDArray[np.int64]
    places: NDArray[np.int32]

    def kept(self, plane: NDArray[np.float32]) -> float:
        """The share of these neighbours that are neighbours on the plane of the drawn tokens; of drawn ones alone."""
        on_plane = np.full(self.all, -1)
        on_plane[self.drawn] = np.arange(len(self.drawn))
        of = on_plane[self.asked]
        return projection.kept_neighbours(on_plane[self.places[of >= 0]], plane, of[of >= 0])


def make(  # noqa: PLR0917
    name: str, embeddings: Embeddings, words: Sequence[Path], folder: Path, settings: EmbeddingSettings, seed: int
) -> Part:
    """The chapter of these embeddings, see `rinsho.analyse.embeddings.embeddings`."""
    notes = [
        f"No {projection.TITLES[one]}: not installed ({how})"
        for one in dict.fromkeys(settings.projections)
        if (how := projection.missing(one)) is not None
    ]
    kinds = kinds_of(embeddings, read_words(words))
    if not words:
        notes.append("No word list was given: terms have no kinds of their own")
    chosen = choose(kinds, settings.max_tokens)
    tokens = np.flatnonzero(kinds.of >= 0)
    if len(chosen) < len(tokens):
        notes.append(
            f"{len(chosen):,} of {len(tokens):,} tokens are on the maps (max_tokens): marked kinds first, then by id"
        )
    if len(chosen) < FEWEST:
        raise UnsuitedError(f"{len(chosen)} tokens", where=name, expected=f"a vocabulary of {FEWEST} or more")
    points = embeddings.vectors[tokens]
    points = projection.unit_rows(points) if settings.metric == "cosine" else points
    near = _near(points, np.searchsorted(tokens, chosen), asked(kinds.of[tokens], ASKED, seed), settings)
    if len(near.asked) < len(tokens):
        notes.append(
            f"Neighbours of {len(near.asked):,} of {len(tokens):,} tokens were looked up among all: "
            "small kinds whole, of large ones a drawn part"
        )
    rows = together(kinds, near.places, tokens, settings.permutations, seed, near.asked)
    points = points if len(chosen) == len(points) else points[near.drawn]
    shown = [embeddings.tokens[id_] for id_ in chosen]
    central = most_central(points, kinds.of[chosen], near.graph.places[:, : settings.neighbors])
    base = Map("", "", name, chosen, shown, kinds, points, central)
    maps, files = [], [write_rows(rows, folder)]
    for one in dict.fromkeys(settings.projections):
        if projection.missing(one) is None:
            made, names, told = _one_map(one, base, points, near, settings, seed, folder)
            maps.append(made)
            files += names
            notes += [told] if told and told not in notes else []
    numbers = {
        "source": settings.source, "metric": settings.metric, "tokens": len(tokens), "asked": len(near.asked),
        "drawn": len(chosen), "width": int(points.shape[1]), "perplexity": settings.perplexity,
        "neighbors": int(near.places.shape[1]),
        "permutations": settings.permutations, "kinds": kinds.counts(), "together": rows, "maps": maps,
        "notes": notes, "chance_kept": near.places.shape[1] / (len(tokens) - 1),
    }  # fmt: skip
    html = fragment("embeddings.html.j2", numbers=numbers, images={m["name"]: _inline(folder, m) for m in maps})
    return Part("embeddings", TITLE, html, numbers, markdown(numbers), tuple(files))


def _near(
    points: NDArray[np.float32], drawn: NDArray[np.int64], ask: NDArray[np.int64], settings: EmbeddingSettings
) -> _Near:
    """The neighbours among all points (`ask`) and among the drawn ones; found once where these are all."""
    size = projection.graph_size(settings.perplexity, settings.neighbors)
    whole = len(drawn) == len(points)
    with Progress("neighbours of tokens", len(drawn) + (not whole) * len(ask), "tokens") as progress:
        graph = projection.neighbours(points if whole else points[drawn], size, progress.update)
        if whole:
            return _Near(len(points), graph, drawn, ask, graph.places[ask, : settings.neighbors])
        places = projection.neighbours(points, settings.neighbors, progress.update, ask).places
    return _Near(len(points), graph, drawn, ask, places)


def _one_map(  # noqa: PLR0917
    one: projection.Name, base: Map, points: NDArray[np.float32], near: _Near,
    settings: EmbeddingSettings, seed: int, folder: Path,
) -> tuple[dict[str, Any], list[str], str]:  # fmt: skip
    """A projection as page, pictures and table: its numbers, the files' names, and what is to be told."""
    title = projection.TITLES[one]
    about, begun = projection.expected_seconds(one, len(points)), time.monotonic()
    print(f"{title} of {len(points):,} tokens: takes about {duration(about)} on one core", file=sys.stderr, flush=True)
    plane = projection.project(one, points, near.graph, settings.perplexity, settings.neighbors, seed)
    print(f"{title}: made in {duration(time.monotonic() - begun)}", file=sys.stderr, flush=True)
    found = replace(base, name=f"map_{one}", title=title, plane=plane)
    pictures, told = _pictures(found, folder)
    kept = near.kept(plane)
    files = [map_figure.write_page(found, folder), *pictures, map_figure.write_table(found, folder)]
    return {"name": found.name, "title": title, "kept_neighbours": kept, "pictures": pictures}, files, told


def choose(kinds: Kinds, max_tokens: int | None) -> NDArray[np.int64]:
    """The ids that are drawn, ascending: tokens of marked kinds first, then the others by id.

    A lower id stands for a more frequent piece: Unigram vocabularies are sorted by that, BPE merges come in that order.
    """
    marked = np.flatnonzero((kinds.of >= 0) & (kinds.of != _place(kinds, OTHER)))
    others = np.flatnonzero(kinds.of == _place(kinds, OTHER))
    return np.sort(np.concatenate([marked, others])[:max_tokens])


def _place(kinds: Kinds, name: str) -> int:
    return kinds.names.index(name) if name in kinds.names else len(kinds.names)


def most_central(points: NDArray[np.float32], labels: NDArray[np.int16], near: NDArray[np.int32]) -> NDArray[np.int64]:
    """Places of the points: by the share of neighbours of their own kind, then by cosine to the mean of their kind."""
    same = (labels[near] == labels[:, None]).mean(1)
    cosine = np.zeros(len(points))
    for kind in np.unique(labels):
        own = points[labels == kind]
        mean = own.mean(0)
        lengths = np.linalg.norm(own, axis=1) * max(float(np.linalg.norm(mean)), 1e-12)
        cosine[labels == kind] = own @ mean / np.maximum(lengths, 1e-12)
    return np.lexsort((np.arange(len(points)), -np.round(cosine, 5), -same))


def write_rows(rows: Sequence[dict[str, Any]], folder: Path) -> str:
    """Writes the table of kinds; returns the file's name."""
    numbers = [(row["share"], row["chance"], *row["chance_interval"], row["p_value"]) for row in rows]
    cells = [
        [row["kind"], row["tokens"], *(f"{number:.6f}" for number in each)]
        for row, each in zip(rows, numbers, strict=True)
    ]
    return write_csv(folder / TABLE, COLUMNS, cells)


def _pictures(shown: Map, folder: Path) -> tuple[list[str], str]:
    """Files of the picture, and what is to be told of it."""
    if importlib.util.find_spec("matplotlib") is None:
        return [], "No pictures: matplotlib is not installed (pip install 'rinsho[report]')"
    files = map_figure.write_picture(shown, folder)
    if japanese_font() is None and map_figure.needs_japanese(shown.tokens):
        return files, f"Pictures without Japanese labels: no font of this machine has them ({HOW})"
    return files, ""


def _inline(folder: Path, made: dict[str, Any]) -> str:
    """The picture as an address that the page holds itself; empty without one."""
    path = folder / f"{made['name']}.png"
    if path.name not in made["pictures"]:
        return ""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def markdown(numbers: dict[str, Any]) -> str:
    """The chapter for report.md and the terminal."""
    count = numbers["neighbors"]
    lines = [
        f"{numbers['tokens']:,} tokens of width {numbers['width']:,} ({numbers['source']} embedding). "
        f"Of a token's {count} nearest neighbours among all ({numbers['metric']}), those of its own kind:",
        "",
        "| kind | tokens | share | by chance | 95 % of shuffles | p |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in numbers["together"]:
        low, high = row["chance_interval"]
        lines.append(
            f"| {row['kind']} | {row['tokens']:,} | {row['share']:.3f} | {row['chance']:.3f} | "
            f"{low:.3f}-{high:.3f} | {row['p_value']:.3f} |"
        )
    lines.append("")
    lines += [
        f"- {found['title']} keeps {found['kept_neighbours']:.1%} of the {count} nearest neighbours "
        f"(chance {numbers['chance_kept']:.2%}): {found['name']}.html"
        for found in numbers["maps"]
    ]
    lines += [f"- {note}." for note in numbers["notes"]]
    return "\n".join(lines) + "\n"
