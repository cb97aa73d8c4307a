"""Attention over packed documents: weights against an independent restatement, shares, files of the chapter."""

import csv
import json
import sys
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError

from toy_models import WORDS, toy_model, toy_tokenizer

torch = pytest.importorskip("torch")

from rinsho.analyse.attention import (  # noqa: E402
    AttentionSettings,
    attention,
    packed_rows,
    trained_with_bounds,
    weights_bytes,
)
from rinsho.analyse.attention_measure import (  # noqa: E402
    MEASURES,
    MapKey,
    attention_modules,
    chosen,
    measure,
    thinned,
    watch,
)
from rinsho.analyse.attention_rows import rows_of  # noqa: E402
from rinsho.errors import UserError  # noqa: E402
from rinsho.model import ModelSettings, build  # noqa: E402
from rinsho.model_folder import load_folded, save_folded  # noqa: E402
from rinsho.modeling import next_token_loss  # noqa: E402

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip


def toy_documents(count=60, seed=0):
    """Documents whose tokens repeat, so that attention to what came before is worth learning."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        words = rng.integers(259, 259 + len(WORDS), 4)
        yield f"document-{number}", rng.choice(words, rng.integers(5, 16)).tolist()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a model that was trained for 40 steps, without document bounds as in the report."""
    folder = tmp_path_factory.mktemp("trained")
    tokenizer = toy_tokenizer()
    model = build(ModelSettings(**SIZES), len(tokenizer), 1, bos_token_id=1, eos_token_id=2, pad_token_id=2)
    rows = rows_of(toy_documents(400), 64, 40, (1, 2))
    ids = torch.from_numpy(np.stack([row.ids for row in rows]))
    labels = torch.nn.functional.pad(ids[:, 1:], (0, 1), value=-100)
    positions = torch.arange(64).expand(len(ids), 64)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for step in range(40):
        some = slice(8 * (step % 5), 8 * (step % 5) + 8)
        loss = next_token_loss(model, ids[some], positions[some], labels[some]) / (8 * 63)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    save_folded(model, tokenizer, folder)
    (folder / "recipe.resolved.yaml").write_text("document_bounds: false\n")
    return folder


@pytest.fixture
def no_matplotlib(monkeypatch):
    """Figures take seconds."""
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def corpus(tmp_path):
    """Of short documents; invented ones take longer to make."""
    lines = [json.dumps({"id": f"patient-{n}", "text": "肺癌の疑いなし。" * 2}) for n in range(40)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    return tmp_path / "corpus.jsonl"


@pytest.fixture
def row():
    return rows_of(toy_documents(seed=5), 48, 1, (1, 2))[0]


def restated(model, row, bounded):
    """Attention weights of every layer (H, T, T), in float64 numpy, from the model's matrices alone."""
    weight = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    heads, groups, size = 4, 2, 8
    positions = row.positions(bounded)
    angles = positions[:, None] / 10_000.0 ** (np.arange(0, size, 2) / size)
    cos, sin = (np.concatenate([each, each], 1) for each in (np.cos(angles), np.sin(angles)))
    seen = np.tril(np.ones((len(row.ids),) * 2, bool))
    if bounded:
        document = np.cumsum(positions == 0)
        seen &= document[:, None] == document[None, :]

    def norm(x, gain):
        return x / np.sqrt((x**2).mean(1, keepdims=True) + model.config.rms_norm_eps) * gain

    def turned(x):
        return x * cos + np.concatenate([-x[:, size // 2 :], x[:, : size // 2]], 1) * sin

    x, found = weight["model.embed_tokens.weight"][row.ids], []
    for layer in range(3):
        part = {name.split(f"layers.{layer}.")[1]: w for name, w in weight.items() if f"layers.{layer}." in name}
        normed = norm(x, part["input_layernorm.weight"])
        q, k, v = ((normed @ part[f"self_attn.{which}_proj.weight"].T) for which in "qkv")
        maps, mixed = [], []
        for head in range(heads):
            own = slice(head * size, head * size + size)
            shared = slice(head // (heads // groups) * size, head // (heads // groups) * size + size)
            scores = np.where(seen, turned(q[:, own]) @ turned(k[:, shared]).T / np.sqrt(size), -np.inf)
            weights = np.exp(scores - scores.max(1, keepdims=True))
            maps.append(weights / weights.sum(1, keepdims=True))
            mixed.append(maps[-1] @ v[:, shared])
        found.append(np.stack(maps))
        x = x + np.concatenate(mixed, 1) @ part["self_attn.o_proj.weight"].T
        inner = norm(x, part["post_attention_layernorm.weight"]) @ part["mlp.up_proj.weight"].T
        x = x + (inner / (1 + np.exp(-inner))) @ part["mlp.down_proj.weight"].T
    return found


def watched(model, row, bounded):
    found = {}
    watch(model, row, bounded, lambda layer, weights: found.__setitem__(layer, weights.clone()))
    return [found[layer] for layer in sorted(found)]


@pytest.mark.parametrize("bounded", [False, True])
def test_weights_are_those_of_transformers_and_of_a_restatement(trained, row, bounded):
    model = load_folded(trained)
    found = watched(model, row, bounded)
    for ours, wanted in zip(found, restated(model, row, bounded), strict=True):
        np.testing.assert_allclose(ours.numpy(), wanted, atol=2e-6)
    assert model.config._attn_implementation == "sdpa"  # as it was before
    model.set_attn_implementation("eager")
    ids, positions = (torch.from_numpy(each[None]) for each in (row.ids, row.positions(bounded)))
    with torch.inference_mode():
        theirs = model(input_ids=ids, position_ids=positions, use_cache=False, output_attentions=True).attentions
    assert all(torch.equal(ours, own[0]) for ours, own in zip(found, theirs, strict=True))


def test_shares_are_sums_over_the_weights(trained):
    rows = rows_of(toy_documents(seed=9), 40, 2, (1, 2))
    model = load_folded(trained)
    measured = measure(model, rows)
    for form, bounded in (("stream", False), ("bounded", True)):
        sums, even, queries = np.zeros((3, 4, len(MEASURES))), 0.0, 0
        for row, other in zip(rows, rows[::-1], strict=True):
            weights = np.stack(restated(model, row, bounded))
            for query in range(row.starts[1], 40):
                begin = max(start for start in row.starts if start <= query)
                own = weights[:, :, query]
                sums[..., 0] += own[..., :begin].sum(-1)
                sums[..., 1] += own[..., 1:begin].sum(-1)
                sums[..., 3] += own[..., 0]
                sums[..., 4] += own[..., begin]
                sums[..., 5] += own[..., [end for end in row.ends if end < begin]].sum(-1)
                even += begin / (query + 1)
                queries += 1
            for query in range(other.starts[1], 40):
                sums[..., 2] += weights[:, :, query, : max(start for start in other.starts if start <= query)].sum(-1)
        np.testing.assert_allclose(measured.shares[form], sums / queries, atol=5e-6)
        assert (measured.queries, measured.even) == (queries, pytest.approx(even / queries))


def test_attention_across_documents_is_exactly_0_with_bounds_and_above_0_without(trained):
    measured = measure(load_folded(trained), rows_of(toy_documents(seed=2), 64, 3, (1, 2)))
    assert (measured.shares["bounded"][:, :, [0, 1, 3, 5]] == 0.0).all()
    assert (measured.shares["stream"][:, :, 0] > 0.001).all()
    assert 0.1 < measured.shares["stream"][:, :, 0].mean() < 0.95


def test_even_attention_crosses_real_borders_and_those_of_others_alike(trained):
    model = load_folded(trained)
    rows = rows_of(toy_documents(seed=6), 48, 3, (1, 2))
    for layer in model.model.layers:
        layer.self_attn.q_proj.weight.data.zero_()
    measured = measure(model, rows)
    np.testing.assert_allclose(measured.shares["stream"][:, :, [0, 2]], measured.even, rtol=1e-5)
    assert np.isnan(measure(model, rows[:1]).shares["stream"][:, :, 2]).all()


def test_one_layers_weights_at_a_time(trained, row):
    alive, most = [], []

    def see(_layer, weights):
        alive.append(weakref.ref(weights))
        most.append(sum(each() is not None for each in alive))

    watch(load_folded(trained), row, True, see)
    assert most == [1, 1, 1]


def test_maps_are_of_the_first_row_at_the_wanted_layers_and_heads(trained):
    rows = rows_of(toy_documents(seed=3), 48, 2, (1, 2))
    model = load_folded(trained)
    weights = watched(model, rows[0], False)
    mean = measure(model, rows).maps
    assert {key.layer for key in mean} == {1, 3} and {key.head for key in mean} == {0}
    np.testing.assert_allclose(mean[MapKey("stream", 3, 0)], weights[2].double().mean(0), atol=1e-7)
    heads = measure(model, rows, [2], (4, 1)).maps
    assert set(heads) == {MapKey(form, 2, head) for form in ("stream", "bounded") for head in (1, 4)}
    np.testing.assert_array_equal(heads[MapKey("stream", 2, 4)], weights[1][3].double())


def test_thinned_maps_keep_their_sums():
    weights = np.tril(np.random.default_rng(1).random((50, 50)))
    weights /= weights.sum(1, keepdims=True)
    thin = thinned(weights, 8)
    assert thin.shape == (8, 8)
    np.testing.assert_allclose(thin.sum(1), 1)
    assert thin[1, 0] == pytest.approx(weights[7:14, :7].sum(1).mean())
    assert (thin[np.triu_indices(8, 1)] == 0).all()
    np.testing.assert_array_equal(thinned(weights, 50), weights)


@pytest.mark.parametrize(("layers", "heads"), [([4], "mean"), ([0], "mean"), (None, (0,)), (None, (5,))])
def test_a_layer_or_head_that_is_not_there_is_refused(layers, heads):
    with pytest.raises(UserError, match="expected 1 to"):
        chosen(layers, heads, 3, 4)


def test_settings():
    assert AttentionSettings(heads=[1, 2]).heads == (1, 2)
    for wrong in ({"heads": "all"}, {"heads": [-1]}, {"layers": [0]}, {"documents": 1}, {"rows": 0}, {"layer": 3}):
        with pytest.raises(ValidationError):
            AttentionSettings(**wrong)


def test_weights_that_do_not_fit_are_refused_before_the_model_is_loaded(trained, tmp_path, monkeypatch):
    from rinsho import memory

    assert weights_bytes(trained, 48) == 4 * 48**2 * (2 * 4 + 6)
    assert weights_bytes(trained, 512) == 4 * 64**2 * (2 * 4 + 6)  # the model has no more positions
    assert weights_bytes(tmp_path, 16) > 0
    (need,) = (need for need in memory.needs(trained, window=64) if need.form == "float32")
    monkeypatch.setattr(memory, "card_bytes", lambda: None)
    monkeypatch.setattr(memory, "available_bytes", lambda: need.total_bytes + 4 * 64**2 * 13)
    with pytest.raises(UserError, match=r"needs about.*smaller analyse\.attention\.sequence_length"):
        attention(trained, [], tmp_path, AttentionSettings(), 1)


def test_models_of_another_form_are_told():
    model = toy_model(300)
    assert len(attention_modules(model)) == 2
    model.active_peft_config = SimpleNamespace(is_prompt_learning=True)  # prefix and prompt tuning
    with pytest.raises(UserError, match="learned prompts"):
        attention_modules(model)
    del model.active_peft_config
    model.model.layers[1].self_attn = torch.nn.Identity()
    with pytest.raises(UserError, match=r"type llama with attention in 1 of 2 layers.*Llama-shaped"):
        attention_modules(model)


@pytest.mark.usefixtures("no_matplotlib")
def test_bounds_that_do_not_hold_are_told(trained, corpus, tmp_path, monkeypatch):
    from rinsho.analyse.attention_rows import Row

    monkeypatch.setattr(Row, "positions", lambda self, _bounded: np.arange(len(self.ids)))
    part = attention(trained, [corpus], tmp_path, AttentionSettings(sequence_length=64, rows=1, layers=[1]), 1)
    assert part.numbers["across_with_bounds_highest"] > 0
    assert "still crosses documents" in part.html and "exactly 0 in every layer" not in part.html


def test_the_chapter(trained, tmp_path):
    settings = AttentionSettings(sequence_length=512, rows=2, layers=[2], documents=2)
    part = attention(trained, [], tmp_path / "a", settings, 7)
    numbers = part.numbers
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == set(part.files) and {"attention_layer_02.png", "attention_shares.svg"} <= names
    json.dumps(numbers)
    assert numbers["sequence_length"] == 64  # the model has no more positions
    assert (numbers["trained_with_bounds"], numbers["across_with_bounds_highest"]) == (False, 0)
    assert part.html.count("<svg") == 2 and "exactly 0 in every layer and head" in part.html
    assert "var(--ink" in part.html and "var(--" not in (tmp_path / "a" / "attention_shares.svg").read_text()
    assert part.markdown.count("\n| ") == 3
    rows = list(csv.DictReader((tmp_path / "a" / "attention_shares.csv").open()))
    assert len(rows) == 2 * 3 * 5
    for line in numbers["layers"]:
        mean = next(r for r in rows if (r["layer"], r["form"], r["head"]) == (str(line["layer"]), "stream", "mean"))
        assert float(mean["across"]) == pytest.approx(line["stream"]["across"]["mean"], rel=1e-5)
    cells = list(csv.DictReader((tmp_path / "a" / "attention_maps.csv").open()))
    sums = {}
    for cell in cells:
        key = cell["form"], cell["query_start"]
        sums[key] = sums.get(key, 0) + float(cell["share"])
        assert int(cell["key_start"]) <= int(cell["query_start"])
    assert len(sums) == 2 * 64 and all(abs(total - 1) < 0.01 for total in sums.values())


@pytest.mark.slow
def test_the_same_numbers_give_the_same_bytes(trained, tmp_path):
    settings = AttentionSettings(rows=2, heads=[1, 3])
    first, again = (attention(trained, [], tmp_path / name, settings, 7) for name in ("a", "b"))
    assert first == again
    for name in first.files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


@pytest.mark.usefixtures("no_matplotlib")
def test_no_text_and_no_id_of_a_document_in_the_chapter(trained, corpus, tmp_path):
    part = attention(trained, [corpus], tmp_path / "out", AttentionSettings(sequence_length=64, rows=2), 1)
    assert part.numbers["from_corpus"] and len(part.numbers["drawn"]) > 1
    for secret in ("肺癌", "patient-"):
        assert secret not in part.html + part.markdown + json.dumps(part.numbers, ensure_ascii=False)


@pytest.mark.usefixtures("no_matplotlib")
def test_without_matplotlib_there_are_numbers(trained, corpus, tmp_path):
    part = attention(trained, [corpus], tmp_path, AttentionSettings(sequence_length=64, rows=1), 1)
    assert part.files == ("attention_shares.csv", "attention_maps.csv")
    assert part.numbers["layers"][0]["stream"]["others_borders"]["mean"] is None  # there is one row
    assert "matplotlib is not installed" in part.html and "<svg" not in part.html
    assert "matplotlib is not installed" in part.markdown


@pytest.mark.slow
@pytest.mark.usefixtures("no_matplotlib")
def test_a_foreign_model_and_its_tokenizer(tmp_path):
    tokenizer = toy_tokenizer(chat=False)
    toy_model(len(tokenizer)).save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    (row,) = packed_rows(tmp_path / "m", [], AttentionSettings(rows=1, sequence_length=128), 1, 256)
    assert len(row.ids) == 128 and (row.ids[row.ends] == 2).all() and (row.ids[row.starts] == 1).all()
    assert trained_with_bounds(tmp_path / "m") is None
    part = attention(tmp_path / "m", [], tmp_path / "out", AttentionSettings(rows=1, sequence_length=128), 1)
    assert part.numbers["across_with_bounds_highest"] == 0 < part.numbers["across_without_bounds"]["lowest"]
    (tmp_path / "m" / "tokenizer_config.json").write_text(
        json.dumps(json.loads((tmp_path / "m" / "tokenizer_config.json").read_text()) | {"eos_token": None})
    )
    with pytest.raises(UserError, match="no end-of-text token"):
        packed_rows(tmp_path / "m", [], AttentionSettings(rows=1), 1, 256)
