"""From the room's inputs to packed rows: token files for training and validation, then rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rinsho.document import shard_paths
from rinsho.errors import UserError
from rinsho.pretrain import Recipe, training_folder
from rinsho.run import Stage
from rinsho.tokens import Rows, Selection, TextTokenizer, TokenFile, pack, write_tokens


@dataclass(frozen=True)
class Data:
    """Rows to train on, and held-out rows with what is needed for bits per character."""

    training: Rows
    validation: Rows | None
    tokens: TokenFile
    held_out: TokenFile | None

    @property
    def tokens_per_character(self) -> float:
        """Predicted tokens a character of the held-out text."""
        if self.held_out is None or self.validation is None:
            return float("nan")
        return self.validation.inputs / max(1, int(self.held_out.manifest["characters"]))

    def figures(self) -> dict[str, Any]:
        """What the report says about the data."""
        rows = self.training
        return {
            "documents": self.tokens.manifest["documents"],
            "tokens": self.tokens.manifest["tokens"],
            "characters": self.tokens.manifest["characters"],
            "broken_documents": len(self.tokens.manifest["broken"]),
            "rows": len(rows),
            "filled_fraction": round(rows.inputs / (len(rows) * rows.sequence_length), 4),
            "validation_documents": self.held_out.manifest["documents"] if self.held_out else 0,
            "validation_tokens": self.held_out.manifest["tokens"] if self.held_out else 0,
        }


def load_tokenizer(folder: Path) -> tuple[Any, str]:
    """The tokenizer of a folder, and its fingerprint."""
    from rinsho.tokenization import fingerprint, load

    tokenizer = load(folder)
    return tokenizer, fingerprint(tokenizer)


def prepare(recipe: Recipe, corpora: Sequence[Path], tokenizer: TextTokenizer, fingerprint: str, stage: Stage) -> Data:
    """Token files of the corpora (continued where an earlier run stopped), packed into rows.

    Raises:
        UserError: nothing to train on, or too many unreadable documents.
    """
    own = [corpus / "validation" for corpus in corpora if _holds_files(corpus / "validation")]
    fraction = 0.0 if own else recipe.validation_fraction
    shards = shard_paths([training_folder(corpus) for corpus in corpora])
    training = _encode(recipe, shards, tokenizer, stage, "train", fingerprint, _select(recipe, fraction, inside=False))
    held_out = None
    if own or fraction:
        shards = shard_paths(own) if own else shards
        selection = _select(recipe, fraction, inside=True)
        held_out = _encode(recipe, shards, tokenizer, stage, "validation", fingerprint, selection)
    _limit_broken(recipe, training, corpora[0])
    rows = pack(
        training,
        recipe.sequence_length,
        how=recipe.pack,
        document_bounds=recipe.document_bounds,
        seed=recipe.seed,
        pad_id=tokenizer.eos_token_id,
    )
    if not len(rows):
        raise UserError(
            f"the corpus has {training.manifest['tokens']} tokens: not one row",
            where=corpora[0],
            expected=f"at least {recipe.sequence_length} tokens",
            todo="give more text or a smaller sequence_length",
        )
    # Always best fit with bounds: so the held-out loss of different recipes can be compared.
    size, pad_id = recipe.sequence_length, tokenizer.eos_token_id
    checking = pack(held_out, size, seed=recipe.seed, pad_id=pad_id) if held_out else None
    return Data(rows, checking if checking is not None and len(checking) else None, training, held_out)


def _encode(  # noqa: PLR0917
    recipe: Recipe,
    shards: Sequence[Path],
    tokenizer: TextTokenizer,
    stage: Stage,
    part: str,
    fingerprint: str,
    selection: Selection | None,
) -> TokenFile:
    home = stage.out if recipe.keep_tokens else stage.partial
    with stage.progress(f"tokens ({part})", None, "documents") as progress:
        return write_tokens(
            shards,
            tokenizer,
            home / "tokens" / part,
            scratch=stage.partial / "pieces" / part,
            tokenizer_hash=fingerprint,
            seed=recipe.seed,
            copy_fraction=recipe.copy_fraction if part == "train" else 0.0,
            copy_window=recipe.sequence_length // 2,
            selection=selection,
            on_documents=progress.update,
        )


def _holds_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _select(recipe: Recipe, fraction: float, *, inside: bool) -> Selection | None:
    return Selection(fraction, inside, recipe.seed) if fraction else None


def _limit_broken(recipe: Recipe, training: TokenFile, where: Path) -> None:
    broken, whole = len(training.manifest["broken"]), training.manifest["documents"]
    if broken > recipe.max_broken_fraction * (broken + whole):
        first = training.manifest["broken"][0]
        raise UserError(
            f"{broken} of {broken + whole} documents cannot be read (first: {first['where']}, {first['reason']})",
            where=where,
            expected=f"at most {recipe.max_broken_fraction:.1%} (max_broken_fraction)",
            todo="repair the files or raise the limit",
        )
