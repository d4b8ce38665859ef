"""Starting and stopping: one process, or several that share a socket and the files of the indexes.

Several are started by `spawn`: no Java and no thread of the parent stands in their way, which opens nothing itself.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from retriever.serve.access_log import log_config
from retriever.serve.app import create_app
from retriever.serve.metrics import FOLDER
from retriever.serve.security.connection import Connection, ServerConfig
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from retriever.serve.settings import ServeSettings

__all__ = ["address", "serve", "server_config"]

STOPPING_SECONDS = 30
"""How long requests that have begun may still take when a signal says stop."""
BACKLOG = 2048


def serve(settings: ServeSettings, *, announce: Callable[[str], None] | None = None) -> None:
    """Serve until a signal says stop: what has begun is then still answered.

    announce: is told the address when the server answers there; where there are several processes, when they start.

    Raises:
        UserError: the settings are unsafe, an index cannot be opened, or the address is taken.
    """
    settings.check()
    config = server_config(settings, log_config())
    with closing(_listening(settings)) as listener:
        said = partial(announce or str, address(replace(settings, port=listener.getsockname()[1])))
        if settings.workers > 1:
            said()
            _serve_several(config, listener)
        else:
            _serve_alone(config, listener, said)


class _Server(uvicorn.Server):
    """Uvicorn's, which says when it answers."""

    def __init__(self, config: ServerConfig, said: Callable[[], object]) -> None:
        super().__init__(config)
        self._said = said

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the indexes and begin to answer."""
        await super().startup(sockets)
        if self.started:
            self._said()


def server_config(settings: ServeSettings, log: dict[str, Any] | None = None) -> ServerConfig:
    """Return how uvicorn runs the application; log: as `logging.config` takes it, None to leave it as it is."""
    config = ServerConfig(
        partial(create_app, settings),
        factory=True,
        workers=settings.workers,
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=log,
        access_log=False,  # `retriever.serve.security.gate` writes it
        proxy_headers=False,  # or any client could write another address into the log
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=STOPPING_SECONDS,
        timeout_worker_healthcheck=60,  # a worker that starts imports torch first
        h11_max_incomplete_event_size=settings.limits.headers,
    )
    config.limits = settings.limits
    return config


def _serve_alone(config: ServerConfig, listener: socket.socket, said: Callable[[], object]) -> None:
    try:
        with suppress(KeyboardInterrupt):  # the server has stopped by then, as it was asked to
            _Server(config, said).run(sockets=[listener])
    except SystemExit:  # the log says why
        sys.exit(1)


def _serve_several(config: ServerConfig, listener: socket.socket) -> None:
    listener.set_inheritable(True)
    with tempfile.TemporaryDirectory(prefix="retriever-metrics-") as folder:
        os.environ[FOLDER] = folder
        try:
            Multiprocess(config, sockets=[listener]).run()
        finally:
            del os.environ[FOLDER]


def _listening(settings: ServeSettings) -> socket.socket:
    """Return a socket that is bound to the address."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # With its protocol named asyncio turns Nagle off, which would hold the body back for 40 ms after the headers.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise UserError(
            f"{address(settings)}: cannot listen there ({error.strerror}); give another --host or --port"
        ) from None
    return listener


def address(settings: ServeSettings) -> str:
    """Return where the server is asked."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"
