"""Searches run in a few threads; a queue that has grown long enough is answered 429, and a slow search 503."""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from retriever.search.time_limit import OverdueError, time_limit
from retriever.serve.problems import ProblemError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Work"]

T = TypeVar("T")


class Work:
    """Threads that work for requests. What a client waits for no longer keeps its place until it has ended.

    stops: whether it ends at its next step then, as searches do.
    """

    def __init__(self, threads: int, waiting: int, seconds: float, *, stops: bool = False) -> None:
        self.waiting, self.seconds, self._stops = waiting, seconds, stops
        self.at_work = 0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="request")

    async def run(self, work: Callable[[], T]) -> T:
        """Do something in a thread.

        Raises:
            ProblemError: too much is waiting already, or it takes too long.
        """
        if self.at_work >= self.waiting:
            raise ProblemError(
                429,
                "busy",
                f"{self.waiting} requests are at work or waiting, which is the most; ask again in a second",
                {"retry-after": "1"},
            )
        self.at_work += 1
        loop = asyncio.get_running_loop()
        ends = monotonic() + self.seconds if self._stops else math.inf

        def limited() -> T:
            with time_limit(ends):
                return work()

        try:
            future = self._pool.submit(limited)
        except BaseException:
            self.at_work -= 1
            raise
        future.add_done_callback(lambda _: self._ended(loop))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.seconds)
        except (TimeoutError, OverdueError):
            future.cancel()  # if it has not begun
            raise ProblemError(
                503,
                "timeout",
                f"it took longer than {self.seconds:g} s; ask for less, or again later",
                {"retry-after": "5"},
            ) from None

    def _ended(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.call_soon_threadsafe(self._free)
        except RuntimeError:  # the loop was closed meanwhile
            self._free()

    def _free(self) -> None:
        self.at_work -= 1

    def close(self) -> None:
        """Wait for what is at work, and begin nothing more."""
        self._pool.shutdown(cancel_futures=True)
