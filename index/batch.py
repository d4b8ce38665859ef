"""Documents and their views as the index stores them, checked before the first is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.index.lucene_writer import LONGEST_TERM
from retriever.index.quantise import impact_strings, quantise, strongest, token_strings
from retriever.index.rows import ALIVE, EMPTY, SEARCHABLE, TRUNCATED
from retriever.index.settings import IndexSettings
from retriever.types import Document, Encoded, UserError

if TYPE_CHECKING:
    from retriever.index.row_formats import Records

__all__ = ["Batch", "check_batch"]


class Batch(NamedTuple):
    """A batch, checked and converted: one entry per document; records, its vectors as the rows keep them, or None."""

    raws: list[str]
    impacts: list[str]
    tokens: list[str]
    records: Records | None
    flags: list[int]


def check_batch(documents: Sequence[Document], encoded: Encoded | None, settings: IndexSettings) -> Batch:
    """Convert a batch, or refuse it as a whole.

    Raises:
        UserError: a document cannot be stored.
        ValueError: a view has another shape than the index needs, or holds what is not finite.
    """
    raws = [_raw(document) for document in documents]
    empty = np.array([not document.contents.strip() for document in documents], dtype=bool)
    impacts, tokens = [""] * len(documents), [""] * len(documents)
    records, truncated = None, np.zeros(len(documents), bool)
    searchable = np.zeros(len(documents), bool)
    encoder = settings.encoder
    shapes = (
        (len(documents), encoder.dense_dim) if encoder.dense_dim else None,
        (len(documents), encoder.vocab_size) if encoder.vocab_size else None,
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
    flags = ALIVE | SEARCHABLE * searchable | EMPTY * empty | TRUNCATED * truncated
    return Batch(raws, impacts, tokens, records, flags.tolist())


def _raw(document: Document) -> str:
    """Return the stored JSON of a document; raise UserError for one that cannot be stored."""
    shown = ascii(document.doc_id)[:80]
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
    try:
        raw = json.dumps(fields | {"metadata": dict(document.metadata)}, ensure_ascii=False, allow_nan=False)
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
