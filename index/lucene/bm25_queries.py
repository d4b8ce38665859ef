"""Queries of BM25 over one commit, scored by the statistics of its live documents, or of a collection it is part of."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from retriever.index.lucene import calls
from retriever.index.lucene.collection import CollectionSearcher
from retriever.index.lucene.jvm import as_type, bm25_similarity, lucene, one_at_a_time
from retriever.index.lucene.statistics import LiveBm25
from retriever.lazy import lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from retriever.index.lucene.analysis import Analysis
    from retriever.index.lucene.collection import Collection
    from retriever.index.lucene.statistics import LiveStatistics
    from retriever.index.settings import Bm25

__all__ = ["Bm25Queries", "term_query"]


def term_query(field: str, term: str) -> Any:
    """Return the query of one indexed term."""
    return as_type("search.Query", lucene("search.TermQuery")(lucene("index.Term")(field, term)))


class Bm25Queries:
    """Makes queries, and knows what searches them.

    searcher: of the queries that are made here. languages: of the documents of this commit. joined: the collection that
    it is a part of, see `join`.
    """

    def __init__(
        self,
        index: Any,
        searcher: Any,
        *,
        analysis: Analysis,
        live: LiveStatistics,
        scoring: Bm25,
        languages: Mapping[str, int],
    ) -> None:
        self._index, self._analysis, self._live, self._scoring = index, analysis, live, scoring
        self._own, self.searcher, self._languages = searcher, searcher, languages
        self.joined: Collection | None = None
        self._part: CollectionSearcher | None = None

    @one_at_a_time()
    def join(self, collection: Collection) -> None:
        """Rank by BM25 as a part of a collection from now on: before the first search."""
        self.joined = collection
        similarity = bm25_similarity(self._scoring.k1, self._scoring.b)
        self._part = CollectionSearcher(self._index, similarity, collection)
        self.searcher = self._part.java

    @property
    def _read_as(self) -> list[str]:
        """Return the languages that a query may be in."""
        return list(self._languages if self.joined is None else self.joined.languages)

    @property
    def plain(self) -> bool:
        """Say whether Lucene's own statistics are the right ones."""
        return not self._live.deleted and self._part is None

    @one_at_a_time()
    def terms(self, text: str, language: str | None = None) -> list[str]:
        """Return the terms that BM25 reads of a query, see `LuceneReader.query_terms`."""
        return self._analysis.query_terms(text, self._read_as if language is None else [language])

    @one_at_a_time()
    def indexed(self, text: str) -> str:
        """Return a query's text as `calls` analyses it."""
        return self._analysis.indexed_query(text, self._read_as)

    def of_text(self, text: str) -> Any:
        """Return the query of a text."""
        self._learn(lambda: self.terms(text))
        with one_at_a_time():
            if self._live_bm25 is not None:
                return self._live_bm25.query(Counter(self.terms(text)))
            return calls.words(self._analysis.java, self.indexed(text))

    def of_words(self, weights: Mapping[str, float]) -> Any:
        """Return the query of analysed terms with weights above 0."""
        self._learn(lambda: weights)
        return self._weighted(weights)

    def _learn(self, terms: Callable[[], Iterable[str]]) -> None:
        """Ask a collection about the terms of a query: other parts of it may be elsewhere, so without Java's lock."""
        if self._part is not None:
            self._part.know(terms())

    @one_at_a_time()
    def _weighted(self, weights: Mapping[str, float]) -> Any:
        if self._live_bm25 is not None:
            return self._live_bm25.query(weights)
        builder = lucene("search.BooleanQuery$Builder")()
        should = lucene("search.BooleanClause$Occur").SHOULD
        for word, weight in weights.items():
            boosted = lucene("search.BoostQuery")(term_query("contents", word), float(weight))
            builder.add(as_type("search.Query", boosted), should)
        return as_type("search.Query", builder.build())

    @lazy
    def _live_bm25(self) -> LiveBm25 | None:
        """Return what corrects Lucene's statistics, None if nothing is deleted, or a collection gives them."""
        if not self._live.deleted or self._part is not None:
            return None
        live = LiveBm25(self._live, self._analysis, self._scoring.k1, self._scoring.b)
        self._own.setSimilarity(live.similarity())
        return live
