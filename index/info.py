"""What is in an index folder, in numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retriever.index.reader import FolderReader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retriever.index.chunks import Chunking
    from retriever.index.contract import IndexReader
    from retriever.types import EncoderIdentity

__all__ = ["IndexInfo", "describe", "describe_reader"]


class IndexInfo(NamedTuple):
    """The state of an index at its last commit.

    empty: documents without text. truncated: those longer than the encoder reads.
    unread: chunks in a language that the encoder does not read, of an index with vectors: their words alone find them.
    chunks, chunking: how many the documents are split into, and how; as many as documents, and None, if left whole.
    rows: chunks of document versions in the row files, `dead_rows` of them of deleted or replaced documents;
    `retriever compact` drops these.
    dense_rows: rows that the FAISS file covers; the newer ones are searched exactly, as all are for "flat".
    note: what the last commit's writer wrote, such as a position in the input.
    analyzer: how BM25 reads words. languages: chunks in each, where each document is read in its own.
    shards: how many documents each of them has, by name, where the index is sharded.
    sizes: bytes per part; bytes_per_document is their sum over the documents.
    """

    documents: int
    empty: int
    truncated: int
    unread: int
    chunks: int
    chunking: Chunking | None
    rows: int
    dead_rows: int
    dense_type: str
    dense_choice: str
    dense_rows: int
    commit: int
    sizes: Mapping[str, int]
    bytes_per_document: float
    encoder: EncoderIdentity
    analyzer: str
    languages: Mapping[str, int]
    k1: float
    b: float
    impact_scale: int
    row_dtype: str
    max_terms: int | None
    min_weight: float | None
    note: Mapping[str, str]
    shards: Mapping[str, int]


def describe(folder: str | Path) -> IndexInfo:
    """Return what the last commit of an index folder holds; raise UserError if it cannot be opened."""
    with FolderReader.open(folder) as reader:
        return describe_reader(reader)


def describe_reader(reader: IndexReader, shards: Mapping[str, int] | None = None) -> IndexInfo:
    """Return what an index that is open holds. shards: the documents of each, if there are any."""
    commit, settings, sizes, chunks = reader.commit_data, reader.settings, reader.sizes(), reader.num_chunks
    return IndexInfo(
        documents=commit.documents,
        empty=commit.empty,
        truncated=commit.truncated,
        unread=commit.unread,
        chunks=chunks,
        chunking=settings.chunking,
        rows=commit.mark.rows,
        dead_rows=commit.mark.rows - chunks,
        dense_type=commit.dense_type if settings.encoder.dense_dim else "none",
        dense_choice=commit.dense_choice,
        dense_rows=commit.dense_rows,
        commit=commit.number,
        sizes=sizes,
        bytes_per_document=sum(sizes.values()) / max(commit.documents, 1),
        encoder=settings.encoder,
        analyzer=settings.analyzer,
        languages=reader.languages,
        k1=settings.k1,
        b=settings.b,
        impact_scale=settings.impact_scale,
        row_dtype=settings.row_dtype,
        max_terms=settings.max_terms,
        min_weight=settings.min_weight,
        note=commit.note,
        shards={} if shards is None else shards,
    )
