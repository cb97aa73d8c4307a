"""Packing changes no loss, folding no logit, a kill no bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rinsho.finetune import Recipe, run
from rinsho.run import read_metrics
from toy_models import toy_folder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, base: Path, data: Path) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "finetune"
    run(small(), [base, data], out)
    return out


def small(**changes: object) -> Recipe:
    values: dict[str, object] = dict(  # noqa: C408
        max_tokens=6 * 512, copy_tokens=512, sequence_length=128, batch_tokens=512, dtype="fp32", threads=1,
        save_every_steps=2, log_every_steps=1, warmup_steps=2, residual_dropout=0.1, neftune_alpha=5.0,
    )  # fmt: skip
    return Recipe(**(values | changes))


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def products(folder: Path) -> dict[str, str]:
    return {name: row["hash"] for name, row in json.loads((folder / "DONE").read_text())["products"].items()}


def test_the_product_opens_with_stock_transformers_and_says_what_it_was_tuned_on(tuned: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from rinsho.model_folder import load_unfolded

    stock = AutoModelForCausalLM.from_pretrained(tuned).eval()
    assert stock.config.model_type == "arcee"
    ours = load_unfolded(tuned).eval()
    ids = torch.randint(3, 480, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(stock(ids).logits, ours(ids).logits)
    about = json.loads((tuned / "rinsho.json").read_text())
    assert about["embedding_scale"] == pytest.approx(32**0.5)
    assert about["finetune"]["answer_form"] == "text_letter" and about["finetune"]["tasks"] == ["nrner", "smdis"]
    before, own = about["data"]
    assert before == {"stage": "pretrain", "sources": None}  # the base tells nothing, which is told
    assert [row["licenses"].keys() for row in own["sources"]] == [{"CC-BY-NC-SA-4.0"}, {"CC-BY-4.0"}]
    assert [row["source"] for row in own["sources"]] == ["nrner", "smdis"]
    keys = (tuned / about["finetune"]["train_documents"]).read_text().split()
    assert keys == sorted(set(keys)) and all(len(key) == 32 for key in keys)
    report = json.loads((tuned / "report.json").read_text())["numbers"]
    assert report["tasks"]["smdis"]["rows"] > 45 and report["steps"] == 6 and report["copy_steps"] == 1


def test_metrics_have_every_step(tuned: Path) -> None:
    rows = read_metrics(tuned)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all({"seen_tokens", "loss", "learning_rate", "tokens_per_second"} <= set(row) for row in rows)
    assert rows[-1]["seen_tokens"] <= 6 * 512


def test_tuning_learns(base: Path, data: Path, tmp_path: Path) -> None:
    run(small(max_tokens=60 * 512, copy_tokens=0, tasks=("smdis",), neftune_alpha=0.0), [base, data], tmp_path / "out")
    losses = [row["loss"] for row in read_metrics(tmp_path / "out")]
    assert sum(losses[-5:]) / 5 < 0.5 * losses[0]


def test_packed_loss_is_the_unpacked_loss(base: Path, data: Path) -> None:
    import torch

    from rinsho.finetune import models
    from rinsho.finetune.data import read
    from rinsho.finetune.feed import Feed, quotas

    recipe = small(neftune_alpha=0.0, residual_dropout=0.0, sequence_length=512)
    loaded = models.load(base, recipe, torch.device("cpu"))
    model, found = loaded.model, read(recipe, [data], loaded.render)

    def total(pack: bool) -> tuple[float, int]:
        feed = Feed(found.examples, quotas(found.examples, recipe), recipe.model_copy(update={"pack": pack}), 0)
        batch = feed.batch(0, feed.rows(1))
        with torch.inference_mode():
            return float(models.loss(model.eval(), *map(torch.from_numpy, batch))), len(batch.input_ids)

    (packed, rows), (single, more_rows) = total(True), total(False)
    assert rows < more_rows
    assert packed == pytest.approx(single, rel=1e-5)


def test_micro_batches_change_nothing_but_rounding(base: Path, data: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    still = {"neftune_alpha": 0.0, "residual_dropout": 0.0, "optimizer": "adamw", "max_tokens": 3 * 512}
    for rows in (1, 64):
        run(small(micro_batch_rows=rows, **still), [base, data], tmp_path / str(rows))
    first, second = (load_file(tmp_path / rows / "model.safetensors") for rows in ("1", "64"))
    assert all(torch.allclose(first[name], second[name], atol=2e-4) for name in first)


def test_gradients_are_clipped(base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.nn.utils import get_total_norm

    from rinsho.optim import Optimizer

    norms, step = [], Optimizer.step

    def seen(self: Optimizer, factor: float) -> None:
        norms.append(float(get_total_norm([p.grad for p in self.parameters if p.grad is not None])))
        step(self, factor)

    monkeypatch.setattr(Optimizer, "step", seen)
    run(small(max_tokens=2 * 512, copy_tokens=0, grad_clip=0.01), [base, data], tmp_path / "out")
    assert norms == pytest.approx([0.01, 0.01], rel=1e-3)


def test_new_rows_start_near_the_others(base: Path) -> None:
    import torch

    from rinsho.finetune import models
    from rinsho.model_folder import load_unfolded

    loaded = models.load(base, small(), torch.device("cpu"))
    model, tokenizer = loaded.model, loaded.tokenizer
    before = load_unfolded(base).model.embed_tokens.weight
    after = model.model.embed_tokens.weight.detach()
    assert len(after) == len(before) + 3 == len(tokenizer)
    assert (after[:-3] == before).all()
    assert 0.3 < float(after[-3:].norm(dim=1).mean() / before.detach().norm(dim=1).mean()) < 3
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_stop_and_resume_give_the_same_bytes(
    tuned: Path, base: Path, data: Path, tmp_path: Path, interrupted_at_5: Callable[..., None]
) -> None:
    interrupted_at_5(small(), [base, data], tmp_path / "out")
    assert (tmp_path / "out/partial/checkpoints/step-00000004").is_dir()
    run(small(), [base, data], tmp_path / "out")
    assert products(tmp_path / "out") == products(tuned)
    assert [row["step"] for row in read_metrics(tmp_path / "out")] == [1, 2, 3, 4, 5, 6]


SCRIPT = """
import sys, time
from pathlib import Path
from rinsho.finetune import Recipe, run
from rinsho.finetune.loop import Trainer
step = Trainer.step
def slow(self):
    step(self)
    time.sleep(0.05)
Trainer.step = slow
base, data, out, recipe = sys.argv[1:]
run(Recipe.model_validate_json(recipe), [Path(base), Path(data)], Path(out))
"""


def test_a_kill_costs_no_bit(tuned: Path, base: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    paths = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", SCRIPT, str(base), str(data), str(out), small().model_dump_json()]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stderr=subprocess.PIPE)
    while process.poll() is None and not (out / "partial/checkpoints/step-00000002").exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (out / "DONE").exists()
    run(small(), [base, data], out)
    assert products(out) == products(tuned)


def test_a_model_that_is_not_ours_is_tuned_too(data: Path, tmp_path: Path) -> None:
    import torch

    from rinsho.chat import Message
    from rinsho.generate.engine import Generator

    foreign = toy_folder(tmp_path / "foreign", chat=False)
    report = run(
        small(max_tokens=1024, copy_tokens=0, sequence_length=256, residual_dropout=0.0, chat="rinsho"),
        [foreign, data],
        tmp_path / "out",
    )
    assert report.numbers["steps"] == 2
    generator = Generator(tmp_path / "out")
    assert generator.model.config.model_type == "llama"
    prompt = generator.prompt([Message("user", "発熱")])
    names = generator.tokenizer.convert_ids_to_tokens(prompt)
    assert names[0] == "<|begin_of_text|>" and names[1] == "<|user|>" and names[-1] == "<|assistant|>"
    assert torch.isfinite(torch.tensor(generator.choose([prompt], [[[5], [6, 7]]]))).all()
