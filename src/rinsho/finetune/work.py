"""What the fine-tuning stage does, from its inputs to its product."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from rinsho.device import choose_device, reproducible
from rinsho.errors import UserError
from rinsho.files import atomic_folder, publish_folder, write_atomic
from rinsho.finetune import Recipe, models
from rinsho.finetune.data import Data, read
from rinsho.finetune.feed import Plan, make_plan
from rinsho.finetune.inputs import Earlier, read_earlier, sort_data
from rinsho.finetune.loop import Objective, Position, Supervised, Trainer
from rinsho.finetune.memory import predict
from rinsho.finetune.models import Loaded
from rinsho.finetune.preference import PairFeed, Preferences, read_feed
from rinsho.finetune.report import all_warnings, markdown, numbers_of, rate_warnings, settings_line, tuned
from rinsho.finetune.seeds import several
from rinsho.finetune.validation import Validation
from rinsho.learned_from import learned_from
from rinsho.model_folder import DOCUMENTS
from rinsho.run import Report, Stage


def work(recipe: Recipe, inputs: Sequence[Path], stage: Stage) -> Report:
    """Conversations, tuning, the published folder and the report."""
    if recipe.seeds:
        return several(recipe, inputs, stage)
    device = choose_device(recipe.device, "finetune.device")
    opened, earlier = models.open_tokenizer(inputs[0], recipe), read_earlier(inputs[0])
    dpo = recipe.objective == "dpo"
    feed = read_feed(recipe, sort_data(inputs[1:])[1], opened.render) if dpo else None
    # before the model is loaded, so that mistakes in the data show at once
    data = _read(recipe, inputs[1:], opened, earlier, stage) if feed is None else _of_pairs(feed)
    loaded = models.load(inputs[0], recipe, device, opened)
    if recipe.residual_dropout and loaded.kind != "ours":
        where = "finetune.residual_dropout"
        raise UserError("residual dropout is for models of rinsho's block", where=where, expected="0 for this model")
    memory = predict(loaded, recipe)
    for line in (memory.line(), settings_line(recipe), *rate_warnings(recipe, loaded.kind)):
        stage.log(line)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with reproducible(recipe.threads):
        plan, objective, steps = _objective(recipe, loaded, data, feed, stage)
        publisher = _Publisher(recipe, (inputs[0], earlier), loaded, data, stage)
        validation = Validation(loaded, *data.held, recipe) if any(data.held) else None
        trainer = Trainer(recipe, loaded, objective, steps, stage, validation=validation, keeper=publisher)
        trainer.train()
    report = numbers_of(recipe, loaded, trainer, memory, data=data, plan=plan, base=inputs[0].resolve().name)
    publisher.publish(trainer.at, trainer.best_step)
    return Report(report, markdown(report))


def _read(recipe: Recipe, inputs: Sequence[Path], opened: models.Opened, earlier: Earlier, stage: Stage) -> Data:
    """The conversations, with everything about them that a user should know before hours of training."""
    data, before = read(recipe, inputs, opened.render), earlier.about
    parts = [(about.get("test_part"), about.get("split_seed")) for about in (before, vars(recipe))]
    if before.get("splits") and data.splits and parts[0] != parts[1]:
        data.warnings.append("the base was tuned beside another test part: rows it was trained on may be tests now")
    if recipe.validation_fraction and not any(data.held):
        data.warnings.append("nothing is held out: validation_fraction is too small for so few documents")
    for warning in all_warnings(data):
        stage.log(f"warning: {warning}")
    return data


def _of_pairs(feed: PairFeed) -> Data:
    return Data([], feed.documents, [], feed.shortened, feed.left_out, [], sources=feed.sources)


def _objective(
    recipe: Recipe, loaded: Loaded, data: Data, feed: PairFeed | None, stage: Stage
) -> tuple[Plan | None, Objective, int]:
    if feed is not None:
        stage.log(f"{len(feed)} pairs, {feed.steps} steps")
        return None, Preferences(recipe, loaded.model, feed, stage), feed.steps
    plan = make_plan(recipe, data, loaded.render)
    stage.log(f"{len(data.examples)} conversations, {plan.steps} steps, {plan.copy_steps} of them copying")
    return plan, Supervised(recipe, loaded.model, plan), plan.steps


class _Publisher:
    """Writes complete folders: of every step that was the best so far, and the product at the end."""

    def __init__(self, recipe: Recipe, base: tuple[Path, Earlier], loaded: Loaded, data: Data, stage: Stage) -> None:
        self.recipe, self.loaded, self.data, self.stage = recipe, loaded, data, stage
        self.base, self.earlier = base

    def keep(self, at: Position) -> None:
        """The model as it is now, whole, aside from the checkpoints."""
        with atomic_folder(self._kept(at.step)) as folder:
            self._save(folder, self.stage.out, at)

    def forget_others(self, step: int) -> None:
        """Drops all kept models but that of `step`."""
        for folder in self.stage.partial.glob("best-*"):
            if folder != self._kept(step):
                shutil.rmtree(folder)

    def publish(self, end: Position, best_step: int | None) -> None:
        """The best model at the top of the run folder; the last one in `last/` where that is another."""
        aside = self.stage.partial / "published"
        shutil.rmtree(aside, ignore_errors=True)
        if best_step is None or best_step == end.step:
            self._save(aside, self.stage.out, end)
        else:
            with atomic_folder(self.stage.out / "last") as last:
                self._save(last, self.stage.out / "last", end)
            shutil.copytree(self._kept(best_step), aside)
        publish_folder(aside, self.stage.out)

    def _kept(self, step: int) -> Path:
        return self.stage.partial / f"best-{step:08d}"

    def _save(self, folder: Path, home: Path, at: Position) -> None:
        extra = {
            "stage": "finetune",
            "base": models.base_facts(self.base),
            "finetune": tuned(self.recipe, self.data, self.loaded, at, self.earlier),
            "data": [*learned_from(self.base), {"stage": "finetune", "sources": self.data.sources}],
        }
        models.save(self.loaded, folder, self.base, extra, self.recipe.save_dtype, home)
        documents = sorted(self.earlier.documents.union(self.data.documents))
        write_atomic(folder / DOCUMENTS, "".join(f"{key}\n" for key in documents))
