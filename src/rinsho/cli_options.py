"""Parts of the command line that several commands share: numbers, short forms of settings, the options of serving."""

from __future__ import annotations

import argparse
import difflib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FORMS = ("float32", "bfloat16", "int8", "int4")
FORM_HELP = "number form of the weights (default: what this machine is fast in; a GGUF file has its own)"
# short forms of --set: command -> option -> (setting, whether it takes several values, what it is)
SHORT: dict[str, dict[str, tuple[str, bool, str]]] = {
    "export": {
        "--to": ("export.to", False, "hf, llama or gguf"),
        "--base": ("export.base", False, "an adapter's base (default: the recorded one)"),
        "--flavour": ("export.flavour", False, "of the GGUF files: llama or mimo2"),
        "--types": ("export.types", True, "of the GGUF files: f16, q8_0, q4_0, q4_k_m"),
    },
    "extract": {
        "--column": ("extract.column", False, "of tables and JSON lines: where the text is"),
        "--id-column": ("extract.id_column", False, "where the id is (default: id, where there is such a column)"),
        "--kinds": ("extract.kinds", True, "what to look for: disease, medicine, finding, value"),
        "--threshold": ("extract.threshold", False, "entities below it are unsure (0.5)"),
        "--form": ("extract.form", False, FORM_HELP),
    },
    "classify": {
        "--column": ("classify.column", False, "of tables and JSON lines: where the text is"),
        "--id-column": ("classify.id_column", False, "where the id is (default: id, where there is such a column)"),
        "--form": ("classify.form", False, FORM_HELP),
        "--question": ("classify.question", False, "what is asked about each text"),
        "--options": ("classify.options", True, "what may be answered"),
    },
}


def positive(text: str) -> int:
    """A number from 1 on."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a number of 1 or more")
    return int(text)


def count(text: str) -> int:
    """A number from 0 on."""
    return 0 if text == "0" else positive(text)


def temperature(text: str) -> float:
    """A number from 0 on."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError("must be a number of 0 or more")
    return number


def unknown_option(command: argparse.ArgumentParser, words: Sequence[str]) -> str:
    """What to say of words that a command does not know."""
    known = [option for action in command._actions for option in action.option_strings]
    near = difflib.get_close_matches(words[0].partition("=")[0], known, 1)
    return f"unknown: {' '.join(words)}" + (f"; did you mean {near[0]}?" if near else "")


def add_short(command: argparse.ArgumentParser, name: str) -> None:
    """The short forms of a command."""
    for option, (setting, several, about) in SHORT.get(name, {}).items():
        if several:
            command.add_argument(option, dest=f"short {setting}", nargs="+", metavar="X", help=about)
        else:
            command.add_argument(option, dest=f"short {setting}", metavar="X", help=about)


def with_short(options: argparse.Namespace) -> argparse.Namespace:
    """The short forms as overrides, behind those of --set."""
    for key, value in vars(options).copy().items():
        if key.startswith("short "):
            delattr(options, key)
            if value is not None:
                setting = key.removeprefix("short ")
                options.overrides.append(f"{setting}={json.dumps(value, ensure_ascii=False)}")
    return options


def add_serve(commands: Any, about: str) -> None:
    """`rinsho serve`, whose options are `rinsho.serve.ServeOptions` by their names."""
    serve = commands.add_parser("serve", help=about, description=about)
    serve.add_argument(
        "model", type=Path, metavar="MODEL", help="a model or adapter folder, or a GGUF file or its folder"
    )
    serve.add_argument("--base", type=Path, metavar="BASE", help="the base of an adapter (default: the recorded one)")
    serve.add_argument("--form", choices=FORMS, help=FORM_HELP)
    serve.add_argument("--host", default="127.0.0.1", help="where to listen (127.0.0.1); elsewhere a key is needed")
    serve.add_argument("--port", type=count, default=8080, help="0 takes a free one (8080)")
    serve.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="the key that every request must have (or RINSHO_API_KEY)"
    )
    limits: dict[str, tuple[int, str]] = {
        "--slots": (4, "answers that are written at once"),
        "--max-new-tokens": (1024, "of an answer, at most"),
        "--max-seconds": (300, "for a request, at most"),
        "--max-body-bytes": (1 << 20, "of a request"),
        "--stop-seconds": (30, "that running answers have when the server is told to stop"),
    }
    for option, (default, meaning) in limits.items():
        serve.add_argument(option, type=positive, default=default, metavar="N", help=f"{meaning} ({default:,})")
    serve.add_argument(
        "--max-waiting", type=count, default=64, metavar="N", help="further requests that may wait; more get 429 (64)"
    )
    serve.add_argument("--window", type=positive, metavar="N", help="tokens of a conversation (default: the model's)")
    serve.add_argument("--name", help="under which the model is asked for (default: its folder's or file's)")
    serve.add_argument(
        "--allow-host", dest="allow_hosts", action="append", default=[], metavar="NAME",
        help="a further name under which it may be reached, a reverse proxy's for instance; may be repeated",
    )  # fmt: skip
    serve.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate, for https")
    serve.add_argument("--tls-key", type=Path, metavar="FILE", help="key of the certificate")
