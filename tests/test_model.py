"""The architecture: counts, initialisation, folding, and what a packed row lets a document see."""

import json
import math

import pytest
import torch

from rinsho.errors import UserError
from rinsho.model import PRESETS, ModelSettings, build, count_parameters
from rinsho.model_folder import load_folded, load_unfolded, publish, read_manifest, save_folded
from rinsho.modeling import grow_vocabulary, initialise, next_token_loss
from rinsho.recipe import settings

SMALL = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "max_position_embeddings": 64}


def small(**changes):
    return ModelSettings(**{**SMALL, **changes})


def model_of(vocab_size=50, seed=1, **changes):
    return build(small(**changes), vocab_size, seed, bos_token_id=1, eos_token_id=2, pad_token_id=2)


def some_ids(rows=2, time=17, vocab_size=50):
    return torch.randint(0, vocab_size, (rows, time), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("preset", "vocab_size", "total"),
    [
        ("tiny", 4096, 2_410_176),
        ("15m", 16_384, 15_078_720),
        ("60m", 16_384, 59_651_200),
        ("125m", 32_768, 125_848_320),
        ("350m", 32_768, 343_983_104),
        ("ncvc-slm-1", 32_768, 1_191_282_688),
    ],
)
def test_presets_have_exactly_these_parameters(preset, vocab_size, total):
    sizes = ModelSettings.model_validate(preset)
    model = build(sizes, vocab_size, 1, device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == total
    assert count_parameters(sizes, vocab_size) == total


def test_the_report_model_has_its_dropout_and_three_chat_tokens_cost_twelve_thousand_parameters():
    sizes = ModelSettings.model_validate("ncvc-slm-1")
    assert (sizes.attention_dropout, sizes.residual_dropout, sizes.scale) == (0.1, 0.1, math.sqrt(2048))
    assert count_parameters(sizes, 32_771) == 1_191_294_976


def test_a_preset_can_be_changed_and_a_wrong_one_is_refused():
    assert ModelSettings.model_validate({"preset": "tiny", "num_hidden_layers": 3}).num_hidden_layers == 3
    assert ModelSettings.model_validate("60m").hidden_size == PRESETS["60m"]["hidden_size"]
    with pytest.raises(UserError, match="no preset"):
        settings(ModelSettings, {"preset": "huge"}, "recipe.yaml model")
    with pytest.raises(UserError, match="multiple of num_key_value_heads"):
        settings(ModelSettings, {"num_attention_heads": 4, "num_key_value_heads": 3}, "recipe.yaml model")


@pytest.mark.parametrize("tied", [True, False])
def test_every_matrix_starts_with_the_spread_of_the_report(tied):
    sizes = small(hidden_size=96, intermediate_size=200, tie_word_embeddings=tied)
    model = build(sizes, 300, 7)
    sigma, vocab_size = math.sqrt(2 / (5 * 96)), 300
    seen = set()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert torch.all(parameter == 1), name
            continue
        expected = sigma
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            expected = sigma / math.sqrt(2 * sizes.num_hidden_layers)
        if name == "lm_head.weight":
            expected = math.sqrt(2 / (96 + vocab_size))
        assert parameter.std().item() == pytest.approx(expected, rel=4 / math.sqrt(2 * parameter.numel())), name
        assert abs(parameter.mean().item()) < 4 * expected / math.sqrt(parameter.numel()), name
        assert parameter.abs().max() > 2.5 * expected, name  # normal, not uniform
        seen.add(name.rpartition("layers.0.")[2])
    assert {"self_attn.q_proj.weight", "mlp.up_proj.weight", "model.embed_tokens.weight"} <= seen
    assert ("lm_head.weight" in seen) is not tied


def test_a_layer_of_the_report_model_starts_with_the_numbers_of_the_report():
    sizes = {"preset": "ncvc-slm-1", "num_hidden_layers": 1}
    model = build(ModelSettings.model_validate(sizes), 2048, 1, device="meta").to_empty(device="cpu")
    model.config.num_hidden_layers = 24
    initialise(model, seed=1)
    layer = "model.layers.0."
    wanted = dict.fromkeys((f"{layer}self_attn.{part}_proj.weight" for part in "qkv"), 0.01398)
    wanted |= {f"{layer}mlp.up_proj.weight": 0.01398, "model.embed_tokens.weight": 0.01398}
    wanted |= {f"{layer}self_attn.o_proj.weight": 0.00202, f"{layer}mlp.down_proj.weight": 0.00202}
    wanted["lm_head.weight"] = math.sqrt(2 / (2048 + 2048))
    assert {name for name, _ in model.named_parameters() if "norm" not in name} == set(wanted)
    for name, std in wanted.items():
        matrix = model.get_parameter(name).detach()
        # Four standard errors, and half of the last digit that is written above.
        assert matrix.std().item() == pytest.approx(std, rel=4 / math.sqrt(2 * matrix.numel()), abs=5e-6), name
        assert abs(matrix.mean().item()) < 4 * std / math.sqrt(matrix.numel()), name
    scaled = model.model.embed_tokens(torch.arange(2048))
    assert scaled.std().item() == pytest.approx(0.632, abs=2e-3)  # sqrt(d) x sqrt(2 / (5 d)), for every d


def test_initialisation_depends_on_the_seed_alone_and_leaves_the_random_state():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = model_of(seed=1), model_of(seed=1), model_of(seed=2)
    assert torch.equal(before, torch.get_rng_state())
    for (name, a), b, c in zip(first.named_parameters(), second.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert "norm" in name or not torch.equal(a, c)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("hidden_size", [48, 64])  # root not a power of two, and a power of two
def test_the_published_folder_is_stock_arcee_with_bitwise_equal_logits(tmp_path, tied, hidden_size):
    model = model_of(tie_word_embeddings=tied, hidden_size=hidden_size, residual_dropout=0.1).eval()
    save_folded(model, None, tmp_path / "folder", {"seen_tokens": 7})
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert (config["model_type"], config["hidden_act"], config["tie_word_embeddings"]) == ("arcee", "silu", False)
    stock = load_folded(tmp_path / "folder")
    assert type(stock).__module__.startswith("transformers.")
    assert torch.equal(model(some_ids()).logits, stock(some_ids()).logits)
    manifest = read_manifest(tmp_path / "folder")
    assert manifest["embedding_scale"] == math.sqrt(hidden_size)
    assert manifest["seen_tokens"] == 7


@pytest.mark.parametrize("tied", [True, False])
def test_unfolding_gives_the_training_model_back(tmp_path, tied):
    model = model_of(tie_word_embeddings=tied, residual_dropout=0.1).eval()
    save_folded(model, None, tmp_path / "first")
    again = load_unfolded(tmp_path / "first").eval()
    assert again.config.residual_dropout == 0.1
    assert (again.lm_head.weight is again.model.embed_tokens.weight) is tied
    assert torch.equal(model(some_ids()).logits, again(some_ids()).logits)
    save_folded(again, None, tmp_path / "second")
    first, second = (tmp_path / name / "model.safetensors" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_published_files_are_those_that_transformers_itself_writes(tmp_path, tied, dtype):
    model, number = model_of(tie_word_embeddings=tied), getattr(torch, dtype)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    save_folded(model, None, tmp_path / "ours", dtype=dtype)
    assert torch.equal(before, torch.get_rng_state())
    stock = load_folded(tmp_path / "ours")
    assert stock.dtype == number
    stock.save_pretrained(tmp_path / "theirs")
    for file in (tmp_path / "theirs").iterdir():
        assert file.read_bytes() == (tmp_path / "ours" / file.name).read_bytes(), file.name
    scaled = (model.model.embed_tokens.weight.detach() * model.config.embedding_scale).to(number)
    assert torch.equal(stock.get_input_embeddings().weight, scaled)
    assert torch.equal(stock.get_output_embeddings().weight, model.lm_head.weight.detach().to(number))


def test_weights_of_another_model_are_not_published(tmp_path):
    weights = dict(model_of().named_parameters())
    del weights["model.norm.weight"]
    with pytest.raises(ValueError, match="not the parameters"):
        publish(model_of().config, weights, None, tmp_path)


def test_a_plain_arcee_folder_is_taken_with_scale_one(tmp_path):
    save_folded(model_of(), None, tmp_path)
    (tmp_path / "rinsho.json").unlink()
    model = load_unfolded(tmp_path)
    assert model.config.embedding_scale == 1.0
    with pytest.raises(UserError, match="no model in here"):
        load_unfolded(tmp_path / "nothing")


def test_dropout_acts_in_training_only():
    model = model_of(residual_dropout=0.5).train()
    ids = some_ids()
    assert not torch.equal(model(ids).logits, model(ids).logits)
    model.eval()
    assert torch.equal(model(ids).logits, model(ids).logits)
    assert torch.equal(model(ids).logits, model_of().eval()(ids).logits)


@pytest.mark.parametrize("tied", [True, False])
def test_new_tokens_leave_the_old_logits(tied):
    model = model_of(tie_word_embeddings=tied).eval()
    before = model(some_ids()).logits
    grow_vocabulary(model, 53, seed=1)
    after = model(some_ids()).logits
    assert after.shape[-1] == 53
    assert torch.equal(after[..., :50], before)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is tied


def batch_of(documents, size):
    """One packed row: ids, restarting positions and shifted labels."""
    ids, positions, labels = [], [], []
    for document in documents:
        ids += document[:-1]
        labels += document[1:]
        positions += range(len(document) - 1)
    room = size - len(ids)
    row = (ids + [2] * room, positions + list(range(room)), labels + [-100] * room)
    return [torch.tensor([values]) for values in row]


def test_packed_loss_and_gradients_equal_the_unpacked_ones():
    model = model_of()
    documents = [[1, *torch.randint(3, 50, (length,)).tolist(), 2] for length in (5, 1, 9, 3)]
    whole = next_token_loss(model, *batch_of(documents, 40))
    whole.backward()
    packed = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    single = sum(next_token_loss(model, *batch_of([document], len(document) - 1)) for document in documents)
    single.backward()
    assert whole.item() == pytest.approx(single.item(), rel=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(packed[name], parameter.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_a_document_does_not_move_when_the_one_before_it_changes():
    model = model_of().eval()
    second = [1, 9, 8, 7, 2]

    def logits(first, *, rows=1, bounded=True):
        ids, positions, _ = batch_of([first, second], 12)
        if not bounded:
            positions = torch.arange(12)[None]
        ids, positions = ids.expand(rows, -1), positions.expand(rows, -1)
        return model(input_ids=ids, position_ids=positions, use_cache=False).logits[-1, 5:9]

    a, b = [1, 4, 5, 6, 7, 2], [1, 30, 31, 32, 33, 2]
    for rows in (1, 3):
        assert torch.equal(logits(a, rows=rows), logits(b, rows=rows))
    assert not torch.equal(logits(a, bounded=False), logits(b, bounded=False))


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_chunked_loss_and_gradients_equal_the_plain_ones(chunk):
    model = model_of(tie_word_embeddings=False)
    ids = some_ids()
    labels = ids.roll(-1, 1)
    labels[:, -1] = -100
    labels[0, 3] = -100
    loss = next_token_loss(model, ids, torch.arange(17).expand(2, -1), labels, chunk) * 0.5
    loss.backward()
    ours = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    logits = model(input_ids=ids, use_cache=False).logits
    plain = 0.5 * torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    plain.backward()
    assert loss.item() == pytest.approx(plain.item(), rel=1e-6)
    for mine, parameter in zip(ours, model.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-4, atol=1e-5)
