"""A request's body, no larger and no slower than it may be."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import orjson
from starlette.requests import ClientDisconnect, Request

from rinsho.serve.errors import ApiError, full
from rinsho.serve.schemas import _Fields, parsed

BODY_SECONDS = 20.0  # for the whole body: far more than a slow line needs for a megabyte
MOST_HELD = 64  # whole bodies, of those that are still coming, at once

Form = TypeVar("Form", bound=_Fields)


class Held:
    """Bytes of bodies that are not whole yet, of all requests together."""

    def __init__(self) -> None:
        self.bytes = 0


async def read(request: Request, form: type[Form], max_bytes: int, held: Held) -> Form:
    """The body as a request of this form.

    Raises:
        ApiError: 415 no JSON by its header, 413 too large, 408 too slow, 400 not JSON or not of this form, 429 where
            others send so much at once that there is no room for it.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # a page of another site cannot send this without asking first
        raise ApiError(415, "The body must be sent as application/json.", "unsupported_media_type")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "The body must not be compressed.", "unsupported_media_type")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await _bytes(request, max_bytes, held)
    except TimeoutError:
        message = f"The body did not come within {BODY_SECONDS:g} seconds."
        raise ApiError(408, message, "body_timeout", headers={"connection": "close"}) from None
    try:
        data: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        message = f"The body is not valid JSON in UTF-8 (at character {error.pos})."
        raise ApiError(400, message, "invalid_json") from None
    return parsed(form, data)


async def _bytes(request: Request, max_bytes: int, held: Held) -> bytes:
    said = request.headers.get("content-length", "0")
    if said.isdigit() and int(said) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    try:
        async for chunk in request.stream():
            held.bytes += len(chunk)
            body += chunk
            if len(body) > max_bytes:
                raise _too_large(max_bytes)
            if held.bytes > MOST_HELD * max_bytes:
                raise full(1)
    except ClientDisconnect:
        raise asyncio.CancelledError from None
    finally:
        held.bytes -= len(body)
    return bytes(body)


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(413, f"The body is larger than {max_bytes} bytes (--max-body-bytes).", "request_too_large")
