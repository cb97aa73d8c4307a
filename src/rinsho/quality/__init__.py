"""The quality room: documents that a classifier takes for low quality are dropped (N2.1-4).

    rinsho quality CORPUS --out DIR

CORPUS is the folder of a finished corpus run, or any files of documents. Some documents are labelled 高 or 低 by a
language model behind an endpoint, or by a label file; a random forest learns the labels from vectors of the texts and
judges every document. `--set quality.preview=true` stops before the full pass and says what it would cost and drop; the
same command with preview off goes on from there.

The report's own authors doubt the value (94 % of their labels were 高, about 1 % of the data went), so costs and yield
stand at the top of our report. See docs/quality.md.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from rinsho import client
from rinsho.document import shard_paths
from rinsho.errors import UserError
from rinsho.recipe import Settings
from rinsho.run import Report, Stage, perform

__all__ = ["Endpoint", "Recipe", "check", "describe", "run"]


class Endpoint(client.ClientSettings):
    """The language model that labels; 高 or 低 needs little room."""

    max_tokens: int = Field(16, ge=1, description="room for an answer, in tokens; reasoning models need hundreds")


class Recipe(Settings):
    """Settings of the classifier and of the pass over the corpus."""

    labels: str = Field("", description="label file (.csv, .jsonl) with id and label 高 or 低; empty: ask (N2.1-4)")
    endpoint: Endpoint = Field(
        default_factory=lambda: Endpoint.model_validate({}),
        description="the model that labels when there is no label file (N2.1-4)",
    )
    cache: str = Field("", description="folder that keeps paid answers; empty: `answers` beside the run folder")
    prompt: str = Field(
        "", description="file with another prompt; {text} in it is the document, else it is the system turn (N2.1-4)"
    )
    label_documents: int = Field(2000, ge=10, description="random documents to label; the report: 100000 (N2.1-4)")
    max_prompt_chars: int = Field(2000, ge=1, description="characters of a document that are shown to the labeller")
    max_failed_fraction: float = Field(0.01, ge=0, le=1, description="share of requests that may fail for good")
    model: str = Field(
        "", description="model folder: features are its last hidden state at the last token; empty: floret (N2.1-4)"
    )
    max_feature_chars: int = Field(2000, ge=1, description="characters of a document that are judged")
    max_feature_tokens: int = Field(512, ge=1, description="tokens of a document that are judged, with a model")
    batch_tokens: int = Field(16_384, ge=1, description="tokens the model reads at once, padding included")
    vector_size: int = Field(64, ge=2, description="numbers of a floret vector")
    vector_documents: int = Field(20_000, ge=1, description="random documents that floret learns from, without labels")
    trees: int = Field(100, ge=1, description="trees of the random forest (N2.1-4)")
    min_leaf_documents: int = Field(1, ge=1, description="documents a leaf of a tree must hold")
    class_weight: Literal["none", "balanced"] = Field(
        "none", description="balanced: both labels weigh alike in training, so more is dropped"
    )
    max_low_probability: float = Field(
        0.5, ge=0, le=1, description="documents above this probability of 低 are dropped"
    )
    folds: int = Field(5, ge=2, description="parts of the cross-validation")
    preview: bool = Field(False, description="say cost and yield from a small sample, and stop before the full pass")
    preview_documents: int = Field(
        300, ge=10, description="documents labelled for the preview; its yield is measured on four times as many"
    )
    dtype: Literal["auto", "bf16", "fp32"] = Field("fp32", description="number form of the model's products")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: the graphics card if there is one")
    threads: int | None = Field(None, ge=1, description="processor threads of the model; null: all")
    workers: int = Field(0, ge=0, description="processes of the floret pass and of the forest; 0 is one a core")
    seed: int = Field(1, description="decides the sample, the folds and the forest")


def run(recipe: Recipe, inputs: Sequence[Path], out: Path) -> Report:
    """Documents of good quality in `out/shards/` (and `validation/`), the others in `out/dropped/`, and the classifier.

    With `preview` only the report is written and the folder stays unfinished: the full run continues in it.

    Raises:
        UserError: what `check` finds, labels of one kind only, or an endpoint that refuses.

    Source: SPEC N2.1-4.
    """
    for problem in check(recipe, inputs):
        raise problem
    given = [Path(path) for path in inputs]
    given += [Path(path) for path in (recipe.labels, recipe.model, recipe.prompt) if path]

    def work(stage: Stage) -> Report:
        from rinsho.quality.work import work

        return work(recipe, [Path(path) for path in inputs], stage)

    from rinsho.quality.work import Previewed

    try:
        return perform("quality", recipe, given, out, work, identity=_identity(recipe))
    except Previewed as preview:
        return preview.report


def check(recipe: Recipe, inputs: Sequence[Path]) -> list[UserError]:
    """Everything that can be known before starting: inputs, label file, prompt, endpoint, key, model, packages."""
    from rinsho.quality.labels import read_label_file, read_prompt

    problems: list[UserError] = []
    if not inputs:
        problems.append(UserError("no input", where="quality", expected="the folder of a corpus run"))
    looks: list[Callable[[], object]] = [
        lambda: shard_paths([Path(path) for path in inputs]),
        lambda: read_prompt(recipe.prompt),
    ]
    if recipe.labels:
        looks.append(lambda: read_label_file(Path(recipe.labels)))
    for look in looks:
        try:
            look()
        except UserError as problem:
            problems.append(problem)
    if not recipe.labels:
        problems += client.check(recipe.endpoint, "quality.endpoint")
    if recipe.model and not (Path(recipe.model) / "config.json").is_file():
        problems.append(
            UserError(
                "not a model folder",
                where=recipe.model,
                expected="config.json, weights and a tokenizer",
                todo="correct quality.model",
            )
        )
    needed = ["sklearn", *(["torch"] if recipe.model else ["floret"]), *([] if recipe.labels else ["httpx"])]
    for package in needed:
        if importlib.util.find_spec(package) is None:
            problems.append(
                UserError(
                    f"the package {package} is not installed",
                    where="quality",
                    expected="an installation with the extra quality",
                    todo="pip install 'rinsho[quality]'",
                )
            )
    return problems


def describe(recipe: Recipe, inputs: Sequence[Path], out: Path | None = None) -> str:  # noqa: ARG001 (all rooms' form)
    """What a user should know before starting, in one line; empty when nothing leaves and nothing is paid."""
    if recipe.labels:
        return ""
    asked = min(recipe.preview_documents, recipe.label_documents) if recipe.preview else recipe.label_documents
    return f"{client.describe(recipe.endpoint)}; up to {asked:,} documents, {recipe.max_prompt_chars:,} characters each"


def _identity(recipe: Recipe) -> Recipe:
    """The settings that decide the product. Label file, prompt and model count by their content, as inputs do."""
    default = Recipe.model_validate({})
    same = {name: getattr(default, name) for name in ("cache", "preview", "preview_documents", "max_failed_fraction")}
    asking = ("model", "max_tokens", "temperature", "seed", "extra")
    endpoint = {} if recipe.labels else {name: getattr(recipe.endpoint, name) for name in asking}
    paths = {name: "given" if getattr(recipe, name) else "" for name in ("labels", "model", "prompt")}
    return recipe.model_copy(update={**same, **paths, "endpoint": Endpoint.model_validate(endpoint)})
