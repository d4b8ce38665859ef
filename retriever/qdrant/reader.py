"""Reading a collection as an index: what `FolderReader` gives of a folder, by the same names."""

from __future__ import annotations

import os
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from retriever.index.commit import CommitRecord
from retriever.index.filters import parse_filter
from retriever.index.vectors.faiss_types import choose_type
from retriever.index.vectors.rows import RowMark
from retriever.lazy import lazy
from retriever.processes import refuse_fork
from retriever.qdrant.bm25 import QueryWords, words_of
from retriever.qdrant.engine import SparseVector
from retriever.qdrant.fields import facet_counts, index_fields
from retriever.qdrant.filters import Selection, comparable_kinds, select
from retriever.qdrant.points import CHUNKS, field_name
from retriever.qdrant.scan import scan
from retriever.qdrant.search import Asked, run
from retriever.qdrant.statistics import IdFrequencies, TermFrequencies, read_head
from retriever.qdrant.stored import StoredChunks
from retriever.qdrant.words import Words
from retriever.ranking import check_top_k
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from retriever.index.lucene.tokens import Token
    from retriever.qdrant.engine import Engine
    from retriever.qdrant.statistics import Head
    from retriever.search.leg import LegQuery
    from retriever.types import FacetCount, FloatArray, IndexField, Ranking, Span

__all__ = ["CollectionReader", "TokenStatistics"]


class TokenStatistics:
    """Document frequencies of tokens, see `TermStatistics`."""

    def __init__(self, documents: int, frequencies: IdFrequencies) -> None:
        self.documents = documents
        self._frequencies = frequencies

    def document_frequency(self, terms: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return for each vocabulary id the number of documents that hold it."""
        return self._frequencies.of(terms)


class CollectionReader(StoredChunks):
    """A collection with the counts of its last commit, for any number of threads.

    Documents are seen as soon as a writer sends them; what is counted of all of them is that of a commit.
    """

    postings = None
    word_postings = None

    def __init__(self, path: str, engine: Engine, head: Head, users: _Users | None = None) -> None:
        self.words = Words(head.settings.analyzer, sorted(head.state.languages, key=lambda n: -head.state.languages[n]))
        self.terms = TermFrequencies(engine, head.bits)
        super().__init__(path, engine, head.settings, head.state.collection(head.settings))
        self.head = head
        self._users, self._process = users or _Users(engine), os.getpid()
        self._impact_frequencies = IdFrequencies(engine, "impact", head.settings.encoder.vocab_size)

    @classmethod
    def open(cls, path: str, engine: Engine) -> CollectionReader:
        """Open a collection; raise UserError if it is not there, or not one of ours."""
        try:
            return cls(path, engine, read_head(engine, path))
        except BaseException:
            engine.close()
            raise

    def reopen(self) -> CollectionReader | None:
        """Return a reader with the counts of the last commit, None if it is this one's."""
        head = read_head(self.engine, self.path)
        if head.key != self.head.key:
            raise UserError(f"{self.path}: was pushed again; open it anew")
        if head.state.number == self.head.state.number:
            return None
        self._users.add()
        return CollectionReader(self.path, self.engine, head, self._users)

    @lazy
    def commit_data(self) -> CommitRecord:
        """Return the counts as a folder's commit has them."""
        state = self.head.state
        return CommitRecord(
            number=state.number,
            rows_folder=self.head.key,
            mark=RowMark(rows=state.chunks),
            dense_type="flat" if self._exact else "hnsw",
            documents=state.documents,
            empty=state.empty,
            truncated=state.truncated,
            unread=state.unread,
            note=state.note,
        )

    @property
    def _exact(self) -> bool:
        """Say whether all vectors are scored: as in a folder of as many rows."""
        return choose_type("auto", self.num_chunks) == "flat"

    @property
    def num_documents(self) -> int:
        """Return the number of documents."""
        return self.head.state.documents

    @property
    def num_chunks(self) -> int:
        """Return the number of chunks."""
        return self.head.state.chunks

    @property
    def has_dense(self) -> bool:
        """Say whether the index holds vectors."""
        return self.settings.encoder.dense_dim > 0

    @property
    def has_sparse(self) -> bool:
        """Say whether the index holds learned sparse terms."""
        return self.settings.encoder.vocab_size > 0

    @property
    def languages(self) -> dict[str, int]:
        """Return how many chunks are in each language, where each document is read in its own; else nothing."""
        counts = self.head.state.languages
        return {name: counts[name] for name in sorted(counts, key=lambda name: -counts[name])}

    @lazy
    def index_fields(self) -> list[IndexField]:
        """Return the metadata fields with their kinds, and in how many documents they are, sorted by name."""
        return index_fields(self.head.state.fields)

    @lazy
    def _kinds(self) -> dict[str, set[str]]:
        return {field_name(name): kinds for name, kinds in comparable_kinds(self.head.state.fields).items()}

    def select(self, text: str) -> Selection:
        """Return the documents that a filter finds; raise UserError if it cannot be read or names an unknown field."""
        return select(parse_filter(text), self._kinds)

    def selected_ids(self, selection: Selection | None) -> list[str]:
        """Return the ids of the documents of a selection, of all for None, by id."""
        found = scan(self.engine, selection or Selection(CHUNKS, None), ["id", "chunk"])
        return sorted({record.payload["id"] for record in found})

    def check_field(self, field: str) -> None:
        """Raise UserError for a metadata field that the index has not."""
        if field not in self._kinds:
            known = ", ".join(sorted(self._kinds)) or "none"
            raise UserError(f"the index has no field {field!r}; its fields are {known}")

    def facets(self, field: str, top_k: int, selection: Selection | None = None) -> list[FacetCount]:
        """Return the values of a field that most documents have; all their payloads are read for it."""
        self.check_field(field)
        return facet_counts(self.engine, field, top_k, selection)

    def legs_together(
        self, legs: Sequence[str], queries: Sequence[LegQuery], depth: int, selection: Selection | None
    ) -> dict[str, list[Ranking]]:
        """Return the best documents by each leg that points have, for each query, all asked for in one round."""
        own = [leg for leg in legs if leg in ("bm25", "sparse", "dense")]
        words = (
            self._words([dict(query.words or self._counts(query.text)) for query in queries]) if "bm25" in own else []
        )
        asked = []
        for leg in own:
            if leg == "bm25":
                asked += [self._ask_words(one) for one, _ in words]
            elif leg == "sparse":
                asked += [self._ask_terms(query.terms) for query in queries]
            else:
                asked += [self._ask_vector(query.vector[0]) for query in queries]
        found = self._run(asked, depth, selection)
        return {leg: found[i * len(queries) : (i + 1) * len(queries)] for i, leg in enumerate(own)}

    def _weights(self, query: LegQuery) -> Mapping[str, float]:
        return self._counts(query.text) if query.words is None else query.words

    def _counts(self, text: str) -> Counter[str]:
        return Counter(self.words.of_query(text))

    def _words(self, queries: Sequence[Mapping[str, float]]) -> list[tuple[QueryWords, list[str]]]:
        """Return the terms of queries with their weights in BM25, and their names."""
        places = self.terms.find({term for weights in queries for term in weights})
        return [words_of(weights, places, self.collection.documents) for weights in queries]

    def words_of(self, weights: Mapping[str, float]) -> tuple[QueryWords, list[str]]:
        """Return the terms of a query with their weights in BM25, and their names."""
        return self._words([weights])[0]

    def _ask_words(self, words: QueryWords) -> Asked:
        state, mean = self.head.state, self.collection.mean_length
        drift = max(mean / (state.least_mean or mean), (state.greatest_mean or mean) / mean)
        vector = SparseVector(words.indices, words.weights) if len(words.indices) else None
        return Asked("bm25", vector, words=words, drift=drift)

    def _ask_terms(self, terms: csr_matrix) -> Asked:
        if not self.has_sparse:
            raise UserError(f"{self.path}: has no sparse terms; search it with another mode")
        if not np.isfinite(terms.data).all():
            raise ValueError("a query term weight is not finite")
        kept = terms.data >= 1e-9  # the same as in a folder
        vector = SparseVector(terms.indices[kept].astype(np.uint32), terms.data[kept].astype(np.float32))
        return Asked("sparse", vector if kept.any() else None, scale=self.settings.impact_scale)

    def _ask_vector(self, vector: FloatArray) -> Asked:
        if not self.has_dense:
            raise UserError(f"{self.path}: has no vectors; search it with another mode")
        if vector.shape != (self.settings.encoder.dense_dim,) or not np.isfinite(vector).all():
            raise ValueError(f"need a finite vector of {self.settings.encoder.dense_dim}, found {vector.shape}")
        return Asked("dense", vector.astype(np.float32) if vector.any() else None)

    def _run(self, asked: Sequence[Asked], top_k: int, selection: Selection | None) -> list[Ranking]:
        check_top_k(top_k)
        refuse_fork(self._process, "this index was opened")
        return run(
            self.engine,
            asked,
            top_k,
            selection=selection,
            chunks_per_document=max(1, -(-self.num_chunks // max(1, self.num_documents))),
            collection=self.collection,
            exact=self._exact,
        )

    def bm25(self, text: str, top_k: int, selection: Selection | None = None) -> Ranking:
        """Rank by BM25 over title and text; a query of which analysis leaves nothing has no hits."""
        return self.bm25_words(self._counts(text), top_k, selection)

    def bm25_words(self, weights: Mapping[str, float], top_k: int, selection: Selection | None = None) -> Ranking:
        """Rank by BM25 for a query of analysed terms with weights above 0."""
        return self._run([self._ask_words(self.words_of(weights)[0])], top_k, selection)[0]

    def sparse(
        self, terms: csr_matrix, top_k: int, selection: Selection | None = None, first_terms: int | None = None
    ) -> Ranking:
        """Rank by the inner product of query terms (1, vocab_size) and stored weights; always with all terms."""
        return self._run([self._ask_terms(terms)], top_k, selection)[0]

    def dense(self, vectors: FloatArray, top_k: int, selection: Selection | None = None) -> list[Ranking]:
        """Rank by inner product for each query vector (n, dense_dim); a zero vector has no hits."""
        return self._run([self._ask_vector(vector) for vector in vectors], top_k, selection)

    def bm25_spans(self, query: str, text: str) -> list[Span]:
        """Return the characters of a text of which BM25 reads a term of the query, ascending."""
        return self.words.spans(query, text)

    def query_terms(self, text: str, language: str | None = None) -> list[str]:
        """Return the terms that BM25 reads of a query, in order, repeated ones too; language: None for its looks."""
        return self.words.of_query(text, language)

    def tokens(self, text: str) -> list[Token]:
        """Return the terms that BM25 reads of a document's text, in order, repeated ones too."""
        return self.words.tokens(text)

    def bm25_frequencies(self, terms: Sequence[str]) -> list[int]:
        """Return in how many chunks each analysed term stands."""
        found = self.terms.find(terms)
        return [found.get(term, (0, 0))[1] for term in terms]

    def sparse_frequencies(self, terms: Iterable[int]) -> list[int]:
        """Return in how many chunks each vocabulary id has an impact."""
        frequencies: list[int] = self._impact_frequencies.of(np.array(list(terms), np.int32)).tolist()
        return frequencies

    def sparse_terms_per_document(self) -> float:
        """Return the mean number of impacts of a document."""
        return self.head.state.impacts / max(self.num_documents, 1)

    @lazy
    def token_statistics(self) -> TokenStatistics:
        """Return in how many documents each token of the encoder's vocabulary occurs."""
        frequencies = IdFrequencies(self.engine, "token", self.settings.encoder.vocab_size)
        return TokenStatistics(self.head.state.tokened, frequencies)

    def sizes(self) -> dict[str, int]:
        """Return the bytes of the parts of a folder, which are none, and of the whole, 0 on a server."""
        return {"lucene": 0, "rows": 0, "dense": 0, "sparse": 0, "qdrant": self.engine.size()}

    @property
    def rows(self) -> NoReturn:
        """Raise UserError: a collection has no row files."""
        raise self._no_rows()

    def rows_of(self, doc_id: str) -> NoReturn:
        """Do as `rows`."""
        raise self._no_rows()

    def first_row(self, doc_id: str) -> NoReturn:
        """Do as `rows`."""
        raise self._no_rows()

    @property
    def alive(self) -> NoReturn:
        """Do as `rows`."""
        raise self._no_rows()

    def _no_rows(self) -> UserError:
        return UserError(f"{self.path}: has no row files; read them in the folder that was pushed")

    def ranking(self, search: object, top_k: int) -> NoReturn:
        """Raise UserError: no back end but Qdrant searches sparse terms here."""
        raise self._only_qdrant()

    def stored_terms(self, field: str) -> NoReturn:
        """Do as `ranking`."""
        raise self._only_qdrant()

    def _only_qdrant(self) -> UserError:
        return UserError(f"{self.path}: Qdrant searches its sparse terms; leave the sparse back end out")

    def share(self) -> CollectionReader:
        """Return this reader to one more user: each calls `close`, and the last one lets go of the collection."""
        refuse_fork(self._process, "this index was opened")
        self._users.add()
        return self

    def close(self) -> None:
        """Let go of the collection, if nobody else uses it; nothing in a forked process, whose it is not."""
        if self._process == os.getpid():
            self._users.remove()

    def __enter__(self) -> CollectionReader:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


class _Users:
    """Counts who uses an engine: readers of several commits do."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._count, self._counting = engine, 1, threading.Lock()

    def add(self) -> None:
        with self._counting:
            self._count += 1

    def remove(self) -> None:
        with self._counting:
            self._count -= 1
            last = self._count == 0
        if last:
            self._engine.close()
