"""Reading an index folder: one commit, seen whole, searched by any number of threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from retriever.index.chunks import ScoredChunk, best_documents
from retriever.index.commit import CommitRecord, parse_commit
from retriever.index.files import damaged
from retriever.index.filters import parse_filter
from retriever.index.lucene.calls import Found
from retriever.index.lucene.english import english_terms, english_tokens
from retriever.index.lucene.held import HeldCommit, hold
from retriever.index.lucene.reader import LuceneReader
from retriever.index.lucene.segments import ForeignError
from retriever.index.lucene.stored_fields import StoredFields
from retriever.index.postings.frequencies import frequencies
from retriever.index.postings.quantise import impact_query, strongest
from retriever.index.postings.row_impacts import row_impacts
from retriever.index.postings.sparse import open_postings
from retriever.index.postings.words import OwnCollection, open_words
from retriever.index.reading.explained import explained
from retriever.index.reading.fields import list_fields
from retriever.index.reading.selection import Selection
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
SMALLEST_NORM = 1e-12
"""Of a vector; that of a text without tokens is zero."""


class FolderReader:
    """The state of an index folder at its last commit when it was opened; later commits do not change it.

    commit_data: what the commit says: counts, note, dense type. rows: ids and vectors of all rows, dead ones too.
    num_chunks: one for each document, or more where they are split. alive: bool (rows,). postings: the sparse terms of
    all rows, dead ones too; word_postings: what BM25 reads of them; None in an index of an older version that was not
    changed since.
    """

    legs_together: ClassVar[None] = None

    def __init__(
        self, path: Path, settings: IndexSettings, source: LuceneReader | HeldCommit, trusted: str = ""
    ) -> None:
        self.path, self.settings, self._source = path, settings, source
        if isinstance(source, LuceneReader):
            self.__dict__["_lucene"] = source  # as if it had been asked for
        self._folder_identity = settings_identity(path)
        self._users = Users()
        self.commit_data: CommitRecord = parse_commit(path, source.user_data)
        check_settings(path, self.commit_data.settings_crc)
        self._dense: DenseSearcher | None = None
        self._joined: Collection | None = None
        commit, dim = self.commit_data, settings.encoder.dense_dim
        # Read without vectors, too: an index that has lost its rows must not open.
        self.rows = RowReader(path / commit.rows_folder, settings.row_format, commit.mark, checked=True)
        flags = read_flags(path / commit.live_file, commit.mark.rows, commit.live_crc)
        self.alive = (flags & ALIVE).astype(bool)
        self.num_chunks = int(np.count_nonzero(self.alive))
        self.postings = open_postings(path, commit.sparse_files, commit.mark.rows)
        self.word_postings = open_words(path, commit.bm25_files, self.alive)
        self._expected = max(1, -(-self.num_chunks // max(1, commit.documents)))
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
        reader = cls._open(path, settings, lambda: hold(folder) or LuceneReader.open(folder, settings.bm25))
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
        return self._open(self.path, self.settings, self._newer, self.commit_data.dense_file)

    def _newer(self) -> LuceneReader | HeldCommit | None:
        """Return the last commit of Lucene, None if it is this one."""
        if "_lucene" in self.__dict__ and not self._lucene.linked:
            return self._lucene.reopen()
        folder = self.path / "lucene"
        newer = hold(folder) or LuceneReader.open(folder, self.settings.bm25)
        if newer.identity != self._source.identity:
            return newer
        newer.close()
        return None

    @lazy
    def _lucene(self) -> LuceneReader:
        """Return what asks Java, which is started if it was not."""
        source = self._source
        lucene = source.open_lucene(self.settings.bm25) if isinstance(source, HeldCommit) else source
        if self._joined is not None:
            lucene.join(self._joined)
        return lucene

    @lazy
    def _stored_fields(self) -> StoredFields | None:
        """Return what reads stored documents without Java, None where Java has to."""
        if not isinstance(self._source, HeldCommit):
            return None
        try:
            return StoredFields(self._source, self.commit_data.mark.rows)
        except (ForeignError, ValueError):
            return None

    @classmethod
    def _open(
        cls,
        path: Path,
        settings: IndexSettings,
        find: Callable[[], LuceneReader | HeldCommit | None],
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
        return self._joined or self._own

    @lazy
    def _own(self) -> Collection:
        words = self.word_postings
        return self._lucene.collection if words is None else OwnCollection(words, self.languages)

    def join(self, collection: Collection) -> None:
        """Rank by BM25 as a part of a collection from now on: before the first search."""
        self._joined = collection
        if "_lucene" in self.__dict__:
            self._lucene.join(collection)

    def selected_ids(self, selection: Selection | None) -> list[str]:
        """Return the ids of the documents of a selection, of all for None, oldest first."""
        rows = self.alive if selection is None else self.alive & selection.rows
        return list(dict.fromkeys(self.rows.doc_ids(np.flatnonzero(rows))))

    @lazy
    def first_rows(self) -> BoolArray:
        """Return which rows are the first one of a live document, bool (rows,)."""
        if self.num_chunks == self.num_documents:
            return self.alive
        ids = self.rows.doc_ids(np.arange(len(self.alive)))
        same = np.fromiter((one == other for one, other in pairwise(ids)), bool, len(ids) - 1)
        continues = np.concatenate([[False], same & self.alive[:-1]])
        first: BoolArray = self.alive & ~continues
        return first

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
        vectors = self.rows.vectors
        if vectors is None or not vector.any():
            return []
        found = []
        for doc_id, stored in documents.items():
            first = self.first_row(doc_id)
            scores = vectors.scores(slice(first, first + len(stored.chunks)), vector).tolist()
            found += [ScoredChunk(doc_id, number, score) for number, score in enumerate(scores)]
        return found

    def views(self, stored: StoredDocument) -> Encoded:
        """Return what is stored of a document's views, those of all its chunks together, one row."""
        dense = self.stored_vectors([stored]) if self.has_dense else None
        sparse = self.stored_impacts([stored]) if self.has_sparse else None
        return Encoded(dense, sparse, np.zeros(1, bool))

    def stored_vectors(self, documents: Sequence[StoredDocument]) -> FloatArray:
        """Return float32 (n, dense_dim): of each document the mean of its chunks' vectors, of unit length."""
        vectors = self.rows.vectors
        assert vectors is not None
        totals = np.array([vectors[slice(*self._chunk_rows(one))].sum(axis=0) for one in documents], np.float32)
        totals = totals.reshape(-1, self.settings.encoder.dense_dim)
        lengths = np.linalg.norm(totals, axis=1, keepdims=True)
        unit: FloatArray = (totals / np.maximum(lengths, SMALLEST_NORM)).astype(np.float32)
        return unit

    def stored_impacts(self, documents: Sequence[StoredDocument]) -> csr_matrix:
        """Return float32 csr (n, vocab_size): of each document the largest weight that a term has in its chunks."""
        from scipy.sparse import csr_matrix, vstack

        empty = csr_matrix(np.zeros((0, self.settings.encoder.vocab_size), np.int32))
        rows = [self._impacts(range(*self._chunk_rows(one))) for one in documents]
        rows = [row if row.shape[0] == 1 else row.max(axis=0).tocsr() for row in rows]
        impacts = csr_matrix(vstack([empty, *rows], "csr"), dtype=np.float32)
        impacts.data /= np.float32(self.settings.impact_scale)
        return impacts

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
        return range(*self._chunk_rows(self.stored([doc_id])[doc_id]))

    def chunk_texts(self, doc_id: str) -> list[str]:
        """Return title and text of each chunk of a document; raise KeyError for an unknown id."""
        stored = self.stored([doc_id])[doc_id]
        spans = stored.chunks or (Span(0, len(stored.document.text)),)
        return [chunk.contents for chunk in stored.document.split(spans)]

    def _chunk_rows(self, stored: StoredDocument) -> tuple[int, int]:
        """Return the row of the first chunk of a document, and that behind its last one."""
        first = self.first_row(stored.document.doc_id)
        return first, first + max(1, len(stored.chunks))

    def _impacts(self, rows: range) -> csr_matrix:
        from scipy.sparse import vstack

        if self.postings is None:  # an old index; reading all of Lucene's takes a microsecond each
            found: csr_matrix = self.stored_terms("impact")[rows.start : rows.stop]
        else:
            size = self.settings.encoder.vocab_size
            each = [row_impacts(self.postings, row, size) for row in rows]
            found = each[0] if len(each) == 1 else vstack(each, "csr")
        return found

    def stored(self, ids: Iterable[str]) -> dict[str, StoredDocument]:
        """Return the documents of these ids with their chunks; unknown ids are left out."""
        return {doc_id: read_stored(self.path, raw) for doc_id, raw in self.raws(ids).items()}

    def raws(self, ids: Iterable[str]) -> dict[str, str]:
        """Return the JSON that is stored of the documents of these ids; unknown ids are left out."""
        wanted = list(dict.fromkeys(ids))
        if (fields := self._stored_fields) is not None:
            rows = {doc_id: row for doc_id in wanted if (row := self._row_of(doc_id)) is not None}
            with suppress(ForeignError, UnicodeDecodeError):  # then Java says what is the matter
                return {doc_id: raw.decode() for doc_id, raw in zip(rows, fields.raws([*rows.values()]), strict=True)}
        found = zip(wanted, self._lucene.stored(wanted), strict=True)
        return {doc_id: raw for doc_id, raw in found if raw is not None}

    def first_row(self, doc_id: str) -> int:
        """Return the row of a document's first chunk; raise KeyError for an unknown id."""
        row = self._row_of(doc_id)
        if row is None:
            raise KeyError(doc_id)
        return row

    def _row_of(self, doc_id: str) -> int | None:
        row = self.rows.row_of(doc_id, self.alive)
        while row and self.settings.chunking is not None and self.alive[row - 1]:
            if self.rows.doc_ids(np.array([row - 1]))[0] != doc_id:
                break
            row -= 1
        return row

    def documents(self, ids: Iterable[str]) -> dict[str, Document]:
        """Return the stored documents of these ids; unknown ids are left out."""
        return {doc_id: stored.document for doc_id, stored in self.stored(ids).items()}

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Return those of the ids that the index does not have."""
        wanted = list(ids)
        return [doc_id for doc_id in wanted if self._row_of(doc_id) is None]

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
        matches = []
        impacts = self._impacts_of(terms.indices.tolist(), doc_id, chunk)
        for term, query_weight in zip(terms.indices.tolist(), terms.data.tolist(), strict=True):
            weight = impacts.get(term, 0) / self.settings.impact_scale
            if weight > 0 and query_weight > 0:
                matches.append(TermMatch("sparse", str(term), query_weight, weight, query_weight * weight))
        return sorted(matches, key=lambda match: (-match.contribution, match.term))

    def _impacts_of(self, terms: Sequence[int], doc_id: str, chunk: int) -> dict[int, float]:
        """Return the impacts of a chunk by vocabulary id, of those of these terms that it has."""
        if self.postings is None:  # an old index; a Java call each
            return {term: self._lucene.impact_of(str(term), doc_id, chunk) for term in terms}
        try:
            row = self.first_row(doc_id) + chunk
        except KeyError:
            return {}
        found = row_impacts(self.postings, row, self.settings.encoder.vocab_size, terms)
        return dict(zip(found.indices.tolist(), found.data.tolist(), strict=True))

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
            if self._source is not self.__dict__.get("_lucene", self._source):
                self._lucene.close()
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
