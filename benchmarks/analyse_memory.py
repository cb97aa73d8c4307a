"""Steps of an analysis whose memory is measured, each in a process of its own; for `analyse.py`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluate import measured

PERPLEXITY, NEAR = 15.0, 15
NAMES = {"tsne": "t-SNE", "umap": "UMAP"}
HEADS, HIDDEN, DOCUMENT_TOKENS = 32, 1024, 300
NOISE, OTHER_BYTES = 0.3, 2 << 30  # of a vector's length; weights beside the embedding


def child(name: str, **values: Any) -> Any:
    """What `watch` or `large` gives in a new process, whose memory is then its own."""
    words = [sys.executable, __file__, json.dumps([name, values])]
    return json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)


def warm_up(seed: int) -> Any:
    """Compiles umap-learn's code on some points; with more than 4,096 it goes the way of large ones."""
    from rinsho.analyse import projection

    points = np.random.default_rng(seed).standard_normal((4200, 8), np.float32)
    projection.project("umap", points, projection.neighbours(points, NEAR), PERPLEXITY, NEAR, seed)
    return points


def watch(layers: int, length: int, how: str, seed: int) -> dict[str, Any]:
    """In a process of its own: shares across documents of a random model, and what reading them took."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rinsho.analyse.attention_measure import FORMS, measure
    from rinsho.analyse.attention_rows import Row
    from rinsho.circumstances import peak_memory_gib, reset_peak_memory

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=1024, hidden_size=HIDDEN, intermediate_size=2 * HIDDEN, num_hidden_layers=layers,
        num_attention_heads=HEADS, max_position_embeddings=length, attn_implementation="eager",
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config).eval()
    starts = np.arange(0, length, min(DOCUMENT_TOKENS, length // 3))
    row = Row(np.random.default_rng(seed).integers(3, 1024, length), starts, starts[1:] - 1, ("random",) * len(starts))
    reset_peak_memory()
    before, costs, across = peak_memory_gib(), [], []
    with measured(costs), torch.inference_mode():
        if how == "ours":
            shares = measure(model, [row]).shares
            across = [shares[form][:, :, 0].tolist() for form in FORMS]
        else:
            counted = (row.owner > 0)[:, None] & (row.owner[:, None] > row.owner[None, :])
            wanted = torch.from_numpy(counted.astype(np.float32).ravel())
            for form in FORMS:
                ids, positions = (torch.from_numpy(each)[None] for each in (row.ids, row.positions(form == "bounded")))
                seen = model.model(input_ids=ids, position_ids=positions, use_cache=False, output_attentions=True)
                sums = [(each[0].flatten(1) @ wanted / int((row.owner > 0).sum())).tolist() for each in seen.attentions]
                across.append(sums)
                del seen
    found = {"layers": layers, "how": how, "seconds": costs[0].wall, "across": across}
    return found | {"peak": peak_memory_gib(), "added": peak_memory_gib() - before}


def write_large(folder: Path, model: Path, rows: int, width: int, seed: int) -> None:
    """A model folder whose embedding is the model's, turned into `width` dimensions and repeated with noise."""
    from rinsho.analyse.embeddings import read_matrix
    from rinsho.analyse.projection import unit_rows

    draw = np.random.default_rng(seed)
    own = unit_rows(read_matrix(model))
    turned = own @ draw.standard_normal((own.shape[1], width), np.float32) / np.float32(np.sqrt(width))
    made = turned[np.arange(rows) % len(own)] + NOISE * draw.standard_normal((rows, width), np.float32) / np.sqrt(width)
    numbers = ((made.astype("<f4").view(np.uint32) + 0x8000) >> 16).astype("<u2")
    ends = numbers.nbytes, numbers.nbytes + OTHER_BYTES
    shapes = {"model.embed_tokens": (0, rows), "model.layers.0.mlp.up_proj": (ends[0], OTHER_BYTES // width // 2)}
    header = json.dumps({
        f"{name}.weight": {"dtype": "BF16", "shape": [high, width], "data_offsets": [start, start + 2 * high * width]}
        for name, (start, high) in shapes.items()
    }).encode()  # fmt: skip
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        numbers.tofile(file)
        file.truncate(8 + len(header) + ends[1])  # zeros that take no room on the disk
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": rows}), encoding="utf-8")
    shutil.copy(model / "tokenizer.json", folder)


def large(folder: str, names: Sequence[Any], seed: int) -> dict[str, Any]:
    """In a process of its own: the steps of a map of all rows, with seconds and memory."""
    from rinsho.analyse import projection
    from rinsho.analyse.embeddings import read
    from rinsho.circumstances import peak_memory_gib, reset_peak_memory

    steps: list[dict[str, Any]] = []

    def step(name: str, work: Callable[[], Any]) -> Any:
        reset_peak_memory()
        before, costs = peak_memory_gib(), []
        with measured(costs):
            found = work()
        peak = peak_memory_gib()
        steps.append({"step": name, **costs[0]._asdict(), "peak": peak, "added": peak - before})
        print(f"{name}: {costs[0].wall:.1f} s", file=sys.stderr, flush=True)
        return found

    embeddings = step("reading the embedding", lambda: read(Path(folder)))
    torch = "torch" in sys.modules
    points = projection.unit_rows(embeddings.vectors)
    del embeddings
    count = projection.graph_size(PERPLEXITY, NEAR)
    graph = step(f"{count} neighbours, exact", lambda: projection.neighbours(points, count))
    if "umap" in names:
        step("importing umap-learn and compiling it", lambda: warm_up(seed))
    for name in names:
        plane = step(NAMES[name], lambda n=name: projection.project(n, points, graph, PERPLEXITY, NEAR, seed))
        steps[-1]["kept"] = projection.kept_neighbours(graph.places[:, :NEAR], plane)
    return {"steps": steps, "torch": torch}


if __name__ == "__main__":
    chosen, settings = json.loads(sys.argv[1])
    print(json.dumps({"watch": watch, "large": large}[chosen](**settings)))
