"""Where the documents of one commit stand among its rows."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from retriever.lazy import lazy

if TYPE_CHECKING:
    from retriever.index.stored import StoredDocument
    from retriever.index.vectors.rows import RowReader
    from retriever.types import BoolArray

__all__ = ["DocumentRows"]


class DocumentRows:
    """Finds rows by ids. alive: bool (rows,). chunked: whether a document may have several, which follow each other."""

    def __init__(self, rows: RowReader, alive: BoolArray, *, chunked: bool) -> None:
        self._rows, self._alive, self._chunked = rows, alive, chunked

    def __len__(self) -> int:
        return len(self._alive)

    def first(self, doc_id: str) -> int:
        """Return the row of a document's first chunk; raise KeyError for an unknown id."""
        row = self.find(doc_id)
        if row is None:
            raise KeyError(doc_id)
        return row

    def find(self, doc_id: str) -> int | None:
        """Return the row of a document's first chunk, None for an unknown id."""
        row = self._rows.row_of(doc_id, self._alive)
        while row and self._chunked and self._alive[row - 1]:
            if self._rows.doc_ids(np.array([row - 1]))[0] != doc_id:
                break
            row -= 1
        return row

    def span(self, stored: StoredDocument) -> tuple[int, int]:
        """Return the row of the first chunk of a document, and that behind its last one."""
        first = self.first(stored.document.doc_id)
        return first, first + max(1, len(stored.chunks))

    def ids(self, chosen: BoolArray | None = None) -> list[str]:
        """Return the ids of the documents of which rows are chosen, bool (rows,), or of all; oldest first."""
        rows = self._alive if chosen is None else self._alive & chosen
        return list(dict.fromkeys(self._rows.doc_ids(np.flatnonzero(rows))))

    @lazy
    def firsts(self) -> BoolArray:
        """Return which rows are the first one of a live document, bool (rows,)."""
        ids = self._rows.doc_ids(np.arange(len(self._alive)))
        same = np.fromiter((one == other for one, other in pairwise(ids)), bool, len(ids) - 1)
        continues = np.concatenate([[False], same & self._alive[:-1]])
        first: BoolArray = self._alive & ~continues
        return first
