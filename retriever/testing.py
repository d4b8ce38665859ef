"""An encoder for tests: no network, no files, and views that can be foretold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from retriever.encoder.base import EncoderBase
from retriever.types import Encoded, EncoderIdentity

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SeededEncoder"]


class SeededEncoder(EncoderBase):
    """Gives each text a unit vector and `terms` term weights drawn from its bytes alone; nothing for a blank text.

    Satisfies `Encoder`. seen: the texts that it was given. limit: how many it encodes before it raises RuntimeError in
    place of the next batch, as if the run was broken off.
    """

    def __init__(
        self,
        dense_dim: int = 8,
        vocab_size: int = 50,
        terms: int = 9,
        *,
        sha256: str = "5" * 64,
        limit: int | None = None,
    ) -> None:
        self.identity = EncoderIdentity("seeded", sha256, dense_dim, vocab_size)
        self.vocabulary: Sequence[str] = [f"term{number}" for number in range(vocab_size)]
        self.seen: list[str] = []
        self._terms, self._limit = terms, limit

    def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        """Return the views of n texts.

        >>> first, second = SeededEncoder(), SeededEncoder()
        >>> bool((first.encode_documents(["a", "b"]).dense[1] == second.encode_documents(["b"]).dense[0]).all())
        True
        """
        if self._limit is not None and len(self.seen) + len(texts) > self._limit:
            raise RuntimeError("stopped")
        self.seen += texts
        vectors = np.zeros((len(texts), self.identity.dense_dim), np.float32)
        terms = np.zeros((len(texts), self.identity.vocab_size), np.float32)
        for row, text in enumerate(texts):
            if text.strip():
                random = np.random.default_rng(list(text.encode()))
                vectors[row] = random.standard_normal(self.identity.dense_dim)
                vectors[row] /= np.linalg.norm(vectors[row])
                places = random.choice(self.identity.vocab_size, self._terms, replace=False)
                terms[row, places] = random.random(self._terms) * 3 + 0.01
        return Encoded(vectors if dense else None, csr_matrix(terms) if sparse else None, np.zeros(len(texts), bool))

    encode_queries = encode_documents
