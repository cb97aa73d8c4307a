"""Any tokenizer folder behind the same few calls: ours in both forms, Hugging Face, sentencepiece."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rinsho.errors import UserError
from rinsho.tokenizer.measure.fit import is_byte_piece
from rinsho.tokenizer.measure.names import folder_problem

if TYPE_CHECKING:
    from rinsho.tokenization import RinshoTokenizer

Ids = npt.NDArray[np.int64]
Spans = npt.NDArray[np.int64]
BLANK = {"▁", "Ġ", " ", ""}  # what some tokenizers put before a text that begins with no space


@dataclass(frozen=True)
class Opened:
    """One tokenizer as the measurement sees it.

    Attributes:
        kind: `rinsho strict`, `rinsho plain`, `BPE`, `byte-level BPE`, `Unigram`, or the class of a slow one.
        partial: bool (ids), which tokens are only a part of a character: byte fallback, or pieces of bytes.
        fallback: bool (ids), which of those are spelt `<0x..>`.
        unknown: bool (ids). blank: bool (ids), pieces that may merely open a text; none of ours.
        byte_level: whether pieces spell bytes as letters, as GPT-2 does.
    """

    label: str
    kind: str
    tokenizer: Any
    own: RinshoTokenizer | None
    vocab_size: int
    partial: npt.NDArray[np.bool_]
    fallback: npt.NDArray[np.bool_]
    unknown: npt.NDArray[np.bool_]
    blank: npt.NDArray[np.bool_]
    byte_level: bool

    def ids(self, raw: str, cleaned: str) -> Ids:
        """The ids without special tokens: ours take the raw text and clean it, others get the cleaned one."""
        if self.own is not None:
            return self.own.encode_array(raw, clean=True).astype(np.int64)
        return np.asarray(self.tokenizer(cleaned, **_BARE)["input_ids"], dtype=np.int64)

    def aligned(self, cleaned: str) -> tuple[Ids, Spans | None]:
        """The ids of a cleaned text, int64 (n,), and where each stands in it, int64 (n, 2); no spans from slow ones."""
        if self.own is not None:
            found, ranges = self.own.encode_aligned(cleaned, clean=True)
        elif self.tokenizer.is_fast:
            encoded = self.tokenizer(cleaned, return_offsets_mapping=True, **_BARE)
            found, ranges = encoded["input_ids"], encoded["offset_mapping"]
        else:
            return self.ids(cleaned, cleaned), None
        ids = np.asarray(found, dtype=np.int64)
        spans = np.asarray(ranges, dtype=np.int64).reshape(len(ids), 2)
        return ids, self._mended(ids, spans, cleaned)

    def decode(self, ids: Ids) -> str:
        """The text of these ids, nothing tidied up."""
        return str(self.tokenizer.decode(ids.tolist(), clean_up_tokenization_spaces=False))

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The pieces as the vocabulary spells them."""
        return list(self.tokenizer.convert_ids_to_tokens([int(id_) for id_ in ids]))

    def encode_all(self, raw: Sequence[str], cleaned: Sequence[str]) -> int:
        """The number of tokens of all texts, by this tokenizer's fastest way; what the speed is taken of."""
        if self.own is not None:
            return sum(len(self.own.encode_array(text, clean=True)) for text in raw)
        if self.tokenizer.is_fast:
            rows = self.tokenizer.backend_tokenizer.encode_batch_fast(list(cleaned), add_special_tokens=False)
            return sum(len(row.ids) for row in rows)
        return sum(len(self.tokenizer(text, **_BARE)["input_ids"]) for text in cleaned)

    def term_pieces(self, terms: Sequence[str]) -> tuple[Ids, npt.NDArray[np.bool_]]:
        """For each term alone: the number of its pieces, and whether all of them are known.

        A piece without characters that merely opens a text (`▁` of sentencepiece) does not count.
        """
        rows: Iterable[Sequence[int]]
        if self.own is not None:
            rows = self.own.encode_batch_text(terms, clean=True)
        else:
            rows = self.tokenizer(list(terms), **_BARE)["input_ids"] if terms else []
        arrays = [np.asarray(row, dtype=np.int64) for row in rows]
        counts = np.array([len(row) - int(len(row) > 1 and self.blank[row[0]]) for row in arrays], dtype=np.int64)
        return counts, np.array([not self.unknown[row].any() for row in arrays], dtype=bool)

    def _mended(self, ids: Ids, spans: Spans, text: str) -> Spans:
        """Spans in which each byte stands at its own character, and a `▁` that opens the text at none."""
        spans = spans.copy()
        for start, end in _runs(self.fallback[ids]):
            data = bytes(int(piece[3:5], 16) for piece in self.pieces(ids[start:end]))
            try:
                spelt = data.decode("utf-8")
            except UnicodeDecodeError:
                continue
            first = int(spans[start, 0])
            if text[first : first + len(spelt)] != spelt:
                continue
            place = start
            for offset, char in enumerate(spelt):
                width = len(char.encode("utf-8"))
                spans[place : place + width] = (first + offset, first + offset + 1)
                place += width
        for opening in np.flatnonzero(self.blank[ids]).tolist():
            if text[spans[opening, 0] : spans[opening, 1]].strip():
                spans[opening, 1] = spans[opening, 0]
        return spans


_BARE: dict[str, Any] = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}


def open_tokenizer(folder: Path, label: str) -> Opened:
    """The tokenizer of a folder, from its own files only; a program that lies in the folder is never run.

    Raises:
        UserError: the folder is not there, holds no tokenizer, or one that cannot be opened.
    """
    problem = folder_problem(folder)
    if problem is not None:
        raise problem
    config = _config(folder)
    if config.get("tokenizer_class") == "RinshoTokenizer":
        return _opened(label, f"rinsho {config.get('segment', 'strict')}", _load(folder, own=True), own=True)
    tokenizer = _load(folder, own=False)
    return _opened(label, _kind(tokenizer), tokenizer, own=False)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread in the Rust library while it lasts; it reads the variable at every call."""
    import os

    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def piece_text(piece: str, byte_level: bool) -> str:
    """A piece as people read it: letters that stand for bytes put back into characters where they make some.

    >>> piece_text("æĤ£èĢħ", True), piece_text("▁患者", False), piece_text("Ļºç", True)
    ('患者', '▁患者', 'Ļºç')
    """
    return _letters_text(piece) or piece if byte_level else piece


def _load(folder: Path, own: bool) -> Any:
    try:
        if own:
            from rinsho import tokenization

            return tokenization.load(folder)
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (UserError, ModuleNotFoundError):  # the command tells which package is missing
        raise
    except Exception as error:  # whatever the libraries raise for a broken folder, from KeyError to their own panics
        reason = "it is a program of its own, which is never run" if "custom code" in str(error) else _reason(error)
        raise UserError(
            f"the tokenizer cannot be opened ({reason})",
            where=folder,
            expected="a folder that AutoTokenizer opens from local files, without trusting code",
            todo="copy the whole tokenizer folder again, or leave it out",
        ) from None


def _reason(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first[:120]}"


def _opened(label: str, kind: str, tokenizer: Any, own: bool) -> Opened:
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    size = max([len(tokenizer), *(id_ + 1 for id_ in vocabulary.values())])
    byte_level = kind.startswith("byte-level")
    partial, fallback, unknown, blank = (np.zeros(size, dtype=bool) for _ in range(4))
    special = set(tokenizer.all_special_tokens) | set(tokenizer.get_added_vocab())
    for piece, id_ in vocabulary.items():
        fallback[id_] = is_byte_piece(piece)
        partial[id_] = fallback[id_] or (byte_level and piece not in special and _letters_text(piece) is None)
        blank[id_] = not own and piece in BLANK
    for id_ in _unknown_ids(tokenizer, vocabulary):
        unknown[id_] = True
    return Opened(
        label=label,
        kind=kind,
        tokenizer=tokenizer,
        own=tokenizer if own else None,
        vocab_size=len(tokenizer),
        partial=partial,
        fallback=fallback,
        unknown=unknown,
        blank=blank,
        byte_level=byte_level,
    )


def _unknown_ids(tokenizer: Any, vocabulary: dict[str, int]) -> set[int]:
    found = {tokenizer.unk_token_id}
    if tokenizer.is_fast:
        model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
        found |= {model.get("unk_id"), vocabulary.get(model.get("unk_token") or "")}
    return {id_ for id_ in found if id_ is not None}


def _kind(tokenizer: Any) -> str:
    if not tokenizer.is_fast:
        return str(type(tokenizer).__name__)
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    kind = str(content["model"]["type"])
    return f"byte-level {kind}" if '"ByteLevel"' in json.dumps([content["pre_tokenizer"], content["decoder"]]) else kind


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _runs(marks: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Half-open ranges of neighbouring true values."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], marks.astype(np.int8), [0]))))
    for start, end in edges.reshape(-1, 2):
        yield int(start), int(end)


@lru_cache(maxsize=1)
def _letters() -> dict[str, int]:
    """GPT-2's letter of each byte: printable Latin-1 stands for itself, the other bytes follow from U+0100 on."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


def _letters_text(piece: str) -> str | None:
    """The characters that a byte-level piece spells, or None when it spells no whole ones."""
    try:
        return bytes(_letters()[letter] for letter in piece).decode("utf-8")
    except (KeyError, UnicodeDecodeError):
        return None
