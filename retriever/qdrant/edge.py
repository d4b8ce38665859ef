"""Qdrant's engine in this process: qdrant-edge-py, one folder a collection, open in one process at a time."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.extras import extra
from retriever.processes import refuse_fork
from retriever.qdrant.engine import ALL, AllOf, AnyOf, Between, Has, Not, Present, Record, SparseVector
from retriever.qdrant.records import payload_parts, record_of
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from retriever.qdrant.address import Address
    from retriever.qdrant.engine import Payload, Point, Question, Vector, Within

__all__ = ["EdgeEngine"]

NAMES = ("id", "chunk")
"""The parts of the payload that say which chunk a point is. Its own id is made of them, so they never change."""
NAMES_KEPT = 1 << 17
_shards: dict[str, _Shard] = {}
_opening = threading.Lock()


class _Shard:
    """The engine of one folder, shared by all who have it open in this process."""

    def __init__(self, shard: Any) -> None:
        self.shard, self.users = shard, 0
        self.writing = threading.Lock()
        self.names: dict[str, Mapping[str, Any]] = {}


@contextmanager
def _named(address: Address) -> Iterator[None]:
    """Turn what the engine raises into one line; its panics are no Exceptions."""
    try:
        yield
    except (UserError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        said = " ".join(str(error).split()).removeprefix("Service runtime error: ")
        if "WouldBlock" in said:
            raise UserError(
                f"{address}: another process has it open, and an edge collection is one process's at a time; close it "
                "there, or search it by `retriever serve`"
            ) from None
        raise UserError(f"{address}: Qdrant Edge failed ({said[:300]}); see that the folder is whole") from error


class EdgeEngine:
    """A collection in a folder, see `Engine`."""

    def __init__(self, address: Address) -> None:
        with extra("qdrant-edge"):
            import qdrant_edge
        self._q: Any = qdrant_edge
        self._address, self._shard = address, None
        self._process = os.getpid()

    def exists(self) -> bool:
        return (self._address.folder / "edge_config.json").is_file()

    def create(self, dense_dim: int, sparse: Sequence[str]) -> None:
        q, folder = self._q, self._address.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self._address}: cannot be made ({error.strerror}); give another folder") from None
        if any(folder.iterdir()):
            raise UserError(f"{self._address}: the folder is not empty; give a new one, or remove it")
        dense = {"dense": q.EdgeVectorParams(size=dense_dim, distance=q.Distance.Dot)} if dense_dim else None
        config = q.EdgeConfig(vectors=dense, sparse_vectors={name: q.EdgeSparseVectorParams() for name in sparse})
        with _opening, _named(self._address):
            self._use(_Shard(q.EdgeShard.create(str(folder), config)))

    def _use(self, found: _Shard) -> _Shard:
        _shards[str(self._address.folder.resolve())] = self._shard = found  # type: ignore[assignment]
        found.users += 1
        return found

    def _open(self) -> _Shard:
        refuse_fork(self._process, "this index was opened")
        shard: _Shard | None = self._shard
        if shard is not None:
            return shard
        if not self.exists():
            raise UserError(f"{self._address}: no such collection; make one with `retriever push DIR {self._address}`")
        with _opening, _named(self._address):
            found = _shards.get(str(self._address.folder.resolve()))
            return self._use(found or _Shard(self._q.EdgeShard.load(str(self._address.folder))))

    def _update(self, operation: Any) -> None:
        shard = self._open()
        with shard.writing, _named(self._address):
            shard.shard.update(operation)

    def upsert(self, points: Sequence[Point]) -> None:
        made = [self._q.Point(point.id, self._vectors(point), dict(point.payload)) for point in points]
        self._update(self._q.UpdateOperation.upsert_points(made))

    def _vectors(self, point: Point) -> dict[str, Any]:
        return {name: self._vector(vector) for name, vector in point.vectors.items()}

    def _vector(self, vector: Vector) -> Any:
        if not isinstance(vector, SparseVector):
            return vector.tolist()
        # Unequal lengths end in a panic that the write-ahead log repeats at every start.
        assert vector.indices.shape == vector.values.shape
        return self._q.SparseVector(vector.indices.tolist(), vector.values.tolist())

    def delete(self, ids: Sequence[str]) -> None:
        self._update(self._q.UpdateOperation.delete_points(list(ids)))

    def ask(self, questions: Sequence[Question]) -> list[list[Record]]:
        """Search. Reading a payload takes the engine longer than finding the point: names are remembered."""
        named = [
            question._replace(payload=()) if tuple(question.payload) == NAMES else question for question in questions
        ]
        answers = self._ask(named)
        names = self._names(
            hit.id
            for own, asked, answer in zip(named, questions, answers, strict=True)
            if own is not asked
            for hit in answer
        )
        if names is None:  # a point was deleted meanwhile
            return self._ask(questions)
        return [
            answer if own is asked else [hit._replace(payload=names[hit.id]) for hit in answer]
            for own, asked, answer in zip(named, questions, answers, strict=True)
        ]

    def _names(self, ids: Iterable[str]) -> Mapping[str, Mapping[str, Any]] | None:
        """Return which chunks these points are, None if one is not there any more."""
        shard, wanted = self._open(), set(ids)
        known = {own: name for own in wanted if (name := shard.names.get(own)) is not None}
        unknown = list(wanted - known.keys())
        found = {own: record.payload for own, record in (self.get(unknown, NAMES) if unknown else {}).items()}
        if len(shard.names) + len(found) > NAMES_KEPT:
            shard.names = {}
        shard.names.update(found)
        return None if len(found) < len(unknown) else known | found

    def _ask(self, questions: Sequence[Question]) -> list[list[Record]]:
        q, requests = self._q, []
        for name, vector, limit, within, payload, with_vector, exact in questions:
            requests.append(
                q.QueryRequest(
                    limit=limit,
                    query=q.Query.Nearest(self._vector(vector), using=name),
                    filter=self._filter(within),
                    with_payload=list(payload) or False,
                    with_vector=[name] if with_vector else False,
                    params=q.SearchParams(exact=exact),
                )
            )
        shard = self._open()
        with _named(self._address):
            answers = shard.shard.query_batch(q.QueryBatchRequest(requests))
        return [[record_of(point, point.score) for point in answer] for answer in answers]

    def get(self, ids: Sequence[str], payload: Payload, vectors: Sequence[str] = ()) -> dict[str, Record]:
        shard = self._open()
        with _named(self._address):
            found = shard.shard.retrieve(
                list(ids), with_payload=payload_parts(payload), with_vector=list(vectors) or False
            )
        return {record.id: record for record in map(record_of, found)}

    def scan(
        self, within: Within, payload: Payload, vectors: Sequence[str], limit: int, after: str | None
    ) -> tuple[list[Record], str | None]:
        request = self._q.ScrollRequest(
            limit=limit,
            filter=self._filter(within),
            offset=after,
            with_payload=payload_parts(payload),
            with_vector=list(vectors) or False,
        )
        shard = self._open()
        with _named(self._address):
            found, following = shard.shard.scroll(request)
        return [record_of(point) for point in found], None if following is None else str(following)

    def count(self, within: Within) -> int:
        shard = self._open()
        with _named(self._address):
            return int(shard.shard.count(self._q.CountRequest(filter=self._filter(within), exact=True)))

    def index_payload(self, key: str, kind: str) -> None:
        types = self._q.PayloadSchemaType
        schema = {"keyword": types.Keyword, "float": types.Float}[kind]
        self._update(self._q.UpdateOperation.create_field_index(key, schema))

    def flush(self) -> None:
        shard = self._open()
        with shard.writing, _named(self._address):
            shard.shard.flush()

    def optimize(self) -> None:
        shard = self._open()
        with shard.writing, _named(self._address):
            shard.shard.optimize()

    def size(self) -> int:
        # What the files take: the engine makes them larger than what is in them.
        return sum(512 * file.stat().st_blocks for file in self._address.folder.rglob("*") if file.is_file())

    def close(self) -> None:
        shard: _Shard | None = self._shard
        if shard is None or self._process != os.getpid():
            return
        self._shard = None
        with _opening:
            shard.users -= 1
            if not shard.users:
                with _named(self._address):
                    shard.shard.close()
                _shards.pop(str(self._address.folder.resolve()), None)

    def _filter(self, within: Within) -> Any:
        return None if within == ALL else self._q.Filter(must=[self._conditions(within)])

    def _conditions(self, within: Within) -> Any:
        q = self._q
        match within:
            case Has(key, texts):
                return q.FieldCondition(key=key, match=q.MatchAny(list(texts)))
            case Between(key, low, high):
                bounds = {"gte": None if np.isinf(low) else low, "lte": None if np.isinf(high) else high}
                return q.FieldCondition(key=key, range=q.RangeFloat(**bounds))
            case Present(key):
                return q.Filter(must_not=[q.IsEmptyCondition(key)])
            case Not(part):
                return q.Filter(must_not=[self._conditions(part)])
            case AllOf(parts):
                return q.Filter(must=[self._conditions(part) for part in parts])
            case AnyOf(()):
                return q.Filter(must_not=[q.Filter()])
            case AnyOf(parts):
                return q.Filter(should=[self._conditions(part) for part in parts])
