"""Adapters: every method learns, continues and opens again on its untouched base; the 8-bit optimizer beside them.

All tests that import bitsandbytes for tuning are in this file: the import takes seconds.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from rinsho.checkpoint import load_checkpoint, save_checkpoint
from rinsho.errors import UserError
from rinsho.finetune import Adapter, Method, Recipe, memory, methods, models
from rinsho.optim import make_optimizer
from toy_models import toy_model, toy_tokenizer

pytest.importorskip("peft")
CPU = torch.device("cpu")
IDS = torch.randint(3, 290, (2, 24), generator=torch.Generator().manual_seed(3))
POSITIONS = torch.cat([torch.arange(10), torch.arange(14)]).expand(2, -1)
LABELS = IDS.roll(-1, 1)
NEEDS_NEWER = {"kasa"}  # came with PEFT 0.21


def small(method: str = "lora", options: dict[str, Any] | None = None, **changes: Any) -> Recipe:
    adapter = Adapter(method=method, rank=4, dropout=0.1, options=options or {})  # type: ignore[arg-type]
    return Recipe(**({"adapter": adapter, "dtype": "fp32", "chat": "auto"} | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama without chat tokens, whose chat form becomes `plain`."""
    tokenizer, found = toy_tokenizer(chat=False), tmp_path_factory.mktemp("llama")
    toy_model(len(tokenizer), spread=0.2).save_pretrained(found)
    tokenizer.save_pretrained(found)
    return found


def optimizer_of(loaded: models.Loaded, kind: Any = "adamw") -> Any:
    return make_optimizer(loaded.model.named_parameters(), kind, learning_rate=1e-2, rates=loaded.rates)


def train(loaded: models.Loaded, optimizer: Any, first: int, last: int) -> float:
    total = torch.zeros(())
    for step in range(first, last):
        torch.manual_seed(step)
        total = models.loss(loaded.model, IDS, POSITIONS, LABELS) / LABELS.numel()
        more = methods.penalty(loaded.model)
        (total if more is None else total + more).backward()
        optimizer.step(1.0)
    return float(total.detach())


def loss_of(model: Any) -> float:
    with torch.inference_mode():
        return float(models.loss(model.eval(), IDS, POSITIONS, LABELS))


def possible(method: str) -> None:
    from dataclasses import fields

    from peft import LoraConfig

    if method in NEEDS_NEWER and f"{method}_config" not in {field.name for field in fields(LoraConfig)}:
        pytest.skip(f"this PEFT has no {method}")


def test_there_is_a_form_for_every_method() -> None:
    assert set(methods.FORMS) == set(get_args(Method))


@pytest.mark.parametrize("method", [name for name in methods.FORMS if name != "rslora"])
def test_every_method_learns_continues_and_opens_on_its_untouched_base(
    folder: Path, method: str, tmp_path: Path
) -> None:
    from rinsho.adapters import open_adapter

    possible(method)
    recipe = small(method)
    straight = models.load(folder, recipe, CPU)
    assert straight.kind == "adapter" and not any("lm_head" in name for name in straight.trained)
    assert {parameter.dtype for parameter in straight.trained.values()} == {torch.float32}
    optimizer = optimizer_of(straight)
    first = train(straight, optimizer, 0, 1)
    stopped = models.load(folder, recipe, CPU)
    other = optimizer_of(stopped)
    train(stopped, other, 0, 1)
    save_checkpoint(tmp_path, 1, {"model": stopped.trained, "optimizer": other.state_tensors()}, {})
    last = train(straight, optimizer, 1, 4)
    assert last < first

    found = load_checkpoint(tmp_path)
    assert found is not None
    torch.manual_seed(99)  # nothing comes from torch's own state
    resumed = models.load(folder, recipe, CPU)
    with torch.no_grad():
        for name, parameter in resumed.trained.items():
            parameter.copy_(found.part("model")[name])
    other = optimizer_of(resumed)
    other.load_state_tensors(found.part("optimizer"))
    train(resumed, other, 1, 4)
    again = resumed.model.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in straight.model.state_dict().items())

    models.save(straight, tmp_path / "adapter", folder, {}, "float32")
    opened = open_adapter(tmp_path / "adapter")
    assert loss_of(opened) == pytest.approx(loss_of(straight.model), rel=1e-6)


@pytest.mark.parametrize("method", ["lora", "pissa", "adaption_prompt"])
def test_packing_changes_no_loss_under_an_adapter(folder: Path, method: str) -> None:
    loaded = models.load(folder, small(method), CPU)
    train(loaded, optimizer_of(loaded), 0, 2)
    model = loaded.model.eval()
    with torch.inference_mode():
        parts = [
            float(models.loss(model, IDS[:, span], POSITIONS[:, span], LABELS[:, span]))
            for span in (slice(0, 10), slice(10, 24))
        ]
        assert float(models.loss(model, IDS, POSITIONS, LABELS)) == pytest.approx(sum(parts), rel=1e-5)


def test_new_tokens_on_our_base_learn_as_they_do_in_full_tuning(base: Path) -> None:
    """One step of AdamW moves a published row by the embedding scale times what it moves the unfolded one."""
    scale = 32**0.5
    loaded = models.load(base, small(optimizer="adamw"), CPU)
    ((name, factor),) = loaded.rates.items()
    row = loaded.trained[name]
    assert factor == pytest.approx(scale) and len(row) == 3
    before = row.detach().clone()
    optimizer = make_optimizer(loaded.trained.items(), learning_rate=1e-2, weight_decay=0.5, rates=loaded.rates)
    for parameter in loaded.trained.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step(1.0)
    wanted = scale * (before / scale * (1 - 1e-2 * 0.5) - 1e-2)
    torch.testing.assert_close(row.detach(), wanted)
    others = [parameter for key, parameter in loaded.trained.items() if key != name]
    assert others and all(parameter.ndim == 2 for parameter in others)


def test_rows_of_new_tokens_are_trained_also_where_the_head_is_tied(tmp_path: Path) -> None:
    from rinsho.adapters import open_adapter

    tokenizer = toy_tokenizer(chat=False)
    model = toy_model(len(tokenizer), spread=0.2)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    loaded = models.load(tmp_path / "base", small(chat="rinsho"), CPU)
    rows = [name for name in loaded.trained if "trainable_tokens" in name]
    assert len(rows) == 1 and loaded.rates == {}
    before = loaded.trained[rows[0]].detach().clone()
    optimizer = optimizer_of(loaded)
    train(loaded, optimizer, 0, 2)
    assert not torch.equal(loaded.trained[rows[0]], before)
    models.save(loaded, tmp_path / "adapter", tmp_path / "base", {}, "float32")
    assert loss_of(open_adapter(tmp_path / "adapter")) == pytest.approx(loss_of(loaded.model), rel=1e-6)


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_quantised_bases_learn_and_open_again(folder: Path, tmp_path: Path, quantization: Any) -> None:
    pytest.importorskip("bitsandbytes")
    from rinsho.adapters import open_adapter

    recipe = small(quantization=quantization, activation_checkpointing=True)
    loaded = models.load(folder, recipe, CPU)
    told = memory.predict(loaded, recipe)
    full = models.load(folder, small(), CPU)
    assert told.trainable == sum(parameter.numel() for parameter in loaded.trained.values())
    assert told.frozen == sum(p.numel() for p in full.model.parameters() if not p.requires_grad)
    assert told.weights < 0.8 * memory.predict(full, small()).weights
    optimizer = optimizer_of(loaded)
    first = train(loaded, optimizer, 0, 1)
    assert train(loaded, optimizer, 1, 6) < 0.8 * first
    models.save(loaded, tmp_path, folder, {}, "float32")
    assert loss_of(open_adapter(tmp_path, quantization=quantization)) == pytest.approx(loss_of(loaded.model), rel=1e-6)
    with pytest.raises(UserError, match="needs the base's weights as they are"):
        models.load(folder, small("pissa", quantization=quantization), CPU)


def test_validation_and_evaluation_of_a_quantised_adapter_give_the_same_answers(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("bitsandbytes")
    from rinsho.adapters import trained_form
    from rinsho.generate.engine import Generator

    loaded = models.load(folder, small(quantization="int8"), CPU)
    train(loaded, optimizer_of(loaded), 0, 4)
    models.save(loaded, tmp_path, folder, {}, "float32")
    prompts, options = [[5, 270, 280], [6, 271]], [[[260], [261, 262]]] * 2
    validated = Generator.of(loaded.model.eval(), loaded.tokenizer)
    evaluated = Generator(tmp_path)
    assert "on a base in int8, float32, as it was trained" in capsys.readouterr().err
    assert evaluated.choose(prompts, options) == validated.choose(prompts, options)
    full = Generator(tmp_path, dtype="float32")
    assert full.choose(prompts, options) != validated.choose(prompts, options)
    assert trained_form(tmp_path) == ("int8", "float32", None) and capsys.readouterr().err == ""


def test_a_base_that_cannot_be_opened_as_trained_is_opened_in_full(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rinsho import adapters

    loaded = models.load(folder, small("lora", base_dtype="bfloat16"), CPU)
    models.save(loaded, tmp_path, folder, {}, "float32")
    assert adapters.trained_form(tmp_path) == ("none", "bfloat16", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    about = (tmp_path / "rinsho.json").read_text()
    (tmp_path / "rinsho.json").write_text(about.replace('"quantization": "none"', '"quantization": "nf4"'))
    assert adapters.trained_form(tmp_path) == ("none", "float32", "bitsandbytes is not installed")


def test_new_tokens_in_spare_rows_open_again_at_the_mean(tmp_path: Path) -> None:
    from rinsho.adapters import open_adapter

    tokenizer = toy_tokenizer(chat=False)
    known, model = len(tokenizer), toy_model(len(tokenizer) + 8, spread=0.2)
    model.lm_head.weight.data[known:] = 0.0
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    loaded = models.load(tmp_path / "base", small(chat="rinsho"), CPU)
    head = loaded.model.get_output_embeddings().weight
    torch.testing.assert_close(head[known : known + 3], head[:known].mean(0).expand(3, -1))
    train(loaded, optimizer_of(loaded), 0, 2)
    models.save(loaded, tmp_path / "adapter", tmp_path / "base", {}, "float32")
    opened = open_adapter(tmp_path / "adapter")
    assert torch.equal(opened.get_output_embeddings().weight, head)
    assert loss_of(opened) == pytest.approx(loss_of(loaded.model), rel=1e-6)


def test_the_digest_is_that_of_the_base_that_was_opened(folder: Path, tmp_path: Path) -> None:
    from rinsho.bases import base_digest

    other = shutil.copytree(folder, tmp_path / "base")
    loaded = models.load(other, small(), CPU)
    toy_model(300, seed=2).save_pretrained(other)  # replaced while tuning goes on
    models.save(loaded, tmp_path / "adapter", other, {}, "float32")
    assert json.loads((tmp_path / "adapter/rinsho.json").read_text())["base"]["digest"] == base_digest(folder)


def test_a_step_adds_the_gradient_of_the_methods_penalty(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rinsho.finetune.loop import Done, Trainer
    from rinsho.run import Stage

    possible("kasa")
    recipe = small("kasa", grad_clip=1e9)
    loaded = models.load(folder, recipe, CPU)
    names, parameters = zip(*loaded.trained.items(), strict=True)
    wanted = torch.autograd.grad(methods.penalty(loaded.model), parameters, allow_unused=True)
    found: dict[str, Any] = {}
    nothing: Any = type("Nothing", (), {"backward": lambda *_: Done(1.0, 1, 1)})()
    trainer = Trainer(recipe, loaded, nothing, 1, Stage("finetune", tmp_path))
    keep = lambda _: found.update({name: parameter.grad for name, parameter in loaded.trained.items()})  # noqa: E731
    monkeypatch.setattr(trainer.optimizer, "step", keep)
    trainer.step()
    assert any(gradient is not None and bool(gradient.any()) for gradient in wanted)
    for name, gradient in zip(names, wanted, strict=True):
        assert (found[name] is None) == (gradient is None)
        assert gradient is None or torch.equal(found[name], gradient), name


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_an_adapter_too_is_not_packed_where_conversations_would_mix(tmp_path: Path, quantization: Any) -> None:
    import transformers

    if quantization != "none":
        pytest.importorskip("bitsandbytes")
    tokenizer = toy_tokenizer(chat=False)
    config: Any = transformers.BloomConfig(vocab_size=len(tokenizer), hidden_size=32, n_layer=2, n_head=4)
    transformers.BloomForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="see each other in models of type bloom"):
        models.load(tmp_path, small(quantization=quantization), CPU)
    assert models.load(tmp_path, small(quantization=quantization, pack=False), CPU).kind == "adapter"


def test_checkpointing_changes_no_bit_of_an_adapter(folder: Path) -> None:
    found = []
    for twice in (False, True):
        loaded = models.load(folder, small(activation_checkpointing=twice, base_dtype="bfloat16"), CPU)
        train(loaded, optimizer_of(loaded), 0, 2)
        found.append(list(loaded.trained.values()))
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_settings_and_options_reach_peft(folder: Path) -> None:
    model = toy_model(300)
    config: Any = methods.peft_config(Adapter(rank=3, alpha=6, dropout=0.25), model, (), 7)
    assert (config.r, config.lora_alpha, config.lora_dropout, config.task_type) == (3, 6, 0.25, "CAUSAL_LM")
    config = methods.peft_config(Adapter(target_modules=("q_proj", "v_proj"), options={"lora_bias": True}), model, [9])
    assert sorted(config.target_modules) == ["q_proj", "v_proj"] and config.lora_bias
    assert config.trainable_token_indices == [9]
    config = methods.peft_config(Adapter(method="vera"), model, (), 7)
    assert config.projection_prng_key == 7
    config = methods.peft_config(Adapter(method="ia3"), model, ())
    assert sorted(config.target_modules) == ["down_proj", "k_proj", "v_proj"]
    assert set(config.feedforward_modules) == {"down_proj"}
    config = methods.peft_config(Adapter(method="adaption_prompt", options={"adapter_len": 4}), model, ())
    assert (config.adapter_len, config.adapter_layers) == (4, 2)


@pytest.mark.parametrize(
    ("adapter", "told"),
    [
        (Adapter(options={"use_dorra": True}), "no option 'use_dorra'; expected of .*use_dora"),
        (Adapter(method="miss", options={"r": 2}), "no option 'r'"),
        (Adapter(options={"init_lora_weights": "eva"}), "needs data"),
        (Adapter(method="pissa", options={"use_dora": True}), "does not go together"),
        (Adapter(method="vera", options={"save_projection": False, "projection_prng_key": 3}), "no option"),
    ],
)
def test_wrong_options_are_told_with_those_there_are(adapter: Adapter, told: str) -> None:
    with pytest.raises(UserError, match=told):
        methods.peft_config(adapter, toy_model(300), ())


def test_what_does_not_fit_the_model_is_told(base: Path, folder: Path) -> None:
    with pytest.raises(UserError, match="does not know models of type arcee"):
        models.load(base, small("adaption_prompt"), CPU)
    with pytest.raises(UserError, match=r"cannot train their rows.*tune it fully first$"):
        models.load(base, small("miss"), CPU)
    with pytest.raises(UserError, match=r"cannot train their rows.*or take chat: plain$"):
        models.load(folder, small("miss", chat="rinsho"), CPU)
    wrong = Adapter(target_modules=("no_such_layer",))
    with pytest.raises(UserError, match="no_such_layer"):
        models.load(folder, small().model_copy(update={"adapter": wrong}), CPU)


def tensors() -> dict[str, torch.nn.Parameter]:
    torch.manual_seed(0)
    shapes = {"large": (64, 80), "odd": (71, 67), "small": (8, 8), "norm": (32,)}
    return {name: torch.nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}


def quadratic(named: dict[str, torch.nn.Parameter], optimizer: Any, first: int, last: int) -> float:
    total = torch.zeros(())
    for step in range(first, last):
        torch.manual_seed(step)
        total = sum(((tensor - 0.5 + 0.1 * torch.randn(())) ** 2).sum() for tensor in named.values())  # type: ignore[assignment]
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step(1.0 - step / 100)
    return float(total.detach())


def test_8bit_adamw_continues_to_the_bit_and_learns_as_adamw_does(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    straight, stopped, reference = tensors(), tensors(), tensors()
    optimizer = make_optimizer(straight.items(), "adamw_8bit", learning_rate=3e-2)
    loss = quadratic(straight, optimizer, 0, 40)
    wanted = quadratic(reference, make_optimizer(reference.items(), learning_rate=3e-2), 0, 40)
    assert loss == pytest.approx(wanted, rel=0.02)
    state = optimizer.state_tensors()
    assert state["large/state1"].dtype == torch.uint8 and state["small/state1"].dtype == torch.float32
    assert state["odd/absmax1"].shape == (19,) and int(state["norm/step"]) == 40

    other = make_optimizer(stopped.items(), "adamw_8bit", learning_rate=3e-2)
    quadratic(stopped, other, 0, 17)
    save_checkpoint(tmp_path, 17, {"optimizer": other.state_tensors()}, {})
    found = load_checkpoint(tmp_path)
    assert found is not None
    other = make_optimizer(stopped.items(), "adamw_8bit", learning_rate=3e-2)
    other.load_state_tensors(found.part("optimizer"))
    quadratic(stopped, other, 17, 40)
    assert all(torch.equal(tensor, stopped[name]) for name, tensor in straight.items())
    assert all(torch.equal(tensor, state[name]) for name, tensor in other.state_tensors().items())


def test_8bit_adamw_decays_matrices_alone() -> None:
    pytest.importorskip("bitsandbytes")
    named = tensors()
    before = {name: parameter.detach().clone() for name, parameter in named.items()}
    optimizer = make_optimizer(named.items(), "adamw_8bit", learning_rate=1e-2, weight_decay=0.5, rates={"odd": 4.0})
    for parameter in named.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(1.0)
    for name, parameter in named.items():
        factor = 1.0 if name == "norm" else 1 - 1e-2 * 0.5
        torch.testing.assert_close(parameter.detach(), before[name] * factor)
