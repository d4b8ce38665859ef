"""Connections of clients that are slow, silent or many: each has its time, and there are only so many."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from retriever.serve.problems import problem_body
from retriever.wire import PROBLEM

if TYPE_CHECKING:
    from retriever.serve.settings import Limits

__all__ = ["Connection", "ServerConfig"]

CLOSING_SECONDS = 5.0
"""How long a closed connection may take to fetch the rest of its answer."""


class ServerConfig(uvicorn.Config):
    """Uvicorn's settings, and ours."""

    limits: Limits


class _Joined:
    """A transport that sends what is written in one go together: head and body of an answer, which come one by one.

    The client is woken up once, and the system is called once.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send, when whoever writes has nothing more to write now."""
        if not self._parts:
            self._loop.call_soon(self._send)
        self._parts.append(data)

    def _send(self) -> None:
        if self._parts:
            self._transport.write(b"".join(self._parts))
            self._parts.clear()

    def close(self) -> None:
        """Close, after what was written."""
        self._send()
        self._transport.close()


class Connection(H11Protocol):
    """Uvicorn's connection, with a time for the headers of a request and for the reading of an answer."""

    def __init__(self, config: ServerConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self._limits = config.limits
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; close at once where there are too many."""
        super().connection_made(cast("asyncio.Transport", _Joined(transport, self.loop)))
        if len(self.connections) > self._limits.connections:
            self._answer(503, "busy", f"{self._limits.connections} connections are open, which is the most; try later")
        else:
            self._expect_headers()

    def data_received(self, data: bytes) -> None:
        """Read on, and stop waiting when the headers are there."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            if self.timeout_keep_alive_task is None:  # else a whole request came, and was answered at once
                self._expect_headers()
        else:
            self._stop_timer()

    def _expect_headers(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self._limits.header_seconds, self._headers_late)

    def _headers_late(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            seconds = self._limits.header_seconds
            self._answer(408, "too-slow", f"the headers did not come within {seconds:g} s; send them faster")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for a client to read its answer, but not for ever."""
        super().pause_writing()
        self._stop_timer()
        self._timer = self.loop.call_later(self._limits.body_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Write on."""
        self._stop_timer()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that is not used any more, even if its client does not read what is left."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(CLOSING_SECONDS, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        most = self._limits.headers
        self._answer(400, "invalid-request", f"not a request of HTTP/1.1, or its headers are longer than {most} bytes")

    def _answer(self, status: int, kind: str, detail: str) -> None:
        """Answer without a request, and close."""
        self._stop_timer()
        body = problem_body(status, kind, detail)
        headers = [("content-type", PROBLEM), ("content-length", str(len(body))), ("connection", "close")]
        try:
            for event in (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:  # an answer was begun already
            pass
        self.transport.close()
        self.loop.call_later(CLOSING_SECONDS, self.transport.abort)
