"""Which row of an index holds what, as its writer knows it: the flags of all rows, and where each document starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retriever.index.vectors.rows import ALIVE, CONTINUES, EMPTY, SEARCHABLE, TRUNCATED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

__all__ = ["LiveRows"]


class LiveRows:
    """The rows of an index, those of documents that are gone among them.

    flags: of the rows that there are, uint8 (rows,). ids: of the live ones among them, in order; the chunks of a
    document follow each other. row_of: the first row of each document.
    """

    def __init__(self, flags: NDArray[np.uint8], ids: Sequence[str]) -> None:
        self._flags = bytearray(flags.tobytes())
        self.row_of: dict[str, int] = {}
        for doc_id, row in zip(ids, np.flatnonzero(flags & ALIVE).tolist(), strict=True):
            if self.row_of.setdefault(doc_id, row) != row:
                self._flags[row] |= CONTINUES

    def __len__(self) -> int:
        return len(self._flags)

    @property
    def flags(self) -> NDArray[np.uint8]:
        """Return the flags of all rows, a copy."""
        return np.frombuffer(bytes(self._flags), np.uint8)

    def add(self, doc_id: str, flags: Iterable[int]) -> None:
        """Add a document in the next rows, with their flags; an id that is there already is replaced."""
        row = len(self._flags)
        if doc_id in self.row_of:
            self._bury(self.row_of[doc_id])
        self._flags.extend(flags)
        self.row_of[doc_id] = row

    def remove(self, doc_id: str) -> None:
        """Mark the rows of a document as dead; raise KeyError for an unknown id."""
        self._bury(self.row_of.pop(doc_id))

    def _bury(self, row: int) -> None:
        """Mark the rows of the document that starts with this one as dead."""
        self._flags[row] = 0
        row += 1
        while row < len(self._flags) and self._flags[row] & CONTINUES:
            self._flags[row] = 0
            row += 1

    def starts(self, rows: Iterable[int]) -> list[bool]:
        """Say of each live row whether it is a document's first one."""
        return [not self._flags[row] & CONTINUES for row in rows]

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Drop the flags of all rows but these, which `row_of` knows by their new numbers already."""
        self._flags = bytearray(self.flags[rows].tobytes())

    @property
    def empty(self) -> int:
        """Return how many rows have no text."""
        return self._count(EMPTY)

    @property
    def truncated(self) -> int:
        """Return how many rows are of texts that were cut."""
        return self._count(TRUNCATED)

    @property
    def unread(self) -> int:
        """Return how many live rows have text but no vector."""
        return int(np.count_nonzero(self.flags & (ALIVE | SEARCHABLE | EMPTY) == ALIVE))

    def _count(self, flag: int) -> int:
        return int(np.count_nonzero(self.flags & flag))
