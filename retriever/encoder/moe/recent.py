"""The views of the queries that were encoded last: people page, sort and filter, and ask the same question again."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["RecentQueries"]

Kept = TypeVar("Kept", bound="tuple[Any, ...]")
"""A NamedTuple of arrays, some of which may be None."""


class RecentQueries(Generic[Kept]):
    """Keeps what was encoded last, at most so many queries, for any number of threads; gives copies."""

    def __init__(self, limit: int) -> None:
        self._limit, self._lock = limit, Lock()
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, encode: Callable[[], Kept]) -> Kept:
        """Return what is kept under a key; where nothing is, encode, and keep that.

        key: all that the views depend on, but for the encoder.
        """
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return _copy(found)
        encoded = encode()
        self.keep(key, encoded)
        return encoded

    def keep(self, key: Hashable, encoded: Kept) -> None:
        """Keep a copy under a key."""
        if self._limit:
            with self._lock:
                self._kept[key] = _copy(encoded)
                while len(self._kept) > self._limit:
                    self._kept.popitem(last=False)

    def __reduce__(self) -> tuple[type[RecentQueries[Kept]], tuple[int]]:
        """Go to another process empty: a lock cannot."""
        return RecentQueries, (self._limit,)


def _copy(encoded: Kept) -> Kept:
    copies: list[Any] = [None if part is None else part.copy() for part in encoded]
    return type(encoded)(*copies)
