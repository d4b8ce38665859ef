"""The leg of learned sparse terms: the inner product of the weights of query and document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retriever.index.chunks import ScoredChunk, chunk_rows
from retriever.ranking import order
from retriever.search.leg import Candidates, Leg, LegOptions
from retriever.types import Span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retriever.index.contract import LegReader, Selection
    from retriever.index.stored import StoredDocument
    from retriever.search.leg import LegQuery
    from retriever.types import Encoded, Encoder, Ranking, TermMatch

__all__ = ["SparseLeg"]

SHOWN_FROM = 0.2
"""A term is highlighted from this share of the query's largest weight on: the network expands a query by many faint
ones, and without a limit every common word of a text would be marked."""


class SparseLeg(Leg):
    """Searched by one of several back ends; the slowest leg, as it has the longest queries."""

    name = "sparse"
    views = ("sparse",)
    folders = ("lucene", "sparse")
    weight = 0.35
    cost = 2
    colour = "#e69f00"

    def __init__(self, reader: LegReader, options: LegOptions) -> None:
        """Take the commit; raise UserError for a back end that is unknown or not installed."""
        from retriever.search.legs.backends import make_sparse_backend
        from retriever.search.legs.sparse_postings import StoredPostings

        super().__init__(reader, options)
        self._backend = make_sparse_backend(options.sparse_backend, reader)
        self._postings = self._backend if isinstance(self._backend, StoredPostings) else StoredPostings(reader)

    def run(self, query: LegQuery, depth: int, selection: Selection | None = None) -> Ranking:
        """Return the best hits with a score above 0."""
        return self._backend.search(query.terms, depth, selection)

    def chunks(self, query: LegQuery, documents: Mapping[str, StoredDocument]) -> list[ScoredChunk]:
        """Return the scores above 0 of the chunks."""
        if self.reader.postings is None:
            return self.reader.sparse_chunks(query.terms, list(documents))
        rows = chunk_rows(documents, self.reader.first_row)
        found = self._postings.among(query.terms, list(rows))
        return [ScoredChunk(*rows[row], score) for row, score in found.items()]

    def explain(self, query: LegQuery, doc_id: str, chunk: int, vocabulary: Sequence[str]) -> list[TermMatch]:
        """Return the vocabulary's terms that both share."""
        found = self.reader.explain_sparse(query.terms, doc_id, chunk)
        return [match._replace(term=vocabulary[int(match.term)]) for match in found]

    def highlight(self, query: LegQuery, text: str, encoder: Encoder | None) -> list[Span]:
        """Return the words that stand for the stronger terms of the query, with all of their pieces."""
        if encoder is None or not query.terms.nnz:
            return []
        terms = query.terms
        strong = set(terms.indices[terms.data >= SHOWN_FROM * terms.data.max()].tolist())
        words: dict[tuple[int, int], bool] = {}
        for term, start, end in encoder.term_spans(text):
            place = (start, end)
            words[place] = term in strong and words.get(place, True)
        return [Span(*place) for place, found in words.items() if found]

    def rank_candidates(self, texts: Sequence[str], encoded: Encoded | None, candidates: Candidates) -> list[Ranking]:
        """Rank by unrounded weights."""
        assert encoded is not None and candidates.encoded is not None
        assert encoded.sparse is not None and candidates.encoded.sparse is not None
        products = (encoded.sparse @ candidates.encoded.sparse.T).toarray()  # (queries, candidates)
        return [
            order((doc_id, score) for doc_id, score in zip(candidates.ids, row.tolist(), strict=True) if score > 0)
            for row in products
        ]
