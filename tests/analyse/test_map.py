"""The chapter of the embeddings: pages, pictures and tables of a small model."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rinsho.analyse import embedding_part, map_figure, projection
from rinsho.analyse.embedding_part import choose, make, most_central
from rinsho.analyse.embeddings import Embeddings, EmbeddingSettings, embeddings
from rinsho.analyse.map_figure import Map, write_page, write_picture, write_table
from rinsho.analyse.part import Part
from rinsho.analyse.token_kinds import Kinds
from rinsho.errors import UserError
from toy_models import toy_tokenizer

pytest.importorskip("sklearn")
pytest.importorskip("fugashi")
pytest.importorskip("safetensors")
FIND_SPEC = importlib.util.find_spec
HOSTILE = "</script><b>&{{x}}$x_$"


def small(count: int = 60) -> Map:
    draw = np.random.default_rng(1)
    kinds = Kinds(("special", "function word", "disease", "byte", "other"), np.arange(count, dtype=np.int16) % 5)
    tokens = ["肺炎", HOSTILE, "", "<0xE3>", "を", *(f"語{number}" for number in range(count - 5))]
    plane = draw.normal(size=(count, 2)).astype("f4")
    return Map("map_tsne", "t-SNE", "模型 <b>", np.arange(count), tokens, kinds, plane, np.arange(count))


def model_folder(folder: Path) -> None:
    """What is read of a model: settings, a tokenizer, and random embeddings."""
    from safetensors.numpy import save_file

    tokenizer = toy_tokenizer()
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"vocab_size": len(tokenizer)}))
    vectors = np.random.default_rng(1).normal(size=(len(tokenizer), 16)).astype("f4")
    save_file({"model.embed_tokens.weight": vectors}, folder / "model.safetensors")


def page_data(path: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text("utf-8"), re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def settings(**values: Any) -> EmbeddingSettings:
    return EmbeddingSettings.model_validate({"projections": ["tsne"], "perplexity": 5, "permutations": 99, **values})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Part, Path]:
    home = tmp_path_factory.mktemp("part")
    model_folder(home / "模型")
    (home / "words.tsv").write_text("surface\tkind\n肺癌\tdisease\n発熱\tsymptom\n咳嗽\tsymptom\n心筋梗塞\tdisease\n")
    (home / "out").mkdir()
    return embeddings(home / "模型", [home / "words.tsv"], home / "out", settings(), 1), home / "out"


def test_the_page_holds_every_point_and_no_address_of_the_outside(tmp_path: Path) -> None:
    found = small()
    path = tmp_path / write_page(found, tmp_path)
    data, text = page_data(path), path.read_text("utf-8")
    assert data["tokens"] == list(found.tokens) and data["ids"] == list(range(60))
    assert [kind["name"] for kind in data["kinds"]] == list(found.kinds.names)
    assert len({kind["mark"] for kind in data["kinds"]}) == len({kind["light"] for kind in data["kinds"]}) == 5
    assert HOSTILE not in text and "模型 &lt;b&gt;" in text
    assert not re.search(r"https?://|//cdn|@import|<link|src=", text)
    assert "default-src 'none'" in text
    at = np.array([data["x"], data["y"]], float).T
    assert at.min() == 0 and at.max() == map_figure.GRID
    far = [np.linalg.norm(p[:, None] - p[None], axis=2).ravel() for p in (at, found.plane)]
    assert np.corrcoef(*far)[0, 1] > 0.99999  # one scale for both axes
    assert at[found.plane[:, 1].argmax(), 1] == 0  # upwards


def test_the_table_can_be_read_again(tmp_path: Path) -> None:
    found = small()
    with (tmp_path / write_table(found, tmp_path)).open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["token"] for row in rows] == list(found.tokens)
    assert rows[2]["kind"] == "disease"
    assert np.allclose([[float(row["x"]), float(row["y"])] for row in rows], found.plane, atol=1e-4)


def test_the_picture_has_labels_axes_and_legend_and_the_same_bytes_again(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        assert write_picture(small(), folder) == ["map_tsne.png", "map_tsne.svg"]
    text = (first / "map_tsne.svg").read_text("utf-8")
    assert text == (second / "map_tsne.svg").read_text("utf-8")
    assert (first / "map_tsne.png").read_bytes() == (second / "map_tsne.png").read_bytes()
    assert {"t-SNE 1 (no unit)", "t-SNE 2 (no unit)", "function word (12)"} <= set(re.findall(">([^<>]+)</text>", text))
    assert "&lt;0xE3&gt;" in text and "<b>" not in text


def test_without_a_japanese_font_no_label_is_drawn_that_would_be_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    for module in (map_figure, embedding_part):
        monkeypatch.setattr(module, "japanese_font", lambda: None)
    write_picture(small(), tmp_path)
    text = (tmp_path / "map_tsne.svg").read_text("utf-8")
    assert "&lt;0xE3&gt;" in text and "肺炎" not in text and "模型" not in text
    assert "fonts-noto-cjk" in embedding_part._pictures(small(), tmp_path)[1]


@pytest.mark.slow
def test_labels_hide_no_other_label(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from dataclasses import replace

    found = small(200)
    crowded = replace(found, plane=found.plane * np.float32(0.001) + (np.arange(200)[:, None] == 0))
    placed = []
    for each in (found, crowded):
        write_picture(each, tmp_path)
        placed.append(len(re.findall(r">語\d+</text>", (tmp_path / "map_tsne.svg").read_text("utf-8"))))
    assert placed[0] > 40 and 1 <= placed[1] <= 8  # four places around a point


def test_the_chapter_of_a_model(made: tuple[Part, Path]) -> None:
    part, folder = made
    assert part.id == "embeddings" and set(part.files) == {path.name for path in folder.iterdir()}
    assert {"neighbours.csv", "map_tsne.html", "map_tsne.csv"} <= set(part.files)
    numbers = json.loads(json.dumps(part.numbers))
    assert numbers["kinds"]["disease"] == numbers["kinds"]["symptom"] == 2 and numbers["kinds"]["byte"] == 256
    assert numbers["drawn"] == sum(numbers["kinds"].values()) == len(page_data(folder / "map_tsne.html")["ids"])
    assert 0 <= numbers["maps"][0]["kept_neighbours"] <= 1
    assert "| byte | 256 |" in part.markdown and "map_tsne.html" in part.markdown
    assert "map_tsne.png" not in part.files or "data:image/png;base64," in part.html


def test_shares_and_kept_neighbours_are_those_among_all_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = projection.unit_rows(np.random.default_rng(4).normal(size=(400, 3)).astype("f4"))
    found = Embeddings(vectors, tuple(f"語{n}" for n in range(400)), ("special",) * 60 + ("text",) * 340)
    monkeypatch.setattr(embedding_part.importlib.util, "find_spec", _without_matplotlib)
    monkeypatch.setattr(projection, "project", lambda _name, points, *_rest: projection.principal(points))
    parts = [make("m", found, [], tmp_path, settings(max_tokens=most), 1) for most in (None, 100)]
    whole, some = (part.numbers for part in parts)
    assert [whole["drawn"], some["drawn"]] == [400, 100] and whole["tokens"] == some["tokens"] == some["asked"] == 400
    assert whole["together"] == some["together"]
    near = np.argsort(-(vectors @ vectors.T) + 9 * np.eye(400), axis=1)[:, :15]
    for numbers, drawn in ((whole, 400), (some, 100)):
        plane = projection.principal(vectors[:drawn])
        far = np.linalg.norm(plane[:, None] - plane[None], axis=2) + 99 * np.eye(drawn)
        shown = np.argsort(far, axis=1)[:, :15]
        kept = [len({*one} & {*other}) / 15 for one, other in zip(near, shown, strict=False)]
        assert numbers["maps"][0]["kept_neighbours"] == pytest.approx(np.mean(kept), abs=1e-3)
        assert numbers["chance_kept"] == pytest.approx(15 / 399)
    assert "100 of 400 tokens are on the maps" in parts[1].markdown


def test_kinds_of_random_vectors_do_not_lie_together(made: tuple[Part, Path]) -> None:
    rows = {row["kind"]: row for row in made[0].numbers["together"]}
    assert rows["byte"]["p_value"] > 0.01
    low, high = rows["byte"]["chance_interval"]
    assert low - 0.05 < rows["byte"]["share"] < high + 0.05


def test_what_is_missing_is_told_and_the_rest_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(projection.PACKAGES, "umap", ("no_such_package", "umap"))
    monkeypatch.setattr(embedding_part.importlib.util, "find_spec", _without_matplotlib)
    draw = np.random.default_rng(1)
    tokens = tuple(f"語{number}" for number in range(40))
    found = Embeddings(draw.normal(size=(40, 4)).astype("f4"), tokens, ("text",) * 40)
    part = make("m", found, [], tmp_path, settings(projections=["tsne", "umap"]), 1)
    told = " ".join(part.numbers["notes"])
    assert "No UMAP: not installed (pip install 'rinsho[umap]')" in told
    assert "rinsho[report]" in told and "No word list" in told
    assert part.files == ("neighbours.csv", "map_tsne.html", "map_tsne.csv")
    assert "No UMAP: not installed" in part.html and "<img" not in part.html
    few = Embeddings(found.vectors[:9], tokens[:9], ("text",) * 9)
    with pytest.raises(UserError, match="9 tokens"):
        make("m", few, [], tmp_path, settings(), 1)


def _without_matplotlib(name: str) -> object:
    return None if name == "matplotlib" else FIND_SPEC(name)


def test_marked_kinds_come_first_where_not_all_are_drawn() -> None:
    kinds = Kinds(("special", "other"), np.array([1, 1, -1, 0, 1, 0], np.int16))
    assert choose(kinds, None).tolist() == [0, 1, 3, 4, 5]
    assert choose(kinds, 3).tolist() == [0, 3, 5]
    assert choose(kinds, 1).tolist() == [3]


def test_central_tokens_are_those_among_their_own_kind() -> None:
    points = np.array([[1, 0], [1, 0.1], [0, 1], [1, 0.2]], "f4")
    labels = np.array([0, 0, 1, 1], np.int16)
    near = np.array([[1, 3], [0, 3], [3, 1], [1, 0]], np.int32)
    assert most_central(points, labels, near).tolist()[:2] in ([0, 1], [1, 0], [2, 0], [2, 1])
    assert most_central(points, labels, near)[-1] == 3
