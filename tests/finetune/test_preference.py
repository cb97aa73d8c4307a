"""DPO against TRL's, learning on invented pairs, and what a kill leaves. All tests of this room that load PEFT and TRL
for noise or pairs stand here, so that one process imports them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rinsho.chat import TEMPLATE, Message
from rinsho.chat_template import Renderer, renderer
from rinsho.errors import UserError
from rinsho.finetune import Adapter, Recipe, run
from rinsho.instructions import Pair
from rinsho.run import Stage, read_metrics
from toy_models import toy_folder, toy_model, toy_tokenizer

BETA = 0.5
LATE = ["急性心筋梗塞", "肺癌", "発熱", "咳嗽"]


@pytest.fixture(scope="module")
def render() -> Renderer:
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return renderer(tokenizer, "toy")


def pair(number: int, prompt: str, chosen: str, rejected: str, before: tuple[Message, ...] = ()) -> Pair:
    return Pair(f"toy/{number:05d}", "toy", (*before, Message("user", prompt)), chosen, rejected)


def invented(count: int) -> list[Pair]:
    """Of two answers the one that names a finding of the prompt is better."""
    draw = random.Random(2)
    found = []
    for number in range(count):
        said, other = draw.sample(LATE, 2)
        found.append(
            pair(number, f"患者は{said}を認め、" + "疑い" * draw.randint(0, 4), f"{said}あり。", f"{other}なし")
        )
    return found


def small(**changes: Any) -> Recipe:
    values = {
        "objective": "dpo", "dpo_beta": BETA, "sequence_length": 64, "batch_tokens": 1024, "dtype": "fp32", "epochs": 3
    }  # fmt: skip
    return Recipe(**(values | changes))


def feed_of(pairs: list[Pair], render: Renderer, **changes: Any):
    from rinsho.finetune.preference import make_feed

    return make_feed(small(**changes), pairs, render)


def stage_in(folder: Path) -> Stage:
    folder.mkdir(parents=True, exist_ok=True)
    return Stage("finetune", folder)


def gradients(model: Any) -> dict[str, Any]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_rows_are_prompt_and_answer_and_labels_the_last_answer_alone(render: Renderer) -> None:
    before = (Message("user", "発熱は"), Message("assistant", "なし"))
    feed = feed_of([pair(0, "咳嗽は", "あり。", "咳嗽なし", before)], render)
    batch = feed.take([0])
    tokens = render.tokenizer
    labels = [row[row != -100].tolist() for row in batch.rows.shift_labels]
    assert [tokens.decode(row[:-1]) for row in labels] == ["あり。", "咳嗽なし"]
    assert all(row[-1] == tokens.eos_token_id for row in labels)
    for ids, wanted, answer in zip(batch.rows.input_ids, batch.rows.shift_labels, ("あり。", "咳嗽なし"), strict=True):
        whole, _ = render([*before, Message("user", "咳嗽は"), Message("assistant", answer)])
        assert ids[: len(whole) - 1].tolist() == whole[:-1]
        assert (ids[len(whole) - 1 :] == render.pad_id).all()
        assert [(t, wanted[t]) for t in np.flatnonzero(wanted != -100)] == [
            (t, whole[t + 1]) for t in range(len(whole) - 1) if t >= len(whole) - 1 - (wanted != -100).sum()
        ]


def test_long_prompts_lose_the_same_middle_and_long_answers_the_pair(render: Renderer) -> None:
    long = pair(0, "患者は" + "発熱" * 100 + "の咳嗽", "あり。", "咳嗽なし。なし。")
    huge = pair(1, "患者は", "発熱" * 100, "なし")
    fits = pair(2, "患者は", "あり", "なし")
    feed = feed_of([long, huge, fits], render)
    assert (len(feed), feed.shortened, feed.left_out) == (2, 1, ["toy/00001"])
    (chosen, start), (rejected, same) = feed.pairs[0]
    assert start == same and (chosen[:start] == rejected[:start]).all()
    assert len(rejected) == 65 and len(chosen) < 65
    assert "患者は" in render.tokenizer.decode(chosen) and "の咳嗽" in render.tokenizer.decode(chosen)
    left = feed_of([long, huge, fits], render, too_long="leave_out")
    assert (len(left), left.shortened, left.left_out) == (1, 0, ["toy/00000", "toy/00001"])
    with pytest.raises(UserError, match=r"toy/00000 has \d+ tokens"):
        feed_of([long], render, too_long="refuse")
    with pytest.raises(UserError, match="no pair of answers"):
        feed_of([huge], render)


def test_a_batch_is_a_function_of_its_step_and_epochs_see_every_pair_once(render: Renderer) -> None:
    feed, again = feed_of(invented(20), render), feed_of(invented(20), render)
    assert feed.pairs_per_step == 1024 // 128 and feed.steps == round(20 * 3 / 8)
    seen = [int(number) for step in range(5) for number in feed.batch(step).numbers]
    assert sorted(seen[:20]) == sorted(seen[20:]) == list(range(20)) and seen[:20] != seen[20:]
    assert (again.batch(4).rows.input_ids == feed.batch(4).rows.input_ids).all()
    assert feed_of(invented(20), render, max_tokens=10 * 1024).steps == 10
    assert feed_of(invented(20), render, batch_tokens=64).pairs_per_step == 1
    assert feed_of(invented(19), render).digest != feed.digest == again.digest


def test_padding_and_company_change_no_log_probability(render: Renderer) -> None:
    import torch

    from rinsho.finetune.preference import sequence_logps

    model, feed = toy_model(len(render.tokenizer)), feed_of(invented(6), render)
    with torch.no_grad():
        together = sequence_logps(model, feed.take(range(6)))
        for number in range(6):
            for side in (0, 1):
                ids, start = feed.pairs[number][side]
                logits = model(torch.from_numpy(ids)[None]).logits[0].log_softmax(-1)
                alone = sum(float(logits[at - 1, ids[at]]) for at in range(start, len(ids)))
                assert float(together[side * 6 + number]) == pytest.approx(alone, abs=1e-4)


def test_our_model_gives_the_cross_entropy_of_its_own_loss(render: Renderer) -> None:
    import torch

    from rinsho.finetune.preference import sequence_logps
    from rinsho.model import ModelSettings, build
    from rinsho.modeling import next_token_loss

    sizes = ModelSettings(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1
    )
    model, batch = build(sizes, len(render.tokenizer), 1).eval(), feed_of(invented(4), render).take(range(4))
    with torch.no_grad():
        whole = next_token_loss(model, *(torch.from_numpy(array) for array in batch.rows))
        assert float(-sequence_logps(model, batch).sum()) == pytest.approx(float(whole), rel=1e-5)


def test_micro_batches_change_nothing_but_rounding(render: Renderer) -> None:
    import torch

    from rinsho.finetune.preference import dpo_step

    feed = feed_of(invented(8), render)
    reference = torch.randn(8, 2, generator=torch.Generator().manual_seed(1)) - 20
    found = []
    for rows in (1, 6, 64):
        model = toy_model(len(render.tokenizer)).train()
        loss, about = dpo_step(model, feed.batch(0), reference, BETA, rows)
        found.append((loss, about, gradients(model)))
    for loss, about, grads in found[1:]:
        assert loss == pytest.approx(found[0][0], abs=1e-5) and about == pytest.approx(found[0][1], abs=1e-5)
        assert all(torch.allclose(grads[name], grad, atol=1e-5) for name, grad in found[0][2].items())


def trl_step(
    folder: Path, pairs: list[Pair], render: Renderer, model: Any, start: Any
) -> tuple[float, Any, dict[str, Any]]:
    """Loss, ids and metrics of TRL's first step on these pairs; gradients stay in the model."""
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    rows = [
        {
            "prompt": [{"role": message.role, "content": message.content} for message in pair.messages],
            "chosen": [{"role": "assistant", "content": pair.chosen}],
            "rejected": [{"role": "assistant", "content": pair.rejected}],
        }
        for pair in pairs
    ]
    settings = trl.DPOConfig(
        output_dir=str(folder), beta=BETA, per_device_train_batch_size=len(pairs), use_cpu=True, bf16=False,
        gradient_checkpointing=False, report_to="none", max_length=None, disable_tqdm=True,
    )  # fmt: skip
    trainer = trl.DPOTrainer(
        model=model, ref_model=start, args=settings, train_dataset=datasets.Dataset.from_list(rows),
        processing_class=render.tokenizer,
    )  # fmt: skip
    trainer.model.train()
    inputs = trainer.data_collator([trainer.train_dataset[number] for number in range(len(pairs))])
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    metrics = {name: values[-1] for name, values in trainer._metrics["train"].items() if "rewards" in name}
    return float(loss.detach()), inputs["input_ids"], metrics


def test_loss_gradients_and_figures_are_those_of_trl(render: Renderer, tmp_path: Path) -> None:
    import torch

    from rinsho.finetune.preference import dpo_step, reference_logps

    pairs = invented(6)
    feed = feed_of(pairs, render)
    ours, theirs, start = (toy_model(len(render.tokenizer)) for _ in range(3))
    reference = reference_logps(start, feed, tmp_path / "reference.safetensors", stage_in(tmp_path))
    for model in (ours, theirs):  # a step away from the start, or every reward would be 0
        with torch.no_grad():
            for number, parameter in enumerate(model.parameters()):
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    loss, about = dpo_step(ours.train(), feed.take(range(6)), reference, BETA, 4)
    expected, ids, metrics = trl_step(tmp_path / "trl", pairs, render, theirs, start)
    rows = feed.take(range(6)).rows
    assert ids[:, :-1].tolist() == rows.input_ids.tolist()
    assert loss == pytest.approx(expected, abs=1e-5) and abs(loss - np.log(2)) > 1e-3
    names = {"chosen": "chosen", "rejected": "rejected", "margin": "margins", "accuracy": "accuracies"}
    for name, their in names.items():
        assert about[f"reward_{name}"] == pytest.approx(metrics[f"rewards/{their}"], abs=1e-4)
    mine, wanted = gradients(ours), gradients(theirs)
    assert mine.keys() == wanted.keys()
    assert max(float((mine[name] - wanted[name]).abs().max()) for name in mine) < 1e-5
    assert max(float(grad.abs().max()) for grad in mine.values()) > 1e-2


def adapted(model: Any, **options: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", **options)
    return get_peft_model(model, config)


@pytest.mark.parametrize("kind", ["full", "adapter"])
def test_a_few_dozen_steps_tell_better_answers_from_worse(render: Renderer, tmp_path: Path, kind: str) -> None:
    import torch

    from rinsho.finetune.preference import dpo_step, reference_logps

    torch.manual_seed(1)
    model = toy_model(len(render.tokenizer))
    if kind == "adapter":
        model = adapted(model)
    feed = feed_of(invented(48), render)
    reference = reference_logps(model, feed, tmp_path / "reference.safetensors", stage_in(tmp_path))
    trained = [parameter for parameter in model.train().parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-2 if kind == "adapter" else 3e-3)
    history = []
    for step in range(30):
        history.append(dpo_step(model, feed.batch(step), reference, BETA, 64))
        optimizer.step()
        optimizer.zero_grad()
    assert history[0][0] == pytest.approx(np.log(2), abs=1e-4)
    assert sum(about["reward_accuracy"] for _, about in history[-5:]) / 5 > 0.9
    assert history[-1][0] < 0.4 and history[-1][1]["reward_margin"] > 0.5


@pytest.mark.parametrize("start", [True, "pissa", "olora"])
def test_the_reference_of_an_adapter_is_the_model_it_starts_from(render: Renderer, tmp_path: Path, start: Any) -> None:
    import torch

    from rinsho.finetune.preference import reference_logps, sequence_logps

    feed, base = feed_of(invented(6), render), toy_model(len(render.tokenizer))
    with torch.no_grad():
        wanted = sequence_logps(base, feed.take(range(6))).view(2, -1).T
    model = adapted(base, init_lora_weights=start, lora_dropout=0.5).train()
    found = reference_logps(model, feed, tmp_path / "reference.safetensors", stage_in(tmp_path))
    assert model.training and torch.allclose(found, wanted, atol=1e-3)
    if start is not True:  # with the adapter off a part of the base is missing
        with torch.no_grad(), model.disable_adapter():
            without = sequence_logps(model, feed.take(range(6))).view(2, -1).T
        assert float((without - wanted).abs().max()) > 1


def test_a_kill_while_the_reference_is_computed_costs_no_bit(
    render: Renderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rinsho.finetune import preference

    feed, model, stage = feed_of(invented(10), render, micro_batch_rows=4), toy_model(len(render.tokenizer)), None
    stage = stage_in(tmp_path)
    whole = preference.reference_logps(model, feed, tmp_path / "whole.safetensors", stage)
    calls = []
    real = preference.sequence_logps

    def counted(*arguments: Any) -> Any:
        calls.append(len(arguments[1]))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(preference, "sequence_logps", counted)
    monkeypatch.setattr(preference, "SAVE_EVERY_BATCHES", 2)
    path = tmp_path / "partial/reference.safetensors"
    with pytest.raises(KeyboardInterrupt):
        preference.reference_logps(model, feed, path, stage)
    assert path.is_file()
    again = preference.reference_logps(model, feed, path, stage)
    assert calls == [2, 2, 2, 2, 2, 2, 2]  # five groups of two pairs: two were kept, three computed after the kill
    assert again.equal(whole) and path.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert preference.reference_logps(None, feed, path, stage).equal(whole)  # killed before training: only read
    other = feed_of(invented(9), render, micro_batch_rows=4)
    assert len(preference.reference_logps(model, other, path, stage)) == 9  # of other pairs: computed anew


@pytest.mark.parametrize("kind", ["full", "adapter"])
def test_a_kill_between_reference_and_training_is_harmless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    from rinsho.finetune import preference
    from rinsho.finetune.loop import Trainer

    model, file = toy_folder(tmp_path / "model"), tmp_path / "pairs.jsonl"
    rows = [{"prompt": p.messages[-1].content, "chosen": p.chosen, "rejected": p.rejected} for p in invented(12)]
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    recipe = small(
        optimizer="adamw", learning_rate=1e-2, warmup_steps=1, log_every_steps=1, save_every_steps=2, threads=1,
        adapter=Adapter() if kind == "adapter" else None, copy_tokens=0,
    )  # fmt: skip
    report = run(recipe, [model, file], tmp_path / "whole")
    figures = read_metrics(tmp_path / "whole")
    assert report.numbers["steps"] == len(figures) == round(12 * 3 / 8)
    assert {"reward_accuracy", "reward_margin", "reward_chosen", "reward_rejected"} <= set(figures[-1])
    for where in ("before", "amid"):
        out, real = tmp_path / where, Trainer.step

        def stops(self: Trainer, at: int = 0 if where == "before" else 3, step: Any = real) -> None:
            if self.at.step == at:
                raise KeyboardInterrupt
            step(self)

        monkeypatch.setattr(Trainer, "step", stops)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, [model, file], out)
        monkeypatch.undo()
        assert (out / "partial" / preference.REFERENCE).is_file()
        monkeypatch.setattr(preference, "_keep", None)  # read, not computed again
        run(recipe, [model, file], out)
        monkeypatch.undo()
        name = "adapter_model.safetensors" if kind == "adapter" else "model.safetensors"
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_model_without_finite_numbers_is_refused(render: Renderer, tmp_path: Path) -> None:
    import torch

    from rinsho.finetune.preference import reference_logps

    model = toy_model(len(render.tokenizer))
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(UserError, match="no finite log-probability"):
        reference_logps(model, feed_of(invented(2), render), tmp_path / "reference.safetensors", stage_in(tmp_path))


@pytest.mark.parametrize("options", [{}, {"trainable_token_indices": [5, 7]}, {"target_modules": ["embed_tokens"]}])
def test_noise_reaches_the_embedding_of_a_peft_model(options: dict[str, Any]) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    from rinsho.finetune.noise import Noise
    from rinsho.tokens import Batch

    settings = {"r": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"} | options
    model = get_peft_model(toy_model(300), LoraConfig(**settings)).train()
    ids = np.array([[5, 7, 9, 11]])
    tensors = torch.from_numpy(np.concatenate([ids, ids]))
    seen: list[Any] = []
    layer = model.get_base_model().model.layers[0]
    layer.register_forward_pre_hook(lambda module, inputs, named: seen.append(inputs[0].detach()), with_kwargs=True)
    model(input_ids=tensors)
    noise = Noise(model, "symnoise", 5.0)
    noise.prepare(Batch(ids, np.arange(4)[None], ids))
    model(input_ids=tensors)
    model.eval()(input_ids=tensors)
    noise.remove()
    still, moved, evaluated = seen
    assert torch.allclose((moved - still).abs(), torch.full_like(still, 5 / (4 * 32) ** 0.5), atol=1e-5)
    assert torch.allclose(moved[0] - still[0], still[1] - moved[1], atol=1e-6) and torch.equal(evaluated, still)
