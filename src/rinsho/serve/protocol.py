"""HTTP on a connection, with what uvicorn leaves open: slow requests and stuck readers end, and a client that goes
away ends what it asked for at once.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from rinsho.serve.body import BODY_SECONDS

REQUEST_SECONDS = BODY_SECONDS + 5  # for head and body; a slow body alone is answered with 408 before
STALL_SECONDS = 60.0  # a client that takes nothing of its answer for so long is cut off
TASK = "task"  # in the request's state: what works on it
CONNECTIONS = "connections"  # there as well: all that are open


class Protocol(H11Protocol):
    """One connection."""

    _reading: asyncio.TimerHandle | None = None  # runs while a request is begun and not whole
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts to wait for the first request."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, CONNECTIONS: self.connections}
        transport.set_write_buffer_limits(high=1)  # what is not taken is told of at once (0 never resumes with TLS)
        self._reading = self.loop.call_later(REQUEST_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        """A part of a request."""
        super().data_received(data)
        self._go_on()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (uvicorn's words)
        """What came is no HTTP; it is told in the form of all errors, unless an answer is on its way already."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        body, headers = self.app.malformed()
        head = [(name.encode(), value.encode()) for name, value in headers.items()]
        response = h11.Response(
            status_code=400, headers=self.server_state.default_headers + head, reason=b"Bad Request"
        )
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def pause_writing(self) -> None:
        """The client takes no more for now."""
        super().pause_writing()
        self._stalled = self._stalled or self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has taken everything."""
        self._end_stall()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, or was cut off."""
        self._end_reading()
        self._end_stall()
        task: Any = None
        if self.cycle is not None and not self.cycle.response_complete:
            task = self.scope["state"].get(TASK)
        super().connection_lost(exc)
        if task is not None:
            task.cancel()

    def _go_on(self) -> None:
        """No connection without an end: a request that is not whole has its time, one that is whole is read on from,
        because only that tells that the client went away."""
        if self.transport.is_closing():
            return
        state, more = self.conn.their_state, bool(self.conn.trailing_data[0])
        if state is h11.SEND_BODY or (state is h11.IDLE and more):
            self._reading = self._reading or self.loop.call_later(REQUEST_SECONDS, self.transport.abort)
            return
        self._end_reading()
        if state is h11.IDLE and self.timeout_keep_alive_task is None:  # the rest of a body that was answered before
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        if not more:
            self.flow.resume_reading()

    def _end_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _end_stall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
