"""What the client and the engine in this process return, which has one shape, in words of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.qdrant.engine import Record, SparseVector

if TYPE_CHECKING:
    from retriever.qdrant.engine import Payload, Vector

__all__ = ["payload_parts", "record_of"]


def payload_parts(payload: Payload) -> list[str] | bool:
    """Return how Qdrant is asked for these parts of the payload, None for all of it."""
    return True if payload is None else list(payload)


def record_of(point: Any, score: float = 0.0) -> Record:
    """Return a point of Qdrant's as a record."""
    vectors = {name: _vector(vector) for name, vector in (point.vector or {}).items()}
    return Record(str(point.id), point.payload or {}, vectors, score)


def _vector(vector: Any) -> Vector:
    if isinstance(vector, list):
        return np.array(vector, np.float32)
    return SparseVector(np.array(vector.indices, np.uint32), np.array(vector.values, np.float32))
