"""Collections of any size from a small index: its real encodings over and over, each time a little different."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from retriever.index.reader import FolderReader
from retriever.types import Document, Encoded, EncoderIdentity, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retriever.types import FloatArray

__all__ = ["PerturbedBatch", "Sample", "perturbed", "read_sample", "repeated", "with_noise"]

DROPPED = 0.2
"""Share of the words, terms and tokens that a copy of a document lacks."""
NOISE = 0.5
"""Length of the noise that is added to a unit vector: a copy has a cosine of 0.9 with it."""
JITTER = 0.2
"""Standard deviation of the logarithm of what a term weight is multiplied with."""


class Sample(NamedTuple):
    """The documents of an index as they were encoded.

    texts: title and text. vectors (n, dim), weights and tokens (n, vocab_size): as in `Encoded`.
    """

    identity: EncoderIdentity
    texts: list[str]
    vectors: FloatArray
    weights: csr_matrix
    tokens: csr_matrix


class PerturbedBatch(NamedTuple):
    """Documents and what an encoder would have said of them."""

    documents: list[Document]
    encoded: Encoded


def read_sample(path: Path) -> Sample:
    """Read the documents of an index that has all legs; raise UserError for another one."""
    with FolderReader.open(path) as reader:
        if not (reader.has_sparse and reader.has_dense):
            raise UserError(f"{path}: has not all legs; give an index that was built with an encoder of both views")
        all_rows = np.arange(reader.commit_data.mark.rows)
        ids = reader.rows.doc_ids(all_rows)
        documents = reader.documents(ids)
        kept = np.array([row for row in all_rows if ids[row] in documents and documents[ids[row]].contents], np.int64)
        if not len(kept):
            raise UserError(f"{path}: has no documents with text; give an index that has some")
        assert reader.rows.vectors is not None
        vectors = np.asarray(reader.rows.vectors[kept], np.float32)
        weights = reader.stored_terms("impact")[kept].astype(np.float32)
        weights.data /= np.float32(reader.settings.impact_scale)
        texts = [documents[ids[row]].contents for row in kept]
        return Sample(reader.settings.encoder, texts, vectors, weights, reader.stored_terms("token")[kept])


def repeated(sample: Sample, size: int, batch: int = 256) -> Iterator[PerturbedBatch]:
    """Return `size` documents, in batches: the first of the sample as they are; copies with noise if it has fewer."""
    if size > len(sample.texts):
        yield from perturbed(sample, size, batch)
        return
    for start in range(0, size, batch):
        rows = slice(start, min(start + batch, size))
        documents = [Document(f"{number:08d}", text) for number, text in enumerate(sample.texts[rows], start)]
        truncated = np.zeros(len(documents), np.bool_)
        yield PerturbedBatch(
            documents, Encoded(sample.vectors[rows], sample.weights[rows], truncated, sample.tokens[rows])
        )


def perturbed(sample: Sample, size: int, batch: int = 256, seed: int = 0) -> Iterator[PerturbedBatch]:
    """Return `size` documents, in batches: the whole sample in ever new order, each copy with noise of its own."""
    random = np.random.default_rng(seed)
    order = np.empty(0, np.int64)
    for start in range(0, size, batch):
        count = min(batch, size - start)
        while len(order) < count:
            order = np.concatenate([order, random.permutation(len(sample.texts))])
        rows, order = order[:count], order[count:]
        documents = [
            Document(f"{number:08d}", _shortened(sample.texts[row], random)) for number, row in enumerate(rows, start)
        ]
        vectors = with_noise(sample.vectors[rows], random)
        weights = _thinned(sample.weights[rows], random)
        weights.data *= np.exp(np.float32(JITTER) * random.standard_normal(weights.nnz, dtype=np.float32))
        tokens = _thinned(sample.tokens[rows], random)
        yield PerturbedBatch(documents, Encoded(vectors, weights, np.zeros(count, np.bool_), tokens))


def with_noise(vectors: FloatArray, random: np.random.Generator) -> FloatArray:
    """Return a near copy of each unit vector (n, dim), of unit length, too."""
    noise = random.standard_normal(vectors.shape, dtype=np.float32) * np.float32(NOISE / np.sqrt(vectors.shape[1]))
    copies: FloatArray = vectors + noise
    copies /= np.linalg.norm(copies, axis=1, keepdims=True)
    return copies


def _shortened(text: str, random: np.random.Generator) -> str:
    words = np.array(text.split(), object)
    return " ".join(words[random.random(len(words), np.float32) >= DROPPED])


def _thinned(matrix: csr_matrix, random: np.random.Generator) -> csr_matrix:
    matrix.data[random.random(matrix.nnz, dtype=np.float32) < DROPPED] = 0
    matrix.eliminate_zeros()
    return matrix
