"""`rinsho tokenizer measure`: tokenizer folders and text sets in, figures, a chart and a page out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from rinsho.document import shard_paths
from rinsho.errors import UserError
from rinsho.recipe import Settings
from rinsho.run import Report, Stage, perform
from rinsho.tokenizer.lexicon import sort_inputs


class MeasureRecipe(Settings):
    """What is measured; the names stand for the inputs, in their order."""

    tokenizers: tuple[str, ...] = Field(
        (), description="Names of the tokenizers; the first is what others are held to."
    )
    texts: tuple[str, ...] = Field((), description="Names of the text sets (N2.2-5).")
    lexicon: tuple[str, ...] = Field(
        (), description="Names of the word lists whose terms should be one piece (N2.2-5)."
    )
    show: str = Field("", description="Name of the file the page shows; empty for an invented record.")
    limit_mb: float = Field(5.0, gt=0, description="At most this many MB of each text set are measured (N2.2-5).")
    show_chars: int = Field(4000, ge=1, description="At most this many characters of text on the page.")
    resamples: int = Field(1000, ge=100, description="Draws of documents behind each 95 % interval.")
    seed: int = Field(1, description="Decides the draws.")


@dataclass(frozen=True)
class Inputs:
    """What lies on the disk, in the order of the names in the recipe."""

    tokenizers: Sequence[Path]
    texts: Mapping[str, Path]
    lexicon: Sequence[Path]
    show: Path | None

    @property
    def paths(self) -> list[Path]:
        """All of it, as `perform` hashes it."""
        return [*self.tokenizers, *self.texts.values(), *self.lexicon, *([self.show] if self.show else [])]


def measure(
    tokenizers: Sequence[Path],
    texts: Mapping[str, Path],
    *,
    lexicon: Sequence[Path] = (),
    show: Path | None = None,
    limit_mb: float = 5.0,
    out: Path,
) -> Report:
    """The figures of every tokenizer on every text set; the run folder `out` gets the chart and `page.html`, too.

    Args:
        tokenizers: folders of ours, of Hugging Face, or of sentencepiece; the first is what the others are held to.
        texts: name -> folder or file with documents.
        lexicon: word lists, or folders of them, whose terms should be one piece.
        show: a text file or a shard whose text the page shows; it stands in the page and nowhere else.
        limit_mb: how much of each text set is measured.
        out: the run folder.

    Raises:
        UserError: a folder is missing, holds no tokenizer or cannot be opened; a text set has no documents.

    Source: N2.2-5.
    """
    tokenizers, lists = [Path(path) for path in tokenizers], sort_inputs([Path(path) for path in lexicon])[0]
    sets = {name: Path(path) for name, path in texts.items()}
    recipe = _checked(tokenizers, sets, lists, show, limit_mb)
    given = Inputs(tokenizers, sets, lists, Path(show) if show else None)
    return perform("measure", recipe, given.paths, Path(out), lambda stage: _work(recipe, given, stage))


def _work(recipe: MeasureRecipe, given: Inputs, stage: Stage) -> Report:
    from rinsho.tokenizer.measure.work import work

    return work(recipe, given, stage)


def _checked(
    tokenizers: Sequence[Path], texts: Mapping[str, Path], lexicon: Sequence[Path], show: Path | None, limit_mb: float
) -> MeasureRecipe:
    """The recipe, once everything that can be known before the work is there."""
    from rinsho.tokenizer.measure.names import folder_problem, labels

    if not tokenizers:
        raise UserError("no tokenizer", where="rinsho tokenizer measure", expected="one tokenizer folder or more")
    if not texts:
        raise UserError(
            "no text set", where="rinsho tokenizer measure", expected="--text NAME=FOLDER, for instance medical=texts/"
        )
    if not 0 < limit_mb < float("inf"):
        raise UserError(f"{limit_mb} MB of text", where="--limit-mb", expected="a number above 0")
    for folder in tokenizers:
        problem = folder_problem(folder)
        if problem is not None:
            raise problem
    for folder in texts.values():
        shard_paths([folder])
    for path in [*lexicon, *([Path(show)] if show else [])]:
        if not path.is_file():
            what = "a folder" if path.is_dir() else "not there"
            raise UserError(what, where=path, expected="a file", todo="check the path")
    names = {
        "tokenizers": labels(tokenizers),
        "texts": list(texts),
        "lexicon": [path.name for path in lexicon],
        "show": Path(show).name if show else "",
    }
    return MeasureRecipe.model_validate(names | {"limit_mb": limit_mb})
