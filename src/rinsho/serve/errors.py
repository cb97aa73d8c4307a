"""What is answered when a request cannot be: a status and OpenAI's error form, never the text that was sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rinsho.errors import UserError

KINDS = {401: "authentication_error", 429: "rate_limit_error"}
BUSY_SECONDS = 1


class ApiError(Exception):
    """A request that is answered with an error.

    Args:
        status: of HTTP.
        message: for whoever wrote the client; never text of the request.
        code: for programs, such as `context_length_exceeded`.
        param: the field that is meant.
        headers: further ones of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The error as OpenAI's clients read it."""
        kind = KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "code": self.code, "param": self.param}}


def full(retry_after: int) -> ApiError:
    """As many requests are answered and wait as may (429)."""
    message = "The server is busy: too many requests wait already. Try again later."
    return ApiError(429, message, "server_busy", headers={"retry-after": str(retry_after)})


def stopping(message: str = "The server is stopping.") -> ApiError:
    """The server has been told to stop, or cannot answer any more (503)."""
    return ApiError(503, message, "server_stopping", headers={"retry-after": str(BUSY_SECONDS)})


def too_late(seconds: float) -> ApiError:
    """The request took longer than it may (504)."""
    return ApiError(504, f"The answer took more than {seconds:g} seconds (--max-seconds).", "timeout")


def from_user_error(error: UserError) -> ApiError:
    """A request that the model cannot be asked (400). Paths of this machine (`where`) are left out."""
    parts = [error.what, f"expected {error.expected}" if error.expected else ""]
    return ApiError(400, "; ".join(part for part in parts if part), "invalid_request")
