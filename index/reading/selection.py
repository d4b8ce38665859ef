"""What a filter finds in one commit of an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retriever.lazy import lazy

if TYPE_CHECKING:
    from retriever.index.lucene.reader import LuceneReader
    from retriever.types import BoolArray

__all__ = ["Selection"]


class Selection:
    """The documents of one reader that a filter finds: for the text legs a query, for the dense leg rows."""

    def __init__(self, query: Any, count: int, lucene: LuceneReader) -> None:
        self.query = query
        self._count, self._lucene = count, lucene

    @lazy
    def rows(self) -> BoolArray:
        """Return which rows belong to these documents, bool (count,)."""
        return self._lucene.rows(self.query, self._count)
