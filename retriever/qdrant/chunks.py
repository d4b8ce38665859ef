"""Chunks on their way into a collection, and what each of them adds to its statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retriever.index.vectors.row_formats import StoredVectors
from retriever.index.vectors.rows import SEARCHABLE
from retriever.qdrant.engine import SparseVector
from retriever.qdrant.points import KINDS, NewChunk, filter_values
from retriever.qdrant.statistics import Contribution, as_written

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scipy.sparse import csr_matrix

    from retriever.index.settings import IndexSettings
    from retriever.index.vectors.rows import TokenRecords
    from retriever.index.writing.batch import Batch
    from retriever.qdrant.engine import Point, Record
    from retriever.types import Document

__all__ = ["Contribution", "contribution", "impacts_of_row", "new_chunks"]


def new_chunks(
    documents: Sequence[Document], batch: Batch, settings: IndexSettings, late: TokenRecords | None
) -> Iterator[list[NewChunk]]:
    """Yield the chunks of each document of a checked batch. late: the vectors of their tokens, if it has them."""
    vectors = None
    ends = [0] * (len(batch.chunks) + 1) if late is None else [0, *np.cumsum(late.counts).tolist()]
    if batch.records is not None:
        vectors = StoredVectors(batch.records, settings.row_format)[:]
    first = 0
    for document, raw, count, language in zip(documents, batch.raws, batch.counts, batch.languages, strict=True):
        values = filter_values(document.metadata)
        chunks = []
        for number in range(count):
            row = first + number
            flags = batch.flags[row]
            dense = vectors[row] if vectors is not None and flags & SEARCHABLE else None
            contents, _, tokens = batch.chunks[row]
            chunks.append(
                NewChunk(
                    document.doc_id,
                    number,
                    count,
                    raw if number == 0 else "",
                    contents,
                    impacts_of_row(batch.impacts, row),
                    dense,
                    np.array(tokens.split(), np.int32),
                    flags,
                    language,
                    values,
                    b"" if late is None else bytes(late.records[ends[row] : ends[row + 1]].tobytes()),
                )
            )
        yield chunks
        first += count


def impacts_of_row(impacts: csr_matrix, row: int) -> SparseVector:
    """Return a row of impacts (n, vocab_size), indices sorted, as a vector."""
    places = slice(impacts.indptr[row], impacts.indptr[row + 1])
    return SparseVector(impacts.indices[places].astype(np.uint32), impacts.data[places].astype(np.float32))


def contribution(point: Point | Record) -> Contribution:
    """Return what a chunk adds to the statistics; its whole payload and its sparse vectors are needed."""
    payload, empty = point.payload, np.empty(0, np.uint32)
    words, impacts = (
        vector.indices if isinstance(vector := point.vectors.get(name), SparseVector) else empty
        for name in ("bm25", "sparse")
    )
    return Contribution(
        payload["chunk"] == 0,
        payload["words"],
        as_written(payload["mean"]),
        words.tolist(),
        impacts,
        np.array(payload["tokens"], np.int32),
        payload["flags"],
        payload["language"],
        {kind: payload[kind] for kind in KINDS if kind in payload},
        payload["crc"],
    )
