"""What only queries need: the table and the cut against loops, the file, and an encoder that has one."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from retriever.encoder.moe.encoder import MoEEncoder
from retriever.encoder.vocabulary.query_terms import QueryTerms, heaviest, read_query_terms, write_query_terms
from retriever.types import UserError

if TYPE_CHECKING:
    from pathlib import Path

VOCABULARY = 12


def rows_of(matrix: csr_matrix) -> list[dict[int, float]]:
    return [dict(zip(row.indices.tolist(), row.data.tolist(), strict=True)) for row in matrix]


@st.composite
def tables(draw: st.DrawFn) -> QueryTerms:
    k = draw(st.integers(0, 3))
    rows = [draw(st.lists(st.integers(0, VOCABULARY - 1), max_size=k, unique=True)) for _ in range(VOCABULARY)]
    terms = np.array([row + [-1] * (k - len(row)) for row in rows], np.int16).reshape(VOCABULARY, k)
    weights = draw(st.lists(st.integers(0, 255), min_size=VOCABULARY * k, max_size=VOCABULARY * k))
    values = np.array(weights, np.float32).reshape(VOCABULARY, k) / 64
    return QueryTerms(terms, np.where(terms < 0, 0, values).astype(np.float32), draw(st.integers(0, 9)))


queries = st.lists(st.dictionaries(st.integers(0, VOCABULARY - 1), st.integers(1, 3)), min_size=1, max_size=4)


def matrix_of(rows: list[dict[int, int]]) -> csr_matrix:
    found = np.zeros((len(rows), VOCABULARY), np.float32)
    for into, row in zip(found, rows, strict=True):
        into[list(row)] = list(row.values())
    return csr_matrix(found)


@given(tables(), queries)
def test_a_query_gets_the_largest_weight_of_its_words(table: QueryTerms, rows: list[dict[int, int]]) -> None:
    expected: list[dict[int, float]] = []
    for row in rows:
        best: dict[int, float] = {}
        for word in row:
            for term, weight in zip(table.terms[word].tolist(), table.weights[word].tolist(), strict=True):
                if term >= 0:
                    best[term] = max(best.get(term, 0.0), weight)
        expected.append(best)
    found = table.expansions(matrix_of(rows))
    assert found.dtype == np.float32 and found.has_sorted_indices
    assert rows_of(found) == expected


@given(queries, st.integers(0, 5))
def test_the_heaviest_terms_are_left(rows: list[dict[int, int]], most: int) -> None:
    expected = [dict(sorted(sorted(row.items(), key=lambda pair: (-pair[1], pair[0]))[: most or None])) for row in rows]
    assert rows_of(heaviest(matrix_of(rows), most)) == expected


def test_the_file(tmp_path: Path) -> None:
    """Terms come back whole, weights to half a step of 255; whatever else the file is, the error is one line."""
    terms = np.array([[1, -1], [0, 2], [-1, -1]])
    weights = np.array([[0.5, 0], [0.2, 1.7], [0, 0]], np.float32)
    assert read_query_terms(tmp_path, 3) is None
    path = write_query_terms(QueryTerms(terms, weights, 20), tmp_path)
    found = read_query_terms(tmp_path, 3)
    assert found is not None and found.most == 20
    np.testing.assert_array_equal(found.terms, terms)
    np.testing.assert_allclose(found.weights, weights, atol=1.7 / 510)
    with pytest.raises(UserError, match="vocabulary of 2 terms"):
        read_query_terms(tmp_path, 2)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match="damaged file"):
        read_query_terms(tmp_path, 3)


def test_an_encoder_with_a_table(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    """Lexical queries are expanded, encoded ones cut; documents, and what an index remembers, are the same."""
    plain = MoEEncoder(tiny_encoder_folder)
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder_folder, folder)
    size = len(plain.vocabulary)
    text = " ".join(term for term in plain.vocabulary if term.isalpha() and len(term) > 2)
    word = int(plain.lexicon.counts(plain.lexicon.token_ids([text])).indices[0])
    other = (word + 1) % size
    terms = np.full((size, 1), -1)
    terms[word] = other
    write_query_terms(QueryTerms(terms, np.ones((size, 1), np.float32), 3), folder)
    made = MoEEncoder(folder)
    assert made.identity.sha256 == plain.identity.sha256

    class Statistics:
        documents = 10

        def document_frequency(self, terms: np.ndarray) -> np.ndarray:
            return np.ones(len(terms), np.int64)

    views = {}
    for name, encoder in (("plain", plain), ("made", made)):
        for mode in ("lexical", "encoder"):
            found = encoder.with_query_mode(mode)
            sparse = found.encode_queries([text], dense=False).sparse
            assert sparse is not None
            views[name, mode] = found.adapt(sparse, Statistics()).toarray()[0]
    added = views["made", "lexical"] - views["plain", "lexical"]
    assert np.flatnonzero(added).tolist() == [other] and added[other] > 0
    before, after = views["plain", "encoder"], views["made", "encoder"]
    assert np.count_nonzero(before) > 3 == np.count_nonzero(after)
    np.testing.assert_array_equal(after[after > 0], before[after > 0])
    assert after[after > 0].min() >= np.sort(before)[-3]
