"""Models of several makers, tuned whole: packing and the narrowed head change no loss, what is saved opens again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

from rinsho.errors import UserError
from rinsho.finetune import Recipe, memory, models
from rinsho.optim import make_optimizer
from toy_models import toy_model, toy_tokenizer

CPU = torch.device("cpu")
SIZES: dict[str, Any] = dict(  # noqa: C408
    hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=2, initializer_range=0.2,
)  # fmt: skip
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {  # windows far shorter than the documents, logits capped
    "llama": ("Llama", {}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "mistral": ("Mistral", {"sliding_window": 5}),
    "gemma2": ("Gemma2", {"sliding_window": 5, "head_dim": 8, "final_logit_softcapping": 3.0}),
    "gemma3_text": ("Gemma3", {"sliding_window": 5, "head_dim": 8}),
}
DOCUMENTS = [torch.randint(3, 290, (length,), generator=torch.Generator().manual_seed(3)) for length in (12, 9, 17)]


def small(**changes: Any) -> Recipe:
    return Recipe(**({"dtype": "fp32", "sequence_length": 40, "micro_batch_rows": 2} | changes))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder of each shape, without chat tokens."""
    import transformers

    tokenizer, found = toy_tokenizer(chat=False), {}
    for kind, (name, changes) in SHAPES.items():
        found[kind] = tmp_path_factory.mktemp(kind)
        config: Any = transformers.CONFIG_MAPPING[kind](vocab_size=len(tokenizer), **{**SIZES, **changes})
        torch.manual_seed(1)
        getattr(transformers, f"{name}ForCausalLM")(config).save_pretrained(found[kind])
        tokenizer.save_pretrained(found[kind])
    return found


def row(documents: list[torch.Tensor], length: int = 40) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One packed row: ids, positions and labels, of which the first three of each document are not learned."""
    ids = torch.cat([document[:-1] for document in documents])
    positions = torch.cat([torch.arange(len(document) - 1) for document in documents])
    labels = torch.cat([torch.cat([torch.full((3,), -100), document[4:]]) for document in documents])
    pad = length - len(ids)
    parts = (torch.full((pad,), 2), torch.arange(pad), torch.full((pad,), -100))
    return tuple(torch.cat([whole, part])[None] for whole, part in zip((ids, positions, labels), parts, strict=True))  # type: ignore[return-value]


@pytest.mark.parametrize("kind", SHAPES)
def test_packing_and_the_narrowed_head_change_no_loss_of_any_shape(folders: dict[str, Path], kind: str) -> None:
    model = models.load(folders[kind], small(), CPU).model.eval()
    batch = [torch.cat(parts) for parts in zip(row(DOCUMENTS), row(DOCUMENTS[:1]), strict=True)]
    with torch.inference_mode():
        packed = float(models.loss(model, *row(DOCUMENTS)))
        single = sum(float(models.loss(model, *row([document]))) for document in DOCUMENTS)
        logits = model(input_ids=batch[0], position_ids=batch[1], use_cache=False).logits
        whole = float(cross_entropy(logits.flatten(0, 1), batch[2].flatten(), reduction="sum"))
        assert float(models.loss(model, *batch)) == pytest.approx(whole, rel=1e-6)
    assert packed == pytest.approx(single, rel=1e-5)
    assert not model.get_output_embeddings()._forward_pre_hooks


@pytest.mark.parametrize("kind", SHAPES)
def test_every_shape_learns_and_what_is_saved_is_what_was_trained(
    folders: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    loaded = models.load(folders[kind], small(chat="rinsho"), CPU)
    assert loaded.kind == "other" and loaded.render.form == "rinsho" and loaded.window == 256
    rows = loaded.model.get_input_embeddings().weight.detach()
    assert len(rows) == len(loaded.tokenizer) and torch.allclose(rows[-1], rows[:-3].mean(0), atol=1e-6)
    optimizer = make_optimizer(loaded.model.named_parameters(), learning_rate=1e-2)
    losses = []
    for _ in range(4):
        loss = models.loss(loaded.model, *row(DOCUMENTS))
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(float(loss.detach()))
        optimizer.step(1.0)
    assert losses[-1] < 0.8 * losses[0]
    models.save(loaded, tmp_path, folders[kind], {"stage": "finetune"}, "bfloat16")
    assert next(iter(loaded.trained.values())).dtype == torch.float32  # saving changes nothing
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.dtype == torch.bfloat16 and json.loads((tmp_path / "rinsho.json").read_text())["stage"] == "finetune"
    tied = SHAPES[kind][1].get("tie_word_embeddings", kind.startswith("gemma"))
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert ("lm_head.weight" in file.keys()) is not tied  # noqa: SIM118
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, loaded.model.state_dict()[name].bfloat16()), name


@pytest.mark.parametrize("kind", ["ours", "gemma3_text"])
def test_activation_checkpointing_changes_no_bit(folders: dict[str, Path], base: Path, kind: str) -> None:
    gradients, kept = [], []
    for twice in (False, True):
        recipe = small(activation_checkpointing=twice, residual_dropout=0.2)
        loaded = models.load(base if kind == "ours" else folders[kind], recipe, CPU)
        torch.manual_seed(5)
        models.loss(loaded.model, *row(DOCUMENTS)).backward()  # type: ignore[no-untyped-call]
        gradients.append({name: parameter.grad for name, parameter in loaded.trained.items()})
        kept.append(memory._kept(loaded, recipe, 32))
        memory.predict(loaded, recipe)
        assert memory._kept(loaded, recipe, 32) == kept[-1]  # a prediction leaves it switched as it was
    assert kept[1] < 0.5 * kept[0]
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


def test_ours_are_trained_unfolded(base: Path) -> None:
    loaded = models.load(base, small(), CPU)
    assert loaded.kind == "ours" and loaded.model.config.embedding_scale == pytest.approx(32**0.5)
    assert loaded.rates == {} and len(loaded.trained) == len(dict(loaded.model.named_parameters()))


# Attention that takes no positions, that sees them and no border, and none at all.
TOGETHER: dict[str, dict[str, Any]] = {
    "bloom": {"n_layer": 2, "n_head": 4}, "mamba": {"num_hidden_layers": 2},
    "opt": {"num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64, "word_embed_proj_dim": 32,
            "max_position_embeddings": 64},
}  # fmt: skip


@pytest.mark.parametrize("kind", TOGETHER)
def test_models_that_would_mix_packed_conversations_are_refused_and_learn_them_one_a_row(
    kind: str, tmp_path: Path
) -> None:
    import transformers

    tokenizer = toy_tokenizer(chat=False)
    config = transformers.CONFIG_MAPPING[kind](vocab_size=len(tokenizer), hidden_size=32, **TOGETHER[kind])
    torch.manual_seed(1)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    told = rf"see each other in models of type {kind}; .*take finetune.pack: false"
    with pytest.raises(UserError, match=rf"finetune.pack: .*{told}"):
        models.load(tmp_path, small(), CPU)
    model = models.load(tmp_path, small(pack=False), CPU).model.eval()
    state = torch.random.get_rng_state()
    assert not models.keeps_apart(model) and torch.equal(torch.random.get_rng_state(), state)
    with torch.inference_mode():  # what stands behind a conversation changes nothing in it
        alone, filled = (float(models.loss(model, *row(DOCUMENTS[:1], length))) for length in (11, 40))
    assert alone == pytest.approx(filled, rel=1e-6)


def test_code_in_a_model_folder_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rinsho.generate.loading import load_model, load_tokenizer

    monkeypatch.setattr("builtins.input", lambda *_: "y")  # to transformers' question
    (tmp_path / "evil.py").write_text("import pathlib\npathlib.Path(__file__).with_name('ran').touch()\nraise OSError")
    classes = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M", "AutoTokenizer": ["evil.T", None]}
    text = json.dumps({"model_type": "evil", "tokenizer_class": "T", "auto_map": classes})
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / name).write_text(text)
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    ran: list[object] = []
    monkeypatch.setattr("transformers.dynamic_module_utils.get_class_in_module", lambda *_, **__: ran.append(1))
    for open_it in (load_model, load_tokenizer):
        with pytest.raises(UserError, match="cannot be opened"):
            open_it(tmp_path)
    assert not ran


def test_new_tokens_begin_at_the_mean_also_where_the_embedding_has_room_for_them(tmp_path: Path) -> None:
    tokenizer = toy_tokenizer(chat=False)
    known, model = len(tokenizer), toy_model(len(tokenizer) + 8)
    model.model.embed_tokens.weight.data[known:] = 0.0
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = models.load(tmp_path, small(chat="rinsho"), CPU)
    for weight in (loaded.model.model.embed_tokens.weight, loaded.model.lm_head.weight):
        assert len(weight) == known + 8
        torch.testing.assert_close(weight[known : known + 3], weight[:known].mean(0).expand(3, -1))
    assert not loaded.model.model.embed_tokens.weight[known + 3 :].any()


def test_rows_at_a_time_belong_to_a_run_that_draws_numbers_on_its_forward_pass() -> None:
    from rinsho.finetune import Adapter
    from rinsho.run import _kept

    def counts(**changes: Any) -> bool:
        return "micro_batch_rows" in _kept(small(**changes).model_dump(mode="json"))

    assert not counts() and not counts(adapter=Adapter())
    assert counts(residual_dropout=0.1) and counts(adapter=Adapter(dropout=0.1)) and counts(neftune_alpha=5.0)


def test_chat_templates_in_a_folder_of_their_own_are_published_again_and_with_every_seed(tmp_path: Path) -> None:
    from rinsho.chat_template import PLAIN
    from rinsho.finetune import run

    tokenizer = toy_tokenizer(chat=False)
    tokenizer.chat_template = {"default": PLAIN, "tool_use": PLAIN}
    toy_model(len(tokenizer)).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    (tmp_path / "x.jsonl").write_text('{"question": "咳", "answer": "肺癌"}\n' * 4)
    inputs = [tmp_path / "base", tmp_path / "x.jsonl"]
    recipe = small(max_tokens=64, sequence_length=32, batch_tokens=64, threads=1, seeds=(1,))
    run(recipe, inputs, tmp_path / "out")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.jinja")}
    own = {"chat_template.jinja", "additional_chat_templates/tool_use.jinja"}
    assert names == own | {f"seed-1/{name}" for name in own}
    (tmp_path / "out/DONE").unlink()  # killed after publishing
    run(recipe, inputs, tmp_path / "out")


def test_no_part_of_a_tuning_computes_more_rows_than_a_step(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rinsho.finetune import preference, run

    rows = [{"question": f"咳{n}", "answer": f"肺癌{n}"} for n in range(40)]
    pairs = [{"prompt": f"咳{n}", "chosen": "肺", "rejected": "胃"} for n in range(20)]
    for name, lines in (("x", rows), ("pairs", pairs)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    seen: list[int] = []
    logps = preference.sequence_logps
    monkeypatch.setattr("rinsho.finetune.validation.loss", lambda *a: (seen.append(len(a[1])), models.loss(*a))[1])
    monkeypatch.setattr(preference, "sequence_logps", lambda m, b, low=False: (
        seen.append(len(b.rows.input_ids)), logps(m, b, low))[1])  # fmt: skip
    settings = {"max_tokens": 256, "sequence_length": 64, "batch_tokens": 256, "dtype": "fp32", "threads": 1}
    run(Recipe(**settings, validation_fraction=0.5), [base, tmp_path / "x.jsonl"], tmp_path / "sft")  # type: ignore[arg-type]
    run(Recipe(**settings, objective="dpo"), [base, tmp_path / "pairs.jsonl"], tmp_path / "dpo")  # type: ignore[arg-type]
    assert max(seen) == 4


def test_predicted_activations_are_those_that_autograd_keeps(folders: dict[str, Path], base: Path) -> None:
    for folder in (folders["gemma2"], base):  # measured on short rows, told for long ones, without the logits
        recipe = small(sequence_length=128, micro_batch_rows=1)
        loaded = models.load(folder, recipe, CPU)
        assert memory._measured(loaded, recipe) == pytest.approx(memory._kept(loaded, recipe, 128), rel=0.01)


def test_prediction_counts_what_stands_there(base: Path) -> None:
    loaded = models.load(base, small(), CPU)
    count = sum(parameter.numel() for parameter in loaded.model.parameters())
    state = torch.random.get_rng_state()
    told = memory.predict(loaded, small(optimizer="adamw"))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (told.trainable, told.frozen, told.gradients, told.optimizer) == (count, 0, 4 * count, 8 * count)
    assert 4 * count <= told.weights < 4 * count + 4096 and told.activations > 0
    large = [parameter.numel() for parameter in loaded.model.parameters() if parameter.numel() >= 4096]
    eight = memory.predict(loaded, small(optimizer="adamw_8bit")).optimizer
    assert eight == 8 * (count - sum(large)) + sum(2 * size + 8 * -(-size // 256) for size in large)
    assert memory.predict(loaded, small(optimizer="muon")).optimizer < 8 * count
