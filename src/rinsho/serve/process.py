"""The server as a process: place and key are settled first, then the model is opened, then requests are taken; at the
end those that were accepted are finished.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from rinsho.chat_template import has_chat
from rinsho.conversation import tuned_template
from rinsho.errors import UserError
from rinsho.generate.opening import Opened, open_model
from rinsho.memory import settle
from rinsho.model_folder import MANIFEST
from rinsho.serve import ServeOptions
from rinsho.serve.app import make_app
from rinsho.serve.engine import Engine
from rinsho.serve.guard import Guard
from rinsho.serve.metrics import Metrics
from rinsho.serve.protocol import Protocol
from rinsho.serve.security import VARIABLE, Key, Names, bound_names, is_loopback, read_key
from rinsho.serve.service import NOTICE, Service

KEEP_ALIVE_SECONDS = 75
MOST_PORT = 65_535
LAST_SECONDS = 5  # for answers that are written, but not yet taken, when the server ends


def run(model: Path, options: ServeOptions) -> None:
    """Serves until a signal; see `rinsho.serve.serve`."""
    _check(options)
    with _bound(options) as listener:
        loopback = is_loopback(listener.getsockname()[0])
        key = Key(read_key(options.api_key_file))
        if not loopback and not key.asked:
            raise UserError(
                "whoever reaches this address could use the model", where=f"--host {options.host}",
                expected=f"an API key, in {VARIABLE} or --api-key-file", todo="set one, or listen on 127.0.0.1",
            )  # fmt: skip
        _say(settle(model, options.form, options.slots, options.window, options.base))
        opened = open_model(model, options.slots, options.window, form=options.form, base=options.base)
        names = Names(bound_names(options.host, options.allow_hosts), loopback)
        url = _url(listener, options)
        if not loopback and options.tls_cert is None:
            _say(f"{url} is not encrypted: texts and key can be read on the way (--tls-cert, --tls-key)")
        if asyncio.run(_serve(opened, options, listener, key, names, url)):
            raise UserError("the model stopped working", where=model, todo="start the server again")


async def _serve(  # noqa: PLR0917
    opened: Opened, options: ServeOptions, listener: socket.socket, key: Key, names: Names, url: str
) -> bool:
    """Serves; True when the model failed."""
    told = asyncio.Event()
    here = make_service(opened, options, failed=told.set)
    here.engine.start()
    server = _Server(make_config(make_app(here, key, names), options))
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_say_kind)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    serving = asyncio.create_task(server.serve([listener]))
    try:
        while not server.started and not serving.done():
            await asyncio.sleep(0.005)
        if not serving.done():
            _say(NOTICE)
            _say(f"{here.name} ({opened.runtime}, {opened.form}) answers at {url}; Ctrl-C ends")
            await asyncio.wait({serving, asyncio.create_task(told.wait())}, return_when=asyncio.FIRST_COMPLETED)
        for number in (signal.SIGTERM, signal.SIGINT):  # a second one ends at once
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        if not here.engine.broken and not serving.done():
            _say(f"stopping: accepted requests are finished (at most {options.stop_seconds:g} s)")
        await here.engine.stop(0 if here.engine.broken else options.stop_seconds)
    finally:
        server.should_exit = True
        try:
            await serving
        except OSError as error:
            raise _no_listening(error, options) from None
        finally:
            here.engine.close()
            here.close()
    return bool(here.engine.broken)


def make_service(opened: Opened, options: ServeOptions, failed: Any = lambda: None) -> Service:
    """The service of an opened model; its engine is not started yet."""
    engine = Engine(opened, options.max_waiting, failed)
    metrics = Metrics(lambda: engine.running, lambda: engine.waiting)
    chat = has_chat(opened.tokenizer)
    if chat:
        opened.render  # noqa: B018 (made before several threads want it)
    template = tuned_template(opened.manifest, opened.where / MANIFEST)
    return Service(opened, engine, options, metrics, options.name or opened.name, template, chat)


def make_config(app: Guard, options: ServeOptions) -> uvicorn.Config:
    """How uvicorn serves the application: its own lines are off, so that none quotes a request."""
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL + 1)
    logging.getLogger("uvicorn").propagate = False
    return uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=LAST_SECONDS,
        backlog=256,
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
    )


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn's own end of a process is that of a killed one."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _check(options: ServeOptions) -> None:
    if (options.tls_cert is None) != (options.tls_key is None):
        raise UserError("one of two", where="--tls-cert, --tls-key", expected="both files, or none")
    if not 0 <= options.port <= MOST_PORT:
        raise UserError("no such port", where="--port", expected=f"a number from 0 (any free one) to {MOST_PORT}")
    for name in ("slots", "max_body_bytes", "max_new_tokens", "max_seconds"):
        if not getattr(options, name) > 0:  # so that NaN is refused too
            raise UserError("must be more than 0", where="--" + name.replace("_", "-"), expected="a number from 1 on")
    for name in ("max_waiting", "stop_seconds"):
        if not getattr(options, name) >= 0:
            raise UserError("must not be negative", where="--" + name.replace("_", "-"), expected="a number from 0 on")
    if options.tls_cert is not None:
        try:  # else it would be found out when the model is open
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.tls_cert, options.tls_key, lambda: "")
        except OSError as error:  # so is an SSLError
            raise UserError(
                f"they cannot be used ({error.strerror or type(error).__name__})", where="--tls-cert, --tls-key",
                expected="a certificate and its key, PEM files, the key without a password",
            ) from None  # fmt: skip


@contextlib.contextmanager
def _bound(options: ServeOptions) -> Iterator[socket.socket]:
    """The socket, which nobody can reach before the server listens."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UserError(
            f"no such address ({error.strerror})", where=_where(options), expected="a name or address of this machine"
        ) from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise _no_listening(error, options) from None
        yield listener
    finally:
        listener.close()


def _where(options: ServeOptions) -> str:
    return f"--host {options.host} --port {options.port}"


def _no_listening(error: OSError, options: ServeOptions) -> UserError:
    return UserError(
        f"cannot listen there ({error.strerror})", where=_where(options), expected="a free port of this machine",
        todo="choose another --port, or 0 for any",
    )  # fmt: skip


def _url(listener: socket.socket, options: ServeOptions) -> str:
    host = f"[{options.host}]" if ":" in options.host else options.host
    return f"{'http' if options.tls_cert is None else 'https'}://{host}:{listener.getsockname()[1]}"


def _say_kind(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An error that nobody waits for, by its kind alone: its words may quote a text."""
    _say(f"error {type(context.get('exception')).__name__} beside the requests")


def _say(line: str) -> None:
    print(f"rinsho serve: {line}", file=sys.stderr, flush=True)
