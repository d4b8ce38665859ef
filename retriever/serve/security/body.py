"""Reading what a client sends, so much and so long and no more."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from retriever.serve.problems import ProblemError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Message, Receive

__all__ = ["Body"]

DRAINED, DRAIN_SECONDS = 2**20, 1.0
"""How much is still read of a body that is refused, and for how long."""


class Body:
    """The body of one request as a `receive` of ASGI that counts.

    whole: whether all of it was read. size: bytes so far, or as many as were announced where these are too many.
    """

    def __init__(self, receive: Receive, headers: Sequence[tuple[bytes, bytes]], most: int, seconds: float) -> None:
        self._receive, self._most, self._seconds = receive, most, seconds
        announced = {name: value for name, value in headers if name in (b"content-length", b"transfer-encoding")}
        self.size, self._length = 0, int(announced.get(b"content-length", b"0"))
        self.whole = not self._length and b"transfer-encoding" not in announced
        self._ends: float | None = None

    def check(self) -> None:
        """Raise ProblemError for a body that is said to be too long."""
        if self._length > self._most:
            self.size = self._length
            raise self._too_long()

    def _too_long(self) -> ProblemError:
        found = f"the body has {self.size} bytes or more"
        return ProblemError(413, "too-large", f"{found}; this server reads {self._most}; send less at a time")

    async def __call__(self) -> Message:
        """Return the next part; raise ProblemError where it is too much or too slow."""
        if self.whole:
            return await self._receive()
        now = asyncio.get_running_loop().time()
        self._ends = self._ends or now + self._seconds
        try:
            async with asyncio.timeout_at(self._ends):
                message = await self._receive()
        except TimeoutError:
            raise ProblemError(
                408, "too-slow", f"the body did not come within {self._seconds:g} s; send it faster, or less of it"
            ) from None
        if message["type"] == "http.request":
            self.size += len(message.get("body", b""))
            self.whole = not message.get("more_body", False)
            if self.size > self._most:
                raise self._too_long()
        return message

    async def drain(self) -> None:
        """Read and forget a little more, so that a client that is busy sending sees its answer."""
        size = 0
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while size < DRAINED and not self.whole:
                    message = await self._receive()
                    size += len(message.get("body", b""))
                    self.whole = message["type"] != "http.request" or not message.get("more_body", False)
        except TimeoutError:
            return
