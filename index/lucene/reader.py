"""Reading Lucene: one commit, its two text legs, what it stores."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever.index.chunks import ScoredChunk
from retriever.index.filters import OneOf, Value
from retriever.index.lucene import calls
from retriever.index.lucene.analysis import analysis_of
from retriever.index.lucene.bm25_queries import Bm25Queries, term_query
from retriever.index.lucene.calls import Found, no_hits
from retriever.index.lucene.facets import FieldCounts
from retriever.index.lucene.filters import (
    comparable_kinds,
    field_kinds,
    filter_query,
    lucene_rows,
    within,
)
from retriever.index.lucene.jvm import (
    as_type,
    bm25_similarity,
    damage_named,
    java,
    lucene,
    naming_damage,
    one_at_a_time,
    open_directory,
    start_jvm,
    user_data,
)
from retriever.index.lucene.postings import TermImpacts, stored_terms, term_impacts
from retriever.index.lucene.statistics import LiveStatistics
from retriever.lazy import lazy
from retriever.types import Span

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from retriever.index.filters import Condition
    from retriever.index.lucene.collection import Collection
    from retriever.index.lucene.statistics import Lengths
    from retriever.index.lucene.tokens import Token
    from retriever.index.settings import Bm25
    from retriever.types import BoolArray

__all__ = ["LuceneReader"]


class _Impacts(NamedTuple):
    """What searches impacts, and what reads queries as "id^weight id^weight"."""

    searcher: Any
    parser: Any

    @classmethod
    def of(cls, index: Any) -> _Impacts:
        analyzer = as_type("analysis.Analyzer", lucene("analysis.core.WhitespaceAnalyzer")())
        parser = lucene("queryparser.classic.QueryParser")("impact", analyzer)
        return cls(_searcher(index, java("io.anserini.search.similarity.ImpactSimilarity")()), parser)


def _searcher(index: Any, similarity: Any) -> Any:
    made = lucene("search.IndexSearcher")(index)
    made.setSimilarity(similarity)
    return made


class LuceneReader:
    """One commit of a Lucene index, searched by any number of threads.

    languages: how many live chunks are in each, the most frequent ones first; none where all are read alike.
    """

    @one_at_a_time()
    def __init__(self, folder: Path, reader: Any, bm25: Bm25, lengths: Lengths | None = None) -> None:
        self._folder, self._reader, self._scoring = folder, reader, bm25
        self.linked = False
        self._rows: NDArray[np.int64] | None = None
        self._loading = threading.Lock()
        commit = self._reader.getIndexCommit()
        self.user_data = user_data(commit)
        self.identity = (str(commit.getSegmentsFileName()), self.user_data)
        self._index = as_type("index.IndexReader", self._reader)
        self._analysis = analysis_of(bm25.analyzer)
        self._bm25 = _searcher(self._index, bm25_similarity(bm25.k1, bm25.b))
        self._impacts_made: _Impacts | None = None
        self.live = LiveStatistics(self._index, self._bm25, {} if lengths is None else lengths)
        self.languages = self.live.counts("language")
        self._queries = Bm25Queries(
            self._index, self._bm25, analysis=self._analysis, live=self.live, scoring=bm25, languages=self.languages
        )
        calls.load_calls()

    @classmethod
    @one_at_a_time()
    def open(cls, folder: Path, bm25: Bm25, *, of: Path | None = None) -> LuceneReader:
        """Open the last commit; raise UserError if Lucene cannot.

        of: the folder that `folder` has links to: then there is nothing to reopen.
        """
        start_jvm()
        with damage_named(folder):
            # The directory is not closed: it holds nothing open, and every reader that comes by `reopen` shares it.
            made = cls(of or folder, lucene("index.DirectoryReader").open(open_directory(folder)), bm25)
            made.linked = of is not None
            return made

    @naming_damage
    @one_at_a_time()
    def reopen(self) -> LuceneReader | None:
        """Return a reader of the last commit, which shares the unchanged files; None if it is this one's."""
        newer = lucene("index.DirectoryReader").openIfChanged(self._reader)
        return None if newer is None else LuceneReader(self._folder, newer, self._scoring, self.live.lengths)

    @property
    def _impacts(self) -> _Impacts:
        """Return what searches impacts: a first search by BM25 alone need not wait for it."""
        if self._impacts_made is None:
            with one_at_a_time():  # and no lock beside this one: others wait for Java and hold theirs
                self._impacts_made = self._impacts_made or _Impacts.of(self._index)
        return self._impacts_made

    @property
    def _impact(self) -> Any:
        return self._impacts.searcher

    @lazy
    def fields(self) -> dict[str, set[str]]:
        """Return the metadata fields, each with the kinds of its values."""
        return field_kinds(self._index)

    @lazy
    def comparable(self) -> dict[str, set[str]]:
        """Return the fields that a filter may name, each with the kinds of values that it is compared with."""
        return comparable_kinds(self._index, self.fields)

    def select(self, condition: Condition, comparable: Mapping[str, set[str]] | None = None) -> Any:
        """Return the query of a filter; raise UserError for an unknown field.

        comparable: of all parts of a collection, if this is one: a field may be missing here.
        """
        return filter_query(condition, self.comparable if comparable is None else comparable)

    @naming_damage
    def rows(self, selected: Any, count: int) -> BoolArray:
        """Return which of `count` rows belong to the documents that a query finds, some dead ones among them."""
        rows = np.zeros(count, bool)
        rows[self._all_rows()[calls.matching(self._bm25, selected)]] = True
        return rows

    def terms(self, field: str, shape: tuple[int, int]) -> csr_matrix:
        """Return int32 csr (rows, vocab_size) of what `field` ("impact" or "token") holds of each live row."""
        return stored_terms(self._impact, field, self._all_rows(), shape)

    def impacts(self, field: str = "impact") -> Iterator[TermImpacts]:
        """Yield what a field ("impact" or "token") holds of all live chunks, terms ascending."""
        with damage_named(self._folder):
            yield from term_impacts(self._impact, field, self._all_rows())

    def _all_rows(self) -> NDArray[np.int64]:
        with self._loading:
            if self._rows is None:
                self._rows = lucene_rows(self._index)
        return self._rows

    def bm25(self, text: str, top_k: int, selected: Any = None) -> Found:
        """Return the best chunks by BM25 over `contents`, the first `top_k` by (score, id) among them.

        No hits for a text of which analysis leaves nothing.
        """
        if selected is not None or not self._queries.plain:
            return self._search(self._queries.searcher, self._queries.of_text(text), top_k, selected)
        words = self._queries.indexed(text)
        with damage_named(self._folder):
            return calls.search_words(self._bm25, self._analysis.java, words, top_k)

    def impact(self, query: str, top_k: int, selected: Any = None) -> Found:
        """Return the best chunks by inner product of impacts and query weights, given as "id^weight id^weight"."""
        return self._search(self._impact, self._impact_query(query), top_k, selected) if query else no_hits()

    def bm25_words(self, weights: Mapping[str, float], top_k: int, selected: Any = None) -> Found:
        """Return the best chunks as `bm25` does, for a query of analysed terms with weights above 0."""
        if not weights:
            return no_hits()
        return self._search(self._queries.searcher, self._queries.of_words(weights), top_k, selected)

    def bm25_words_chunks(self, weights: Mapping[str, float], ids: Sequence[str]) -> list[ScoredChunk]:
        """Score the chunks of these documents as `bm25_words` does, those that it finds."""
        return self._chunks(self._queries.searcher, self._queries.of_words(weights), ids) if weights else []

    def bm25_chunks(self, text: str, ids: Sequence[str]) -> list[ScoredChunk]:
        """Score the chunks of these documents as `bm25` does, those that it finds."""
        return self._chunks(self._queries.searcher, self._queries.of_text(text), ids)

    def impact_chunks(self, query: str, ids: Sequence[str]) -> list[ScoredChunk]:
        """Score the chunks of these documents as `impact` does, those that it finds."""
        return self._chunks(self._impact, self._impact_query(query), ids) if query else []

    @property
    def collection(self) -> Collection:
        """Return the collection that BM25 ranks by: the documents of this reader alone, unless it is told another."""
        return self._queries.joined or _Own(self)

    def join(self, collection: Collection) -> None:
        """Rank by BM25 as a part of a collection from now on: before the first search."""
        self._queries.join(collection)

    @one_at_a_time()
    def length(self) -> int:
        """Return how many terms the live chunks have."""
        return self.live.length(self._analysis)

    @one_at_a_time()
    def _impact_query(self, query: str) -> Any:
        return self._impacts.parser.parse(query)

    @naming_damage
    def _chunks(self, searcher: Any, query: Any, ids: Sequence[str]) -> list[ScoredChunk]:
        firsts = sorted((self._lucene_number(doc_id), doc_id) for doc_id in ids)
        if not firsts:
            return []
        selected = self.select(OneOf("id", tuple(map(Value, ids))))  # waits for `fields`, whose maker waits for Java
        with one_at_a_time():
            query = within(query, selected)
            count = sum(self.document_frequencies("id", ids))
        found = calls.documents(searcher, query, count)
        places = np.searchsorted([number for number, _ in firsts], found.rows, side="right") - 1
        return [
            ScoredChunk(firsts[place][1], number - firsts[place][0], score)
            for place, number, score in zip(places.tolist(), found.rows.tolist(), found.scores.tolist(), strict=True)
        ]

    @naming_damage
    def impact_in_two_steps(self, first: str, rest: str, candidates: int, selected: Any = None) -> Found:
        """Return the best `candidates` hits of the terms in `first`, each with its score for those in `rest`, too."""
        with one_at_a_time():
            query, others = (self._impacts.parser.parse(part) if part else None for part in (first, rest))
            if query is None:
                return no_hits()
            if selected is not None:
                query = within(query, selected)
        if others is None:
            found = calls.documents(self._impact, query, candidates)
        else:
            found = calls.in_two_steps(self._impact, query, as_type("search.Query", others), candidates)
        return Found(self._all_rows()[found.rows], found.scores)

    @naming_damage
    def _search(self, searcher: Any, query: Any, top_k: int, selected: Any) -> Found:
        if selected is not None:
            with one_at_a_time():
                query = within(query, selected)
        return calls.search(searcher, query, top_k)

    @naming_damage
    def stored(self, ids: Sequence[str]) -> list[str | None]:
        """Return the stored JSON of documents, None for an unknown id."""
        return calls.stored(self._index, ids)

    def query_terms(self, text: str, language: str | None = None) -> list[str]:
        """Return the terms that BM25 reads of a query, in order, repeated ones too.

        language: the query's, where each document is read in its own; None for what the query looks like.
        """
        return self._queries.terms(text, language)

    @one_at_a_time()
    def bm25_spans(self, query: str, text: str) -> list[Span]:
        """Return the characters of a text of which BM25 reads a term of the query."""
        wanted = set(self.query_terms(query))
        return [Span(token.start, token.end) for token in self._analysis.tokens(text) if token.term in wanted]

    @one_at_a_time()
    def tokens(self, text: str) -> list[Token]:
        """Return the terms that BM25 reads of a document's text, each with its characters."""
        return self._analysis.tokens(text)

    def field_counts(self, counted: BoolArray) -> FieldCounts:
        """Return what counts the values of metadata fields among some rows, one for each document; bool (rows,)."""
        return FieldCounts(self._index, self._bm25, counted[self._all_rows()])

    @naming_damage
    @one_at_a_time()
    def first_row(self, doc_id: str) -> int:
        """Return the row of a document's first chunk; raise KeyError for an unknown id."""
        number = self._lucene_number(doc_id)
        if number < 0:
            raise KeyError(doc_id)
        values = lucene("index.MultiDocValues").getNumericValues(self._index, "row")
        values.advanceExact(number)
        return int(values.longValue())

    @naming_damage
    def bm25_score(self, term: str, doc_id: str, chunk: int = 0) -> float:
        """Return what one occurrence of a term in the query adds to the BM25 score of a document's chunk."""
        query = self._queries.of_words({term: 1.0})
        with one_at_a_time():
            return self._score(self._queries.searcher, query, doc_id, chunk)

    @naming_damage
    @one_at_a_time()
    def impact_of(self, term: str, doc_id: str, chunk: int = 0) -> float:
        """Return the stored impact of a term (a decimal vocabulary id) in a document's chunk, 0 without one."""
        return self._score(self._impact, term_query("impact", term), doc_id, chunk)

    @naming_damage
    @one_at_a_time()
    def document_frequencies(self, field: str, terms: Iterable[str]) -> list[int]:
        """Return in how many live chunks each term stands."""
        return self.live.document_frequencies(field, terms)

    @naming_damage
    @one_at_a_time()
    def postings(self, field: str) -> int:
        """Return the sum of these frequencies over all terms of a field."""
        return int(self._index.getSumDocFreq(field))

    @naming_damage
    @one_at_a_time()
    def count(self, field: str) -> int:
        """Return how many live chunks have a term in a field."""
        return self.live.documents(field)

    def _score(self, searcher: Any, query: Any, doc_id: str, chunk: int) -> float:
        first = self._lucene_number(doc_id)
        return float(searcher.explain(query, first + chunk).getValue().doubleValue()) if first >= 0 else 0.0

    @naming_damage
    @one_at_a_time()
    def _lucene_number(self, doc_id: str) -> int:
        """Return Lucene's number of a document's first chunk, which the others follow; below 0 for an unknown id."""
        return int(java("io.anserini.index.IndexReaderUtils").convertDocidToLuceneDocid(self._index, doc_id))

    @one_at_a_time()
    def close(self) -> None:
        """Free the files."""
        self._reader.close()


class _Own:
    """The documents of one reader as a collection."""

    def __init__(self, reader: LuceneReader) -> None:
        self._reader, self.languages = reader, reader.languages

    @property
    def documents(self) -> int:
        return self._reader.count("contents")

    @property
    def length(self) -> int:
        return self._reader.length()

    def frequencies(self, terms: Sequence[str]) -> list[int]:
        return self._reader.document_frequencies("contents", terms)
