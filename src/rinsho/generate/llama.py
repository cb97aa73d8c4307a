"""A GGUF file that answers through llama.cpp, on the processor, several texts at a time. Loads no torch.

Shapes: n ids of a part, V vocabulary.
"""

from __future__ import annotations

import ctypes
import math
import os
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from rinsho.errors import UserError
from rinsho.generate.batcher import Logits, Part
from rinsho.gguf_header import Header, cut_off, damaged, read_header
from rinsho.memory import LARGEST_WINDOW
from rinsho.model_folder import MANIFEST

BATCH_TOKENS = 512  # ids of a call; llama.cpp reads as many at once
OUTPUTS = 64  # logits of a call: llama.cpp keeps room for so many rows of V numbers, twice
# Squared ReLU is written into llama.cpp's `arcee`; our models have SiLU there and would answer nonsense.
WRONG = "arcee"
MOST_LAYERS = 512  # llama.cpp's LLAMA_MAX_LAYERS
EPSILONS = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon")
ERROR = 4  # ggml_log_level

_said: deque[str] = deque(maxlen=20)  # the last of what llama.cpp had to say: its only word on why a file is refused


class LlamaDecoder:
    """A GGUF file in llama.cpp as a `rinsho.generate.batcher.Decoder`: each slot has keys and values of its own.

    Args:
        path: of the file.
        slots: texts at a time.
        window: positions of each; None: those of the model, at most 8,192.
        threads: of llama.cpp; None: as many processors as the process may use, or OMP_NUM_THREADS.

    Attributes:
        header: of the file.

    Raises:
        UserError: llama-cpp-python is missing; the file is none, cut off or damaged, of a kind this llama.cpp does not
            know, or an Arcee file of a rinsho model; the window is larger than the model's; there are more slots than
            llama.cpp can have; there is no memory for it.
    """

    def __init__(self, path: Path | str, slots: int = 4, window: int | None = None, threads: int | None = None) -> None:
        path = Path(path)
        self.header = read_header(path)
        _check(path, self.header)
        library = _library()
        trained = self.header.of("context_length", LARGEST_WINDOW)
        self.window = min(trained, LARGEST_WINDOW) if window is None else window
        if not 1 <= self.window <= trained:
            raise UserError(f"a window of {self.window} tokens", where=path, expected=f"1 to {trained}, the model's")
        most = int(library.llama_max_parallel_sequences())
        if not 1 <= slots <= most:
            raise UserError(f"{slots} texts at a time", where=path, expected=f"1 to {most}", todo="--slots N")
        self.slots, self.batch_tokens = slots, BATCH_TOKENS
        self._library, self._outputs = library, max(OUTPUTS, slots)
        model = _load(library, path)
        context = _context(library, model, slots, self.window, threads or _threads())
        if not context:
            library.llama_model_free(model)
            raise UserError(
                f"no memory for {slots} texts of {self.window} tokens", where=path,
                expected="a smaller window or fewer slots", todo="--window N, --slots N",
            )  # fmt: skip
        self._free = weakref.finalize(self, _release, library, model, context)
        self._context, self._memory = context, library.llama_get_memory(context)
        self.vocab_size = int(library.llama_vocab_n_tokens(library.llama_model_get_vocab(model)))
        self._make_batch()

    def feed(self, parts: Sequence[Part]) -> list[Logits | None]:
        """Reads the parts in one call, more where many logits are wanted; (1, V) or (n, V) of each, None if unwanted.

        Raises:
            RuntimeError: llama.cpp refuses them.
        """
        found: list[list[Logits]] = [[] for _ in parts]
        for call in _calls(parts, self._outputs):
            self._read(call, found)
        return [
            None if part.wanted == "none" else rows[0] if len(rows) == 1 else np.concatenate(rows)
            for part, rows in zip(parts, found, strict=True)
        ]

    def forget(self, slot: int, start: int) -> None:
        """Forgets what the slot holds from this position on."""
        if not self._library.llama_memory_seq_rm(self._memory, slot, start, -1):
            raise RuntimeError("llama.cpp cannot forget a part of a text of this model")

    def close(self) -> None:
        """Gives the memory back."""
        self._free()

    def _make_batch(self) -> None:
        """The arrays that llama.cpp reads a call from, made once: filling them is most of what Python does."""
        size = self.batch_tokens
        self._tokens, self._places, self._owners = (np.zeros(size, np.int32) for _ in range(3))
        self._wanted = np.zeros(size, np.int8)
        self._positions = np.arange(self.window, dtype=np.int32)
        counts = np.ones(size, np.int32)
        pointers = self._owners.ctypes.data + 4 * np.arange(size, dtype=np.uintp)
        batch = self._library.llama_batch()
        for name, array in (("token", self._tokens), ("pos", self._places), ("n_seq_id", counts),
                            ("seq_id", pointers), ("logits", self._wanted)):  # fmt: skip
            kind = dict(batch._fields_)[name]
            setattr(batch, name, ctypes.cast(array.ctypes.data, kind))
        self._batch, self._kept = batch, (counts, pointers)
        get_logits = ctypes.cast(self._library.llama_get_logits, ctypes.c_void_p).value or 0
        self._get_logits = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(get_logits)  # the address as a number
        self._address, self._table = 0, np.empty((0, self.vocab_size), np.float32)

    def _read(self, call: Sequence[tuple[int, Part]], found: list[list[Logits]]) -> None:
        """One call of llama.cpp; `call` has parts with their places in `found`, neighbouring slots side by side."""
        at, total = 0, 0
        for _, part in call:
            count = len(part.ids)
            if count == 1:  # nearly always: scalars cost a third of slices
                self._tokens[at], self._places[at] = part.ids[0], part.start
                self._owners[at], self._wanted[at] = part.slot, part.wanted != "none"
                total += part.wanted != "none"
                at += 1
                continue
            end = at + count
            self._tokens[at:end] = part.ids
            self._places[at:end] = self._positions[part.start : part.start + count]
            self._owners[at:end] = part.slot
            self._wanted[at:end] = part.wanted == "every"
            self._wanted[end - 1] = part.wanted != "none"
            total += count if part.wanted == "every" else part.wanted == "last"
            at = end
        self._batch.n_tokens = at
        code = self._library.llama_decode(self._context, self._batch)
        if code:
            raise RuntimeError(f"llama.cpp could not read {at} tokens (code {code}): {_last_word()}")
        if not total:
            return
        table, row = self._logits(), 0
        for place, part in call:
            if part.wanted != "none":
                count = len(part.ids) if part.wanted == "every" else 1
                found[place].append(table[row : row + count].copy())
                row += count

    def _logits(self) -> Logits:
        """llama.cpp's own memory of logits, a row for each that the last call wanted."""
        address = self._get_logits(self._context)
        if address != self._address:  # it moves when more rows than ever before are wanted
            raw = (ctypes.c_char * (4 * self._outputs * self.vocab_size)).from_address(address)
            self._table = np.frombuffer(memoryview(raw), np.float32).reshape(self._outputs, self.vocab_size)
            self._address = address
        return self._table


def _calls(parts: Sequence[Part], outputs: int) -> Iterator[list[tuple[int, Part]]]:
    """The parts with their places, by slot, in calls that want no more than so many logits.

    By slot because llama.cpp reads neighbouring slots together, others one after the other.
    """
    if len(parts) == 1 and parts[0].wanted != "every":
        yield [(0, parts[0])]
        return
    call: list[tuple[int, Part]] = []
    room = outputs
    for place, part in sorted(enumerate(parts), key=lambda each: each[1].slot):
        for piece in _pieces(part, outputs):
            wanted = len(piece.ids) if piece.wanted == "every" else int(piece.wanted == "last")
            if wanted > room:
                yield call
                call, room = [], outputs
            call.append((place, piece))
            room -= wanted
    yield call


def _pieces(part: Part, size: int) -> Iterator[Part]:
    if part.wanted != "every" or len(part.ids) <= size:
        yield part
        return
    for first in range(0, len(part.ids), size):
        yield Part(part.slot, part.start + first, part.ids[first : first + size], "every")


def _check(path: Path, header: Header) -> None:
    """Refuses what llama.cpp would read and answer wrongly from."""
    architecture = header.architecture
    if not architecture or header.metadata.get("split.count", 0) > 1:
        raise UserError(
            "one of several files of a model" if architecture else "it does not say what kind of model it is",
            where=path, expected="a whole model in one file", todo="export it again, or join the files first",
        )  # fmt: skip
    if why := _deadly(header):
        raise damaged(path, why)
    if architecture == WRONG and (path.parent / MANIFEST).is_file():
        raise UserError(
            "this file of a rinsho model says arcee, which llama.cpp computes with squared ReLU: it would answer "
            "nonsense", where=path, expected="one that rinsho wrote", todo="rinsho export MODEL --to gguf",
        )  # fmt: skip


def _deadly(header: Header) -> str:
    """What llama.cpp would end the process over; empty where there is nothing."""
    if not 1 <= header.of("block_count", 1) <= MOST_LAYERS:
        return f"{header.of('block_count')} layers"
    for key in EPSILONS:
        value = header.of(key, 0.0)
        if not isinstance(value, float) or not 0 <= value < math.inf:
            return f"{key} is {value}"
    tokens = header.metadata.get("tokenizer.ggml.tokens", [])
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        return "tokens that are no texts"
    named = [name for token in tokens if (name := token.partition("\0")[0])]  # llama.cpp gives empty ones a name
    return "" if len(set(named)) == len(named) else "a token that is there twice"


@cache
def _library() -> ModuleType:
    """llama.cpp's functions, with its log kept from the terminal."""
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # else it starts a debugger when it ends the process
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError(
            f"llama-cpp-python cannot be loaded ({type(error).__name__})", where="GGUF",
            expected="the package llama-cpp-python", todo="pip install 'rinsho[gguf]'",
        ) from None  # fmt: skip
    llama_cpp.llama_log_set(_listener(llama_cpp), ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return llama_cpp


@cache
def _listener(library: ModuleType) -> Any:
    """What llama.cpp calls with each of its lines; kept as long as the process lives."""

    def listen(level: int, text: bytes, _: Any) -> None:
        if level == ERROR and text.strip():
            _said.append(text.decode("utf-8", "replace").strip())

    return library.llama_log_callback(listen)


def _last_word() -> str:
    return _said[-1][:200] if _said else "it does not say why"


def _load(library: ModuleType, path: Path) -> Any:
    _said.clear()
    settings = library.llama_model_default_params()
    # Not mapped: llama.cpp lays quantised matrices out anew, and the mapped file would stay in memory beside them.
    settings.load_mode = library.LLAMA_LOAD_MODE_NONE
    model = library.llama_model_load_from_file(os.fsencode(path), settings)
    if not model:
        if any("within the file bounds" in line for line in _said):
            raise cut_off(path)
        why = next((line for line in _said if "unknown model architecture" in line), _last_word())
        raise UserError(
            f"llama.cpp cannot open it ({why.rpartition('model: ')[2]})", where=path,
            expected="a model that the installed llama-cpp-python knows", todo="a newer llama-cpp-python may know it",
        )  # fmt: skip
    if library.llama_model_is_recurrent(model) or library.llama_model_is_hybrid(model) \
            or library.llama_model_is_diffusion(model) or library.llama_model_has_encoder(model):  # fmt: skip
        library.llama_model_free(model)
        raise UserError(
            "this kind of model keeps more of a text than keys and values of each token", where=path,
            expected="a causal language model with attention in all layers",
        )  # fmt: skip
    return model


def _context(library: ModuleType, model: Any, slots: int, window: int, threads: int) -> Any:
    """Room for the slots; None where there is no memory for it."""
    settings = library.llama_context_default_params()
    settings.n_ctx = slots * -(-window // 256) * 256
    settings.n_batch = settings.n_ubatch = BATCH_TOKENS
    settings.n_seq_max = slots
    settings.n_outputs_max = max(OUTPUTS, slots)
    settings.n_threads = settings.n_threads_batch = threads
    settings.kv_unified = False  # an answer looks at its own text alone, and has its window for itself
    settings.swa_full = True  # a slot can go back to any place
    settings.no_perf = True
    return library.llama_init_from_model(model, settings)


def _threads() -> int:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = os.environ.get("OMP_NUM_THREADS", "")
    return min(count, int(told)) if told.isdecimal() and int(told) > 0 else count


def _release(library: ModuleType, model: Any, context: Any) -> None:
    library.llama_free(context)
    library.llama_model_free(model)
