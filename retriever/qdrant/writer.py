"""Writing a collection as an index: what `FolderWriter` does to a folder, by the same names.

A collection has no transactions. Documents are seen as soon as they are sent, each with all its legs at once, and
`commit` writes what is counted of all of them. A change that was never committed leaves its mark in the head: the next
writer counts everything anew, from the texts that are stored.
"""

from __future__ import annotations

import copy
import logging
import uuid
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from retriever.index.commit import UNFINISHED, CommitRecord
from retriever.index.lucene.metadata import DOUBLES, MOMENTS
from retriever.index.writing.batch import check_batch, token_records
from retriever.qdrant.chunks import contribution, new_chunks
from retriever.qdrant.engine import ALL
from retriever.qdrant.points import Counted, chunk_id, point_of
from retriever.qdrant.recount import recount, saturate_anew
from retriever.qdrant.scan import pages
from retriever.qdrant.statistics import Head, IdFrequencies, TermFrequencies, head_point, read_head
from retriever.qdrant.words import Words
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    from retriever.qdrant.chunks import Contribution
    from retriever.qdrant.engine import Engine, Point
    from retriever.qdrant.points import NewChunk
    from retriever.types import Document, Encoded, Span, TokenVectors

__all__ = ["CollectionWriter"]

LARGEST_DRIFT = 1.25
"""From this ratio of mean lengths on a commit writes BM25's vectors anew: searches fetch the more the larger it is."""
OF_A_COPY = ("corpus", "pushed", "push_position")
"""In the note of a commit: what the index was built and pushed from, as long as it is that."""
AT_ONCE = 256
"""Documents or points of one request."""
log = logging.getLogger(__name__)


class CollectionWriter:
    """The one writer of a collection, for one thread. What was sent before an error or `close` stays where it is."""

    def __init__(self, path: str, engine: Engine, head: Head) -> None:
        self.path, self.settings, self.engine, self._head = path, head.settings, engine, head
        self.state, self._last = copy.deepcopy(head.state), head.state
        size = head.settings.encoder.vocab_size
        self.words, self.terms = Words(head.settings.analyzer), TermFrequencies(engine, head.bits)
        self.impacts, self.tokens = IdFrequencies(engine, "impact", size), IdFrequencies(engine, "token", size)
        self._mark, self._edited = "", False

    @classmethod
    def create(cls, path: str, engine: Engine, head: Head) -> CollectionWriter:
        """Make an empty index in a collection that is not there, or holds nothing."""
        encoder = head.settings.encoder
        if not engine.exists():
            engine.create(encoder.dense_dim, ("bm25", "sparse") if encoder.vocab_size else ("bm25",))
        elif engine.count(ALL):
            raise UserError(f"{path}: holds points that are not ours; give a new collection, or an empty one")
        engine.index_payload("id", "keyword")
        engine.index_payload("chunk", "float")
        engine.upsert([head_point(head)])
        return cls(path, engine, head)

    @classmethod
    def open(cls, path: str, engine: Engine) -> CollectionWriter:
        """Open a collection for changes; one that another writer left unfinished is counted anew."""
        try:
            writer = cls(path, engine, read_head(engine, path))
            if UNFINISHED in writer.state.note:
                raise UserError(f"{path}: its push was interrupted; finish it with `retriever push` first")
            if writer.state.writer:
                log.warning("%s: a writer did not come to its end; all documents are counted anew", path)
                writer.begin()
                recount(writer)
                writer._edited = True
                writer.commit(writer.state.note)
        except BaseException:
            engine.close()
            raise
        return writer

    @property
    def committed(self) -> CommitRecord:
        """Return the last commit as a folder's."""
        last = self._last
        counts = {name: getattr(last, name) for name in ("number", "documents", "empty", "truncated", "unread")}
        return CommitRecord(**counts, note=last.note)

    @property
    def doc_ids(self) -> set[str]:
        """Return the ids of the documents, uncommitted changes included; all points are looked at."""
        found = (record for page in pages(self.engine, ALL, ["id"]) for record in page)
        return {record.payload["id"] for record in found}

    @property
    def wanted(self) -> bool:
        """Return False: nobody stands in line for a collection."""
        return False

    def __contains__(self, doc_id: str) -> bool:
        own = chunk_id(doc_id, 0)
        return own in self.engine.get([own], ["chunk"])

    def __len__(self) -> int:
        return self.state.documents

    def add(
        self,
        documents: Sequence[Document],
        encoded: Encoded | None,
        chunks: Sequence[Sequence[Span]] | None = None,
        tokens: TokenVectors | None = None,
    ) -> None:
        """Send documents with their vectors and terms; an id that is there already is replaced in every leg.

        As `FolderWriter.add`.
        """
        batch = check_batch(documents, encoded, self.settings, chunks)
        records = token_records(tokens, len(batch.chunks), self.settings)
        self._edited = True
        last = {document.doc_id: place for place, document in enumerate(documents)}
        new = [
            chunk
            for place, parts in enumerate(new_chunks(documents, batch, self.settings, records))
            for chunk in parts
            if last[documents[place].doc_id] == place
        ]
        self.send(new, replaced=self._take_out(last))

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents from every leg; return how many there were. Unknown ids are passed over."""
        wanted, before = list(dict.fromkeys(ids)), self.state.documents
        self._edited = True
        for start in range(0, len(wanted), AT_ONCE):
            if old := self._take_out(wanted[start : start + AT_ONCE]):
                self.engine.delete(old)
        return before - self.state.documents

    def _take_out(self, ids: Iterable[str]) -> list[str]:
        """Count the chunks of documents no more; return their points, which are there yet."""
        firsts = self.engine.get([chunk_id(doc_id, 0) for doc_id in ids], ["id", "chunks"])
        points = [
            chunk_id(first.payload["id"], number)
            for first in firsts.values()
            for number in range(first.payload["chunks"])
        ]
        for start in range(0, len(points), AT_ONCE):
            self.begin()
            names = ["bm25", "sparse"] if self.settings.encoder.vocab_size else ["bm25"]
            found = self.engine.get(points[start : start + AT_ONCE], None, names)
            self.count([contribution(record) for record in found.values()], -1)
        return points

    def send(
        self, chunks: Sequence[NewChunk], *, replaced: Iterable[str] = (), size: tuple[int, int] | None = None
    ) -> None:
        """Store chunks, all of their documents, and delete what they leave of the points that they replace.

        size: how many chunks with terms there will be, and how many terms they will have, where that is known.
        """
        counted = self.count_terms(chunks)
        lengths = [sum(one.counts.values()) for one in counted]
        known = size or (self.state.worded, self.state.words)
        documents, terms = known if known[0] else (sum(map(bool, lengths)), sum(lengths))
        collection = self.state.collection(self.settings)._replace(documents=documents, terms=terms)
        mean = collection.mean_length
        points = [
            point_of(chunk, one, collection.inverse_norm(one.length), mean)
            for chunk, one in zip(chunks, counted, strict=True)
        ]
        self.begin()
        self.upsert(points)
        if left := sorted(set(replaced) - {point.id for point in points}):
            self.engine.delete(left)
        self.count([contribution(point) for point in points], 1)

    def upsert(self, points: Sequence[Point]) -> None:
        """Send points, some hundred at a time."""
        for start in range(0, len(points), AT_ONCE):
            self.engine.upsert(points[start : start + AT_ONCE])

    def count_terms(self, chunks: Sequence[NewChunk]) -> list[Counted]:
        """Analyse chunks, and give new terms their indices."""
        counts = [Counter(self.words.of_document(chunk.contents, chunk.language)) for chunk in chunks]
        places = self.terms.place({term for terms in counts for term in terms})
        return [
            Counted(
                {places[term]: count for term, count in terms.items()},
                terms.total() - self.words.overlaps(chunk.contents),
            )
            for chunk, terms in zip(chunks, counts, strict=True)
        ]

    def count(self, parts: Sequence[Contribution], sign: int) -> None:
        """Count chunks that were added (1) or removed (-1)."""
        words: Counter[int] = Counter(index for part in parts for index in part.words)
        self.terms.count({index: sign * count for index, count in words.items()})
        for part in parts:
            self.impacts.count(part.impacts, sign)
            self.tokens.count(part.tokens, sign)
            self.state.count(part, sign, dense=self.settings.encoder.dense_dim > 0)

    def begin(self) -> None:
        """Leave a mark before the first change: who finds it knows that the counts are not those of the documents."""
        if not self._mark:
            self._mark = uuid.uuid4().hex
            self.engine.upsert([head_point(self._head._replace(state=replace(self._last, writer=self._mark)))])

    def commit(self, note: Mapping[str, str] | None = None, dense_type: str | None = None) -> None:
        """Write what is counted of all documents, and make everything durable.

        note: what `committed.note` will say. dense_type: is Qdrant's own affair.

        Raises:
            UserError: another writer changed the collection meanwhile.
        """
        changed = bool(self._mark)
        self._check_mark()
        if changed and UNFINISHED not in (note or {}) and self._drift() > LARGEST_DRIFT:
            saturate_anew(self)
        self._index_fields()
        self.upsert([*self.terms.points(), *self.impacts.points(), *self.tokens.points()])
        self.engine.flush()
        self.state.number, self.state.writer = self._last.number + 1, ""
        self.state.note = {key: value for key, value in (note or {}).items() if not (self._edited and key in OF_A_COPY)}
        self.engine.upsert([head_point(self._head._replace(state=self.state))])
        self.engine.flush()
        self._last, self._mark = copy.deepcopy(self.state), ""

    def _check_mark(self) -> None:
        head = read_head(self.engine, self.path)
        found = head.state
        if (found.number, found.writer) != (self._last.number, self._mark or self._last.writer):
            if self._mark:  # what was sent here stands there, and the other one does not count it: the next writer does
                self.engine.upsert([head_point(head._replace(state=replace(found, writer=self._mark)))])
            raise UserError(f"{self.path}: another writer changed it meanwhile; add the documents again, one at a time")

    def _drift(self) -> float:
        mean = self.state.collection(self.settings).mean_length
        least, greatest = self.state.least_mean or mean, self.state.greatest_mean or mean
        return max(mean / least, greatest / mean)

    def _index_fields(self) -> None:
        """Let filters on new fields be fast."""
        for name, kinds in self.state.fields.items():
            for kind in kinds.keys() - self._last.fields.get(name, {}).keys():
                if kind and " " not in kind:
                    self.engine.index_payload(f"{kind}.{name}", "float" if kind in (DOUBLES, MOMENTS) else "keyword")

    def compact(self, dense_type: str | None = None) -> int:
        """Commit, with BM25's vectors made with today's mean length, and let the engine rewrite itself; return 0."""
        self.begin()
        saturate_anew(self)
        self.commit(self._last.note)
        self.engine.optimize()
        return 0

    def renew_dense(self) -> None:
        """Do nothing: Qdrant builds its own indexes."""

    def close(self) -> None:
        """Let go of the collection."""
        self.engine.close()

    def __enter__(self) -> CollectionWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
