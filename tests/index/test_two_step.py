"""Two-step search: exact scores for what the strongest terms find, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix, random_array

from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.index.postings.quantise import quantise, strongest
from retriever.types import Document, Encoded, EncoderIdentity

ROWS, VOCAB = 400, 60
SETTINGS = IndexSettings(EncoderIdentity("stub", "0" * 64, 0, VOCAB))


@pytest.fixture(scope="module")
def weights() -> csr_matrix:
    drawn = random_array((ROWS, VOCAB), density=0.2, rng=np.random.default_rng(3), dtype=np.float32)
    return csr_matrix(quantise(csr_matrix(drawn) * np.float32(3), 100) / 100)


@pytest.fixture(scope="module")
def folder(weights: csr_matrix, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("two-step") / "index"
    with FolderWriter.create(path, SETTINGS) as writer:
        for rows in (slice(0, 150), slice(150, ROWS)):  # two segments
            numbers = range(rows.start, rows.stop)
            documents = [Document(f"d{row}", "text", metadata={"even": row % 2}) for row in numbers]
            writer.add(documents, Encoded(None, weights[rows], np.zeros(len(documents), np.bool_)))
            writer.commit()
        writer.delete(["d7", "d8"])
        writer.commit()
    return path


def query(terms: dict[int, float]) -> csr_matrix:
    places = np.zeros(len(terms), np.int64), np.array(list(terms))
    return csr_matrix((np.array(list(terms.values()), np.float32), places), shape=(1, VOCAB))


def expected(weights: csr_matrix, terms: csr_matrix, first_terms: int, top_k: int) -> list[str]:
    """Rank by all terms among the best by the first ones, by definition."""
    dense = weights.toarray().astype(np.float64)
    dense[[7, 8]] = 0
    part = strongest(terms, first_terms)
    by_part, by_all = dense @ part.toarray()[0], dense @ terms.toarray()[0]
    pool = sorted(np.flatnonzero(by_part > 0), key=lambda row: (-by_part[row], row))[: 2 * top_k + 100]
    return [f"d{row}" for row in sorted(pool, key=lambda row: (-by_all[row], f"d{row}"))[:top_k]]


@pytest.mark.parametrize("first_terms", [1, 2, 4])
@pytest.mark.parametrize("top_k", [1, 10, 300])
def test_the_candidates_of_the_first_terms_are_ranked_by_all(
    folder: Path, weights: csr_matrix, first_terms: int, top_k: int
) -> None:
    terms = query({3: 0.31, 11: 2.03, 20: 1.17, 41: 0.72, 50: 1.93})
    with FolderReader.open(folder) as reader:
        found = reader.sparse(terms, top_k, first_terms=first_terms)
        exact = {hit.doc_id: hit.score for hit in reader.sparse(terms, ROWS)}
    assert [hit.doc_id for hit in found] == expected(weights, terms, first_terms, top_k)
    assert [hit.score for hit in found] == pytest.approx([exact[hit.doc_id] for hit in found], rel=1e-6)


def test_as_many_terms_as_the_query_has_are_exact(folder: Path) -> None:
    terms = query({3: 0.31, 11: 2.03})
    with FolderReader.open(folder) as reader:
        assert reader.sparse(terms, 20, first_terms=2) == reader.sparse(terms, 20)


def test_a_filter_holds_before_the_candidates_are_chosen(folder: Path) -> None:
    terms = query({3: 0.31, 11: 2.03, 20: 1.17})
    with FolderReader.open(folder) as reader:
        found = reader.sparse(terms, 300, reader.select("even = 1"), first_terms=1)
    assert found
    assert all(int(hit.doc_id[1:]) % 2 for hit in found)
