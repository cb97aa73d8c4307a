"""What every route needs: the model, its engine, the limits, the counts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from rinsho.errors import UserError
from rinsho.serve.body import Held, read
from rinsho.serve.errors import ApiError, from_user_error, too_late
from rinsho.serve.schemas import _Fields

if TYPE_CHECKING:
    from rinsho.generate.opening import Opened
    from rinsho.prompting import PromptTemplate
    from rinsho.serve import ServeOptions
    from rinsho.serve.engine import Engine
    from rinsho.serve.metrics import Metrics

NOTICE = (
    "Research model, no medical device: never use its answers for diagnosis or treatment, and check each of them. "
    "研究用モデルです。医療機器ではなく、診断・治療には使えません。回答は必ず確認してください。"
)

Result = TypeVar("Result")
Form = TypeVar("Form", bound=_Fields)


@dataclass(slots=True)
class Service:
    """One model that is served.

    Attributes:
        name: under which it is asked for.
        template: that it was tuned with, if any.
        chat: whether it answers conversations.
        created: when it was opened, in seconds since 1970.
    """

    opened: Opened
    engine: Engine
    options: ServeOptions
    metrics: Metrics
    name: str
    template: PromptTemplate | None
    chat: bool
    created: int = field(default_factory=lambda: int(time.time()))
    held: Held = field(default_factory=Held)
    # one thread, since tokenizers are not made for several
    _encoder: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "tokenizer"))

    async def aside(self, request: Request, work: Callable[[], Result]) -> Result:
        """The result of work with the tokenizer, done beside the loop.

        Raises:
            ApiError: the model cannot be asked this (400), or the request's time is over (504); work that has begun
                is finished all the same.
        """
        try:
            async with asyncio.timeout_at(deadline(request)):
                return await asyncio.get_running_loop().run_in_executor(self._encoder, work)
        except TimeoutError:
            raise too_late(self.options.max_seconds) from None
        except UserError as error:
            raise from_user_error(error) from None

    def close(self) -> None:
        """Ends the thread of the tokenizer."""
        self._encoder.shutdown(wait=False, cancel_futures=True)


@dataclass(slots=True)
class Usage:
    """Tokens of a request: read of prompts, and written (or read of options) behind them."""

    prompt: int = 0
    completion: int = 0

    def json(self) -> dict[str, int]:
        """As OpenAI has it."""
        total = self.prompt + self.completion
        return {"prompt_tokens": self.prompt, "completion_tokens": self.completion, "total_tokens": total}


def service(request: Request) -> Service:
    """The service that answers a request."""
    found: Service = request.scope["state"]["service"]
    return found


def usage(request: Request) -> Usage:
    """The tokens of a request, which are counted when it ends, however it ends."""
    found: Usage = request.scope["state"].setdefault("usage", Usage())
    return found


def deadline(request: Request) -> float:
    """When the request has to be answered, by the loop's clock."""
    return float(request.scope["state"]["deadline"])


async def take(request: Request, form: type[Form]) -> Form:
    """The body of a request in this form, which may name no other model than this one.

    Raises:
        ApiError: as `rinsho.serve.body.read`, or 404 for another model.
    """
    here = service(request)
    given = await read(request, form, here.options.max_body_bytes, here.held)
    model = getattr(given, "model", None)
    if model is not None and model != here.name:
        message = f"There is no such model here; the one that is served is called {here.name}."
        raise ApiError(404, message, "model_not_found", "model")
    return given


def json_response(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A response of JSON."""
    import orjson

    return Response(orjson.dumps(data), status, headers, "application/json")
