"""Reading terms back: the matrix is the one that was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix, random_array

from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.index.postings.quantise import quantise
from retriever.types import Document, Encoded, EncoderIdentity

VOCAB = 60
SETTINGS = IndexSettings(EncoderIdentity("stub", "0" * 64, 0, VOCAB))


def test_impacts_and_tokens_of_every_row(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    weights = csr_matrix(random_array((90, VOCAB), density=0.1, rng=random, dtype=np.float32)) * np.float32(3)
    tokens = csr_matrix(random_array((90, VOCAB), density=0.05, rng=random, dtype=np.float32))
    with FolderWriter.create(tmp_path / "index", SETTINGS) as writer:
        for rows in (slice(0, 40), slice(40, 90)):  # two segments
            documents = [Document(f"d{row}", "some text") for row in range(rows.start, rows.stop)]
            writer.add(documents, Encoded(None, weights[rows], np.zeros(len(documents), np.bool_), tokens[rows]))
            writer.commit()
    with FolderReader.open(tmp_path / "index") as reader:
        impacts, found = reader.stored_terms("impact"), reader.stored_terms("token")
        assert reader.rows.doc_ids(np.arange(90)) == [f"d{row}" for row in range(90)]
    np.testing.assert_array_equal(impacts.toarray(), quantise(weights, SETTINGS.impact_scale).toarray())
    np.testing.assert_array_equal(found.toarray(), (tokens.toarray() > 0).astype(np.int32))


def test_an_index_without_terms(tmp_path: Path) -> None:
    with FolderWriter.create(tmp_path / "index", IndexSettings(EncoderIdentity("none", "", 0, 0))) as writer:
        writer.add([Document("a", "bread")], None)
        writer.commit()
    with FolderReader.open(tmp_path / "index") as reader:
        assert reader.stored_terms("impact").shape == (1, 0)
