"""The server of the Model Context Protocol: over HTTP beside the other routes, or on standard input and output."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from retriever.extras import extra
from retriever.serve.agents.tools import create_mcp
from retriever.serve.indexes.opened import Indexes
from retriever.serve.indexes.pipelines import Pipelines

with extra("serve"):
    from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastapi import FastAPI

    from retriever.serve.settings import ServeSettings

__all__ = ["PATH", "add_mcp", "run_stdio"]

PATH = "/mcp"
"""Where a server over HTTP answers."""


def add_mcp(app: FastAPI, pipelines: Pipelines) -> None:
    """Let a server over HTTP answer agents, too, at `PATH`, in the limits of its other requests."""

    async def run(work: Callable[[], Any]) -> Any:
        return await app.state.server.searches.run(work)

    mcp = create_mcp(lambda: app.state.server.indexes, run, pipelines=pipelines)
    # Without sessions, so that it does not matter which of several processes answers. The gate checks host and origin.
    app.state.mcp = mcp.http_app(PATH, stateless_http=True, json_response=True, host_origin_protection=False)
    app.router.routes.append(Route(PATH, app.state.mcp))


def run_stdio(settings: ServeSettings) -> None:
    """Answer one client on standard input and output until it closes them.

    Raises:
        UserError: an index cannot be opened.
    """
    with _nothing_printed():
        indexes = Indexes(settings)
    try:
        mcp = create_mcp(lambda: indexes, asyncio.to_thread, pipelines=Pipelines(settings.pipelines))
        asyncio.run(mcp.run_stdio_async(show_banner=False, log_level="ERROR"))
    finally:
        indexes.close()


@contextmanager
def _nothing_printed() -> Iterator[None]:
    """Send to standard error what anybody, Java too, prints while the indexes are opened; later the library does it."""
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
