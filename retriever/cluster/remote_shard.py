"""One shard of an index, open in actors: a `ShardReader` whose answers come in messages."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from retriever.cluster.replicas import Replicas
from retriever.cluster.server import TOKENS, Epoch, Filtered, ShardState
from retriever.index.lucene.words import Words
from retriever.lazy import lazy
from retriever.search.leg import LEGS
from retriever.types import Encoded, ShardLostError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Self

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from retriever.index.lucene.collection import Collection
    from retriever.index.lucene.tokens import Token
    from retriever.index.lucene.values import FieldValue
    from retriever.index.stored import StoredDocument
    from retriever.index.vectors.rows import TokenRecords
    from retriever.search.leg import LegQuery
    from retriever.types import Document, FacetCount, FloatArray, IndexField, Ranking, Span

__all__ = ["RemoteShard"]


class RemoteShard:
    """A shard as `JoinedReader` reads it: a `ShardReader` that asks actors. A lost one is empty, if that is wanted."""

    legs_together: ClassVar[None] = None

    def __init__(self, path: Path, replicas: Replicas, state: ShardState, partial: bool) -> None:
        self.path, self.replicas, self._state, self._partial = path, replicas, state, partial
        self.settings, self.commit_data, self.num_chunks = state.settings, state.commit, state.chunks
        self.languages, self.num_documents = state.languages, state.commit.documents
        self.has_dense, self.has_sparse = state.settings.encoder.dense_dim > 0, state.settings.encoder.vocab_size > 0
        self._joined: Collection | None = None

    @property
    def collection(self) -> Collection:
        """Return what BM25 knows of the documents of this shard."""
        return _Part(self, self._state)

    def join(self, collection: Collection) -> None:
        """Let BM25 know the whole collection, and read queries by its languages."""
        self._joined = collection
        languages = tuple(collection.languages.items())
        self._epoch = Epoch(self._state.commit.number, collection.documents, collection.length, languages)
        self._query_terms = functools.lru_cache(2048)(lambda text: self.words.of_query(text))

    def hold(self) -> None:
        """Let the actors open the commit that this is of, before a writer comes with another one."""
        self.replicas.tell_all("hold", self._epoch)

    @lazy
    def words(self) -> Words:
        """Return how the index reads words."""
        assert self._joined is not None
        return Words(self.settings.analyzer, list(self._joined.languages))

    def _lost(self, otherwise: Any, error: ShardLostError) -> Any:
        """Return what a shard without documents would answer, or raise the error."""
        if not self._partial:
            raise error
        return otherwise

    def _ask(self, otherwise: Any, method: str, *arguments: Any, selected: Filtered | None = None) -> Any:
        try:
            return self.replicas.ask("ask", self._epoch, method, arguments, selected)
        except ShardLostError as error:
            return self._lost(otherwise, error)

    def run(self, leg: str, queries: Sequence[LegQuery], depth: int, selected: Filtered | None) -> list[Ranking]:
        """Search one leg for several queries, in one message."""
        own = [_alone(query) for query in queries]
        try:
            found: list[Ranking] = self.replicas.ask(
                "run", self._epoch, leg, own, depth, selected, self.frequencies(leg, queries)
            )
        except ShardLostError as error:
            found = self._lost([[] for _ in queries], error)
        return found

    def of_leg(self, leg: str, method: str, query: LegQuery, *arguments: Any) -> Any:
        """Ask something else of a leg about a query."""
        frequencies = self.frequencies(leg, [query])
        try:
            return self.replicas.ask("leg", self._epoch, leg, method, (_alone(query), *arguments), frequencies)
        except ShardLostError as error:
            return self._lost([], error)

    def frequencies(self, leg: str, queries: Sequence[LegQuery]) -> dict[str, int]:
        """Return the frequencies, in the collection, of the terms that a leg reads of the texts of queries."""
        if LEGS[leg].views:
            return {}
        assert self._joined is not None
        terms = dict.fromkeys(
            term
            for query in queries
            for term in (self._query_terms(query.text) if query.words is None else query.words)
        )
        return dict(zip(terms, self._joined.frequencies(list(terms)), strict=True))

    @lazy
    def comparable(self) -> Mapping[str, set[str]]:
        """Return the metadata fields, each with the kinds of values that it is compared with."""
        found: Mapping[str, set[str]] = self._ask({}, "comparable")
        return found

    @lazy
    def index_fields(self) -> list[IndexField]:
        """Return the metadata fields."""
        found: list[IndexField] = self._ask([], "index_fields")
        return found

    @property
    def token_statistics(self) -> _Tokens:
        """Return in how many documents each token occurs."""
        return _Tokens(self, self._state.token_documents)

    def select_among(self, text: str, comparable: Mapping[str, set[str]]) -> Filtered:
        """Return the documents that a filter finds; what is wrong with it is said now, before any search."""
        selected = Filtered(text, comparable)
        try:
            self.replicas.ask("check", self._epoch, selected)
        except ShardLostError as error:
            self._lost(None, error)
        return selected

    def facet_counts(self, field: str, selection: Filtered | None = None) -> Mapping[FieldValue, int]:
        """Return in how many documents each value of a field is."""
        found: Mapping[FieldValue, int] = self._ask({}, "facet_counts", field, selected=selection)
        return found

    def selected_ids(self, selection: Filtered | None) -> list[str]:
        """Return the ids of the documents of a selection, of all for None."""
        arguments = (None,) if selection is None else ()
        found: list[str] = self._ask([], "selected_ids", *arguments, selected=selection)
        return found

    def query_terms(self, text: str, language: str | None = None) -> list[str]:
        """Return the terms that BM25 reads of a query."""
        return self.words.of_query(text, language)

    def tokens(self, text: str) -> list[Token]:
        """Return the terms that BM25 reads of a document's text."""
        return self.words.tokens(text)

    def bm25_spans(self, query: str, text: str) -> list[Span]:
        """Return the characters of a text of which BM25 reads a term of the query."""
        return self.words.spans(query, text)

    def bm25_frequencies(self, terms: Sequence[str]) -> list[int]:
        """Return in how many chunks of the shard each analysed term stands."""
        found: list[int] = self._ask([0] * len(terms), "bm25_frequencies", list(terms))
        return found

    def sparse_frequencies(self, terms: Iterable[int]) -> list[int]:
        """Return in how many chunks each vocabulary id has an impact."""
        wanted = list(terms)
        found: list[int] = self._ask([0] * len(wanted), "sparse_frequencies", wanted)
        return found

    def sparse_terms_per_document(self) -> float:
        """Return the mean number of impacts of a document."""
        return float(self._ask(0.0, "sparse_terms_per_document"))

    def stored(self, ids: Iterable[str]) -> dict[str, StoredDocument]:
        """Return the documents of these ids with their chunks."""
        found: dict[str, StoredDocument] = self._ask({}, "stored", list(ids))
        return found

    def documents(self, ids: Iterable[str]) -> dict[str, Document]:
        """Return the documents of these ids."""
        return {doc_id: stored.document for doc_id, stored in self.stored(ids).items()}

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Return those of the ids that the shard does not have."""
        wanted = list(ids)
        found: list[str] = self._ask(wanted, "missing", wanted)
        return found

    def chunk_texts(self, doc_id: str) -> list[str]:
        """Return title and text of each chunk of a document."""
        found: list[str] = self._ask([], "chunk_texts", doc_id)
        return found

    def views(self, stored: StoredDocument) -> Encoded:
        """Return what is stored of a document's views."""
        found: Encoded = self._ask(Encoded(None, None, np.zeros(1, bool)), "views", stored)
        return found

    def stored_vectors(self, documents: Sequence[StoredDocument]) -> FloatArray:
        """Return the vectors of documents."""
        found: FloatArray = self._ask(np.zeros((0, 0), np.float32), "stored_vectors", list(documents))
        return found

    def stored_impacts(self, documents: Sequence[StoredDocument]) -> csr_matrix:
        """Return the impacts of documents."""
        found: csr_matrix = self._ask(None, "stored_impacts", list(documents))
        return found

    def stored_tokens(self, ids: Sequence[str]) -> list[TokenRecords]:
        """Return the vectors of the tokens of documents."""
        found: list[TokenRecords] = self._ask([], "stored_tokens", list(ids))
        return found

    def facets(self, field: str, top_k: int, selection: Any = None) -> list[FacetCount]:
        """Return the values of a field that most documents have."""
        found: list[FacetCount] = self._ask([], "facets", field, top_k)
        return found

    def check_field(self, field: str) -> None:
        """Raise UserError for a metadata field that the shard has not."""
        self._ask(None, "check_field", field)

    def select(self, text: str) -> Filtered:
        """Return the documents that a filter finds."""
        return self.select_among(text, self.comparable)

    def sizes(self) -> dict[str, int]:
        """Return the bytes that each part of the shard takes."""
        found: dict[str, int] = self._ask({}, "sizes")
        return found

    def share(self) -> Self:
        """Return this shard."""
        return self

    def reopen(self) -> None:
        """Do nothing: the reader of all shards does."""

    def close(self) -> None:
        """Do nothing: the reader of all shards does."""


class _Part:
    """What BM25 knows of the documents of one shard."""

    def __init__(self, shard: RemoteShard, state: ShardState) -> None:
        self._shard, self.documents, self.length = shard, state.documents, state.length
        self.languages = state.languages

    def frequencies(self, terms: Sequence[str]) -> list[int]:
        return self._shard.bm25_frequencies(terms)


class _Tokens:
    """Document frequencies of tokens in one shard."""

    def __init__(self, shard: RemoteShard, documents: int) -> None:
        self._shard, self.documents = shard, documents

    def document_frequency(self, terms: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return for each vocabulary id the number of documents that hold it."""
        found: NDArray[np.int64] = self._shard._ask(np.zeros(len(terms), np.int64), TOKENS, terms)
        return found


def _alone(query: LegQuery) -> LegQuery:
    """Return a query without the others of its batch."""
    if query.encoded is None:
        return query
    row = slice(query.row, query.row + 1)
    encoded = Encoded(*(part if part is None else part[row] for part in query.encoded))  # type: ignore[arg-type]
    return query._replace(encoded=encoded, row=0)
