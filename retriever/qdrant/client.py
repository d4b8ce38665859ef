"""A collection through qdrant-client: on a server, or in the client's local mode, which imitates one slowly."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from retriever.extras import extra
from retriever.qdrant.engine import ALL, AllOf, AnyOf, Between, Has, Not, Present, Record, SparseVector
from retriever.qdrant.records import payload_parts, record_of
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from retriever.qdrant.address import Address
    from retriever.qdrant.engine import Payload, Point, Question, Vector, Within

__all__ = ["KEY", "ClientEngine"]

KEY = "QDRANT_API_KEY"
"""The environment variable of the key; it is never part of an address, a message or a log."""
SECONDS = 60
"""How long one request may take."""
TRIES = 4
"""Of a request that finds no server, or a busy one; with pauses of .5, 1 and 2 seconds between."""
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
log = logging.getLogger(__name__)
T = TypeVar("T")

_locals: dict[str, _Local] = {}
_opening = threading.Lock()


class _Local:
    """A client in local mode, shared by all who have its folder open in this process, one call at a time."""

    def __init__(self, client: Any) -> None:
        self.client, self.users, self.calling = client, 0, threading.RLock()


class ClientEngine:
    """A collection on a server or in a folder, see `Engine`."""

    def __init__(self, address: Address) -> None:
        with extra("qdrant"):
            from qdrant_client import models
        self._m: Any = models
        self._address, self._name = address, address.collection
        self._local: _Local | None = None
        self._client: Any = self._open_folder() if address.folder.name else _connect(address)

    def _open_folder(self) -> Any:
        from qdrant_client import QdrantClient

        key = str(self._address.folder.resolve())
        with _opening:
            if key not in _locals:
                try:
                    client = QdrantClient(path=key, force_disable_check_same_thread=True)
                except RuntimeError:
                    raise UserError(
                        f"{self._address}: another process has it open, and a folder of the client's local mode is one "
                        "process's at a time; close it there"
                    ) from None
                _locals[key] = _Local(client)
            self._local = _locals[key]
            self._local.users += 1
        return self._local.client

    def _call(self, call: Callable[[Any], T]) -> T:
        """Make a call with the client; where no server answers, or it is busy, some times."""
        if self._local is not None:
            with self._local.calling, _one_line(self._address):
                return call(self._client)
        for pause in [0.5 * 2**i for i in range(TRIES - 1)]:
            try:
                with _one_line(self._address):
                    return call(self._client)
            except _PassingError:
                time.sleep(pause)
        with _one_line(self._address):
            return call(self._client)

    def exists(self) -> bool:
        return bool(self._call(lambda client: client.collection_exists(self._name)))

    def create(self, dense_dim: int, sparse: Sequence[str]) -> None:
        m = self._m
        dense = {"dense": m.VectorParams(size=dense_dim, distance=m.Distance.DOT)} if dense_dim else {}
        self._call(
            lambda client: client.create_collection(
                self._name,
                vectors_config=dense,
                sparse_vectors_config={name: m.SparseVectorParams() for name in sparse},
                on_disk_payload=True,
            )
        )

    def upsert(self, points: Sequence[Point]) -> None:
        made = [
            self._m.PointStruct(id=point.id, vector=self._vectors(point), payload=dict(point.payload))
            for point in points
        ]
        self._call(lambda client: client.upsert(self._name, made, wait=True))

    def _vectors(self, point: Point) -> dict[str, Any]:
        return {name: self._vector(vector) for name, vector in point.vectors.items()}

    def _vector(self, vector: Vector) -> Any:
        if isinstance(vector, SparseVector):
            return self._m.SparseVector(indices=vector.indices.tolist(), values=vector.values.tolist())
        return vector.tolist()

    def delete(self, ids: Sequence[str]) -> None:
        self._call(lambda client: client.delete(self._name, self._m.PointIdsList(points=list(ids)), wait=True))

    def ask(self, questions: Sequence[Question]) -> list[list[Record]]:
        m, requests = self._m, []
        for name, vector, limit, within, payload, with_vector, exact in questions:
            requests.append(
                m.QueryRequest(
                    query=self._vector(vector),
                    using=name,
                    limit=limit,
                    filter=self._filter(within),
                    with_payload=list(payload),
                    with_vector=[name] if with_vector else False,
                    # The local mode is always exact, and warns where it is told to be.
                    params=m.SearchParams(exact=exact) if self._local is None and name == "dense" else None,
                )
            )
        answers = self._call(lambda client: client.query_batch_points(self._name, requests))
        return [[record_of(point, point.score) for point in answer.points] for answer in answers]

    def get(self, ids: Sequence[str], payload: Payload, vectors: Sequence[str] = ()) -> dict[str, Record]:
        found = self._call(
            lambda client: client.retrieve(
                self._name, list(ids), with_payload=payload_parts(payload), with_vectors=list(vectors) or False
            )
        )
        return {record.id: record for record in map(record_of, found)}

    def scan(
        self, within: Within, payload: Payload, vectors: Sequence[str], limit: int, after: str | None
    ) -> tuple[list[Record], str | None]:
        found, following = self._call(
            lambda client: client.scroll(
                self._name,
                scroll_filter=self._filter(within),
                limit=limit,
                offset=after,
                with_payload=payload_parts(payload),
                with_vectors=list(vectors) or False,
            )
        )
        return [record_of(point) for point in found], None if following is None else str(following)

    def count(self, within: Within) -> int:
        return int(
            self._call(lambda client: client.count(self._name, count_filter=self._filter(within), exact=True)).count
        )

    def index_payload(self, key: str, kind: str) -> None:
        if self._local is None:  # there an index would have no effect but a warning
            schema = {"keyword": self._m.PayloadSchemaType.KEYWORD, "float": self._m.PayloadSchemaType.FLOAT}[kind]
            self._call(lambda client: client.create_payload_index(self._name, key, schema, wait=True))

    def flush(self) -> None:
        """Do nothing: every change was waited for."""

    def optimize(self) -> None:
        """Do nothing: a server optimises by itself."""

    def size(self) -> int:
        folder = self._address.folder
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.name else 0

    def close(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        if self._local is None:
            client.close()
            return
        with _opening:
            self._local.users -= 1
            if not self._local.users:
                client.close()
                _locals.pop(str(self._address.folder.resolve()), None)

    def _filter(self, within: Within) -> Any:
        return None if within == ALL else self._m.Filter(must=[self._conditions(within)])

    def _conditions(self, within: Within) -> Any:
        m = self._m
        match within:
            case Has(key, texts):
                return m.FieldCondition(key=key, match=m.MatchAny(any=list(texts)))
            case Between(key, low, high):
                bounds = {"gte": None if np.isinf(low) else low, "lte": None if np.isinf(high) else high}
                return m.FieldCondition(key=key, range=m.Range(**bounds))
            case Present(key):
                return m.Filter(must_not=[m.IsEmptyCondition(is_empty=m.PayloadField(key=key))])
            case Not(part):
                return m.Filter(must_not=[self._conditions(part)])
            case AllOf(parts):
                return m.Filter(must=[self._conditions(part) for part in parts])
            case AnyOf(()):
                return m.Filter(must_not=[m.Filter()])
            case AnyOf(parts):
                return m.Filter(should=[self._conditions(part) for part in parts])


def _connect(address: Address) -> Any:
    from qdrant_client import QdrantClient

    key = os.environ.get(KEY)
    if key and not (key.isascii() and key.isprintable()):
        raise UserError(f"{KEY} holds characters that no key has; set it to the key alone")
    if key and address.scheme == "qdrant" and address.host not in LOOPBACK:
        log.warning("%s: the key goes there unencrypted; write qdrants:// where the server speaks TLS", address)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says the same, of loopbacks, too
        return QdrantClient(url=address.url, api_key=key or None, timeout=SECONDS, check_compatibility=False)


class _PassingError(UserError):
    """The same request may succeed later."""


@contextmanager
def _one_line(address: Address) -> Iterator[None]:
    """Turn what the client raises into one line."""
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    try:
        yield
    except UnexpectedResponse as error:
        raise _refused(address, error.status_code or 0, error.content) from None
    except ResponseHandlingException as error:
        what = " ".join(str(error).split())[:200] or type(error.source).__name__
        raise _PassingError(
            f"{address}: no server answers there ({what}); start Qdrant, or correct the address"
        ) from None
    except AssertionError:  # the client's own, of an answer without a result
        raise UserError(f"{address}: what answers there is not Qdrant; correct the address") from None
    except ValueError as error:
        if isinstance(error, UserError) or "not found" not in str(error):
            raise
        raise _missing(address) from None  # the local mode says so


def _refused(address: Address, status: int, content: bytes) -> UserError:
    try:
        said = str(json.loads(content)["status"]["error"])
    except (ValueError, KeyError, TypeError):
        said = content.decode("utf-8", "replace")
    said = " ".join(said.split())[:200] or "no reason given"
    if status in (401, 403):
        what = "refuses the key" if os.environ.get(KEY) else "wants a key"
        return UserError(f"{address}: the server {what} (status {status}); set {KEY} to one that may do this")
    if status == 404:
        return _missing(address)
    kind = _PassingError if status in (429, 502, 503, 504) else UserError
    return kind(f"{address}: the server answered with status {status} ({said}); its log says more")


def _missing(address: Address) -> UserError:
    return UserError(f"{address}: no such collection; make one with `retriever push DIR {address}`")
