"""`Modelfile`: what Ollama needs beside a GGUF file to ask a model as it was tuned.

Ollama reads texts with the tokenizer inside the file. It is written only where that gives rinsho's ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rinsho.chat import ASSISTANT, BEGIN, END, SYSTEM, USER
from rinsho.files import write_atomic

MODELFILE = "Modelfile"
# `rinsho.chat.TEMPLATE` in Go's template language. Actions trim no white space but that of this string itself.
TEMPLATE = (
    BEGIN
    + '{{ range .Messages }}{{ if eq .Role "assistant" }}'
    + ASSISTANT
    + "{{ .Content }}"
    + END
    + "{{ else }}<|{{ .Role }}|>{{ .Content }}{{ end }}{{ end }}"
    + ASSISTANT
)


def allowed(export: Mapping[str, Any], rinsho_chat: bool) -> bool:
    """Whether a Modelfile is right for an export: exact tokenizer inside, rinsho's chat form, the flavour `llama`."""
    exact = bool(export.get("exact_inside")) and bool(export.get("chat")) and rinsho_chat
    return exact and export.get("to") == "gguf" and export.get("flavour", "llama") == "llama"


def file_of(files: Sequence[Mapping[str, Any]], ternary: bool) -> str:
    """The file that Ollama is given: the first; where the others hold TQ2_0, which it does not list, that in f16."""
    wide = [str(row["name"]) for row in files if ternary and row.get("type") == "f16"]
    return wide[0] if wide else str(files[0]["name"])


def modelfile(export: Mapping[str, Any], license_: str, ternary: bool = False) -> str:
    """The text of the file.

    Args:
        export: what was exported (`rinsho.export.card`).
        license_: a line on the licence of the weights.
        ternary: files of fewer bits than 16 hold TQ2_0.

    Source: neither 4.
    """
    window = export.get("max_position_embeddings")
    lines = [f"FROM ./{file_of(export['files'], ternary)}", f'TEMPLATE """{TEMPLATE}"""']
    lines += [f'PARAMETER stop "{token}"' for token in (END, USER, SYSTEM)]
    # Ollama's own default punishes words that were said before, which extraction has to say again.
    lines += ["PARAMETER temperature 0", "PARAMETER repeat_penalty 1"]
    lines += [f"PARAMETER num_ctx {window}"] if window else []
    quoted = license_.replace('"', "'")
    return "\n".join([*lines, f'LICENSE """{quoted}"""', ""])


def write(folder: Path, export: Mapping[str, Any], license_: str, ternary: bool = False) -> None:
    """Writes `Modelfile` into the folder."""
    write_atomic(folder / MODELFILE, modelfile(export, license_, ternary))
