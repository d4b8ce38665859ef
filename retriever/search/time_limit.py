"""How long a search may take: whoever does not wait for it any longer lets it stop at its next step.

Steps are legs, stages, batches of queries, and what is made of each hit; none of them is cut short.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["OverdueError", "TimeLimit", "current_limit", "time_limit"]


class OverdueError(Exception):
    """The time for a search is over."""


class TimeLimit:
    """A moment after which nothing new is begun. ends: as `time.monotonic` counts."""

    def __init__(self, ends: float = math.inf) -> None:
        self.ends = ends

    def check(self) -> None:
        """Raise OverdueError once the moment has passed."""
        if monotonic() > self.ends:
            raise OverdueError


_current: ContextVar[TimeLimit] = ContextVar("time_limit", default=TimeLimit())  # noqa: B039  # nothing changes it


def current_limit() -> TimeLimit:
    """Return the limit of the search that this thread is at; it never ends where none was set."""
    return _current.get()


@contextmanager
def time_limit(ends: float) -> Iterator[None]:
    """Let the searches of a `with` block stop, with OverdueError, after a moment.

    >>> with time_limit(monotonic() - 1):
    ...     try:
    ...         current_limit().check()
    ...     except OverdueError:
    ...         print("over")
    over
    """
    token = _current.set(TimeLimit(ends))
    try:
        yield
    finally:
        _current.reset(token)
