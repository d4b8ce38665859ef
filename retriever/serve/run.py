"""Starting and stopping: one process, or several that share a socket and the files of the indexes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import uvicorn

from retriever.serve.app import create_app

if TYPE_CHECKING:
    from retriever.serve.settings import ServeSettings

__all__ = ["serve"]


def serve(settings: ServeSettings) -> None:
    """Serve until a signal says stop: what has begun is then still answered.

    Raises:
        UserError: the settings are unsafe or cannot work.
    """
    settings.check()
    config = uvicorn.Config(
        partial(create_app, settings),
        factory=True,
        host=settings.host,
        port=settings.port,
        http="h11",
        ws="none",
        lifespan="on",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=30,
        h11_max_incomplete_event_size=settings.limits.headers,
        log_level="warning",
    )
    uvicorn.Server(config).run()
