"""From the room's inputs to packed rows: token files for training and validation, then rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rinsho.errors import UserError
from rinsho.learned_from import shortened
from rinsho.packing import Ints, permutation
from rinsho.pretrain import Recipe
from rinsho.pretrain.checks import copy_problems
from rinsho.pretrain.mixture import LISTED, draws, groups_of, labels, problems
from rinsho.run import Stage, write_atomic
from rinsho.token_files import (
    Parts,
    TokenFile,
    check_broken,
    is_encoded,
    open_encoded,
    token_folders,
    verify_tokens,
)
from rinsho.token_pieces import Copying, TextTokenizer
from rinsho.token_writing import encode_corpora
from rinsho.tokens import Batch, MixedOrder, RowOrder, Rows, pack

MANY_PASSES = 4  # up to four, text that is seen again teaches almost as much as new text (arXiv 2305.16264)
OTHERS = "(others)"
RECORDED = ("licenses", "synthetic", "synthetic_tokens")  # of a source, in `rinsho.json` alone
CHECKING_SEED = 1  # held-out rows are the same for every seed of the training

Order = RowOrder | MixedOrder


@dataclass(frozen=True)
class HeldOutSource:
    """A source's held-out rows: their numbers in an order drawn by chance, predicted tokens and characters of all."""

    name: str
    rows: list[int]
    tokens: int
    characters: int

    def bits_per_character(self, nats: float, tokens: float) -> float:
        """Bits per character from a sum of nats over some predicted tokens."""
        return nats / max(1.0, tokens) * self.tokens / max(1, self.characters) / math.log(2)


@dataclass(frozen=True)
class HeldOut:
    """Held-out rows, each of one source; the sources by falling number of tokens."""

    rows: Rows
    sources: list[HeldOutSource]

    def batch(self, numbers: Sequence[int] | Ints) -> Batch:
        """The rows of these numbers."""
        return self.rows.batch(numbers)

    def limit(self, source: HeldOutSource, tokens: int) -> int:
        """How many rows of a source are measured when `tokens` of all shall be: its share of them, at least one."""
        wanted = tokens / self.rows.sequence_length
        return min(len(source.rows), max(1, round(wanted * len(source.rows) / len(self.rows))))

    def mean(self, losses: Mapping[str, float]) -> float:
        """The mean loss over all tokens, measured or not, from that of every source (nats a token)."""
        tokens = sum(source.tokens for source in self.sources)
        return sum(losses[source.name] * source.tokens for source in self.sources) / max(1, tokens)

    def bits_per_character(self, loss: float) -> float:
        """Bits per character of all the text from its mean loss in nats a token."""
        tokens = sum(source.tokens for source in self.sources)
        return loss * tokens / max(1, sum(source.characters for source in self.sources)) / math.log(2)


@dataclass(frozen=True)
class Data:
    """Rows to train on, the order they come in, and held-out rows.

    Attributes:
        group_of: of every source the group of rows its documents are in, -1 when they are left out.
        drawn: rows that the whole run draws from each group.
    """

    rows: Rows
    order: Order
    held_out: HeldOut | None
    tokens: TokenFile
    group_of: list[int]
    drawn: list[float]
    held_out_tokens: TokenFile | None = None

    @property
    def passes(self) -> list[float]:
        """How often the run sees the text of each group."""
        return [rows / max(1, size) for rows, size in zip(self.drawn, np.diff(self.rows.groups).tolist(), strict=True)]

    def unmeasured(self) -> list[str]:
        """The largest sources that are trained on and have no held-out text; "*" when there is none at all."""
        if self.held_out is None:
            return ["*"]
        measured = set(labels(self.held_out_tokens.sources)) if self.held_out_tokens else set()
        largest = self._sources()[:LISTED]
        return [row["source"] for row in largest if row["passes"] and row["source"] not in measured]

    def figures(self) -> dict[str, Any]:
        """What the report says about the data."""
        made, held_out = self.tokens.manifest, self.held_out_tokens
        return {
            "documents": made["documents"],
            "tokens": made["tokens"],
            "characters": made["characters"],
            "broken_documents": made["broken_records"],
            "rows": len(self.rows),
            "filled_fraction": round(self.rows.inputs / (len(self.rows) * self.rows.sequence_length), 4),
            "sources": [{key: row[key] for key in row if key not in RECORDED} for row in self._sources()[:LISTED]],
            "validation_documents": held_out.manifest["documents"] if held_out else 0,
            "validation_tokens": held_out.manifest["tokens"] if held_out else 0,
        }

    def learned_from(self) -> list[dict[str, Any]]:
        """The sources that are trained on, for `rinsho.json`: the largest ones, then the sum of the others."""
        keys = ("source", "documents", "tokens", "share", *RECORDED)
        rows = [{key: row[key] for key in keys} for row in self._sources() if row["passes"]]
        return shortened(rows, LISTED)

    def _sources(self) -> list[dict[str, Any]]:
        """All sources by tokens, with how often they are seen and their share of the rows that are drawn."""
        inside = np.zeros(len(self.drawn))
        for group, row in zip(self.group_of, self.tokens.sources, strict=True):
            inside[group] += row.tokens if group >= 0 else 0
        known = zip(labels(self.tokens.sources), self.group_of, self.tokens.sources, strict=True)
        found = []
        for name, group, row in sorted(known, key=lambda each: (-each[2].tokens, each[0])):
            passes = self.passes[group] if group >= 0 else 0.0
            share = self.drawn[group] / sum(self.drawn) * row.tokens / max(1, inside[group]) if group >= 0 else 0.0
            counts = {"documents": row.documents, "tokens": row.tokens}
            figures = {"passes": round(passes, 3), "share": round(share, 4)}
            told = {
                "licenses": None if row.licenses is None else dict(row.licenses),
                "synthetic": None if row.synthetic is None else dict(row.synthetic),
                "synthetic_tokens": row.synthetic_tokens,
            }
            found.append({"source": name, **counts, **figures, **told})
        return found


def total_steps(recipe: Recipe, rows_per_pass: float) -> int:
    """Steps of the whole run, from max_tokens or epochs."""
    if recipe.max_tokens is not None:
        return max(1, round(recipe.max_tokens / recipe.batch_tokens))
    return max(1, round(recipe.epochs * rows_per_pass * recipe.sequence_length / recipe.batch_tokens))


def load_tokenizer(folder: Path) -> tuple[Any, str]:
    """The tokenizer of a folder, its own or a model's, and its fingerprint."""
    from rinsho.tokenization import fingerprint, load

    tokenizer = load(folder)
    return tokenizer, fingerprint(tokenizer)


def prepare(recipe: Recipe, inputs: Sequence[Path], tokenizer: TextTokenizer, fingerprint: str, stage: Stage) -> Data:
    """Token files of the corpora (given, or made here and continued where an earlier run stopped), packed into rows.

    `inputs` are the tokenizer's or the model's folder, then corpora or encoded corpora.

    Raises:
        UserError: nothing to train on, too many unreadable documents, a mixture that does not fit the sources, or
            token files that are damaged or of another tokenizer.
    """
    corpora = inputs[1:]
    if is_encoded(corpora[0]):
        training, held_out = _given(recipe, corpora, fingerprint, stage)
    else:
        home = stage.out if recipe.keep_tokens else stage.partial
        training, held_out = encode_corpora(
            corpora,
            tokenizer if recipe.workers == 1 else inputs[0],
            home / "tokens",
            scratch=stage.partial / "pieces",
            fingerprint=fingerprint,
            validation_fraction=recipe.validation_fraction,
            copying=Copying(recipe.copy_fraction, recipe.sequence_length // 2, recipe.seed),
            workers=recipe.workers,
            label=f"{stage.name}: tokens",
        )
    check_broken(training, recipe.max_broken_fraction, corpora[0])
    for problem in problems(recipe.mixture, recipe.max_tokens):
        raise problem
    group_of = groups_of(recipe.mixture, training.sources) if recipe.mixture else [0] * len(training.sources)
    rows = _rows(recipe, training, group_of, tokenizer.eos_token_id)
    if not len(rows):
        raise UserError(
            f"the corpus has {training.manifest['tokens']} tokens: not one row",
            where=corpora[0],
            expected=f"at least {recipe.sequence_length} tokens",
            todo="give more text or a smaller sequence_length",
        )
    order, drawn = _order(recipe, rows)
    checking = _held_out(held_out, recipe.sequence_length, tokenizer.eos_token_id) if held_out else None
    data = Data(rows, order, checking, training, group_of, drawn, held_out)
    for name in data.unmeasured():
        stage.log(f"no held-out text of {name!r}: a larger validation_fraction would measure it")
    for pattern, passes in zip(recipe.mixture or ["*"], data.passes, strict=True):
        if passes > MANY_PASSES:
            stage.log(f"the text of {pattern!r} is seen {passes:.1f} times; beyond {MANY_PASSES} it teaches little")
    return data


def _rows(recipe: Recipe, tokens: TokenFile, group_of: Sequence[int], pad_id: int) -> Rows:
    return pack(
        tokens,
        recipe.sequence_length,
        how=recipe.pack,
        document_bounds=recipe.document_bounds,
        seed=recipe.seed,
        pad_id=pad_id,
        group_of=np.array(group_of, np.int64)[tokens.source_of] if recipe.mixture else None,
        groups=len(recipe.mixture) or 1,
    )


def _order(recipe: Recipe, rows: Rows) -> tuple[Order, list[float]]:
    """The order of the rows, and how many of each group the whole run draws."""
    total = None
    if recipe.max_tokens is not None:
        total = total_steps(recipe, 0) * (recipe.batch_tokens // recipe.sequence_length)
    if not recipe.mixture:
        return RowOrder(len(rows), recipe.seed), [total or recipe.epochs * len(rows)]
    wanted = draws(recipe.mixture, np.diff(rows.groups).tolist(), total)
    return MixedOrder(rows.groups, wanted, recipe.seed), [count * (1 if total else recipe.epochs) for count in wanted]


def _held_out(tokens: TokenFile, sequence_length: int, pad_id: int) -> HeldOut | None:
    """Held-out rows, those of each of the largest sources apart.

    Always best fit with bounds: so the held-out loss of different recipes can be compared.
    """
    counts: dict[str, list[int]] = {}
    names = labels(tokens.sources)
    for name, row in zip(names, tokens.sources, strict=True):
        before = counts.setdefault(name, [0, 0])
        counts[name] = [before[0] + row.tokens, before[1] + row.characters]
    ranked = sorted(counts, key=lambda name: (-counts[name][0], name))
    groups = ranked[:LISTED] + [OTHERS] * (len(ranked) > LISTED)
    place = {name: min(number, len(groups) - 1) for number, name in enumerate(ranked)}
    group_of = np.array([place[name] for name in names], np.int64)[tokens.source_of]
    rows = pack(
        tokens, sequence_length, seed=CHECKING_SEED, pad_id=pad_id, group_of=group_of, groups=max(1, len(groups))
    )
    sources = []
    for group, name in enumerate(groups):
        begin, end = rows.groups[group : group + 2].tolist()
        numbers = (begin + permutation(end - begin, f"held out:{name}")).tolist()
        characters = sum(counts[each][1] for each in ranked if place[each] == group)
        sources.append(HeldOutSource(name, numbers, int(rows.filled[begin:end].sum()), characters))
    return HeldOut(rows, sources) if len(rows) else None


def _given(recipe: Recipe, paths: Sequence[Path], fingerprint: str, stage: Stage) -> Parts:
    """The token files of encoded corpora; their content is compared with its hashes once, before the first step."""
    parts = open_encoded(paths, fingerprint)
    for problem in copy_problems(recipe, paths):
        raise problem
    verified = stage.partial / "tokens.verified"
    if not verified.exists():
        stage.log("comparing the token files with their hashes")
        for folder in (folder for path in paths for folder in token_folders(path)):
            verify_tokens(folder)
        write_atomic(verified, "")
    return parts
