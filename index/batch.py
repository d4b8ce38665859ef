"""Documents and their views as the index stores them, checked before the first is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.index.lucene_writer import LONGEST_TERM, LuceneChunk
from retriever.index.quantise import impact_strings, quantise, strongest, token_strings
from retriever.index.rows import ALIVE, CONTINUES, EMPTY, SEARCHABLE, TRUNCATED
from retriever.index.settings import IndexSettings
from retriever.types import Document, Encoded, Span, UserError

if TYPE_CHECKING:
    from retriever.index.row_formats import Records

__all__ = ["Batch", "check_batch", "check_document"]


class Batch(NamedTuple):
    """A batch, checked and converted: `raws` and `counts` have an entry per document, the others one per chunk.

    counts: the number of chunks. records: the vectors as the rows keep them, or None.
    """

    raws: list[str]
    counts: list[int]
    chunks: list[LuceneChunk]
    records: Records | None
    flags: list[int]


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
        ValueError: a document has no chunk, or is parted in an index of whole ones; a view has another shape than the
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
    raws = [_raw(document, None if settings.chunking is None else parts) for document, parts in together]
    contents = [part.contents for document, parts in together for part in document.parts(parts)]
    empty = np.array([not text.strip() for text in contents], dtype=bool)
    impacts, tokens = [""] * len(contents), [""] * len(contents)
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
            strings = impact_strings(quantise(weights, settings.impact_scale))
            impacts = ["" if skip else line for line, skip in zip(strings, empty, strict=True)]
        if encoded.tokens is not None:
            tokens = token_strings(encoded.tokens)
    flags = ALIVE | SEARCHABLE * searchable | EMPTY * empty | CONTINUES * np.ones(len(contents), np.uint8)
    firsts = np.cumsum(counts) - counts
    flags[firsts] &= ~CONTINUES
    flags[firsts] |= TRUNCATED * np.logical_or.reduceat(truncated, firsts)  # documents are counted by it
    return Batch(raws, counts.tolist(), [*map(LuceneChunk, contents, impacts, tokens)], records, flags.tolist())


def check_document(document: Document) -> Document:
    """Return a document; raise UserError for one whose parts are not of their types, or that has no id."""
    shown = _shown(document)
    fields = {"id": document.doc_id, "title": document.title, "text": document.text}
    for name, value in fields.items():
        if not isinstance(value, str):
            raise UserError(
                f"document {shown}: its {name} is of type {type(value).__name__}, need a string; write it as one"
            )
    if not document.doc_id.strip():
        raise UserError(f"document {shown}: its id is empty or blank, need at least one character; give it one")
    if not isinstance(document.metadata, Mapping):
        raise UserError(
            f"document {shown}: its metadata is of type {type(document.metadata).__name__}, need a mapping; give a dict"
        )
    return document


def _raw(document: Document, chunks: Sequence[Span] | None) -> str:
    """Return the stored JSON of a document; raise UserError for one that cannot be stored."""
    shown = _shown(document)
    fields = {"id": document.doc_id, "title": document.title, "text": document.text}
    try:
        parts = {} if chunks is None else {"chunks": chunks}
        raw = json.dumps(fields | {"metadata": dict(document.metadata)} | parts, ensure_ascii=False, allow_nan=False)
        raw.encode()
    except UnicodeEncodeError:
        raise UserError(f"document {shown}: holds half of a surrogate pair; write its text as valid Unicode") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"document {shown}: its metadata is no JSON ({error}); give strings, finite numbers, lists, dicts or None"
        ) from None
    if len(document.doc_id.encode()) > LONGEST_TERM:
        raise UserError(f"document {shown}...: the id is longer than {LONGEST_TERM} bytes; give it a shorter one")
    return raw


def _shown(document: Document) -> str:
    return ascii(document.doc_id)[:80]
