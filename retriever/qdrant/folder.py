"""Reading an index folder document by document, in the order of its rows, with all that is stored of each.

Impacts and tokens stand in the folder term by term. They are turned around block by block, and on disk: memory does not
grow with the index.
"""

from __future__ import annotations

import json
import tempfile
from bisect import bisect_right
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.index.stored import read_stored
from retriever.index.vectors.rows import SEARCHABLE, read_flags
from retriever.qdrant.chunks import impacts_of_row
from retriever.qdrant.points import NewChunk, filter_values
from retriever.types import Span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from retriever.index.postings.blocks import Block
    from retriever.index.reader import FolderReader
    from retriever.qdrant.engine import SparseVector

__all__ = ["FolderDocument", "folder_documents"]

ROWS = 4_096
"""Rows whose ids are read at once."""


class FolderDocument(NamedTuple):
    """A live document: the row of its first chunk, and its chunks."""

    row: int
    chunks: list[NewChunk]


def folder_documents(reader: FolderReader, first: int) -> Iterator[FolderDocument]:
    """Yield the live documents of a folder from a row on, by ascending rows."""
    rows = np.flatnonzero(reader.alive)
    rows = rows[np.searchsorted(rows, first) :]
    commit = reader.commit_data
    flags = read_flags(reader.path / commit.live_file, commit.mark.rows, commit.live_crc)
    with tempfile.TemporaryDirectory(prefix="retriever-push-") as scratch:
        views = _Views(reader, flags, _Tokens(reader, Path(scratch)), _Impacts(reader))
        pairs = (
            pair
            for start in range(0, len(rows), ROWS)
            for pair in zip(
                rows[start : start + ROWS].tolist(), reader.rows.doc_ids(rows[start : start + ROWS]), strict=True
            )
        )
        for doc_id, group in groupby(pairs, key=lambda pair: pair[1]):
            own = [row for row, _ in group]
            yield FolderDocument(own[0], views.chunks(doc_id, own))


class _Views:
    """Puts together what the parts of a folder hold of a document."""

    def __init__(self, reader: FolderReader, flags: NDArray[np.uint8], tokens: _Tokens, impacts: _Impacts) -> None:
        self._reader, self._flags, self._tokens, self._impacts = reader, flags, tokens, impacts

    def chunks(self, doc_id: str, rows: list[int]) -> list[NewChunk]:
        raw = self._reader.raws([doc_id])[doc_id]
        stored, vectors = read_stored(self._reader.path, raw), self._reader.rows.vectors
        spans = stored.chunks or [Span(0, len(stored.document.text))]
        values, language = filter_values(stored.document.metadata), json.loads(raw).get("language", "")
        dense = None if vectors is None else vectors[slice(rows[0], rows[-1] + 1)]
        return [
            NewChunk(
                doc_id,
                number,
                len(rows),
                raw if number == 0 else "",
                part.contents,
                self._impacts.of_row(row),
                dense[number] if dense is not None and self._flags[row] & SEARCHABLE else None,
                self._tokens.of_row(row),
                int(self._flags[row]),
                language,
                values,
                self._late(row),
            )
            for number, (row, part) in enumerate(zip(rows, stored.document.split(spans), strict=True))
        ]

    def _late(self, row: int) -> bytes:
        tokens = self._reader.rows.tokens
        return b"" if tokens is None else bytes(tokens.records[tokens.places(row)].tobytes())


class _Impacts:
    """The impacts of rows that are asked for in order, one block of postings at a time."""

    def __init__(self, reader: FolderReader) -> None:
        self._reader, self._postings = reader, reader.postings
        self._number = -1
        self._rows: csr_matrix | None = None

    def of_row(self, row: int) -> SparseVector:
        """Return the impacts of a row."""
        if self._postings is None:  # an index that was made before there were postings
            if self._rows is None:
                self._rows = self._reader.stored_terms("impact")
                self._rows.sort_indices()
            return impacts_of_row(self._rows, row)
        number = bisect_right(self._postings.first_rows, row) - 1
        if number != self._number or self._rows is None:
            self._number = number
            self._rows = _turned_around(self._postings.blocks[number], self._reader.settings.encoder.vocab_size)
        return impacts_of_row(self._rows, row - self._postings.first_rows[number])


def _turned_around(block: Block, vocab_size: int) -> csr_matrix:
    """Return the rows of a block, int32 csr (rows, vocab_size)."""
    from scipy.sparse import coo_matrix

    parts = [block.postings(place) for place in range(len(block.terms))]
    rows = np.concatenate([np.empty(0, np.int32), *(part.rows.astype(np.int32) for part in parts)])
    impacts = np.concatenate([np.empty(0, np.int32), *(part.impacts.astype(np.int32) for part in parts)])
    terms = np.repeat(block.terms.astype(np.int32), [len(part.rows) for part in parts])
    turned: csr_matrix = coo_matrix((impacts, (rows, terms)), shape=(block.rows, vocab_size)).tocsr()
    turned.sum_duplicates()  # of impacts that one posting does not hold
    return turned


class _Tokens:
    """The tokens of each row, turned around in a file: one pass over the terms counts them, another one writes them."""

    def __init__(self, reader: FolderReader, scratch: Path) -> None:
        rows, vocabulary = len(reader.alive), reader.settings.encoder.vocab_size
        counts = np.zeros(rows + 1, np.int64)
        for part in reader.token_rows() if vocabulary else ():
            counts[part.rows + 1] += 1
        self._ends = np.cumsum(counts)
        total = int(self._ends[-1])
        if not total:
            self._ids = np.empty(0, np.int32)
            return
        self._ids = np.memmap(scratch / "tokens", np.int32, "w+", shape=(total,))
        following = self._ends[:-1].copy()
        for part in reader.token_rows():
            self._ids[following[part.rows]] = part.term
            following[part.rows] += 1

    def of_row(self, row: int) -> NDArray[np.int32]:
        """Return the tokens of a row, ascending."""
        return np.asarray(self._ids[self._ends[row] : self._ends[row + 1]])
