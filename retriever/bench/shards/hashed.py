"""An encoder for measurements, which costs next to nothing; its views are of a text's words, whoever makes them."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from retriever.encoder.base import EncoderBase
from retriever.types import Encoded, EncoderIdentity

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HashedEncoder"]

WORD = re.compile(r"\w+")


class HashedEncoder(EncoderBase):
    """Each word is a term, by its CRC-32; the vector of a text is the sum of random directions of its terms.

    Unlike random views, those of a text are the same in every process, so rankings can be compared.
    """

    def __init__(self, dense_dim: int = 64, vocab_size: int = 30522) -> None:
        self.identity = EncoderIdentity("hashed", f"{dense_dim}x{vocab_size}", dense_dim, vocab_size)
        self.vocabulary: Sequence[str] = [str(term) for term in range(vocab_size)]
        random = np.random.default_rng(0)
        self._directions = random.standard_normal((vocab_size, dense_dim), dtype=np.float32)

    def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        """Return the views of n texts: weights log(1 + count) of the words; unit vectors."""
        size = self.identity.vocab_size
        counts = [Counter(_term(word, size) for word in WORD.findall(text.lower())) for text in texts]
        ends = np.cumsum([0, *map(len, counts)])
        indices = np.array([term for row in counts for term in row], np.int32)
        weights = np.log1p(np.array([count for row in counts for count in row.values()], np.float32))
        terms = csr_matrix((weights, indices, ends), shape=(len(texts), size))
        terms.sort_indices()
        vectors = terms @ self._directions if dense else None
        if vectors is not None:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-9))
        return Encoded(vectors, terms if sparse else None, np.zeros(len(texts), np.bool_))

    encode_queries = encode_documents


@lru_cache(1 << 20)
def _term(word: str, vocab_size: int) -> int:
    return zlib.crc32(word.encode()) % vocab_size
