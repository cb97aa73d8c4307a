"""Room 9: a model answers over HTTP, as OpenAI's interface has it, on this machine alone unless a key is set.

`serve` runs until it is told to stop. Nothing that is asked or answered is written anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["ServeOptions", "serve"]


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How a model is served; the options of `rinsho serve` by their names.

    Attributes:
        host: where to listen; anything but this machine's own addresses needs an API key.
        port: 0 takes a free one.
        slots: answers that are written at once.
        window: tokens of a conversation; None: the model's.
        form: number form of the weights; None: what this machine is fast in (a GGUF file has its own).
        base: of an adapter; None: the recorded one.
        api_key_file: file whose only line is the key; else the environment's RINSHO_API_KEY, else none.
        max_waiting: requests beyond `slots` that may wait; more are refused with 429.
        max_body_bytes: of a request (413).
        max_new_tokens: of an answer, at most.
        max_seconds: for a request from its head to its last token (504, or the end of the stream).
        stop_seconds: that accepted requests have when the server is told to stop.
        allow_hosts: further names under which browsers and clients may reach it (a reverse proxy's, for instance).
        name: under which the model is asked for; None: its folder's or file's.
        tls_cert: certificate file for https, with `tls_key`.
        tls_key: its key file.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    slots: int = 4
    window: int | None = None
    form: str | None = None
    base: Path | None = None
    api_key_file: Path | None = None
    max_waiting: int = 64
    max_body_bytes: int = 1 << 20
    max_new_tokens: int = 1024
    max_seconds: float = 300
    stop_seconds: float = 30
    allow_hosts: tuple[str, ...] = ()
    name: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None


def serve(model: Path, options: ServeOptions = ServeOptions()) -> None:
    """Answers requests until SIGTERM or SIGINT; then those that were accepted are finished, and it returns.

    Args:
        model: a model or adapter folder, a GGUF file, or a folder with one.
        options: limits and place.

    Raises:
        UserError: the model cannot be opened or does not fit, the port is taken, or a key is needed.
    """
    from rinsho.serve.process import run

    run(model, options)
