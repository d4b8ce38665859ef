"""A document as a query for others like it: what the index has stored of it stands in for what an encoder would say."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from retriever.search.leg import LegQuery
from retriever.types import UserError

if TYPE_CHECKING:
    from retriever.index.contract import IndexReader

__all__ = ["query_like", "strongest_words"]

LONGEST = 50_000
"""Characters of a text that are looked at, from its start."""
STRONGEST = 25
"""Terms that stand for a text, as in Lucene's MoreLikeThis."""


def query_like(reader: IndexReader, doc_id: str) -> LegQuery:
    """Return the query that a document is; raise UserError for one that is not there."""
    stored = reader.stored([doc_id])
    if doc_id not in stored:
        raise UserError(f"document {doc_id!r} is not in the index {reader.path}; give the id of one that is")
    document = stored[doc_id]
    text = " ".join(strongest_words(reader, document.document.contents))
    return LegQuery(text, reader.views(document))


def strongest_words(reader: IndexReader, text: str, count: int = STRONGEST) -> list[str]:
    """Return the words of a text whose terms have the highest tf * idf, one of each term, the highest first.

    idf = log(1 + (N - n + 0.5) / (n + 0.5)) as in BM25, over the chunks of the index.
    """
    tokens = reader.tokens(text[:LONGEST])
    written = {term: text[start:end] for term, start, end in reversed(tokens)}
    counts = Counter(token.term for token in tokens)
    held = dict(zip(counts, reader.bm25_frequencies(list(counts)), strict=True))
    strength = {term: often * _idf(held[term], reader.num_chunks) for term, often in counts.items()}
    best = sorted(strength, key=lambda term: (-strength[term], term))[:count]
    return list(dict.fromkeys(written[term] for term in best))


def _idf(frequency: int, documents: int) -> float:
    return math.log(1 + (documents - frequency + 0.5) / (frequency + 0.5))
