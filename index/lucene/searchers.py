"""Lucene's searchers: several threads search at a time, each by a Python class of its own."""

from __future__ import annotations

import os
from contextlib import contextmanager
from queue import LifoQueue
from typing import TYPE_CHECKING, Any

from retriever.index.lucene.jvm import java, lucene, one_at_a_time

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Searchers"]

MOST = 16
"""Searches at a time: a class takes a megabyte, and is made when a thread first finds the others in use."""
_free: LifoQueue[int] = LifoQueue()
"""Classes that no thread uses. pyjnius keeps the object of a call in the method, which all objects of a class share."""
for _number in reversed(range(min(MOST, os.cpu_count() or 1) + 1)):
    _free.put(_number)


class Searchers:
    """The searchers of one Lucene reader, with one similarity.

    first: for all but `search`; it belongs to whoever calls Java, one at a time.
    """

    def __init__(self, index: Any, similarity: Any) -> None:
        for result in ("TopDocs", "TopFieldDocs"):  # what `search` returns is known before two threads meet it at once
            lucene(f"search.{result}")
        self._index, self._similarity = index, similarity
        self._made: dict[int, Any] = {}
        self.first = self._of(0)

    @contextmanager
    def searcher(self) -> Iterator[Any]:
        """Give a searcher to one thread; its `search` may run while others call Java."""
        number = _free.get()
        try:
            yield self._of(number)
        finally:
            _free.put(number)

    @one_at_a_time()
    def set_similarity(self, similarity: Any) -> None:
        """Score in another way from now on."""
        self._similarity = similarity
        for searcher in self._made.values():
            searcher.setSimilarity(similarity)

    def _of(self, number: int) -> Any:
        if number not in self._made:
            with one_at_a_time():
                made = self._new(number)
                made.setSimilarity(self._similarity)
                self._made[number] = made
        return self._made[number]

    def _new(self, number: int) -> Any:
        return java("org.apache.lucene.search.IndexSearcher", twin=number)(self._index)
