"""The application: routes, errors as problem documents, and the start and end of a server process."""

from __future__ import annotations

import gc
import logging
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from retriever.serve.errors import add_errors
from retriever.serve.indexes.opened import Indexes
from retriever.serve.indexes.pipelines import Pipelines
from retriever.serve.indexes.state import ServerState
from retriever.serve.indexes.work import Work
from retriever.serve.metrics import Metrics
from retriever.serve.page import routes as page_routes
from retriever.serve.routes import documents as document_routes
from retriever.serve.routes import indexes as index_routes
from retriever.serve.routes import search as search_routes
from retriever.serve.routes.shortcut import Shortcut
from retriever.serve.schema.openapi import document_api
from retriever.serve.security.gate import Gate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from retriever.serve.settings import ServeSettings

__all__ = ["create_app"]

CHANGES_WAITING, CHANGE_SECONDS = 16, 3600.0
"""How many changes may wait for each other, and how long one may take."""
HEADERS = ("authorization", "content-type", "x-api-key", "x-request-id")
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
    add_errors(app)
    app.add_middleware(Shortcut)
    app.add_middleware(Gate, settings=settings, metrics=metrics)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.origins, allow_methods=["*"], allow_headers=HEADERS, max_age=600
        )
    document_api(app, settings)
    if settings.mcp:
        from retriever.serve.agents.mcp import add_mcp  # half a second that other servers do without

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
