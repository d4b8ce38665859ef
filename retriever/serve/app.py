"""The application: routes, errors as problem documents, and the start and end of a server process."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from retriever.serve import document_routes, index_routes, search_routes
from retriever.serve.indexes import Indexes
from retriever.serve.problems import ProblemError, validation_detail
from retriever.serve.state import ServerState
from retriever.serve.work import Work
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import Request

    from retriever.serve.settings import ServeSettings

__all__ = ["create_app"]

log = logging.getLogger(__name__)


def create_app(settings: ServeSettings) -> FastAPI:
    """Return the ASGI application of a server; it opens the indexes when it is started, in the process that serves."""
    app = FastAPI(
        title="retriever",
        summary="Hybrid search over HTTP",
        lifespan=partial(_lifespan, settings=settings),
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    for routes in (search_routes, index_routes, document_routes):
        app.include_router(routes.router)
    for error, handler in (
        (ProblemError, _problem),
        (UserError, _user_error),
        (RequestValidationError, _invalid),
        (HTTPException, _http_error),
        (Exception, _unexpected),
    ):
        app.add_exception_handler(error, handler)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI, settings: ServeSettings) -> AsyncIterator[None]:
    limits = settings.limits
    indexes = Indexes(settings)
    searches = Work(settings.threads, limits.waiting, limits.seconds)
    changes = Work(1, limits.waiting, 3600)
    app.state.server = ServerState(settings, indexes, searches, changes)
    try:
        yield
    finally:
        changes.close()
        searches.close()
        indexes.close()


def _answer(problem: ProblemError) -> Response:
    return Response(problem.body, problem.status, problem.headers)


async def _problem(request: Request, error: Any) -> Response:
    return _answer(error)


async def _user_error(request: Request, error: Any) -> Response:
    return _answer(ProblemError(400, "user-error", request.app.state.server.indexes.message(error)))


async def _invalid(request: Request, error: Any) -> Response:
    return _answer(ProblemError(422, "invalid-request", validation_detail(error.errors())))


async def _http_error(request: Request, error: Any) -> Response:
    details = {404: "nothing is here; /openapi.json says what is", 405: "not with this method"}
    detail = details.get(error.status_code, str(error.detail))
    return _answer(ProblemError(error.status_code, "http", detail, error.headers))


async def _unexpected(request: Request, error: Any) -> Response:
    log.error("%s %s", request.method, request.url.path, exc_info=error)
    return _answer(ProblemError(500, "internal", "the server failed; its log says why"))
