"""Several indexes read as one: every answer is that of a single index of all their documents."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from retriever.index.lucene.collection import JoinedCollection, joined_counts
from retriever.index.lucene.values import most_frequent
from retriever.index.shards.agreement import check_alike, joined_commits
from retriever.index.users import Users
from retriever.lazy import lazy
from retriever.types import Document, Encoded, IndexField, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Self

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from retriever.index.contract import ShardReader
    from retriever.index.lucene.tokens import Token
    from retriever.index.lucene.values import FieldValue
    from retriever.index.settings import IndexSettings
    from retriever.index.shards.manifest import ShardManifest
    from retriever.index.stored import StoredDocument
    from retriever.index.vectors.rows import TokenRecords
    from retriever.types import FacetCount, FloatArray, Span, TermStatistics

__all__ = ["JoinedReader"]

T = TypeVar("T")
KINDS = ("text", "date", "number", "boolean")


class JoinedReader:
    """Reads shards as one index. shards: in the order of their names; their BM25 ranks by what all of them hold.

    Every document is in one shard, whichever it is: where one is needed all are asked.
    """

    legs_together: ClassVar[None] = None

    def __init__(self, path: Path, manifest: ShardManifest, shards: Sequence[ShardReader]) -> None:
        self.path, self.manifest, self.shards = path, manifest, shards
        self.settings: IndexSettings = check_alike(path, manifest.shards, [shard.settings for shard in shards])
        self.commit_data = joined_commits(manifest, [shard.commit_data for shard in shards])
        self._users = Users()
        self._pool = ThreadPoolExecutor(max_workers=4 * len(shards), thread_name_prefix="shard")
        self.collection = JoinedCollection([shard.collection for shard in shards])
        for shard in shards:
            shard.join(self.collection)

    def each(self, ask: Callable[[Any], T]) -> list[T]:
        """Ask all shards side by side."""
        self._users.check()
        if len(self.shards) == 1:
            return [ask(self.shards[0])]
        return list(self._pool.map(ask, self.shards))

    def pairs(self, ask: Callable[[Any, Any], T], parts: Sequence[Any]) -> list[T]:
        """Ask all shards side by side, each with a part of its own."""
        self._users.check()
        return list(self._pool.map(ask, self.shards, parts))

    def by_shard(self, ids: Iterable[str]) -> list[list[str]]:
        """Return for each shard those of the ids that it holds; unknown ids are left out."""
        wanted = list(dict.fromkeys(ids))
        lacking = self.each(lambda shard: set(shard.missing(wanted)))
        return [[doc_id for doc_id in wanted if doc_id not in lacks] for lacks in lacking]

    @property
    def num_documents(self) -> int:
        """Return the number of documents."""
        return self.commit_data.documents

    @property
    def num_chunks(self) -> int:
        """Return the number of chunks; of documents, where these are not split."""
        return sum(shard.num_chunks for shard in self.shards)

    @property
    def has_dense(self) -> bool:
        """Say whether the index holds vectors."""
        return self.settings.encoder.dense_dim > 0

    @property
    def has_sparse(self) -> bool:
        """Say whether the index holds learned sparse terms."""
        return self.settings.encoder.vocab_size > 0

    @property
    def languages(self) -> Mapping[str, int]:
        """Return how many chunks are in each language, where each document is read in its own; else nothing."""
        return joined_counts(shard.languages for shard in self.shards)

    @lazy
    def comparable(self) -> dict[str, set[str]]:
        """Return the fields that filters may name, each with the kinds of values that it is compared with."""
        found: dict[str, set[str]] = {}
        for kinds in self.each(lambda shard: shard.comparable):
            for name, held in kinds.items():
                found[name] = found.get(name, set()) | held
        return found

    @lazy
    def index_fields(self) -> list[IndexField]:
        """Return the metadata fields with their kinds, and in how many documents they are, sorted by name."""
        found: dict[str, IndexField] = {}
        for field in (field for fields in self.each(lambda shard: shard.index_fields) for field in fields):
            before = found.get(field.name, IndexField(field.name, (), 0))
            kinds = tuple(kind for kind in KINDS if kind in (*before.kinds, *field.kinds))
            found[field.name] = IndexField(field.name, kinds, before.documents + field.documents)
        return [found[name] for name in sorted(found)]

    def select(self, text: str) -> list[Any]:
        """Return for each shard the documents that a filter finds; raise UserError as `FolderReader.select` does."""
        return self.each(lambda shard: shard.select_among(text, self.comparable))

    def check_field(self, field: str) -> None:
        """Raise UserError for a metadata field that the index has not."""
        if field not in self.comparable:
            known = ", ".join(sorted(self.comparable)) or "none"
            raise UserError(f"the index has no field {field!r}; its fields are {known}")

    def facets(self, field: str, top_k: int, selection: Sequence[Any] | None = None) -> list[FacetCount]:
        """Return the values of a field that most documents have; raise UserError for one that is not there."""
        self.check_field(field)
        total: Counter[FieldValue] = Counter()
        for counts in self.pairs(
            lambda shard, own: shard.facet_counts(field, own), selection or [None] * len(self.shards)
        ):
            total.update(counts)
        return most_frequent(total, top_k)

    def query_terms(self, text: str, language: str | None = None) -> list[str]:
        """Return the terms that BM25 reads of a query, in order, repeated ones too."""
        return self.shards[0].query_terms(text, language)

    def tokens(self, text: str) -> list[Token]:
        """Return the terms that BM25 reads of a document's text, in order, repeated ones too."""
        return self.shards[0].tokens(text)

    def bm25_spans(self, query: str, text: str) -> list[Span]:
        """Return the characters of a text of which BM25 reads a term of the query, ascending."""
        return self.shards[0].bm25_spans(query, text)

    def bm25_frequencies(self, terms: Sequence[str]) -> list[int]:
        """Return in how many chunks each analysed term stands."""
        return self.collection.frequencies(terms)

    def sparse_frequencies(self, terms: Iterable[int]) -> list[int]:
        """Return in how many chunks each vocabulary id has an impact."""
        wanted = list(terms)
        counts: list[int] = np.sum(self.each(lambda shard: shard.sparse_frequencies(wanted)), axis=0).tolist()
        return counts

    def sparse_terms_per_document(self) -> float:
        """Return the mean number of impacts of a document."""
        means = self.each(lambda shard: shard.sparse_terms_per_document())
        totals = (mean * shard.num_documents for mean, shard in zip(means, self.shards, strict=True))
        return float(sum(totals)) / max(self.num_documents, 1)

    @lazy
    def token_statistics(self) -> TermStatistics:
        """Return in how many documents each token of the encoder's vocabulary occurs."""
        return _JoinedTokens([shard.token_statistics for shard in self.shards])

    def stored(self, ids: Iterable[str]) -> dict[str, StoredDocument]:
        """Return the documents of these ids with their chunks; unknown ids are left out."""
        wanted = list(dict.fromkeys(ids))
        found = _united(self.each(lambda shard: shard.stored(wanted)))
        return {doc_id: found[doc_id] for doc_id in wanted if doc_id in found}

    def documents(self, ids: Iterable[str]) -> dict[str, Document]:
        """Return the stored documents of these ids; unknown ids are left out."""
        return {doc_id: stored.document for doc_id, stored in self.stored(ids).items()}

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Return those of the ids that the index does not have."""
        wanted = list(ids)
        lacking = set.intersection(*self.each(lambda shard: set(shard.missing(wanted))))
        return [doc_id for doc_id in wanted if doc_id in lacking]

    def selected_ids(self, selection: Sequence[Any] | None) -> list[str]:
        """Return the ids of the documents of a selection, of all for None, shard by shard, oldest first."""
        parts = selection or [None] * len(self.shards)
        return [doc_id for ids in self.pairs(lambda shard, own: shard.selected_ids(own), parts) for doc_id in ids]

    def chunk_texts(self, doc_id: str) -> list[str]:
        """Return title and text of each chunk of a document; raise KeyError for an unknown id."""
        [shard] = self._holding([doc_id])
        found: list[str] = shard.chunk_texts(doc_id)
        return found

    def views(self, stored: StoredDocument) -> Encoded:
        """Return what is stored of a document's views, those of all its chunks together, one row."""
        [shard] = self._holding([stored.document.doc_id])
        found: Encoded = shard.views(stored)
        return found

    def stored_vectors(self, documents: Sequence[StoredDocument]) -> FloatArray:
        """Return float32 (n, dense_dim): of each document the mean of its chunks' vectors, of unit length."""
        holding = self._holding([one.document.doc_id for one in documents])
        empty = np.empty((0, self.settings.encoder.dense_dim), np.float32)
        found = [shard.stored_vectors([one]) for shard, one in zip(holding, documents, strict=True)]
        return np.concatenate([empty, *found])

    def stored_impacts(self, documents: Sequence[StoredDocument]) -> csr_matrix:
        """Return float32 csr (n, vocab_size): of each document the largest weight that a term has in its chunks."""
        from scipy.sparse import csr_matrix, vstack

        holding = self._holding([one.document.doc_id for one in documents])
        empty = csr_matrix(np.zeros((0, self.settings.encoder.vocab_size), np.float32))
        found = [shard.stored_impacts([one]) for shard, one in zip(holding, documents, strict=True)]
        return csr_matrix(vstack([empty, *found], "csr"), dtype=np.float32)

    def stored_tokens(self, ids: Sequence[str]) -> list[TokenRecords]:
        """Return the vectors of the tokens of each document, chunk by chunk; raise KeyError for an unknown id."""
        parts = self.by_shard(ids)
        found = _united(self.pairs(lambda shard, own: dict(zip(own, shard.stored_tokens(own), strict=True)), parts))
        return [found[doc_id] for doc_id in ids]

    def _holding(self, ids: Sequence[str]) -> list[Any]:
        """Return the shard that holds each document; raise KeyError for an unknown id."""
        held = self.by_shard(ids)
        shard_of = {doc_id: shard for shard, own in zip(self.shards, held, strict=True) for doc_id in own}
        return [shard_of[doc_id] for doc_id in ids]

    def sizes(self) -> dict[str, int]:
        """Return the bytes that each part of the shards takes, together."""
        return dict(reduce(lambda one, other: one + other, map(Counter, self.each(lambda shard: shard.sizes()))))

    def share(self) -> Self:
        """Return this reader to one more user: each calls `close`, and the last one frees the shards."""
        self._users.join()
        return self

    def close(self) -> None:
        """Free the shards, if nobody else uses this reader; nothing in a forked process, whose they are not."""
        if self._users.leave():
            self._free()

    def _free(self) -> None:
        self._pool.shutdown()
        for shard in self.shards:
            shard.close()


class _JoinedTokens:
    """Document frequencies of tokens over all shards."""

    def __init__(self, parts: Sequence[TermStatistics]) -> None:
        self.documents = sum(part.documents for part in parts)
        self._parts = parts

    def document_frequency(self, terms: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return for each vocabulary id the number of documents that hold it."""
        total: NDArray[np.int64] = np.sum([part.document_frequency(terms) for part in self._parts], axis=0)
        return total


def _united(parts: Iterable[Mapping[str, T]]) -> dict[str, T]:
    return {key: value for part in parts for key, value in part.items()}
