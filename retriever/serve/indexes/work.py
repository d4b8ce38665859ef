"""Searches run in a few threads; a queue that has grown long enough is answered 429, and a slow search 503."""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from retriever.search.time_limit import OverdueError, time_limit
from retriever.serve.problems import ProblemError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

__all__ = ["Work"]

T = TypeVar("T")
SOON = 0.02
"""Seconds that the event loop may do nothing else for."""


class Work:
    """Threads that work for requests. What a client waits for no longer keeps its place until it has ended.

    stops: whether it ends at its next step then, as searches do.
    """

    def __init__(self, threads: int, waiting: int, seconds: float, *, stops: bool = False) -> None:
        self.waiting, self.seconds, self._stops = waiting, seconds, stops
        self.at_work = self.on_the_way = 0
        self._client: object = None
        self._took = math.inf
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="request")

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Count a request whose body is still to come, which takes space meanwhile.

        Raises:
            ProblemError: too many are coming, at work or waiting already.
        """
        self._check()
        self.on_the_way += 1
        try:
            yield
        finally:
            self.on_the_way -= 1

    def _check(self) -> None:
        if self.at_work + self.on_the_way >= self.waiting:
            raise ProblemError(
                429,
                "busy",
                f"{self.waiting} requests are at work or waiting, which is the most; ask again in a second",
                {"retry-after": "1"},
            )

    def alone(self, client: object) -> bool:
        """Say whether a client asks one thing after the other, each over soon, and nobody else asks anything.

        Nobody waits then but this client. client: its end of the connection; None where that is not known.
        """
        same, self._client = client is not None and client == self._client, client
        return same and self._took <= SOON and not self.at_work + self.on_the_way

    async def run(self, work: Callable[[], T], *, quick: bool = False) -> T:
        """Do something in a thread; quick: here and now, which nobody has to wait for.

        Raises:
            ProblemError: too much is waiting already, or it takes too long.
        """
        self._check()
        begun = monotonic()
        ends = begun + self.seconds
        try:
            if quick:
                with time_limit(ends if self._stops else math.inf):
                    return work()
            return await self._elsewhere(work, ends)
        except OverdueError:
            raise ProblemError(
                503,
                "timeout",
                f"it took longer than {self.seconds:g} s; ask for less, or again later",
                {"retry-after": "5"},
            ) from None
        finally:
            self._took = monotonic() - begun

    async def _elsewhere(self, work: Callable[[], T], ends: float) -> T:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        job = self._pool.submit(self._do, work, ends, loop, answer)
        self.at_work += 1
        timer = loop.call_later(self.seconds, self._late, job, answer)
        try:
            return await answer
        finally:
            timer.cancel()

    def _do(
        self, work: Callable[[], T], ends: float, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[T]
    ) -> None:
        """Work, in a thread, and hand over what comes of it: by one call, since each one wakes the loop."""
        value: Any = None
        error: BaseException | None = None
        try:
            with time_limit(ends if self._stops else math.inf):
                value = work()
        except BaseException as found:
            error = found
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(self._ended, answer, value, error)

    def _ended(self, answer: asyncio.Future[T], value: Any, error: BaseException | None) -> None:
        self.at_work -= 1
        if answer.done():  # nobody waits any longer
            return
        if error is None:
            answer.set_result(value)
        else:
            answer.set_exception(error)

    def _late(self, job: Future[None], answer: asyncio.Future[T]) -> None:
        if job.cancel():  # it has not begun
            self.at_work -= 1
        if not answer.done():
            answer.set_exception(OverdueError())

    def close(self) -> None:
        """Wait for what is at work, and begin nothing more."""
        self._pool.shutdown(cancel_futures=True)
