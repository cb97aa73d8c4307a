"""Labels read strictly, vectors that depend on their text alone, and a forest equal to scikit-learn's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quality.made import bad, good, make_corpus, text_of
from rinsho.document import shard_paths
from rinsho.errors import UserError
from rinsho.quality import Recipe, forest, report
from rinsho.quality.features import FloretFeatures, ModelFeatures, form, train_floret, words
from rinsho.quality.labels import HIGH, LOW, parse, read_label_file, read_prompt
from rinsho.quality.sample import draw
from rinsho.run import Stage


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate({"vector_size": 8, "trees": 12, "workers": 1, **changes})


# ---------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("text", "reason", "expected"),
    [
        ("高", "stop", HIGH),
        (" '低'。\n", "stop", LOW),
        ("「高」", "length", HIGH),
        ("**低**", "stop", LOW),
        ("高低", "stop", "other"),
        ("高品質です", "stop", "other"),
        ("回答: 高", "stop", "other"),
        ("この文章は教科書", "length", "cut_off"),
        ("", "length", "cut_off"),
        ("", "stop", "empty"),
        ("。", "stop", "empty"),
        ("", "content_filter", "refused"),
        ("申し訳ありませんが、お答えできません。", "stop", "refused"),
        ("I'm sorry, but I can't help with that.", "stop", "refused"),
        ("High", "stop", "not_japanese"),
        ("The quality is low.", "length", "not_japanese"),
    ],
)
def test_answers_are_read_strictly(text: str, reason: str, expected: str) -> None:
    assert parse(text, reason) == expected


@given(st.text(), st.sampled_from(["", "stop", "length", "content_filter"]))
def test_any_answer_has_one_kind(text: str, reason: str) -> None:
    found = parse(text, reason)
    assert found in (HIGH, LOW, "empty", "refused", "cut_off", "not_japanese", "other")
    if found in (HIGH, LOW):
        assert found in text and len([char for char in text if char in "高低"]) == 1


def test_label_files(tmp_path: Path) -> None:
    table, lines = tmp_path / "a.csv", tmp_path / "a.jsonl"
    table.write_text('\ufeffid,label,note\n"a,1",高,x\nb,low,\nb,低,\n', encoding="utf-8")
    lines.write_text('{"id": "a,1", "label": "high"}\n\n{"id": "b", "label": "低"}\n', encoding="utf-8")
    assert read_label_file(table) == read_label_file(lines) == {"a,1": HIGH, "b": LOW}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,label\na,高\nb,中\n", r"a.csv:3: no id, or no label that is known"),
        ("id,label\na,高\na,低\n", r"a.csv:3: a second, different label"),
        ("name,label\na,高\n", r"a.csv:2: no id"),
        ("id,label\n", r"a.csv: no labels"),
    ],
)
def test_wrong_label_files(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_label_file(path)


def test_the_reports_prompt() -> None:
    prompt = read_prompt("")
    assert prompt.startswith("あなたは誠実で優秀な日本人のアシスタントです。") and prompt.endswith("出力してください。")


# ---------------------------------------------------------------------- sample


def test_the_sample_depends_on_ids_only(tmp_path: Path) -> None:
    files = shard_paths([make_corpus(tmp_path / "corpus")])
    found = []
    for number, order in enumerate((files, files[::-1])):
        stage = Stage("quality", tmp_path / str(number))
        stage.partial.mkdir(parents=True)
        given_ = recipe(label_documents=25, preview_documents=10, vector_documents=5, max_feature_chars=9)
        found.append(draw(given_, order, {"doc-1-007", "doc-2-001", "no"}, stage))
        assert draw(given_, [], (), stage) == found[-1]  # read from the disk
    assert found[0] == found[1]
    assert (found[0].documents, len(found[0].random)) == (240, 40)
    assert [row.id for row in found[0].wanted] == ["doc-1-007", "doc-2-001"]
    assert len({row.id.split("-")[1] for row in found[0].random}) == 4
    assert found[0].size_bytes == sum(len(text_of(s, n).encode()) for s in range(4) for n in range(60))
    assert "gone" not in {row.id for row in found[0].random}


# ---------------------------------------------------------------------- vectors


def test_floret_is_deterministic_and_each_text_alone(tmp_path: Path) -> None:
    pytest.importorskip("floret")
    texts = [text for n in range(60) for text in (good(n), bad(n))]
    vectors = []
    for name in ("a", "b"):
        train_floret(recipe(), texts, tmp_path / name)
        vectors.append(FloretFeatures(recipe(), tmp_path / name).vectors(texts))
    assert (tmp_path / "a/floret.bin").read_bytes() == (tmp_path / "b/floret.bin").read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["floret.bin"]
    assert np.array_equal(vectors[0], vectors[1]) and vectors[0].shape == (120, 20)
    alone = FloretFeatures(recipe(), tmp_path / "a")
    backwards = np.concatenate([alone.vectors([text]) for text in texts[::-1]])[::-1]
    assert np.array_equal(backwards, vectors[0])
    strange = alone.vectors(["", " \n", "未知の語と孤立\ud800\x00</s>__label__x"])
    assert not strange[:2, :8].any() and strange[2, :8].any() and np.isfinite(strange).all()


def test_a_full_word_cache_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("floret")
    texts = [good(n) for n in range(40)]
    train_floret(recipe(), texts, tmp_path / "f")
    whole = FloretFeatures(recipe(), tmp_path / "f").vectors(texts)
    monkeypatch.setattr("rinsho.quality.features.CACHED_WORDS", 5)
    assert np.array_equal(FloretFeatures(recipe(), tmp_path / "f").vectors(texts), whole)


def test_form_of_a_text() -> None:
    found = form("胸部CTを見た。\n3 ☆")
    shares = [
        1,
        1,
        1,
        1,
        0,
        2,
        0,
        3,
        2,
        1,
    ]  # rest, line feed, space, stop, comma, hiragana, katakana, kanji, latin, digit
    np.testing.assert_allclose(found[:10], np.array(shares) / 12)
    np.testing.assert_allclose(found[10:], [np.log(13), np.log(2)])
    assert form("") == [0.0] * 12


@given(st.text())
def test_any_text_has_a_form(text: str) -> None:
    found = np.array(form(text))
    assert np.isfinite(found).all() and abs(found[:10].sum() - bool(text)) < 1e-9


def test_floret_without_words(tmp_path: Path) -> None:
    pytest.importorskip("floret")
    train_floret(recipe(), ["", "  "], tmp_path / "f")
    assert np.isfinite(FloretFeatures(recipe(), tmp_path / "f").vectors(["", "発熱。"])).all()


@given(st.text())
def test_words_lose_nothing_but_white_space(text: str) -> None:
    assert "".join(words(text)) == "".join(text.split())


def test_model_vectors_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from toy_models import toy_folder

    folder = toy_folder(tmp_path / "toy")
    texts = ["肺癌の疑い。" * n for n in (1, 7, 2, 30, 4)] + ["", "発熱を認め、咳嗽なし。", "<|end_of_text|>"]
    one, eight, cut = (
        ModelFeatures(recipe(model=str(folder), batch_tokens=batch, max_feature_tokens=tokens))
        for batch, tokens in ((1, 100), (4096, 100), (4096, 3))
    )
    together = eight.vectors(texts)
    assert together.shape == (8, 32) and together.dtype == np.float32
    np.testing.assert_allclose(one.vectors(texts), together, atol=2e-5)
    np.testing.assert_allclose(np.concatenate([one.vectors([text]) for text in texts]), together, atol=2e-5)
    assert np.abs(cut.vectors(texts)[0] - cut.vectors(texts)[1]).max() < 1e-5  # alike in their first tokens
    assert np.abs(together[0] - together[1]).max() > 1e-2
    # the same number by the plain route: whole model, one text, no padding
    ids = torch.tensor([[1, *one._ids(texts[6])]])
    states = one._model(input_ids=ids).last_hidden_state[0, -1].detach().numpy()
    np.testing.assert_allclose(together[6], states, atol=2e-5)


# ---------------------------------------------------------------------- forest


def cloud(n: int = 300, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    draw_ = np.random.default_rng(seed)
    vectors = draw_.normal(size=(n, 8)).astype(np.float32)
    return vectors, vectors[:, 0] + vectors[:, 3] ** 2 + draw_.normal(size=n) > 2


@pytest.mark.parametrize("changes", [{}, {"class_weight": "balanced", "min_leaf_documents": 4, "trees": 3}])
def test_numpy_predicts_as_scikit_learn(tmp_path: Path, changes: dict[str, Any]) -> None:
    vectors, low = cloud()
    model = forest._fit(recipe(**changes), vectors, low)
    ours = forest.from_sklearn(model)
    fresh = np.concatenate([cloud(1000, 2)[0], vectors, np.round(vectors, 1)])
    np.testing.assert_allclose(ours.low_probability(fresh), model.predict_proba(fresh)[:, 1], rtol=0, atol=1e-12)
    ours.save(tmp_path / "forest.npz")
    again = forest.Forest.load(tmp_path / "forest.npz")
    assert np.array_equal(again.low_probability(fresh), ours.low_probability(fresh))
    forest.train(recipe(**changes, workers=2), vectors, low).save(tmp_path / "two.npz")
    assert (tmp_path / "two.npz").read_bytes() == (tmp_path / "forest.npz").read_bytes()


def test_values_at_a_threshold_go_the_same_way() -> None:
    vectors = np.repeat(np.arange(20, dtype=np.float32)[:, None] / 10, 2, axis=1)
    low = np.arange(20) % 3 == 0
    model = forest._fit(recipe(trees=30), vectors, low)
    ours = forest.from_sklearn(model)
    edges = np.repeat(np.unique(ours.threshold).astype(np.float32)[:, None], 2, axis=1)
    near = np.concatenate([edges, np.nextafter(edges, np.float32(9)), np.nextafter(edges, np.float32(-9))])
    np.testing.assert_allclose(ours.low_probability(near), model.predict_proba(near)[:, 1], rtol=0, atol=1e-12)


def test_damaged_forests_are_refused(tmp_path: Path) -> None:
    vectors, low = cloud(60)
    trained = forest.train(recipe(), vectors, low)
    path = tmp_path / "forest.npz"
    trained.save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="no classifier"):
        forest.Forest.load(path)
    forest.Forest(**{**vars(trained), "left": trained.left + 10**6}).save(path)
    with pytest.raises(UserError, match="damaged"):
        forest.Forest.load(path)
    with pytest.raises(ValueError, match="for a forest of 8"):
        trained.low_probability(vectors[:, :3])


def test_cross_validated_figures(tmp_path: Path) -> None:
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, precision_score, recall_score, roc_auc_score

    vectors, low = cloud()
    found = forest.cross_validate(recipe(), vectors, low)
    row = forest.figures(low, found, 0.4, 1)
    said = found > 0.4
    expected = {
        "accuracy": accuracy_score(low, said), "balanced_accuracy": balanced_accuracy_score(low, said),
        "auc": roc_auc_score(low, found), "precision_low": precision_score(low, said),
        "recall_low": recall_score(low, said), "called_low": said.mean(),
    }  # fmt: skip
    for name, value in expected.items():
        assert row[name]["value"] == pytest.approx(value), name
        assert row[name]["interval"][0] < value < row[name]["interval"][1], name
    assert row["majority_accuracy"] == max(low.mean(), 1 - low.mean())
    assert 0.7 < row["auc"]["value"] < 0.99  # learned, but not from the documents it is measured on
    noise = forest.figures(low, forest.cross_validate(recipe(), cloud(300, 9)[0], low), 0.5, 1)
    assert noise["auc"]["interval"][0] < 0.5 < noise["auc"]["interval"][1]
    assert forest.figures(low, np.zeros(300), 0.5, 1)["precision_low"] == {"value": None, "interval": None}


@settings(max_examples=20)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5000)), min_size=1, max_size=50))
def test_expected_yield_lies_in_its_interval(rows: list[tuple[bool, int]]) -> None:
    gone, sizes = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    found = report.expected(gone, sizes, 1)
    for name in ("documents", "bytes"):
        low, high = found[name]["interval"]
        assert 0 <= low <= high <= 1
    assert found["documents"]["interval"][0] <= found["documents"]["value"] <= found["documents"]["interval"][1]
