"""What an export answers in its real runtime. Run as a script, in a fresh interpreter, by `rinsho.export.checking`.

It imports nothing of rinsho, so it also proves that an export needs none; and llama.cpp, which ends the process it
finds fault in, ends this one alone. A request comes as JSON on standard input, with texts in it, so that none lies on
the disk; the reply is the last line of standard output.

    {"runtime": "transformers" | "llama.cpp" | "quantize", "path": …, "ids": [[…]], "logits": FILE, "texts": […]}
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 512  # tokens llama.cpp reads at a time


def main() -> None:
    """Answers one request."""
    request = json.loads(sys.stdin.read())
    runtime = {"transformers": in_transformers, "llama.cpp": in_llama_cpp, "quantize": quantize}[request["runtime"]]
    reply = runtime(request)
    if "rinsho" in sys.modules:
        raise RuntimeError("rinsho was imported: the export does not stand on its own")
    print(json.dumps(reply))


def in_transformers(request: dict[str, Any]) -> dict[str, Any]:
    """Writes the logits of every prompt, as transformers alone opens the folder, in its own number form."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        request["path"], local_files_only=True, trust_remote_code=False, dtype="auto"
    )
    model.eval()
    with torch.no_grad():
        rows = (model(input_ids=torch.tensor([ids])).logits[0].float().numpy() for ids in request["ids"])
        _write(rows, request)
    return {"architecture": type(model).__name__, "dtype": str(model.dtype).removeprefix("torch.")}


def in_llama_cpp(request: dict[str, Any]) -> dict[str, Any]:
    """Writes the logits of every prompt, and returns the ids that the tokenizer inside makes of the texts."""
    import llama_cpp

    llama_cpp.llama_backend_init()
    settings = llama_cpp.llama_model_default_params()
    settings.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(str(request["path"]).encode(), settings)
    if not model:
        raise RuntimeError("llama.cpp does not open the file")
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    longest = max(map(len, request["ids"]), default=1)
    sizes = llama_cpp.llama_context_default_params()
    sizes.n_ctx, sizes.n_batch, sizes.n_ubatch = max(longest, 32), BATCH, BATCH
    context = llama_cpp.llama_init_from_model(model, sizes)
    if not context:
        raise RuntimeError("llama.cpp makes no context")
    _write((_logits(context, ids, llama_cpp.llama_vocab_n_tokens(vocabulary)) for ids in request["ids"]), request)
    kind = llama_cpp.llama_vocab_type(vocabulary)
    texts = request.get("texts", [])
    made = [_tokens(vocabulary, text) for text in texts] if kind != llama_cpp.LLAMA_VOCAB_TYPE_NONE else None
    return {"architecture": _metadata(model, "general.architecture"), "tokens": made}


def quantize(request: dict[str, Any]) -> dict[str, Any]:
    """Writes a Q4_K_M file of an f16 one; matrices of zeros, by their names, in TQ2_0."""
    import llama_cpp

    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M
    settings.nthread = request["threads"]

    class Override(ctypes.Structure):
        _fields_ = (("pattern", ctypes.c_char_p), ("type", ctypes.c_int))

    rows = [Override(str(pattern).encode(), int(form)) for pattern, form in request["overrides"]]
    overrides = (Override * (len(rows) + 1))(*rows)  # the last one, empty, ends the list
    if rows:
        kind: Any = next(row[1] for row in type(settings)._fields_ if row[0] == "tt_overrides")
        settings.tt_overrides = ctypes.cast(overrides, kind)
    failed = llama_cpp.llama_model_quantize(
        str(request["path"]).encode(), str(request["out"]).encode(), ctypes.byref(settings)
    )
    if failed:
        raise RuntimeError("llama.cpp does not quantise the file")
    return {"size_bytes": Path(request["out"]).stat().st_size}


def _logits(context: Any, ids: Sequence[int], width: int) -> np.ndarray[Any, Any]:
    """(tokens, vocabulary). Read in two parts and a last token, so that the cache of keys and values is tried, too."""
    import llama_cpp

    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    found = np.empty((len(ids), width), np.float32)
    cuts = sorted({0, len(ids) // 2, max(0, len(ids) - 1), len(ids)})
    parts = [range(at, min(at + BATCH, end)) for start, end in pairwise(cuts) for at in range(start, end, BATCH)]
    for part in parts:
        batch = llama_cpp.llama_batch_init(len(part), 0, 1)
        batch.n_tokens = len(part)
        for row, place in enumerate(part):
            batch.token[row], batch.pos[row] = ids[place], place
            batch.n_seq_id[row], batch.seq_id[row][0], batch.logits[row] = 1, 0, 1
        code = llama_cpp.llama_decode(context, batch)
        llama_cpp.llama_batch_free(batch)
        if code:
            raise RuntimeError(f"llama.cpp does not compute a prompt of {len(ids)} tokens (code {code})")
        for row, place in enumerate(part):
            found[place] = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, row), (width,))
    return found


def _tokens(vocabulary: Any, text: str) -> list[int]:
    import llama_cpp

    raw = text.encode()
    room = (llama_cpp.llama_token * (len(raw) + 8))()
    count = llama_cpp.llama_tokenize(vocabulary, raw, len(raw), room, len(room), False, False)
    return list(room[: max(count, 0)])


def _metadata(model: Any, key: str) -> str:
    import llama_cpp

    room = ctypes.create_string_buffer(64)
    llama_cpp.llama_model_meta_val_str(model, key.encode(), room, len(room))
    return room.value.decode()


def _write(rows: Iterator[np.ndarray[Any, Any]], request: dict[str, Any]) -> None:
    """All logits one after another, float32, in the order of the prompts."""
    with Path(request["logits"]).open("wb") as file:
        for row in rows:
            row.astype(np.float32, copy=False).tofile(file)


if __name__ == "__main__":
    main()
