"""What clinicians ask for: /v1/extract, /v1/classify, /v1/tokens, /v1/training-rows, and /v1/about for the page."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from rinsho import clinical
from rinsho.errors import UserError
from rinsho.generate.batcher import Job, NoRoomError
from rinsho.serve.errors import ApiError, from_user_error, too_late
from rinsho.serve.schemas import ClassifyRequest, ExtractRequest, RowsRequest, TokensRequest
from rinsho.serve.service import NOTICE, Service, Usage, deadline, json_response, service, take, usage


async def extract(request: Request) -> Response:
    """POST /v1/extract: entities with their places in the text as it was sent."""
    here, given, used = service(request), await take(request, ExtractRequest), usage(request)
    with here.engine.place():
        task = await here.aside(request, lambda: clinical.Extraction(here.opened, given.text, given.kinds))
        found = await here.aside(request, partial(task.entities, await _results(request, here, task.jobs, used)))
    entities = [entity.row(given.threshold) for entity in found]
    answer = {"object": "extraction", "model": here.name, "threshold": given.threshold, "entities": entities}
    return json_response(answer | {"cut": task.cut, "usage": used.json()})


async def classify(request: Request) -> Response:
    """POST /v1/classify: the probability of each option."""
    here, given, used = service(request), await take(request, ClassifyRequest), usage(request)
    if len(set(given.options)) < len(given.options):
        raise ApiError(400, "Two of the options are the same.", "invalid_value", "options")
    with here.engine.place():
        task = await here.aside(
            request, lambda: clinical.Classification(here.opened, given.text, given.options, given.question)
        )
        shares = task.shares((await _results(request, here, [task.job], used))[0])
    options = [
        {"option": option, "probability": float(share)} for option, share in zip(given.options, shares, strict=True)
    ]
    best = given.options[max(range(len(shares)), key=lambda place: shares[place])]
    answer = {"object": "classification", "model": here.name, "options": options, "best": best}
    return json_response(answer | {"shortened": task.shortened, "note": task.note, "usage": used.json()})


async def tokens(request: Request) -> Response:
    """POST /v1/tokens: what the model sees of a text."""
    here, given = service(request), await take(request, TokensRequest)
    with here.engine.place():
        found = await here.aside(request, lambda: clinical.tokens(here.opened, given.text))
    return json_response({"object": "tokens", "tokens": found, "count": len(found), "characters": len(given.text)})


async def training_rows(request: Request) -> Response:
    """POST /v1/training-rows: corrected texts as lines that `rinsho finetune` takes. Nothing is kept."""
    here, given = service(request), await take(request, RowsRequest)

    def lines() -> bytes:
        made: list[Any] = []
        for number, row in enumerate(given.rows):
            try:
                made += clinical.training_rows(here.opened, row.text, row.kind, row.entities)
            except UserError as error:
                message = f"rows[{number}]: {from_user_error(error).message}"
                raise ApiError(400, message, "invalid_value", f"rows[{number}]") from None
        return b"".join(orjson.dumps(line) + b"\n" for line in made)

    with here.engine.place():
        made = await here.aside(request, lines)
    return json_response({"object": "training_rows", "jsonl": made.decode("utf-8")})


async def about(request: Request) -> Response:
    """GET /v1/about: what is served, for the page."""
    here = service(request)
    manifest = here.opened.manifest
    return json_response(
        {
            "name": here.name,
            "runtime": here.opened.runtime,
            "form": here.opened.form,
            "window": here.opened.window,
            "kinds": list(clinical.kinds_of(here.opened)),
            "chat": here.chat,
            "parameters": manifest.get("parameters"),
            "notice": NOTICE,
            "limits": {
                "max_new_tokens": here.options.max_new_tokens,
                "max_body_bytes": here.options.max_body_bytes,
                "max_seconds": here.options.max_seconds,
            },
        }
    )


async def _results(request: Request, here: Service, jobs: Sequence[Job[Any]], used: Usage) -> list[Any]:
    """The results of a request's jobs, in order; a long text has many, which wait behind those of others."""
    most = asyncio.Semaphore(here.opened.decoder.slots)

    async def one(job: Job[Any]) -> Any:
        async with most:
            return await here.engine.run(counted(job, used))

    tasks = [asyncio.create_task(one(job)) for job in jobs]
    try:
        async with asyncio.timeout_at(deadline(request)):
            return await asyncio.gather(*tasks)
    except TimeoutError:
        raise too_late(here.options.max_seconds) from None
    finally:
        for task in tasks:
            task.cancel()


def counted(job: Job[Any], used: Usage) -> Job[Any]:
    """The same job; what it reads first counts as its prompt, the rest as its answer."""
    read = 0
    try:
        feed = next(job)
        while True:
            if read:
                used.completion += len(feed.ids)
            else:
                used.prompt += len(feed.ids)
            read += 1
            try:
                logits = yield feed
            except NoRoomError as error:
                feed = job.throw(error)
            else:
                feed = job.send(logits)
    except StopIteration as end:
        return end.value
    finally:
        job.close()
