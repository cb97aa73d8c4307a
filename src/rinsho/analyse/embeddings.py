"""The token embeddings of a model folder, out of its files: no model is made, no torch loaded."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rinsho.adapters import find_base, is_adapter
from rinsho.analyse.inputs import config_of
from rinsho.bases import ADAPTER_WEIGHTS
from rinsho.errors import UnsuitedError, UserError
from rinsho.recipe import Settings
from rinsho.weight_sizes import Stored, stored_tensors

if TYPE_CHECKING:
    from rinsho.analyse.part import Part

Source = Literal["input", "output"]
Form = Literal["text", "special", "byte", "unused"]

# Last parts of the names that transformers' causal language models give the two matrices.
INPUT_NAMES = ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings")
OUTPUT_NAMES = ("lm_head", "embed_out", "output")
SPACE = "▁"  # U+2581: a space in the pieces of SentencePiece models, ours among them
BYTE = re.compile(r"<0x([0-9A-F]{2})>")
NUMBERS = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}


class EmbeddingSettings(Settings):
    """How the token embeddings are laid out on a plane."""

    projections: tuple[Literal["tsne", "umap"], ...] = Field(
        ("tsne", "umap"),
        description="Maps that are drawn; umap needs the extra `umap` and is left out without it (NA-1).",
    )
    perplexity: float = Field(15.0, gt=1, le=100, description="Of t-SNE: about how many neighbours count (NA-1).")
    neighbors: int = Field(15, ge=2, le=200, description="Of UMAP, and of the shares of neighbours of one kind (NA-1).")
    source: Source = Field("input", description="The input embedding, or the output head (NA-1).")
    metric: Literal["cosine", "euclidean"] = Field(
        "cosine", description="Distance between tokens; cosine leaves their lengths, that is frequency, out (NA-1)."
    )
    max_tokens: int | None = Field(
        40_000,
        ge=100,
        description="At most so many tokens are drawn, marked kinds first, then by id; none: all (NA-1).",
    )
    permutations: int = Field(999, ge=99, description="Shuffles of the kinds that say what chance gives (NA-1).")


@dataclass(frozen=True)
class Embeddings:
    """One row a token id.

    Attributes:
        vectors: (tokens, width) float32.
        tokens: what each id stands for, decoded, spaces as they are; bytes that are no whole character as `<0xE3>`;
            empty for a row without a token.
        forms: `text`, `special`, `byte`, or `unused` for a row without a token.
    """

    vectors: NDArray[np.float32]
    tokens: tuple[str, ...]
    forms: tuple[Form, ...]

    def __len__(self) -> int:
        return len(self.tokens)


def read(model: Path, source: Source = "input") -> Embeddings:
    """The embeddings of a causal language model in a Hugging Face folder; of an adapter folder those of its base.

    Args:
        model: folder with config.json, *.safetensors and a tokenizer.
        source: the input embedding or the output head; a tied head is the input embedding.

    Raises:
        UserError: no such folder, no or quantised embeddings, or no tokenizer.

    Source: NA-1.
    """
    base = find_base(model) if is_adapter(model) else model
    home = model if (model / "tokenizer.json").is_file() else base
    vectors = read_matrix(base, source)
    tokens, forms = read_tokens(home, len(vectors))
    return Embeddings(vectors, tokens, forms)


def embeddings(model: Path, words: Sequence[Path], folder: Path, settings: EmbeddingSettings, seed: int) -> Part:
    """The chapter of the token embeddings: maps, and how far tokens of one kind lie together.

    Args:
        model: a model or adapter folder.
        words: word lists (see `rinsho.analyse.token_kinds.read_words`), whose terms are kinds of their own.
        folder: there already; maps, pictures and numbers are written into it.
        settings: what is drawn.
        seed: of the projections and the shuffles.

    Raises:
        UserError: see `read` and `read_words`; or there are hardly any tokens.

    Source: NA-1.
    """
    from rinsho.analyse.embedding_part import make
    from rinsho.analyse.inputs import name_of

    return make(name_of(model), read(model, settings.source), words, folder, settings, seed)


def readable(token: str) -> str:
    r"""A token as one can see it: white space and control characters by their pictures.

    >>> readable(" of"), readable("\n"), readable("肺炎")
    ('␣of', '↵', '肺炎')
    """
    token = token.replace("\n", "↵").replace("\t", "⇥").replace("\r", "␍").replace(" ", "␣").replace("\u3000", "□")
    return "".join(char if char.isprintable() else f"<U+{ord(char):04X}>" for char in token)


# ---------------------------------------------------------------------- vectors


def read_matrix(folder: Path, source: Source = "input") -> NDArray[np.float32]:
    """The embedding matrix, or the head, (rows, width) float32.

    Raises:
        UserError: no model folder, no weights as safetensors, damaged or quantised ones, or no finite numbers.
    """
    config = config_of(folder)
    if not config:
        raise UserError(
            "no model in here", where=folder, expected="config.json and *.safetensors", todo="check the path"
        )
    files = sorted(path for path in folder.glob("*.safetensors") if path.name != ADAPTER_WEIGHTS)
    places = {name: place for path in files for name, place in stored_tensors(path).items()}
    rows = int(config.get("vocab_size") or 0)
    found = _find(places, OUTPUT_NAMES, rows) if source == "output" else None
    found = found or _find(places, INPUT_NAMES, rows)
    if found is None:
        raise UnsuitedError(
            "no token embeddings among the weights" if files else "no weights as safetensors in here",
            where=folder, expected="a causal language model as transformers saves it (*.safetensors)",
            todo="check the path; other forms of weights cannot be opened",
        )  # fmt: skip
    return _load(found)


def _find(places: Mapping[str, Stored], names: tuple[str, ...], rows: int) -> Stored | None:
    """The matrix with such a name and as many rows as the vocabulary; else the one with most rows."""
    found = [
        place for name, place in places.items()
        if len(place.shape) == 2 and name.removesuffix(".weight").rpartition(".")[2] in names
    ]  # fmt: skip
    return max(found, key=lambda place: (place.shape[0] == rows, place.shape[0]), default=None)


def _load(place: Stored) -> NDArray[np.float32]:
    dtype = NUMBERS.get(place.dtype)
    if dtype is None:
        raise UnsuitedError(
            f"the embeddings are in the number form {place.dtype}", where=place.file,
            expected="float32, float16 or bfloat16", todo="give the model from before its quantization",
        )  # fmt: skip
    count = place.shape[0] * place.shape[1]
    little = np.dtype(dtype).newbyteorder("<")
    if place.bytes != count * little.itemsize or place.file.stat().st_size < place.start + place.bytes:
        raise _damaged(place.file)
    numbers = np.fromfile(place.file, little, count, offset=place.start)
    if place.dtype == "BF16":  # the upper half of a float32
        wide = numbers.astype(np.uint32)
        wide <<= 16
        numbers = wide.view(np.float32)
    if not np.isfinite(numbers).all():
        raise UserError(
            "some embeddings are no numbers (NaN, infinite)", where=place.file, expected="a model whose training held",
            todo="take an earlier checkpoint",
        )  # fmt: skip
    return numbers.astype(np.float32, copy=False).reshape(place.shape)


def _damaged(path: Path) -> UserError:
    return UserError(
        "the weights cannot be read", where=path, expected="a whole safetensors file", todo="copy it again"
    )


# ---------------------------------------------------------------------- tokens


def read_tokens(folder: Path, rows: int) -> tuple[tuple[str, ...], tuple[Form, ...]]:
    """What each of the first `rows` ids stands for, and its form, as `Embeddings` has them.

    Raises:
        UserError: no tokenizer in the folder.
    """
    content = _tokenizer_file(folder)
    vocabulary = content["model"]["vocab"]
    pairs = ((piece, id_) for id_, (piece, *_) in enumerate(vocabulary))
    level = "ByteLevel" in json.dumps([content.get("decoder"), content.get("pre_tokenizer")])
    wordpiece = content["model"].get("type") == "WordPiece"
    tokens, forms = [""] * rows, ["unused"] * rows
    for piece, id_ in vocabulary.items() if isinstance(vocabulary, dict) else pairs:
        if id_ < rows:
            tokens[id_], forms[id_] = _byte_level(piece) if level else _piece(piece, wordpiece)
    for added in content.get("added_tokens") or ():
        if added["id"] < rows:
            tokens[added["id"]] = added["content"]
            forms[added["id"]] = "special" if added.get("special") else "text"
    return tuple(tokens), tuple(forms)  # type: ignore[arg-type]


def _tokenizer_file(folder: Path) -> dict[str, Any]:
    """tokenizer.json, or what transformers would write as such a file."""
    path = folder / "tokenizer.json"
    try:
        if path.is_file():
            text = path.read_text(encoding="utf-8")
        else:
            from transformers import AutoTokenizer

            opened: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            text = opened.backend_tokenizer.to_str()
        content = json.loads(text)
        if content["model"]["vocab"]:
            return dict(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError):
        pass
    raise UserError(
        "no tokenizer that can be read", where=folder, expected="tokenizer.json beside the model",
        todo="copy the whole model folder",
    )  # fmt: skip


def _piece(piece: str, wordpiece: bool) -> tuple[str, Form]:
    if BYTE.fullmatch(piece):
        return piece, "byte"
    return (piece.removeprefix("##") if wordpiece and piece != "##" else piece.replace(SPACE, " ")), "text"


def _byte_level(piece: str) -> tuple[str, Form]:
    """A piece of a byte-level BPE, whose characters stand for bytes."""
    try:
        raw = bytes(_BYTES[char] for char in piece)
    except KeyError:  # a piece that stands for itself
        return piece, "text"
    with contextlib.suppress(UnicodeDecodeError):
        if (text := raw.decode("utf-8")).isprintable() or text.isspace() or len(text) > 1:
            return text, "text"
    return "".join(f"<0x{byte:02X}>" for byte in raw), "byte"


def _byte_table() -> dict[str, int]:
    """Character -> byte as in GPT-2: printable Latin-1 stands for itself, the others follow from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + number): byte for number, byte in enumerate(others)}


_BYTES = _byte_table()
