"""The application: routes, errors as problem documents, and the start and end of a server process."""

from __future__ import annotations

import gc
import logging
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from retriever.index.files import DamagedError
from retriever.serve import document_routes, index_routes, search_routes
from retriever.serve.gate import Gate
from retriever.serve.indexes import Indexes
from retriever.serve.metrics import Metrics
from retriever.serve.openapi import document_api
from retriever.serve.page import routes as page_routes
from retriever.serve.pipelines import Pipelines
from retriever.serve.problems import ProblemError, validation_detail
from retriever.serve.state import ServerState
from retriever.serve.work import Work
from retriever.types import ShardLostError, UserError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import Request

    from retriever.serve.settings import ServeSettings

__all__ = ["create_app"]

CHANGES_WAITING, CHANGE_SECONDS = 16, 3600.0
"""How many changes may wait for each other, and how long one may take."""
HEADERS = ("authorization", "content-type", "x-api-key", "x-request-id")
DETAILS = {
    400: "the body cannot be read; send one JSON object, which is not nested too deeply",
    404: "nothing is here; /openapi.json says what is where",
    405: "not with this method; /openapi.json says which",
}
log = logging.getLogger(__name__)


def create_app(settings: ServeSettings) -> FastAPI:
    """Return the ASGI application of a server; it opens the indexes when it is started, in the process that serves.

    Raises:
        UserError: the settings are unsafe or cannot work.
    """
    settings.check()
    metrics, pipelines = Metrics(), Pipelines(settings.pipelines)
    app = FastAPI(
        title="retriever",
        summary="Hybrid search over HTTP",
        version=version("hybrid-retriever"),
        lifespan=partial(_lifespan, settings=settings, metrics=metrics, pipelines=pipelines),
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    for routes in (search_routes, index_routes, document_routes, page_routes):
        app.include_router(routes.router)
    for error, handler in (
        (UserError, _user_error),
        (RequestValidationError, _invalid),
        (HTTPException, _http_error),
        (Exception, _unexpected),
    ):
        app.add_exception_handler(error, handler)
    app.add_middleware(Gate, settings=settings, metrics=metrics)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.origins, allow_methods=["*"], allow_headers=HEADERS, max_age=600
        )
    document_api(app, settings)
    if settings.mcp:
        from retriever.serve.mcp import add_mcp  # half a second that other servers do without

        add_mcp(app, pipelines)
    return app


@asynccontextmanager
async def _lifespan(
    app: FastAPI, settings: ServeSettings, metrics: Metrics, pipelines: Pipelines
) -> AsyncIterator[None]:
    limits = settings.limits
    indexes = Indexes(settings)
    searches = Work(settings.threads, limits.waiting, limits.seconds, stops=True)
    changes = Work(1, CHANGES_WAITING, CHANGE_SECONDS)
    app.state.server = ServerState(settings, indexes, pipelines, searches, changes, metrics)
    gc.freeze()  # what stays until the end is not looked through for garbage in the midst of a search
    log.info("ready", extra={"fields": {"indexes": list(settings.indexes), "write": settings.write}})
    try:
        async with app.state.mcp.lifespan(app) if settings.mcp else nullcontext():
            yield
    finally:
        gc.unfreeze()
        changes.close()
        searches.close()
        indexes.close()
        metrics.leave()
        log.info("stopped")


def _answer(problem: ProblemError) -> Response:
    return Response(problem.body, problem.status_code, problem.headers)


async def _user_error(request: Request, error: Any) -> Response:
    detail = request.app.state.server.indexes.message(error)
    if isinstance(error, DamagedError):
        log.error("%s", error)
        return _answer(ProblemError(503, "damaged", detail))
    if isinstance(error, ShardLostError):
        log.error("%s", error)
        return _answer(ProblemError(503, "shard-lost", detail))
    return _answer(ProblemError(400, "user-error", detail))


async def _invalid(request: Request, error: Any) -> Response:
    return _answer(ProblemError(422, "invalid-request", validation_detail(error.errors())))


async def _http_error(request: Request, error: Any) -> Response:
    if isinstance(error, ProblemError):
        return _answer(error)
    detail = DETAILS.get(error.status_code, str(error.detail))
    return _answer(ProblemError(error.status_code, "http", detail, error.headers))


async def _unexpected(request: Request, error: Any) -> Response:
    log.error("%s", request.url.path, exc_info=error)
    return _answer(ProblemError(500, "internal", "the server failed; its log says why"))
