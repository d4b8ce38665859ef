"""What is asked of Qdrant, in words of our own: its client and its engine in this process each have other classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from retriever.types import FloatArray

__all__ = [
    "ALL",
    "NONE",
    "AllOf",
    "AnyOf",
    "Between",
    "Engine",
    "Has",
    "Not",
    "Payload",
    "Point",
    "Present",
    "Question",
    "Record",
    "SparseVector",
    "Vector",
    "Within",
]


class SparseVector(NamedTuple):
    """Indices, uint32 (n,), each once, and their values, float32 (n,)."""

    indices: NDArray[np.uint32]
    values: NDArray[np.float32]


Vector: TypeAlias = "SparseVector | FloatArray"
"""A sparse vector, or float32 (dim,)."""


class Has(NamedTuple):
    """A list of texts in the payload holds one of these."""

    key: str
    texts: tuple[str, ...]


class Between(NamedTuple):
    """A list of numbers in the payload holds one from `low` to `high`, both included; infinite ends are open."""

    key: str
    low: float
    high: float


class Present(NamedTuple):
    """The payload has a value there."""

    key: str


class Not(NamedTuple):
    """The condition does not hold."""

    part: Within


class AllOf(NamedTuple):
    """All of the conditions hold."""

    parts: tuple[Within, ...]


class AnyOf(NamedTuple):
    """One of the conditions holds."""

    parts: tuple[Within, ...]


Within: TypeAlias = "Has | Between | Present | Not | AllOf | AnyOf"
ALL, NONE = AllOf(()), AnyOf(())
Payload: TypeAlias = "Sequence[str] | None"
"""Parts of the payload to return, None for all of it."""


class Point(NamedTuple):
    """What is stored under one id, a UUID: any JSON, and vectors by their names."""

    id: str
    payload: Mapping[str, Any]
    vectors: Mapping[str, Vector]


class Question(NamedTuple):
    """A search: the best `limit` points by the inner product with the vectors of this name.

    within: only points that satisfy it. payload: the parts of the payload to return. with_vector: return the vectors of
    this name, too. exact: score all points, where the vectors are dense.
    """

    name: str
    vector: Vector
    limit: int
    within: Within = ALL
    payload: Sequence[str] = ()
    with_vector: bool = False
    exact: bool = True


class Record(NamedTuple):
    """A stored point, with the parts that were asked for, and its score in a search."""

    id: str
    payload: Mapping[str, Any]
    vectors: Mapping[str, Vector]
    score: float = 0.0


class Engine(Protocol):
    """One collection. Every call may raise UserError: no server, one that refuses, no such collection."""

    def exists(self) -> bool:
        """Say whether the collection is there."""
        ...

    def create(self, dense_dim: int, sparse: Sequence[str]) -> None:
        """Make the collection: vectors "dense" of this size, none for 0, and these sparse ones."""
        ...

    def upsert(self, points: Sequence[Point]) -> None:
        """Add points, or replace those with their ids."""
        ...

    def delete(self, ids: Sequence[str]) -> None:
        """Delete points."""
        ...

    def ask(self, questions: Sequence[Question]) -> list[list[Record]]:
        """Answer several questions in one round; hits with equal scores come in any order."""
        ...

    def get(self, ids: Sequence[str], payload: Payload, vectors: Sequence[str] = ()) -> dict[str, Record]:
        """Return points by id, those that are there."""
        ...

    def scan(
        self, within: Within, payload: Payload, vectors: Sequence[str], limit: int, after: str | None
    ) -> tuple[list[Record], str | None]:
        """Return a page of points by ascending id, and where the next page begins, None behind the last one."""
        ...

    def count(self, within: Within) -> int:
        """Return exactly how many points satisfy a condition."""
        ...

    def index_payload(self, key: str, kind: str) -> None:
        """Let conditions on a part of the payload be fast; kind: "keyword" or "float"."""
        ...

    def flush(self) -> None:
        """Make everything durable."""
        ...

    def optimize(self) -> None:
        """Rewrite the collection for searching, where that is ours to ask for."""
        ...

    def size(self) -> int:
        """Return the bytes on disk, 0 where they are not known."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...
