"""Whether a query is in a language that the encoder does not read: its views would be noise beside its words.

The encoder's card names its languages, and a dozen words tell little: the detector takes names and Latin terms for
Italian. So a query counts as foreign only where the collection does not know most of its words either. With these
limits none of 22,000 English questions is taken for foreign in the collection that it is asked of (NFCorpus, CISI,
Cranfield, SQuAD, MedQuAD, XQuAD, nq-open), and 86 to 100 % of XQuAD's German, Spanish, Romanian, Vietnamese and Turkish
questions are found in NFCorpus, in SQuAD, and in 40,000 passages of Wikipedia.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from retriever.languages import AUTO, ENGLISH, OTHER, analyzer_named, likely_language

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from retriever.index.contract import IndexReader
    from retriever.types import Encoded

__all__ = ["is_foreign", "language_code", "without_views", "words_in"]

SURE = 0.55
"""The detector's probability."""
LEAST_TERMS = 3
KNOWN = 0.6
"""A query with a larger share of terms that the collection knows is in its language."""
RARE = 5_000
"""A term of fewer than one in so many chunks is not known: large English collections have words of all languages."""
READ = 0.05
"""The encoder reads a collection of which it leaves no larger share of the chunks unread."""


def language_code(name: str | None) -> str | None:
    """Return the code of a language given by code or name, None for none, and for "auto".

    Raises:
        UserError: there is no such language.
    """
    if name is None:
        return None
    code = analyzer_named(name)
    return {ENGLISH: "en", AUTO: None}.get(code, code)


def words_in(text: str, language: str | None, reader: IndexReader) -> dict[str, int] | None:
    """Return how often a query holds each term, read in its language; None where BM25 reads it as it reads all."""
    if language is None or reader.settings.analyzer != AUTO:
        return None
    return dict(Counter(reader.query_terms(text, language)))


def is_foreign(text: str, read: Collection[str], reader: IndexReader, language: str | None = None) -> bool:
    """Say whether a query is in none of the languages `read` by the encoder, in a collection that it does read.

    language: the query's, where it is known. In a collection that the encoder does not read, words alone were stored,
    and a query's words are all that it is asked for.
    """
    if language in read or reader.commit_data.unread > READ * reader.num_chunks:
        return False
    if language is not None:
        return language != OTHER
    found = likely_language(text)
    if found.code in read or found.score < SURE:
        return False
    terms = list(dict.fromkeys(reader.query_terms(text)))
    least = max(1, reader.num_chunks / RARE)
    known = sum(count >= least for count in reader.bm25_frequencies(terms))
    return len(terms) >= LEAST_TERMS and known <= KNOWN * len(terms)


def without_views(encoded: Encoded, rows: Sequence[bool]) -> Encoded:
    """Return encoded queries with no view of some, which count as unread."""
    if not any(rows):
        return encoded
    silent = np.array(rows, np.bool_)
    dense, terms = encoded.dense, encoded.sparse
    if dense is not None:
        dense = np.where(silent[:, None], np.float32(0), dense)
    if terms is not None:
        terms = terms.copy()
        terms.data[np.repeat(silent, np.diff(terms.indptr))] = 0
        terms.eliminate_zeros()
    unread = silent if encoded.unread is None else encoded.unread | silent
    return encoded._replace(dense=dense, sparse=terms, unread=unread)
