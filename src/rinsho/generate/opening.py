"""Any model, opened to answer many at once: a GGUF file through llama.cpp, other folders through transformers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from rinsho import memory
from rinsho.errors import UserError
from rinsho.generate.batcher import Decoder
from rinsho.generate.spans import Pieces, piece_bytes
from rinsho.generate.speaking import Speaking
from rinsho.gguf_header import read_header
from rinsho.model_folder import read_manifest

OURS_INSIDE = ("t5", "no_vocab")  # what rinsho writes as the tokenizer inside (docs/export.md)
GGUF = memory.GGUF


@dataclass(frozen=True)
class Opened(Speaking):
    """A model that is ready to answer, and its tokenizer.

    Attributes:
        decoder: for a `Batcher`.
        tokenizer: what stands before the model, whatever runs it.
        where: the file or folder.
        runtime: what runs it.
        manifest: `rinsho.json`; empty where there is none.
        name: what to call it.
        form: number form of the weights: float32, bfloat16, int8, int4, or a GGUF type (q4_0).
    """

    decoder: Decoder
    tokenizer: Any
    where: Path
    runtime: Literal["llama.cpp", "transformers"]
    manifest: dict[str, Any]
    name: str
    form: str

    @property
    def window(self) -> int:
        """Tokens of a text with its answer, at most."""
        return self.decoder.window

    @cached_property
    def pieces(self) -> Pieces:
        """The vocabulary as bytes, made at its first use."""
        return Pieces(piece_bytes(self.tokenizer)[: self.decoder.vocab_size])


def is_gguf(path: Path) -> bool:
    """Whether a path is a GGUF file, or a folder with such files and no other weights that can be opened."""
    return bool(memory.gguf_files(path))


def gguf_file(path: Path) -> Path:
    """The GGUF file that a path stands for.

    Raises:
        UserError: it is not there, or the folder has several.
    """
    if not path.is_dir():
        return path
    found = memory.gguf_files(path)
    if len(found) != 1:
        names = ", ".join(file.name for file in found)
        raise UserError(
            "several models in one folder" if found else "no GGUF file in here", where=path, expected="one of them",
            todo=f"give the file itself: {names}" if found else "check the path",
        )  # fmt: skip
    return found[0]


def open_model(  # noqa: PLR0917
    path: Path | str,
    slots: int = 4,
    window: int | None = None,
    threads: int | None = None,
    form: str | None = None,
    base: Path | None = None,
) -> Opened:
    """A model ready to answer `slots` texts at once.

    Args:
        path: a model or adapter folder, a GGUF file, or a folder with one.
        slots: texts at a time.
        window: tokens of a text, at most; None: those of the model (in llama.cpp at most 8,192).
        threads: of the processor; None: all that the process may use.
        form: number form of a folder's weights (`rinsho.generate.slots.open_torch`); None: the fastest here.
        base: of an adapter, where it is not the recorded one.

    Raises:
        UserError: no model, one that cannot be opened, or options that it does not take.
    """
    path = Path(path)
    if is_gguf(path):
        return _open_gguf(path, slots, window, threads, form, base)
    from rinsho.generate.loading import load_tokenizer
    from rinsho.generate.slots import open_torch

    tokenizer = load_tokenizer(path, base)
    decoder = open_torch(path, slots, window, threads, form, base)
    return Opened(
        decoder, tokenizer, path, "transformers", read_manifest(path), path.resolve().name, _number_form(decoder, form)
    )


def _open_gguf(  # noqa: PLR0917
    path: Path, slots: int, window: int | None, threads: int | None, form: str | None, base: Path | None
) -> Opened:
    from rinsho.generate.llama import LlamaDecoder

    for option, given in (("--form", form), ("--base", base)):
        if given is not None:
            raise UserError(
                f"{option} is not for GGUF files", where=path, expected="the numbers that are in the file",
                todo=f"leave {option} out, or give the model's folder",
            )  # fmt: skip
    file = gguf_file(path)
    decoder = LlamaDecoder(file, slots, window, threads)
    try:
        tokenizer = load_gguf_tokenizer(file)
        _check_vocabulary(tokenizer, decoder, file)
    except BaseException:
        decoder.close()
        raise
    name = f"{file.resolve().parent.name}/{file.stem}"
    return Opened(decoder, tokenizer, file, "llama.cpp", read_manifest(file.parent), name, decoder.header.file_type)


def load_gguf_tokenizer(file: Path) -> Any:
    """The tokenizer that stands before a GGUF file: that beside it, else the one inside, read by transformers.

    Raises:
        UserError: there is neither.
    """
    from rinsho.generate.loading import open_tokenizer

    if (file.parent / "tokenizer_config.json").is_file():
        return open_tokenizer(file.parent)
    if read_header(file).metadata.get("tokenizer.ggml.model") in OURS_INSIDE:
        raise UserError(
            "the tokenizer's files are missing beside it, and the one inside gives other ids", where=file,
            expected="tokenizer.json and the other files of the export", todo="copy the whole export folder",
        )  # fmt: skip
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(
            file.parent, gguf_file=file.name, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # whatever a foreign file can make transformers raise
        raise UserError(
            f"no tokenizer: none beside the file, none inside that transformers can read ({type(error).__name__})",
            where=file, expected="tokenizer.json and tokenizer_config.json beside it",
            todo="copy them from the model's folder, or export the model with rinsho export",
        ) from None  # fmt: skip


def _check_vocabulary(tokenizer: Any, decoder: Decoder, file: Path) -> None:
    """An id beyond the model's vocabulary is refused by llama.cpp in the middle of an answer; better here."""
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest >= decoder.vocab_size:
        raise UserError(
            f"the tokenizer beside the file has ids up to {highest}, the model {decoder.vocab_size}", where=file,
            expected="the model's own tokenizer", todo="copy it from the model's folder",
        )  # fmt: skip


def _number_form(decoder: Any, form: str | None) -> str:
    if form is not None:
        return form
    return str(getattr(decoder, "form", "") or getattr(getattr(decoder, "model", None), "dtype", "")).removeprefix(
        "torch."
    )
