"""Vectors of texts in a file that grows at its end: each text is encoded once, and memory holds only digests."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retriever.types import FloatArray

__all__ = ["VectorStore"]

DIGEST_BYTES = 16


class VectorStore:
    """Appends vectors (float32) and gives them back by their text; about 100 bytes of memory for each text."""

    def __init__(self, path: Path, dim: int, rows: int) -> None:
        """Open `path` (and `path`.texts, which holds the digests), and forget what lies behind the first `rows`."""
        self._path, self._dim = path, dim
        self._texts_path = path.with_name(path.name + ".texts")
        for file, size in ((path, 4 * dim * rows), (self._texts_path, DIGEST_BYTES * rows)):
            file.touch()
            os.truncate(file, size)
        digests = self._texts_path.read_bytes()
        self._row_of = {digests[i * DIGEST_BYTES : (i + 1) * DIGEST_BYTES]: i for i in range(rows)}

    def __len__(self) -> int:
        return len(self._row_of)

    def missing(self, texts: Sequence[str]) -> list[str]:
        """Return the texts that have no vector, each once, in order."""
        return [text for text in dict.fromkeys(texts) if _digest(text) not in self._row_of]

    def append(self, texts: Sequence[str], vectors: FloatArray) -> None:
        """Add the vectors (n, dim) of n texts that are missing."""
        if vectors.shape != (len(texts), self._dim):
            raise ValueError(f"need vectors {(len(texts), self._dim)}, found {vectors.shape}")
        digests = [_digest(text) for text in texts]
        with self._path.open("ab") as file, self._texts_path.open("ab") as names:
            file.write(np.ascontiguousarray(vectors, dtype=np.float32).tobytes())
            names.write(b"".join(digests))
        self._row_of |= {digest: row for row, digest in enumerate(digests, start=len(self._row_of))}

    def vectors(self, texts: Sequence[str]) -> FloatArray:
        """Return the vectors (n, dim) of n texts that are there."""
        if not texts:
            return np.zeros((0, self._dim), dtype=np.float32)
        stored = np.memmap(self._path, dtype=np.float32, mode="r", shape=(len(self), self._dim))
        return np.array(stored[[self._row_of[_digest(text)] for text in texts]])

    def sync(self) -> None:
        """Make what was appended durable."""
        for path in (self._path, self._texts_path):
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:DIGEST_BYTES]
