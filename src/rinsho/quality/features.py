"""Vectors of documents: floret vectors learned on the corpus itself, or the last hidden state of a language model.

Shapes: N documents, D numbers of a vector, B rows of a batch, T tokens of its longest row (padding on the right).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from rinsho.errors import UserError
from rinsho.files import atomic_file, atomic_folder

if TYPE_CHECKING:
    from rinsho.quality import Recipe
    from rinsho.run import Stage

Floats = npt.NDArray[np.float32]
CHUNK_DOCUMENTS = 512  # documents turned into vectors at once; also what an interruption may cost
CACHED_WORDS = 200_000  # 50 MB at 64 numbers; the vocabulary of a large sample fits
FLORET = {"model": "cbow", "minn": 1, "maxn": 4, "mode": "floret", "hashCount": 2, "bucket": 50_000, "epoch": 2}
# Japanese has no spaces: a word is a run of characters of one kind, which the n-grams of floret take apart further.
_KINDS = (
    "\n",
    " \t\u3000\u2581",
    "。．！？!?",
    "、，,・「」『』（）()【】",
    "ぁ-ゖ",
    "ァ-ヺー",
    "一-鿿々〆",
    "A-Za-zＡ-Ｚａ-ｚ",
    "0-9０-９",
)
FORM_NUMBERS = len(_KINDS) + 3
_WORDS = re.compile(r"[一-鿿々〆]+|[ぁ-ゖ]+|[ァ-ヺー]+|[A-Za-z]+|[0-9]+|\S")


class Features(Protocol):
    """Texts to vectors, float32 (N, D); a text's vector depends on no other text but for rounding."""

    def vectors(self, texts: Sequence[str]) -> Floats:
        """The vectors of the texts, in order."""
        ...


def open_features(recipe: Recipe, folder: Path) -> Features:
    """What turns texts into vectors: the recipe's model, or the floret vectors in the folder.

    Raises:
        UserError: the model folder cannot be opened.
    """
    return ModelFeatures(recipe) if recipe.model else FloretFeatures(recipe, folder)


def words(text: str) -> list[str]:
    """The text cut where the kind of character changes, without white space.

    >>> words("胸部CTで右下葉に浸潤影。")
    ['胸部', 'CT', 'で', '右下葉', 'に', '浸潤影', '。']
    """
    return _WORDS.findall(text)


def train_floret(recipe: Recipe, texts: Iterable[str], folder: Path) -> None:
    """Learns word vectors from the texts into `folder/floret.bin`; the same texts give the same bytes.

    No label is used, so cross-validated figures are not flattered. One thread: with more, the result would differ
    from run to run.
    """
    import floret

    with atomic_folder(folder) as aside:
        text = aside / "train.txt"
        with text.open("wb") as file:
            for each in texts:
                line = " ".join(words(each[: recipe.max_feature_chars]))
                file.write(line.encode("utf-8", "replace") + b"\n")
        least = 5 if text.stat().st_size > 1_000_000 else 1
        model = floret.train_unsupervised(
            str(text), dim=recipe.vector_size, minCount=least, thread=1, verbose=0, **FLORET
        )
        model.save_model(str(aside / "floret.bin"))
        text.unlink()


def form(text: str) -> list[float]:
    """How a text looks, (12,): shares of nine kinds of characters and of the rest, logarithms of length and of lines.

    Mean word vectors say what a text is about and little of its form. Whether form helps with labels 高 and 低 is not
    measured; on a stand-in, telling two sources apart, it did (docs/quality.md).
    """
    codes = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), dtype=np.uint16)
    counts = np.bincount(_kind_table()[codes], minlength=len(_KINDS) + 1)
    logarithms = [float(np.log1p(len(codes))), float(np.log1p(counts[1]))]
    return [*(counts / max(1, len(codes))).tolist(), *logarithms]


@cache
def _kind_table() -> npt.NDArray[np.uint8]:
    """Number of the kind of every UTF-16 code unit, 0 for the rest."""
    table = np.zeros(1 << 16, np.uint8)
    for number, kind in enumerate(_KINDS, 1):
        pattern = re.compile(f"[{kind}]")
        table[[code for code in range(1 << 16) if pattern.match(chr(code))]] = number
    return table


class FloretFeatures:
    """Mean of the word vectors (each of length 1) of the start of a text, and the numbers of its form."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        import floret

        self._model = floret.load_model(str(folder / "floret.bin"))
        self._chars = recipe.max_feature_chars
        self._size: int = self._model.get_dimension()
        self._clear()

    def vectors(self, texts: Sequence[str]) -> Floats:
        """The vectors of the texts, float32 (N, D); a text without words gets zeros for its words."""
        result = np.zeros((len(texts), self._size + FORM_NUMBERS), np.float32)
        for row, whole in enumerate(texts):
            text = whole[: self._chars]
            result[row, self._size :] = form(text)
            if found := words(text):
                if len(self._places) > CACHED_WORDS:
                    self._clear()
                places = [self._places[word] if word in self._places else self._add(word) for word in found]
                result[row, : self._size] = self._table[places].mean(0, dtype=np.float32)
        return result

    def _clear(self) -> None:
        self._places: dict[str, int] = {}
        self._table = np.zeros((1024, self._size), np.float32)

    def _add(self, word: str) -> int:
        place = self._places[word] = len(self._places)
        if place == len(self._table):
            self._table = np.concatenate([self._table, np.zeros_like(self._table)])
        vector = self._model.get_word_vector(word.encode("utf-8", "replace").decode())
        length = float(np.linalg.norm(vector))
        self._table[place] = vector / length if length > 0 else vector
        return place


class ModelFeatures:
    """The last hidden state (after the final norm) at the last token of a text, of a causal language model."""

    def __init__(self, recipe: Recipe) -> None:
        import torch

        from rinsho.device import choose_device, in_bfloat16
        from rinsho.generate.loading import load_model, load_tokenizer

        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        folder = Path(recipe.model)
        device = choose_device(recipe.device, "quality.device")
        dtype = "bfloat16" if in_bfloat16(recipe.dtype, device) else "float32"
        self._tokenizer = load_tokenizer(folder)
        whole = load_model(folder, dtype).to(device)
        self._model: Any = whole.base_model  # without the output head, which would cost more than it gives
        window = getattr(whole.config, "max_position_embeddings", None) or 1 << 20
        self._chars, self._tokens = recipe.max_feature_chars, min(recipe.max_feature_tokens, window - 1)
        self._batch_tokens = recipe.batch_tokens
        self._device, self._size = device, int(whole.config.hidden_size)
        begin = self._tokenizer.bos_token_id
        if begin is None:
            begin = self._tokenizer.eos_token_id
        if begin is None:
            raise UserError("the tokenizer has no begin or end token", where=folder, expected="a language model")
        self._begin = [int(begin)]

    def vectors(self, texts: Sequence[str]) -> Floats:
        """The vectors of the texts, float32 (N, D). Texts of like length share a batch, at most `batch_tokens`."""
        from rinsho.generate.batches import by_length

        rows = [self._begin + self._ids(text[: self._chars])[: self._tokens] for text in texts]
        result = np.zeros((len(rows), self._size), np.float32)
        for group in by_length([len(row) for row in rows], max_rows=len(rows), max_cost=self._batch_tokens):
            result[group] = self._embed([rows[place] for place in group])
        return result

    def _ids(self, text: str) -> list[int]:
        """Ordinary text as ids, without special tokens (N2.2-6)."""
        if hasattr(self._tokenizer, "encode_text"):
            return list(self._tokenizer.encode_text(text))
        return list(self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

    def _embed(self, rows: Sequence[Sequence[int]]) -> Floats:
        """(B, D) at each row's last token. Attention looks back only, so padding behind it changes nothing."""
        import torch

        width = max(map(len, rows))
        ids = torch.tensor([[*row, *self._begin * (width - len(row))] for row in rows], device=self._device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self._device)
        with torch.inference_mode():
            states = self._model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            last = torch.tensor([len(row) - 1 for row in rows], device=self._device)
            picked = states[torch.arange(len(rows), device=self._device), last]
        return picked.float().cpu().numpy()  # type: ignore[no-any-return]


def vectors_in_chunks(features: Features, texts: Sequence[str], folder: Path, stage: Stage) -> Floats:
    """The vectors of all texts, kept chunk by chunk in the folder, so that an interrupted run takes them over."""
    starts = range(0, len(texts), CHUNK_DOCUMENTS)
    parts = [texts[start : start + CHUNK_DOCUMENTS] for start in starts]
    paths = [folder / f"{number:05d}-{len(part)}.npy" for number, part in enumerate(parts)]
    done = sum(len(part) for part, path in zip(parts, paths, strict=True) if path.exists())
    with stage.progress("vectors", len(texts), "documents", done) as progress:
        for part, path in zip(parts, paths, strict=True):
            if not path.exists():
                vectors = features.vectors(part)
                with atomic_file(path) as file:
                    np.save(file, vectors, allow_pickle=False)
                progress.update(len(part))
    return np.concatenate([np.load(path, allow_pickle=False) for path in paths])


def about(recipe: Recipe) -> dict[str, Any]:
    """What the vectors are, for `classifier.json`; no path of this machine."""
    if not recipe.model:
        size = recipe.vector_size + FORM_NUMBERS
        return {"kind": "floret_and_form", "size": size, "max_chars": recipe.max_feature_chars, **FLORET}
    config = json.loads((Path(recipe.model) / "config.json").read_text(encoding="utf-8"))
    return {
        "kind": "last_hidden_state",
        "model": Path(recipe.model).resolve().name,
        "model_type": config.get("model_type"),
        "size": config.get("hidden_size"),
        "max_chars": recipe.max_feature_chars,
        "max_tokens": recipe.max_feature_tokens,
    }
