"""Documents and their views as the index stores them, checked before the first is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.index.lucene.writer import LuceneChunk
from retriever.index.postings.quantise import heavy, impact_strings, quantise, strongest, token_strings
from retriever.index.settings import IndexSettings
from retriever.index.stored import check_document, stored_text
from retriever.index.vectors.rows import ALIVE, CONTINUES, EMPTY, SEARCHABLE, TRUNCATED, TokenRecords
from retriever.languages import AUTO, detect
from retriever.types import Document, Encoded, Span

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from retriever.index.vectors.row_formats import Records
    from retriever.types import TokenVectors

__all__ = ["Batch", "check_batch", "token_records"]


class Batch(NamedTuple):
    """A batch, checked and converted: an entry for each document, or for each chunk.

    Of documents: raws, as they are stored; counts, their numbers of chunks; languages, "" where all are read alike.
    Of chunks: chunks, as Lucene reads them; records, the vectors as the rows keep them, or None; impacts, int32 csr
    (chunks, vocab_size), without columns in an index without sparse terms; flags.
    """

    raws: list[str]
    counts: list[int]
    chunks: list[LuceneChunk]
    records: Records | None
    impacts: csr_matrix
    flags: list[int]
    languages: list[str]


def check_batch(
    documents: Sequence[Document],
    encoded: Encoded | None,
    settings: IndexSettings,
    chunks: Sequence[Sequence[Span]] | None = None,
) -> Batch:
    """Convert a batch, or refuse it as a whole.

    chunks: of each document's text, the spans that are its chunks; None for whole documents.

    Raises:
        UserError: a document cannot be stored.
        ValueError: a document has no chunk, or is split in an index of whole ones; a view has another shape than the
            index needs, or holds what is not finite.
    """
    for document in documents:
        check_document(document)
    whole = [[Span(0, len(document.text))] for document in documents]
    spans = whole if chunks is None else chunks
    if not all(spans) or (settings.chunking is None and spans != whole):
        raise ValueError(f"chunks {spans} do not fit an index with the chunking {settings.chunking}")
    counts = np.array([len(parts) for parts in spans], dtype=np.int64)
    together = list(zip(documents, spans, strict=True))
    languages = [detect(document.contents) if settings.analyzer == AUTO else "" for document in documents]
    raws = [
        stored_text(document, None if settings.chunking is None else parts, language)
        for (document, parts), language in zip(together, languages, strict=True)
    ]
    contents = [chunk.contents for document, cuts in together for chunk in document.split(cuts)]
    empty = np.array([not text.strip() for text in contents], dtype=bool)
    tokens = [""] * len(contents)
    from scipy.sparse import csr_matrix

    impacts = csr_matrix(np.zeros((len(contents), 0), np.int32))
    records, truncated = None, np.zeros(len(contents), bool)
    searchable = np.zeros(len(contents), bool)
    encoder = settings.encoder
    shapes = (
        (len(contents), encoder.dense_dim) if encoder.dense_dim else None,
        (len(contents), encoder.vocab_size) if encoder.vocab_size else None,
    )
    found = (
        None if encoded is None or encoded.dense is None else encoded.dense.shape,
        None if encoded is None or encoded.sparse is None else encoded.sparse.shape,
    )
    if found != shapes:
        raise ValueError(f"dense and sparse view have the shapes {found}, the index needs {shapes}")
    if encoded is not None:
        truncated = encoded.truncated
        if encoded.dense is not None:
            records = settings.row_format.store(encoded.dense)
            searchable = encoded.dense.any(axis=1) & ~empty
        if encoded.sparse is not None:
            weights = encoded.sparse if settings.max_terms is None else strongest(encoded.sparse, settings.max_terms)
            weights = weights if settings.min_weight is None else heavy(weights, settings.min_weight)
            impacts = _without(quantise(weights, settings.impact_scale), empty)
        if encoded.tokens is not None:
            tokens = token_strings(encoded.tokens)
    flags = ALIVE | SEARCHABLE * searchable | EMPTY * empty | CONTINUES * np.ones(len(contents), np.uint8)
    firsts = np.cumsum(counts) - counts
    flags[firsts] &= ~CONTINUES
    flags[firsts] |= TRUNCATED * np.logical_or.reduceat(truncated, firsts)  # documents are counted by it
    lucene = [*map(LuceneChunk, contents, impact_strings(impacts), tokens)]
    return Batch(raws, counts.tolist(), lucene, records, impacts, flags.tolist(), languages)


def _without(impacts: csr_matrix, rows: NDArray[np.bool_]) -> csr_matrix:
    """Return impacts (n, vocab_size) with nothing in some rows (n,)."""
    if rows.any():
        impacts.data[np.repeat(rows, np.diff(impacts.indptr))] = 0
        impacts.eliminate_zeros()
    return impacts


def token_records(tokens: TokenVectors | None, chunks: int, settings: IndexSettings) -> TokenRecords | None:
    """Return the vectors of the tokens of a batch of chunks as they are stored, None in an index without them.

    Raises:
        ValueError: they are missing, not wanted, or of another shape than the index needs.
    """
    form = settings.row_format
    if tokens is None or not form.token_dim:
        if tokens is not None or form.token_dim:
            raise ValueError(f"token vectors of {form.token_dim} dimensions are needed, 0 for none; found others")
        return None
    if len(tokens.counts) != chunks or tokens.vectors.shape != (int(tokens.counts.sum()), form.token_dim):
        raise ValueError(
            f"token vectors have the shape {tokens.vectors.shape}, {chunks} chunks need {form.token_dim} each"
        )
    return TokenRecords(form.store_tokens(tokens.vectors), tokens.counts)
