"""The analysis room measured: maps, analogies, attention, and an embedding of the report's size.

    python benchmarks/analyse.py MODEL --words WORDS --text FOLDER --out FOLDER [--part PART] [--long] [--small]

`maps`: seconds of exact neighbours, t-SNE and UMAP, and the share of the 15 nearest neighbours that each map keeps,
beside scikit-learn's and umap-learn's classes called plainly on the same vectors with the same settings; t-SNE with and
without PCA before it; neighbours of one kind. `vectors`: count-based vectors (PPMI and SVD) of the model's own tokens,
made of the text. `analogies`: the built-in list put to the model and to these vectors. `attention`: the model's shares
across documents on rows of the text; memory and seconds of random models of 2 and 6 layers, beside transformers'
output_attentions=True, each in a process of its own. `scale`: an embedding of 32,768 x 2,048 in bfloat16 in a file
that has 2 GiB of other weights: reading, neighbours, UMAP, and with --long t-SNE. Without --part all, in this order.

Wall seconds need an idle machine; the processor's stand beside them. OMP_NUM_THREADS bounds the threads. What a step
adds in memory is its peak (Linux's VmHWM) above what the process held before. The tables go to the terminal and to
OUT/<part>.md, all figures to OUT/<part>.json; no text of a document is among them. --small shows only that it runs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from analyse_memory import HEADS, NAMES, NEAR, PERPLEXITY, child, warm_up, write_large
from analyse_vectors import count_pairs, factored, texts

from evaluate import Cost, measured
from finetune import commit, table

SHUFFLES, COMPONENTS, LAYERS = 999, 50, (2, 6)
Found = tuple[dict[str, Any], list[str]]


class Sizes(NamedTuple):
    """How much is measured."""

    tokens: int | None = None  # on the maps; None: all
    tokens_pca: int = 4000
    text_tokens: int = 20_000_000
    width: int = 200  # of count-based vectors
    length: int = 2048  # of a row
    scale: tuple[int, int] = (32_768, 2048)


SMALL = Sizes(1500, 600, 300_000, 50, 256, (4096, 256))


# ---- maps


def maps(given: argparse.Namespace) -> Found:
    from sklearn.neighbors import NearestNeighbors

    from rinsho.analyse import projection
    from rinsho.analyse.embedding_part import choose
    from rinsho.analyse.embeddings import read
    from rinsho.analyse.token_kinds import kinds_of, read_words, together

    embeddings = read(given.model)
    kinds = kinds_of(embeddings, read_words(given.words))
    chosen = choose(kinds, given.sizes.tokens)
    points = projection.unit_rows(embeddings.vectors[chosen])
    count = projection.graph_size(PERPLEXITY, NEAR)
    costs: list[Cost] = []
    with measured(costs):
        plain("umap", warm_up(given.seed), given.seed)
    with measured(costs):
        graph = projection.neighbours(points, count)
    with measured(costs):
        theirs = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(points).kneighbors(return_distance=False)
    warm, ours, peer = costs
    same = float(np.mean([len({*a} & {*b}) for a, b in zip(graph.places, theirs, strict=True)])) / count
    rows: list[dict[str, Any]] = [{"step": f"{count} neighbours, exact", "ours": ours, "peer": peer, "same": same}]
    for name in ("tsne", "umap"):
        rows.append({"step": f"{NAMES[name]}, neighbours included", **one_map(name, points, graph, ours, given.seed)})
    cells = [
        [row["step"], f"{row['ours'].wall:.1f}", f"{row['peer'].wall:.1f}",
         f"{row['peer'].wall / row['ours'].wall:.2f}×", f"{row['ours'].processor:.1f} / {row['peer'].processor:.1f}",
         *(f"{row[side]:.1%}" if side in row else "-" for side in ("kept", "kept_peer"))]
        for row in rows
    ]  # fmt: skip
    header = ["step", "ours, s", "peer, s", "times as fast", "processor, s", f"ours keeps of {NEAR}", "peer keeps"]
    chance = NEAR / (len(points) - 1)
    lines = [f"{len(points):,} tokens of width {points.shape[1]}; kept by chance: {chance:.2%}.", ""]
    lines += [*table(header, cells), "", f"Of the exact neighbours {same:.2%} are the same ones. Importing umap-learn "]
    lines[-1] += f"and compiling it, counted in no row: {warm.wall:.0f} s."
    pca, more = before_tsne(embeddings.vectors[choose(kinds, given.sizes.tokens_pca)], given.seed)
    near = together(kinds, graph.places[:, :NEAR], chosen, SHUFFLES, given.seed)
    cells = [
        [row["kind"], f"{row['tokens']:,}", f"{row['share']:.3f}", f"{row['chance']:.3f}",
         f"{row['chance_interval'][0]:.3f}-{row['chance_interval'][1]:.3f}", f"{row['p_value']:.3f}"] for row in near
    ]  # fmt: skip
    header = ["kind", "tokens", "neighbours of this kind", "chance", f"95 % of {SHUFFLES} shuffles", "p"]
    steps = [row | {side: row[side]._asdict() for side in ("ours", "peer")} for row in rows]
    found = {"tokens": len(points), "chance": chance, "steps": steps, "compiling": warm.wall, "pca": pca, "kinds": near}
    return found, [*lines, "", *more, "", *table(header, cells)]


def plain(name: str, points: Any, seed: int) -> Any:
    """A map as the library's class makes it, all else by default."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "tsne":
            from sklearn.manifold import TSNE

            return TSNE(perplexity=PERPLEXITY, random_state=seed).fit_transform(points)
        from umap import UMAP

        return UMAP(n_neighbors=NEAR, random_state=seed).fit_transform(points)


def one_map(name: Any, points: Any, graph: Any, before: Cost, seed: int) -> dict[str, Any]:
    """Ours with what its neighbours cost, beside the peer, which finds its own."""
    from rinsho.analyse import projection

    costs: list[Cost] = []
    with measured(costs):
        plane = projection.project(name, points, graph, PERPLEXITY, NEAR, seed)
    with measured(costs):
        theirs = plain(name, points, seed)
    kept = [projection.kept_neighbours(graph.places[:, :NEAR], each) for each in (plane, theirs)]
    ours = Cost(costs[0].wall + before.wall, costs[0].processor + before.processor)
    print(f"{NAMES[name]}: {ours.wall:.1f} s, peer {costs[1].wall:.1f} s", file=sys.stderr, flush=True)
    return {"ours": ours, "peer": costs[1], "kept": kept[0], "kept_peer": kept[1]}


def before_tsne(vectors: Any, seed: int) -> tuple[list[dict[str, Any]], list[str]]:
    """t-SNE of the vectors as they are and of their principal components, judged by neighbours among the vectors."""
    from rinsho.analyse import projection

    points = projection.unit_rows(vectors)
    count = projection.graph_size(PERPLEXITY, NEAR)
    whole = projection.neighbours(points, count)
    centred = points - points.mean(0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1]
    rows: list[dict[str, Any]] = []
    for name, given in (("none", points), (f"PCA, {COMPONENTS}", np.ascontiguousarray(centred @ axes[:, :COMPONENTS]))):
        costs: list[Cost] = []
        with measured(costs):
            graph = projection.neighbours(given, count)
            plane = projection.project("tsne", given, graph, PERPLEXITY, NEAR, seed)
        share = float(np.square(given - given.mean(0)).sum() / np.square(centred).sum())
        kept = [projection.kept_neighbours(whole.places[:, :NEAR], each) for each in (given, plane)]
        row = {"before": name, "variance": share, "kept_before": kept[0], "kept": kept[1]}
        rows.append(row | {"seconds": costs[0].wall})
    cells = [
        [row["before"], f"{row['variance']:.1%}", f"{row['kept_before']:.1%}", f"{row['kept']:.1%}",
         f"{row['seconds']:.1f}"] for row in rows
    ]  # fmt: skip
    header = ["before t-SNE", "variance left", f"of {NEAR} neighbours kept before", "kept on the map", "s"]
    return rows, [f"{len(points):,} tokens:", "", *table(header, cells)]


# ---- analogies


def vectors(given: argparse.Namespace) -> Found:
    """Count-based vectors of the model's tokens, kept in OUT for `analogies`."""
    from rinsho.analyse.embeddings import read
    from rinsho.generate.loading import load_tokenizer

    costs: list[Cost] = []
    size, tokenizer = len(read(given.model)), load_tokenizer(given.model)
    with measured(costs):
        counts, tokens = count_pairs(texts(given.text), tokenizer, size, given.sizes.text_tokens)
    with measured(costs):
        made = factored(counts, given.sizes.width)
    np.save(given.out / "vectors.npy", made)
    seconds = [cost.wall for cost in costs]
    found = {"tokens": tokens, "pairs": int(counts.nnz), "seconds": seconds, "made_of": made_of(given)}
    cells = [[f"{tokens:,}", f"{(made.any(1)).sum():,} of {size:,}", f"{counts.nnz:,}", *(f"{s:.1f}" for s in seconds)]]
    return found, table(["tokens of text", "ids seen", "pairs", "reading, s", "SVD, s"], cells, text_columns=0)


def made_of(given: argparse.Namespace) -> str:
    """What the vectors follow from: a hash of the tokenizer, the text's files and the sizes."""
    from rinsho.document import shard_paths

    files = [(path.name, path.stat().st_size) for path in shard_paths([given.text])]
    about = repr((files, given.sizes.text_tokens, given.sizes.width, (given.model / "tokenizer.json").read_bytes()))
    return hashlib.sha256(about.encode()).hexdigest()


def analogies(given: argparse.Namespace) -> Found:
    from rinsho.analyse.analogy import PERMUTATIONS
    from rinsho.analyse.analogy_scores import evaluate, read_list
    from rinsho.analyse.analogy_space import space
    from rinsho.analyse.embeddings import read
    from rinsho.generate.loading import load_tokenizer

    about = given.out / "vectors.json"
    if not about.is_file() or json.loads(about.read_text(encoding="utf-8"))["made_of"] != made_of(given):
        perform("vectors", given)
    own, tokenizer, found = read(given.model), load_tokenizer(given.model), {}
    for name, each in (("the model's", own), ("count-based", replace(own, vectors=np.load(given.out / "vectors.npy")))):
        costs: list[Cost] = []
        with measured(costs):
            summaries = evaluate(space(each, tokenizer), read_list(), PERMUTATIONS, given.seed)[1]
        found[name] = {"width": each.vectors.shape[1], "seconds": costs[0].wall, "relations": summaries}
    cells = [
        [name, str(row["width"]), f"{(every := row['relations'][0])['answerable']} of {every['rows']}",
         *(interval(every, top) for top in ("top1", "top5")), f"{every['mrr']:.3f}",
         *(" / ".join(percent(every[f"{kind}_{top}"]) for top in ("top1", "top5"))
           for kind in ("alone", "permuted", "chance")), f"{every['p']:.4f}", f"{row['seconds']:.1f}"]
        for name, row in found.items()
    ]  # fmt: skip
    header = ["vectors", "width", "answerable", "top 1 (95 %)", "top 5 (95 %)", "mean 1 / rank",
              "third word alone, 1 / 5", "permuted, 1 / 5", "chance, 1 / 5", "p against it", "s"]  # fmt: skip
    lines = [
        f"{PERMUTATIONS} permuted vocabularies. p: against the third word alone, in mean 1 / rank.",
        "",
        *table(header, cells),
        "",
    ]
    pairs = zip(*(row["relations"] for row in found.values()), strict=True)
    cells = [
        [one["relation"], f"{one['answerable']} of {one['rows']}",
         *(cell for row in (one, other) for cell in (interval(row, "top5"), percent(row["alone_top5"])))]
        for one, other in pairs
    ]  # fmt: skip
    header = ["relation", "answerable", "the model's, top 5", "third word alone", "count-based, top 5", "alone"]
    return found, [*lines, *table(header, cells)]


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}" if not 0 < share < 0.001 else f"{share:.3%}"


def interval(row: dict[str, Any], top: str) -> str:
    low_high = row[f"interval_{top}"]
    return percent(row[top]) + (f" ({percent(low_high[0])}-{percent(low_high[1])})" if low_high else "")


# ---- attention


def attention(given: argparse.Namespace) -> Found:
    from rinsho.analyse.attention import AttentionSettings, packed_rows, trained_with_bounds
    from rinsho.analyse.attention_measure import FORMS, MEASURES, measure
    from rinsho.generate.loading import load_model

    settings = AttentionSettings.model_validate({})
    model, costs = load_model(given.model, "float32"), []
    rows = packed_rows(given.model, [given.text], settings, given.seed, model.config.max_position_embeddings)
    with measured(costs):
        seen = measure(model, rows)
    places = [MEASURES.index(name) for name in ("others_borders", "across_without_first", "row_first")]
    cells = [
        [str(layer + 1), form, f"{heads[:, 0].mean():.4g}", f"{heads[:, 0].min():.4g}", f"{heads[:, 0].max():.4g}",
         *(f"{value:.4g}" for value in heads[:, places].mean(0))]
        for form in FORMS for layer, heads in enumerate(seen.shares[form])
    ]  # fmt: skip
    header = ["layer", "read as", "across documents", "lowest head", "highest head", "control: another row's borders",
              "across, without the first token", "the row's first token"]  # fmt: skip
    bounds = {None: "not said", True: "yes", False: "no"}[trained_with_bounds(given.model)]
    told = f"{len(rows)} rows of {len(rows[0].ids)} tokens, {sum(len(row.starts) for row in rows)} documents, "
    told += f"{costs[0].wall:.1f} s (processor {costs[0].processor:.1f}). Even attention would give {seen.even:.4f}. "
    lines = [f"{told}Trained with bounds: {bounds}.", "", *table(header, cells, text_columns=2), ""]
    runs = [
        child("watch", layers=layers, length=given.sizes.length, how=how, seed=given.seed)
        for layers in LAYERS for how in ("ours", "transformers")
    ]  # fmt: skip
    cells = [
        [str(ours["layers"]), *(f"{row[value]:.2f}" for value in ("added", "peak") for row in (ours, peer)),
         f"{peer['added'] / ours['added']:.2f}×", f"{ours['seconds']:.1f}", f"{peer['seconds']:.1f}",
         f"{np.abs(np.subtract(ours['across'], peer['across'])).max():.1e}"]
        for ours, peer in zip(runs[::2], runs[1::2], strict=True)
    ]  # fmt: skip
    header = ["layers", "ours adds, GiB", "transformers adds", "our process' peak", "transformers'", "times less",
              "ours, s", "transformers, s", "largest difference of a share"]  # fmt: skip
    shares = {"even": seen.even, **{form: each.tolist() for form, each in seen.shares.items()}, "measures": MEASURES}
    lines += [f"{HEADS} heads, {given.sizes.length} tokens, random weights, one row read in both forms:", ""]
    return {"shares": shares, "memory": runs}, [*lines, *table(header, cells, text_columns=0)]


# ---- scale


def scale(given: argparse.Namespace) -> Found:
    rows, width = given.sizes.scale
    with tempfile.TemporaryDirectory(dir=given.out) as folder:
        write_large(Path(folder), given.model, rows, width, given.seed)
        steps = child("large", folder=folder, names=["umap", "tsne"] if given.long else ["umap"], seed=given.seed)
    cells = [
        [row["step"], f"{row['wall']:.1f}", f"{row['processor']:.1f}", f"{row['added']:.2f}", f"{row['peak']:.2f}",
         f"{row['kept']:.1%}" if "kept" in row else "-"] for row in steps["steps"]
    ]  # fmt: skip
    header = ["step", "s", "processor, s", "adds, GiB", "peak of the process", f"of {NEAR} neighbours kept"]
    told = (
        f"{rows:,} x {width:,} in bfloat16, {rows * width * 2 / 2**30:.3f} GiB, twice that as float32; just written. "
    )
    told += f"torch loaded for reading: {'yes' if steps['torch'] else 'no'}."
    return steps, [told, "", *table(header, cells)]


# ---- command line


PARTS: dict[str, Callable[[argparse.Namespace], Found]] = {
    "maps": maps, "vectors": vectors, "analogies": analogies, "attention": attention, "scale": scale,
}  # fmt: skip


def perform(name: str, given: argparse.Namespace) -> None:
    """Makes a part, prints and keeps it."""
    costs: list[Cost] = []
    with measured(costs):
        found, lines = PARTS[name](given)
    text = "\n".join([f"## {name}", "", *lines, "", f"The whole part: {costs[0].wall:.0f} s.", ""])
    (given.out / f"{name}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (given.out / f"{name}.md").write_text(f"{given.about}\n\n{text}", encoding="utf-8")
    print(text, flush=True)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--words", type=Path, nargs="+", required=True, help="word lists that give tokens their kinds")
    parser.add_argument("--text", type=Path, required=True, help="a folder of documents")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", choices=PARTS, help="one alone (all)")
    parser.add_argument("--long", action="store_true", help="scale: t-SNE as well, many minutes")
    parser.add_argument("--small", action="store_true", help="everything small, to see that it runs")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    given.sizes = SMALL if given.small else Sizes()
    given.out.mkdir(parents=True, exist_ok=True)
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("scikit-learn", "umap-learn", "torch"))
    threads = f"{os.cpu_count()} cores, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}"
    given.about = f"Commit {commit()}, Python {platform.python_version()}, {packages}, {platform.machine()}, {threads}."
    print(given.about + "\n")
    for name in [given.part] if given.part else PARTS:
        perform(name, given)


if __name__ == "__main__":
    main()
