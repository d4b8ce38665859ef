"""Measure indexing: documents per second and memory, with a stub in place of the network."""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from retriever.corpus.corpus import Corpus, open_corpus
from retriever.corpus.formats import Row
from retriever.encoder.base import EncoderBase
from retriever.experiments.environment import peak_mib
from retriever.indexing.build import IndexingConfig, build_index
from retriever.types import Encoded, EncoderIdentity, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from retriever.types import FloatArray

__all__ = ["IndexingSpeed", "StubEncoder", "bench_index", "corpus_start"]


class StubEncoder(EncoderBase):
    """Random unit vectors and terms in place of a network: what is left is the cost of reading and indexing."""

    def __init__(self, dense_dim: int = 384, vocab_size: int = 30522, terms: int = 120) -> None:
        self.identity = EncoderIdentity("stub", "stub", dense_dim, vocab_size)
        self.vocabulary: Sequence[str] = [str(term) for term in range(vocab_size)]
        self._terms_per_text = terms
        self._random = np.random.default_rng(0)

    def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        """Return random views of n texts."""
        n = len(texts)
        return Encoded(self._vectors(n) if dense else None, self._terms(n) if sparse else None, np.zeros(n, np.bool_))

    encode_queries = encode_documents

    def _vectors(self, n: int) -> FloatArray:
        vectors: FloatArray = self._random.standard_normal((n, self.identity.dense_dim), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def _terms(self, n: int) -> csr_matrix:
        """Return weights of terms drawn by Zipf's law."""
        vocab = self.identity.vocab_size
        drawn = vocab ** self._random.random(n * self._terms_per_text)
        rows = np.repeat(np.arange(n), self._terms_per_text)
        ones = np.ones(len(rows), dtype=np.float32)
        weights = csr_matrix((ones, (rows, drawn.astype(np.int64))), shape=(n, vocab))
        weights.sum_duplicates()
        weights.data = self._random.random(weights.nnz, dtype=np.float32) * 3 + np.float32(0.01)
        return weights


class IndexingSpeed(NamedTuple):
    """One size of `bench_index`: peak_mib is the whole process's resident memory."""

    documents: int
    dense_type: str
    seconds: float
    documents_per_second: float
    peak_mib: float
    bytes_per_document: float


def bench_index(
    corpus: str, sizes: Sequence[int] = (10_000, 100_000), dense_type: str = "flat"
) -> Iterator[IndexingSpeed]:
    """Index growing prefixes of `corpus` with a stub encoder; a peak that does not grow is memory that stays flat.

    A training file of pairs serves as a corpus too: its positives are the passages.
    """
    if min(sizes) < 1:
        raise UserError(f"sizes {list(sizes)}: need whole numbers from 1")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            config = IndexingConfig(dense_type=dense_type)
            report = build_index(
                corpus_start(corpus, size), Path(folder) / "index", encoder=StubEncoder(), config=config
            )
        if report.documents < size:
            raise UserError(f"{corpus}: holds {report.documents} documents, need {size}; give a larger corpus")
        yield IndexingSpeed(
            size,
            dense_type,
            report.seconds,
            size / report.seconds,
            peak_mib(),
            sum(report.sizes.values()) / size,
        )


def corpus_start(spec: str, size: int) -> Corpus:
    """Return the first `size` records of a corpus, or of the positives of a file of training pairs."""

    def rows() -> Iterator[Row]:
        for number, record in enumerate(islice(source, size)):
            if record.document is not None:
                yield Row(record.source, {"_id": str(number), "text": record.document.contents}, None)

    pairs = _pairs(spec)
    source = open_corpus(spec) if pairs is None else pairs
    return Corpus(spec, rows)


def _pairs(spec: str) -> Corpus | None:
    """Return the positives of a JSONL file of {"query", "positive"}, or None if it is something else."""
    from retriever.corpus.formats import read_jsonl, suffix_of

    path = Path(spec)
    if not path.is_file() or suffix_of(path) not in (".jsonl", ".jsonl.gz"):
        return None
    first = next(iter(read_jsonl(path)), None)
    if first is None or first.fields is None or "positive" not in first.fields:
        return None

    def rows() -> Iterator[Row]:
        for number, row in enumerate(read_jsonl(path)):
            if row.fields is not None:
                yield Row(row.source, {"_id": str(number), "text": row.fields["positive"]}, None)

    return Corpus(spec, rows)
