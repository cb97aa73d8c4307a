"""From the room's inputs to packed rows: token files for training and validation, then rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rinsho.errors import UserError
from rinsho.pretrain import Recipe, copy_problems
from rinsho.run import Stage, write_atomic
from rinsho.token_files import (
    Parts,
    TokenFile,
    check_broken,
    encode_corpora,
    is_encoded,
    open_encoded,
    token_folders,
    verify_tokens,
)
from rinsho.token_pieces import Copying, TextTokenizer
from rinsho.tokens import Rows, pack


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
            "broken_documents": self.tokens.manifest["broken_records"],
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


def prepare(recipe: Recipe, inputs: Sequence[Path], tokenizer: TextTokenizer, fingerprint: str, stage: Stage) -> Data:
    """Token files of the corpora (given, or made here and continued where an earlier run stopped), packed into rows.

    `inputs` are the tokenizer's folder, then corpora or encoded corpora.

    Raises:
        UserError: nothing to train on, too many unreadable documents, or token files that are damaged or of another
            tokenizer.
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
