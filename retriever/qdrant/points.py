"""How documents stand in a collection: one point for each chunk, which holds all that is known of it.

Payload of a chunk:
  id, chunk, chunks   of the document; the number of the chunk, from 0; how many chunks there are
  raw                 the stored JSON of the whole document, in its first chunk alone
  words, length       how many terms BM25 reads; its length for BM25, in which terms at one place count once
  mean                the mean length that its vector was made with, see `bm25`
  tokens              vocabulary ids of the text's own tokens, for their document frequencies
  flags, language     as the rows of a folder have them; "" where all are read alike
  late                vectors of the tokens, as a folder has them in its rows, in base64; where the index has them
  crc                 CRC-32 of raw, vectors and length
  s, d, b, t, x       metadata by the kinds of `index.lucene.metadata`, then by field: lists of texts, numbers, "true"
                      and "false", seconds of moments, integers as texts. Names of fields are written by `payload_name`
Vectors: "dense"; "sparse", the impacts; "bm25", the saturated counts. A chunk that has nothing for a leg has no vector.
"""

from __future__ import annotations

import re
import uuid
import zlib
from base64 import b64decode, b64encode
from collections import defaultdict
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever.index.lucene.metadata import BOOLEANS, DOUBLES, INTEGERS, MOMENTS, TEXT, indexed_metadata
from retriever.qdrant.bm25 import saturated
from retriever.qdrant.engine import Point, Present, SparseVector

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from retriever.types import FloatArray, MetadataValue

__all__ = [
    "CHUNKS",
    "KINDS",
    "Counted",
    "NewChunk",
    "chunk_id",
    "content_crc",
    "filter_values",
    "payload_name",
    "point_id",
    "point_of",
    "token_bytes",
]

KINDS = (TEXT, DOUBLES, BOOLEANS, MOMENTS, INTEGERS)
"""Under these names the payload holds the values that filters compare."""
CHUNKS = Present("id")
"""What tells the points of chunks from those of statistics."""


class NewChunk(NamedTuple):
    """A chunk to store.

    number: from 0, and of: how many chunks its document has. raw: the stored JSON, "" for all but the first chunk.
    contents: what BM25 reads. impacts: of vocabulary ids. dense: None for a text without a vector. tokens: vocabulary
    ids. values: of the metadata, as `filter_values` gives them. late: the vectors of its tokens, as they are stored.
    """

    doc_id: str
    number: int
    of: int
    raw: str
    contents: str
    impacts: SparseVector
    dense: FloatArray | None
    tokens: NDArray[np.int32]
    flags: int
    language: str
    values: Mapping[str, Mapping[str, list[Any]]]
    late: bytes = b""


class Counted(NamedTuple):
    """The analysed terms of a chunk: how often each stands in it, by index; its length for BM25."""

    counts: Mapping[int, int]
    length: int


def point_id(kind: str, name: str) -> str:
    """Return the id of a point: the same wherever and whenever it is written."""
    digest = blake2b(f"{kind}\0{name}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return str(uuid.UUID(bytes=digest))


def chunk_id(doc_id: str, number: int) -> str:
    """Return the id of the point of a chunk."""
    return point_id(f"chunk {number}", doc_id)


def payload_name(field: str) -> str:
    """Return a field's name as a path in the payload may hold it.

    >>> payload_name("year_2"), payload_name("a.b-c")
    ('year_2', 'a-2e-b-2d-c')
    """
    return re.sub(r"[^A-Za-z0-9_]", lambda sign: f"-{ord(sign[0]):x}-", field) or "--"


def field_name(name: str) -> str:
    """Return the field that a name in the payload stands for.

    >>> field_name(payload_name("a.b-c"))
    'a.b-c'
    """
    return "" if name == "--" else re.sub(r"-([0-9a-f]+)-", lambda sign: chr(int(sign[1], 16)), name)


def filter_values(metadata: Mapping[str, MetadataValue]) -> dict[str, dict[str, list[Any]]]:
    """Return the metadata that filters compare, by kind and by name in the payload."""
    values: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for name, value in indexed_metadata(metadata):
        kind, _, field = name.partition(".")
        values[kind][payload_name(field)].append(value[0] if isinstance(value, tuple) else value)
    return {kind: dict(fields) for kind, fields in values.items()}


def sparse_vector(values: Mapping[int, float]) -> SparseVector:
    """Return values by index as a vector, indices ascending."""
    indices = sorted(values)
    return SparseVector(np.array(indices, np.uint32), np.array([values[index] for index in indices], np.float32))


def point_of(chunk: NewChunk, counted: Counted, inverse_norm: np.float32, mean_length: float) -> Point:
    """Return the point of a chunk, its counts saturated by this inverse norm, which this mean length gives."""
    counts = sparse_vector(counted.counts)
    vectors: dict[str, Any] = {}
    if len(counts.indices):
        vectors["bm25"] = counts._replace(values=saturated(counts.values, inverse_norm))
    if len(chunk.impacts.indices):
        vectors["sparse"] = chunk.impacts
    if chunk.dense is not None:
        vectors["dense"] = chunk.dense
    payload = {
        "id": chunk.doc_id,
        "chunk": chunk.number,
        "chunks": chunk.of,
        "words": sum(counted.counts.values()),
        "length": counted.length,
        "mean": mean_length,
        "tokens": chunk.tokens.tolist(),
        "flags": chunk.flags,
        "language": chunk.language,
        "crc": content_crc(chunk.raw, counted.length, counts.indices, chunk.impacts, chunk.dense, chunk.late),
        **chunk.values,
    }
    if chunk.number == 0:
        payload["raw"] = chunk.raw
    if chunk.late:
        payload["late"] = b64encode(chunk.late).decode()
    return Point(chunk_id(chunk.doc_id, chunk.number), payload, vectors)


def token_bytes(payload: Mapping[str, Any]) -> bytes:
    """Return the vectors of the tokens of a chunk, as they are stored; nothing where it has none."""
    return b64decode(payload.get("late", ""))


def content_crc(
    raw: str, length: int, words: NDArray[np.uint32], impacts: SparseVector, dense: FloatArray | None, late: bytes
) -> int:
    """Return the CRC-32 of what is stored of a chunk, but for what changes with the collection."""
    parts: Iterable[bytes] = (
        raw.encode(),
        length.to_bytes(8, "little"),
        words.astype("<u4").tobytes(),
        impacts.indices.astype("<u4").tobytes(),
        impacts.values.astype("<f4").tobytes(),
        b"" if dense is None else dense.astype("<f4").tobytes(),
        late,
    )
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc
