"""Reading an index folder: one commit, seen whole, searched by any number of threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from retriever.index.chunks import ScoredChunk, best_documents
from retriever.index.commit import CommitRecord, parse_commit
from retriever.index.files import damaged
from retriever.index.filters import parse_filter
from retriever.index.lucene.calls import Found
from retriever.index.lucene.english import english_terms, english_tokens
from retriever.index.lucene.reader import LuceneReader
from retriever.index.lucene.segments import ForeignError
from retriever.index.lucene.source import LuceneSource
from retriever.index.lucene.stored_fields import StoredFields
from retriever.index.postings.frequencies import frequencies
from retriever.index.postings.quantise import impact_query, strongest
from retriever.index.postings.sparse import open_postings
from retriever.index.postings.words import OwnCollection, open_words
from retriever.index.reading.document_rows import DocumentRows
from retriever.index.reading.explained import explained
from retriever.index.reading.fields import list_fields
from retriever.index.reading.selection import Selection
from retriever.index.reading.stored_views import StoredViews
from retriever.index.reading.token_statistics import TokenStatistics
from retriever.index.settings import IndexSettings, check_settings, read_settings, settings_identity
from retriever.index.stored import StoredDocument, read_stored
from retriever.index.users import Users
from retriever.index.vectors.dense import DenseSearcher
from retriever.index.vectors.rows import ALIVE, SEARCHABLE, RowReader, read_flags
from retriever.index.verify import damage_text, verify_folder
from retriever.languages import AUTO, ENGLISH
from retriever.lazy import lazy
from retriever.ranking import RowRanking, check_top_k
from retriever.types import Document, Encoded, IndexField, Ranking, Span, TermMatch, UserError

if TYPE_CHECKING:
    from types import TracebackType

    from scipy.sparse import csr_matrix

    from retriever.index.lucene.collection import Collection
    from retriever.index.lucene.facets import FieldCounts
    from retriever.index.lucene.postings import TermImpacts
    from retriever.index.lucene.tokens import Token
    from retriever.index.lucene.values import FieldValue
    from retriever.index.vectors.rows import TokenRecords
    from retriever.types import BoolArray, FacetCount, FloatArray

__all__ = ["FolderReader"]

ATTEMPTS = 20
"""A writer may commit, and remove the files of the commit before, while a reader opens that one."""
SPARE_CANDIDATES = 100
"""How many hits the first step of a two-step search retrieves beyond 2 * top_k."""


class FolderReader:
    """The state of an index folder at its last commit when it was opened; later commits do not change it.

    commit_data: what the commit says: counts, note, dense type. rows: ids and vectors of all rows, dead ones too.
    num_chunks: one for each document, or more where they are split. alive: bool (rows,). postings: the sparse terms of
    all rows, dead ones too; word_postings: what BM25 reads of them; None in an index of an older version that was not
    changed since.
    """

    legs_together: ClassVar[None] = None

    def __init__(self, path: Path, settings: IndexSettings, source: LuceneSource, trusted: str = "") -> None:
        self.path, self.settings, self._source = path, settings, source
        self._folder_identity = settings_identity(path)
        self._users = Users()
        self.commit_data: CommitRecord = parse_commit(path, source.user_data)
        check_settings(path, self.commit_data.settings_crc)
        self._dense: DenseSearcher | None = None
        commit, dim = self.commit_data, settings.encoder.dense_dim
        # Read without vectors, too: an index that has lost its rows must not open.
        self.rows = RowReader(path / commit.rows_folder, settings.row_format, commit.mark, checked=True)
        flags = read_flags(path / commit.live_file, commit.mark.rows, commit.live_crc)
        self.alive = (flags & ALIVE).astype(bool)
        self.num_chunks = int(np.count_nonzero(self.alive))
        self.postings = open_postings(path, commit.sparse_files, commit.mark.rows)
        self.word_postings = open_words(path, commit.bm25_files, self.alive)
        self._expected = max(1, -(-self.num_chunks // max(1, commit.documents)))
        self._places = DocumentRows(self.rows, self.alive, chunked=settings.chunking is not None)
        self._views = StoredViews(settings, self.rows, self._places, self.postings, source)
        if dim:
            file = path / commit.dense_file if commit.dense_file else None
            crc = None if commit.dense_file == trusted else commit.dense_crc
            searchable = (flags & SEARCHABLE).astype(bool)
            self._dense = DenseSearcher(self.rows, searchable, commit.dense_type, file, crc)

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = False) -> FolderReader:
        """Open the last commit; raise UserError for a folder that is missing, foreign or damaged.

        verify: read every file first, so that a damaged one is never searched; else some damage is only met by the
        search that comes to it, or changes what it finds.
        """
        path = Path(path)
        if verify and (found := verify_folder(path)).damages:
            raise UserError(damage_text(path, found))
        settings = read_settings(path)
        folder = path / "lucene"
        reader = cls._open(path, settings, lambda: LuceneSource.open(folder, settings.bm25))
        assert reader is not None
        return reader

    def reopen(self) -> FolderReader | None:
        """Return a reader of the last commit, None if it is this one; what has not changed is not read again.

        A folder that was built again is opened as a new one: its files have the names and numbers of those before.

        Raises:
            UserError: the folder is not there any more, was built again with other settings, or is damaged.
        """
        if read_settings(self.path) != self.settings:
            raise UserError(f"{self.path}: was built again with other settings; open it anew")
        if settings_identity(self.path) != self._folder_identity:
            return self.open(self.path)
        return self._open(self.path, self.settings, self._source.newer, self.commit_data.dense_file)

    @property
    def _lucene(self) -> LuceneReader:
        """Return what asks Java, which is started if it was not."""
        return self._source.lucene

    @lazy
    def _stored_fields(self) -> StoredFields | None:
        """Return what reads stored documents without Java, None where Java has to."""
        return self._source.stored_fields(self.commit_data.mark.rows)

    @classmethod
    def _open(
        cls,
        path: Path,
        settings: IndexSettings,
        find: Callable[[], LuceneSource | None],
        trusted: str = "",
    ) -> FolderReader | None:
        missing = ""
        for _ in range(ATTEMPTS):
            source = find()
            if source is None:
                return None
            try:
                return cls(path, settings, source, trusted)
            except FileNotFoundError as error:
                source.close()
                missing = str(error.filename)
            except BaseException:
                source.close()
                raise
        raise damaged(missing, "missing")

    @property
    def num_documents(self) -> int:
        """Return the number of documents."""
        return self.commit_data.documents

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
        return self._lucene.languages if self.settings.analyzer == AUTO else {}

    @property
    def fields(self) -> list[str]:
        """Return the fields that a filter may name."""
        return ["id", *sorted(self._lucene.fields)]

    @property
    def comparable(self) -> dict[str, set[str]]:
        """Return the metadata fields that filters may name, each with the kinds of values that it is compared with."""
        return self._lucene.comparable

    def select(self, text: str) -> Selection:
        """Return the documents that a filter finds; raise UserError if it cannot be read or names an unknown field."""
        return self.select_among(text, self.comparable)

    def select_among(self, text: str, comparable: Mapping[str, set[str]]) -> Selection:
        """Do as `select`, for a shard of an index. comparable: of all its shards together."""
        query = self._lucene.select(parse_filter(text), comparable)
        return Selection(query, self.commit_data.mark.rows, self._lucene)

    @property
    def collection(self) -> Collection:
        """Return what BM25 knows of the documents that it ranks: of this index alone, unless it is told another."""
        return self._source.joined or self._own

    @lazy
    def _own(self) -> Collection:
        words = self.word_postings
        return self._lucene.collection if words is None else OwnCollection(words, self.languages)

    def join(self, collection: Collection) -> None:
        """Rank by BM25 as a part of a collection from now on: before the first search."""
        self._source.join(collection)

    def selected_ids(self, selection: Selection | None) -> list[str]:
        """Return the ids of the documents of a selection, of all for None, oldest first."""
        return self._places.ids(None if selection is None else selection.rows)

    @lazy
    def first_rows(self) -> BoolArray:
        """Return which rows are the first one of a live document, bool (rows,)."""
        return self.alive if self.num_chunks == self.num_documents else self._places.firsts

    @lazy
    def index_fields(self) -> list[IndexField]:
        """Return the metadata fields with their kinds, and in how many documents they are, sorted by name."""
        return list_fields(self.field_counts(), self._lucene.fields)

    def facets(self, field: str, top_k: int, selection: Selection | None = None) -> list[FacetCount]:
        """Return the values of a field that most documents have; raise UserError for one that is not there."""
        self.check_field(field)
        return self.field_counts(selection).best(field, self._lucene.fields[field], top_k)

    def check_field(self, field: str) -> None:
        """Raise UserError for a metadata field that the index has not."""
        known = self._lucene.fields
        if field not in known:
            raise UserError(f"the index has no field {field!r}; its fields are {', '.join(sorted(known)) or 'none'}")

    def field_counts(self, selection: Selection | None = None) -> FieldCounts:
        """Return what counts documents by the values of their fields, those of a selection alone."""
        return self._lucene.field_counts(self.first_rows if selection is None else self.first_rows & selection.rows)

    def facet_counts(self, field: str, selection: Selection | None = None) -> Counter[FieldValue]:
        """Return in how many documents each value of a field is; nothing for a field that no document has."""
        return self.field_counts(selection).all(field, self._lucene.fields.get(field, ()))

    def bm25(self, text: str, top_k: int, selection: Selection | None = None) -> Ranking:
        """Rank by BM25 over title and text; a query of which analysis leaves nothing has no hits."""
        check_top_k(top_k)
        selected = selection and selection.query
        return self.ranking(lambda count: self._lucene.bm25(text, count, selected), top_k)

    def bm25_words(self, weights: Mapping[str, float], top_k: int, selection: Selection | None = None) -> Ranking:
        """Rank by BM25 for a query of analysed terms with weights above 0: `analyse` and what feedback makes of it."""
        check_top_k(top_k)
        selected = selection and selection.query
        return self.ranking(lambda count: self._lucene.bm25_words(weights, count, selected), top_k)

    def sparse(
        self, terms: csr_matrix, top_k: int, selection: Selection | None = None, first_terms: int | None = None
    ) -> Ranking:
        """Rank by the inner product of query terms (1, vocab_size) and stored term weights, where it is above 0.

        first_terms: search with so many of the strongest query terms alone, twice as deep, and score what they find
        with all terms (two-step search, 2404.13357). Not exact: what the strongest terms do not find is missed.
        """
        check_top_k(top_k)
        if not self.has_sparse:
            raise UserError(f"{self.path}: has no sparse terms; search it with another mode")
        query = selection and selection.query

        def search(count: int) -> Found:
            if first_terms is None or terms.nnz <= first_terms:
                found = self._lucene.impact(impact_query(terms), count, query)
            else:
                first = strongest(terms, first_terms)
                parts = impact_query(first), impact_query(terms - first)
                found = self._lucene.impact_in_two_steps(*parts, 2 * count + SPARE_CANDIDATES, query)
            return found._replace(scores=found.scores / self.settings.impact_scale)

        hits = self.ranking(search, top_k)
        return hits if not hits or hits[-1].score > 0 else [hit for hit in hits if hit.score > 0]

    def ranking(self, search: Callable[[int], Found], top_k: int) -> Ranking:
        """Rank documents, each with its best chunk's score, by (score descending, id ascending), then cut.

        search: returns the rows of the best n chunks, all that may tie with the last one among them.
        """

        def chunks(count: int) -> RowRanking:
            found = search(count)
            return RowRanking.ordered(found.rows, found.scores, self.rows.doc_ids, top_k=count)

        return best_documents(chunks, top_k, self._expected)

    def dense(self, vectors: FloatArray, top_k: int, selection: Selection | None = None) -> list[Ranking]:
        """Rank by inner product for each query vector (n, dense_dim); a zero vector has no hits."""
        check_top_k(top_k)
        self._users.check()  # FAISS would wait for threads that are not there
        searcher = self._dense
        if searcher is None:
            raise UserError(f"{self.path}: has no vectors; search it with another mode")
        if vectors.ndim != 2 or vectors.shape[1] != self.settings.encoder.dense_dim or not np.isfinite(vectors).all():
            raise ValueError(f"need finite query vectors (n, {self.settings.encoder.dense_dim}), found {vectors.shape}")
        allowed = None if selection is None else selection.rows
        queries = np.ascontiguousarray(vectors, dtype=np.float32)

        def best(query: FloatArray) -> Ranking:
            return best_documents(lambda count: searcher.search(query, count, allowed)[0], top_k, self._expected)

        return [best(query[None]) for query in queries]

    def bm25_spans(self, query: str, text: str) -> list[Span]:
        """Return the characters of a text of which BM25 reads a term of the query, ascending."""
        wanted = set(self.query_terms(query))
        return [Span(token.start, token.end) for token in self.tokens(text) if token.term in wanted]

    def query_terms(self, text: str, language: str | None = None) -> list[str]:
        """Return the terms that BM25 reads of a query, in order, repeated ones too.

        language: the query's, where each document is read in its own; None for what the query looks like.
        """
        found = english_terms(text) if self.settings.analyzer == ENGLISH else None
        return self._lucene.query_terms(text, language) if found is None else found

    def reads_words(self, text: str) -> bool:
        """Say whether BM25 reads a query, and its hits are fetched, without Java."""
        own = self.word_postings is not None and self.settings.analyzer == ENGLISH and self._stored_fields is not None
        return own and english_terms(text) is not None

    def tokens(self, text: str) -> list[Token]:
        """Return the terms that BM25 reads of a document's text, in order, repeated ones too."""
        found = english_tokens(text) if self.settings.analyzer == ENGLISH else None
        return self._lucene.tokens(text) if found is None else found

    def bm25_frequencies(self, terms: Sequence[str]) -> list[int]:
        """Return in how many chunks each analysed term stands."""
        return (
            self._lucene.document_frequencies("contents", terms)
            if self.word_postings is None
            else self.word_postings.frequencies(terms)
        )

    def token_rows(self) -> Iterator[TermImpacts]:
        """Yield in which live rows each vocabulary id is a token of the text itself, ids ascending."""
        return self._lucene.impacts("token")

    def bm25_chunks(self, text: str, ids: Sequence[str]) -> list[ScoredChunk]:
        """Return the BM25 scores of the chunks of documents, of those that hold a term of the query."""
        return self._lucene.bm25_chunks(text, ids)

    def bm25_words_chunks(self, weights: Mapping[str, float], ids: Sequence[str]) -> list[ScoredChunk]:
        """Return the scores of the chunks of documents as `bm25_words` gives them, of those that hold a term."""
        return self._lucene.bm25_words_chunks(weights, ids)

    def sparse_chunks(self, terms: csr_matrix, ids: Sequence[str]) -> list[ScoredChunk]:
        """Return the sparse scores above 0 of the chunks of documents, for query terms (1, vocab_size)."""
        scale = self.settings.impact_scale
        chunks = self._lucene.impact_chunks(impact_query(terms), ids)
        return [chunk._replace(score=chunk.score / scale) for chunk in chunks if chunk.score > 0]

    def dense_chunks(self, vector: FloatArray, documents: Mapping[str, StoredDocument]) -> list[ScoredChunk]:
        """Return the dense scores of the chunks of documents, for a query vector (dense_dim,); a zero one has none."""
        return self._views.dense_chunks(vector, documents)

    def views(self, stored: StoredDocument) -> Encoded:
        """Return what is stored of a document's views, those of all its chunks together, one row."""
        return self._views.of(stored)

    def stored_vectors(self, documents: Sequence[StoredDocument]) -> FloatArray:
        """Return float32 (n, dense_dim): of each document the mean of its chunks' vectors, of unit length."""
        return self._views.vectors(documents)

    def stored_impacts(self, documents: Sequence[StoredDocument]) -> csr_matrix:
        """Return float32 csr (n, vocab_size): of each document the largest weight that a term has in its chunks."""
        return self._views.impacts(documents)

    def stored_tokens(self, ids: Sequence[str]) -> list[TokenRecords]:
        """Return the vectors of the tokens of each document, chunk by chunk; raise KeyError for an unknown id."""
        tokens = self.rows.tokens
        assert tokens is not None
        return [tokens.of_rows(self.rows_of(doc_id)) for doc_id in ids]

    def rows_of(self, doc_id: str) -> range:
        """Return the rows of the chunks of a document; raise KeyError for an unknown id."""
        if self.settings.chunking is None:
            first = self.first_row(doc_id)
            return range(first, first + 1)
        return range(*self._places.span(self.stored([doc_id])[doc_id]))

    def chunk_texts(self, doc_id: str) -> list[str]:
        """Return title and text of each chunk of a document; raise KeyError for an unknown id."""
        stored = self.stored([doc_id])[doc_id]
        spans = stored.chunks or (Span(0, len(stored.document.text)),)
        return [chunk.contents for chunk in stored.document.split(spans)]

    def stored(self, ids: Iterable[str]) -> dict[str, StoredDocument]:
        """Return the documents of these ids with their chunks; unknown ids are left out."""
        return {doc_id: read_stored(self.path, raw) for doc_id, raw in self.raws(ids).items()}

    def raws(self, ids: Iterable[str]) -> dict[str, str]:
        """Return the JSON that is stored of the documents of these ids; unknown ids are left out."""
        wanted = list(dict.fromkeys(ids))
        if (fields := self._stored_fields) is not None:
            rows = {doc_id: row for doc_id in wanted if (row := self._places.find(doc_id)) is not None}
            with suppress(ForeignError, UnicodeDecodeError):  # then Java says what is the matter
                return {doc_id: raw.decode() for doc_id, raw in zip(rows, fields.raws([*rows.values()]), strict=True)}
        found = zip(wanted, self._lucene.stored(wanted), strict=True)
        return {doc_id: raw for doc_id, raw in found if raw is not None}

    def first_row(self, doc_id: str) -> int:
        """Return the row of a document's first chunk; raise KeyError for an unknown id."""
        return self._places.first(doc_id)

    def documents(self, ids: Iterable[str]) -> dict[str, Document]:
        """Return the stored documents of these ids; unknown ids are left out."""
        return {doc_id: stored.document for doc_id, stored in self.stored(ids).items()}

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Return those of the ids that the index does not have."""
        wanted = list(ids)
        return [doc_id for doc_id in wanted if self._places.find(doc_id) is None]

    @lazy
    def token_statistics(self) -> TokenStatistics:
        """Return in how many documents each token of the encoder's vocabulary occurs."""
        return TokenStatistics(self.word_postings, lambda: self._lucene)

    def explain_bm25(self, text: str, doc_id: str, chunk: int = 0) -> list[TermMatch]:
        """Return the analysed terms that a query shares with a chunk; the contributions add up to its score."""
        return self.explain_words(Counter(self.query_terms(text)), doc_id, chunk)

    def explain_words(self, weights: Mapping[str, float], doc_id: str, chunk: int = 0) -> list[TermMatch]:
        """Return what `explain_bm25` does for analysed terms with weights."""
        return explained(weights, {word: self._lucene.bm25_score(word, doc_id, chunk) for word in weights})

    def explain_sparse(self, terms: csr_matrix, doc_id: str, chunk: int = 0) -> list[TermMatch]:
        """Return the vocabulary ids, as decimal terms, that query terms (1, vocab_size) share with a chunk."""
        return self._views.explain(terms, doc_id, chunk)

    def sparse_frequencies(self, terms: Iterable[int]) -> list[int]:
        """Return in how many chunks each vocabulary id has an impact."""
        if self.postings is None:  # an old index
            return self._lucene.document_frequencies("impact", map(str, terms))
        return frequencies(self.postings, list(terms), self.alive)

    def sparse_terms_per_document(self) -> float:
        """Return the mean number of impacts of a document."""
        return self._lucene.postings("impact") / max(self.num_documents, 1)

    def stored_terms(self, field: str) -> csr_matrix:
        """Return int32 csr (rows, vocab_size): the impacts ("impact") of each row or its own tokens ("token")."""
        return self._lucene.terms(field, (self.commit_data.mark.rows, self.settings.encoder.vocab_size))

    def impacts(self) -> Iterator[TermImpacts]:
        """Yield the impacts of all live chunks as Lucene has them, terms ascending."""
        return self._lucene.impacts()

    def sizes(self) -> dict[str, int]:
        """Return the bytes that each part of the folder takes."""
        parts = {"lucene": "lucene", "rows": self.commit_data.rows_folder, "dense": "dense"}
        parts |= {"sparse": "sparse", "bm25": "bm25"}
        return {name: _size(self.path / folder) for name, folder in parts.items()}

    def share(self) -> FolderReader:
        """Return this reader to one more user: each calls `close`, and the last one frees the files.

        Raises:
            UserError: this process was forked from the one that opened the index.
        """
        self._users.join()
        return self

    def close(self) -> None:
        """Free the files, if nobody else uses this reader; nothing in a forked process, whose they are not."""
        if self._users.leave():
            self._source.close()

    def __enter__(self) -> FolderReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _size(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size
        except FileNotFoundError:  # a writer may be merging
            continue
    return total
