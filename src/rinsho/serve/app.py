"""The routes."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from rinsho.serve import clinical_api, metrics, openai_api
from rinsho.serve.guard import Guard
from rinsho.serve.security import Key, Names
from rinsho.serve.service import Service, json_response, service

KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
}
STATIC, OTHER = "/static", "other"


def make_app(here: Service, key: Key, names: Names, say: Callable[[str], None] | None = None) -> Guard:
    """The application that answers for this service."""
    files = page_files()

    async def page(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in files:
            raise HTTPException(404)
        data, kind = files[name]
        return Response(data, media_type=kind)

    routes = [
        Route("/v1/chat/completions", openai_api.chat, methods=["POST"]),
        Route("/v1/completions", openai_api.completion, methods=["POST"]),
        Route("/v1/models", openai_api.models),
        Route("/v1/models/{name:path}", openai_api.model),
        Route("/v1/extract", clinical_api.extract, methods=["POST"]),
        Route("/v1/classify", clinical_api.classify, methods=["POST"]),
        Route("/v1/tokens", clinical_api.tokens, methods=["POST"]),
        Route("/v1/training-rows", clinical_api.training_rows, methods=["POST"]),
        Route("/v1/about", clinical_api.about),
        Route("/health", health),
        Route("/metrics", counts),
        Route("/", page),
        Route("/static/{name:path}", page),
    ]
    paths = {route.path for route in routes if "{" not in route.path}

    def route_of(path: str) -> str:
        if path in paths:
            return path
        starts = [start for start in (STATIC, "/v1/models") if path.startswith(start + "/")]
        return starts[0] if starts else OTHER

    return Guard(Router(routes, redirect_slashes=False), here, key, names, route_of, say)


async def health(request: Request) -> Response:
    """GET /health: 200 while requests are taken, else 503."""
    engine = service(request).engine
    state = "failed" if engine.broken else "stopping" if engine.stopping else "ok"
    numbers = {"running": engine.running, "waiting": engine.waiting}
    return json_response({"status": state, **numbers}, 200 if state == "ok" else 503)


async def counts(request: Request) -> Response:
    """GET /metrics, for Prometheus."""
    return Response(service(request).metrics.page(), headers={"content-type": metrics.CONTENT_TYPE})


def page_files() -> dict[str, tuple[bytes, str]]:
    """The web page's files by name, read once: nothing else of the disk can be asked for."""
    folder = resources.files("rinsho.serve").joinpath("page")
    found = {}
    for file in folder.iterdir() if folder.is_dir() else ():
        kind = KINDS.get(file.name[file.name.rfind(".") :])
        if kind is not None and file.is_file():
            found[file.name] = file.read_bytes(), kind
    return found
