"""What every request passes on its way in and its answer on the way out: checks, headers, log and metrics."""

from __future__ import annotations

import logging
import re
import secrets
import sys
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from retriever.serve.problems import ProblemError
from retriever.serve.security.access import check_access
from retriever.serve.security.body import Body
from retriever.serve.security.hosts import check_fetch, check_host, check_origin, one_header
from retriever.types import UserError
from retriever.wire import VERSION, VERSION_HEADER

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from retriever.serve.metrics import Metrics
    from retriever.serve.security.keys import Key
    from retriever.serve.settings import ServeSettings

__all__ = ["Gate"]

log = logging.getLogger("retriever.access")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
DOCUMENTS = re.compile(r"/indexes/[^/]+/documents")
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS")
SECURITY = [
    (b"content-security-policy", b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
     b"connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]  # fmt: skip
"""Headers of every answer: the page loads nothing from elsewhere and stands in no frame."""


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, partial(_send_event, send))
            return
        limits = self._settings.limits
        most = limits.documents if DOCUMENTS.fullmatch(scope["path"]) else limits.body
        body = Body(receive, scope["headers"], most, limits.body_seconds)
        passage = _Passage(scope, send, body)
        try:
            passage.key = self._check(scope)
            body.check()
        except ProblemError as problem:
            await passage.refuse(problem)
        else:
            await self._app(scope, body, passage.send)
        finally:
            self._note(scope, passage)

    def _check(self, scope: Scope) -> Key | None:
        headers = scope["headers"]
        size = len(scope.get("raw_path") or b"") + len(scope["query_string"]) + sum(len(n) + len(v) for n, v in headers)
        if (most := self._settings.limits.headers) < size:  # h11 counts what comes in several parts alone
            detail = f"address and headers have {size} bytes; this server reads {most}; send less, or by POST"
            raise ProblemError(431, "too-large", detail)
        host = one_header(headers, b"host") or ""
        check_host(host, self._settings)
        check_origin(one_header(headers, b"origin"), host, self._settings)
        check_fetch(one_header(headers, b"sec-fetch-site"), one_header(headers, b"origin"), scope["path"])
        return check_access(scope["method"], scope["path"], headers, self._settings)

    def _note(self, scope: Scope, passage: _Passage) -> None:
        seconds = perf_counter() - passage.started
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.count(method, route, passage.status, seconds)
        if log.isEnabledFor(logging.INFO):
            client = scope.get("client")
            fields = {
                "request_id": passage.request_id,
                "client": client and client[0],
                "key": passage.key and passage.key.label,
                "method": scope["method"],
                "path": scope["path"],
                "status": passage.status,
                "milliseconds": round(seconds * 1000, 3),
                "bytes_in": passage.body.size,
                "bytes_out": passage.size,
                **passage.asked,
            }
            log.info("request", extra={"fields": fields})


async def _send_event(send: Send, message: Message) -> None:
    """Pass on what is said of start and stop; a start that failed by the user's fault in one line."""
    if message["type"] == "lifespan.startup.failed" and isinstance(error := sys.exception(), UserError):
        message = {**message, "message": str(error)}
    await send(message)


class _Passage:
    """One request on its way.

    asked: what the route has to say of it for the log. status: of the answer, 0 as long as there is none.
    """

    def __init__(self, scope: Scope, send: Send, body: Body) -> None:
        self._send, self.body = send, body
        self.started = perf_counter()
        self.key: Key | None = None
        self.status, self.size = 0, 0
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")
        self.request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        self.asked: dict[str, Any] = {}
        scope.setdefault("state", {})["asked"] = self.asked

    async def send(self, message: Message) -> None:
        """Pass a part of the answer on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message["headers"])
            there = {name for name, _ in headers}
            headers += [header for header in SECURITY if header[0] not in there]
            headers.append((b"x-request-id", self.request_id.encode()))
            headers.append((VERSION_HEADER.encode(), VERSION.encode()))
            if b"cache-control" not in there:
                headers.append((b"cache-control", b"no-store"))
            if not self.body.whole:
                await self.body.drain()
            if not self.body.whole:  # the rest could come for ever
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        else:
            self.size += len(message.get("body", b""))
        await self._send(message)

    async def refuse(self, problem: ProblemError) -> None:
        """Answer a request that does not come to a route."""
        headers = [(name.encode(), value.encode("latin-1")) for name, value in (problem.headers or {}).items()]
        headers.append((b"content-length", str(len(problem.body)).encode()))
        await self.send({"type": "http.response.start", "status": problem.status_code, "headers": headers})
        await self.send({"type": "http.response.body", "body": problem.body})
