"""The compiled search of postings: what adding up all products in float64 finds, to the last tie."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from scipy.sparse import csr_matrix

from retriever import instructions
from retriever.index.postings.blocks import BlockWriter, open_block
from retriever.index.postings.inverted import inverted
from retriever.index.postings.sparse import Postings
from retriever.search.kernels import sparse_sums
from retriever.search.kernels.sparse_sums import BLOCK_FIELDS, FEW, MANY
from retriever.search.legs import sparse_postings
from retriever.search.legs.sparse_postings import QueryTerms, StoredPostings

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

VOCAB = 60
SIZES = (3 * FEW + 5, FEW + 77)
"""Rows of two blocks, so that both ways of finding candidates are taken."""


class Reader:
    """What the search needs of an index."""

    def __init__(self, postings: Postings, rows: int) -> None:
        self.postings, self.alive = postings, np.ones(rows, bool)


def made(folder: Path, random: np.random.Generator, largest: int) -> tuple[NDArray[np.int32], StoredPostings]:
    """Write postings of terms that every row holds, or hardly one; return the impacts (rows, VOCAB), too."""
    rows = sum(SIZES)
    impacts = random.integers(1, largest, (rows, VOCAB), np.int32, endpoint=True)
    impacts[random.random((rows, VOCAB)) > np.linspace(0, 1, VOCAB) ** 3] = 0
    files = []
    for number, part in enumerate(np.split(impacts, [SIZES[0]])):
        with BlockWriter(folder / f"{number}", len(part)) as writer:
            for postings in inverted(csr_matrix(part)):
                writer.add(postings)
            writer.finish()
        files.append(open_block(folder / f"{number}", len(part)))
    reader: Any = Reader(Postings(files, [0, SIZES[0]]), rows)
    return impacts, StoredPostings(reader)


@pytest.fixture(scope="module", params=[3, 60, 255, 60_000])
def collection(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[NDArray[np.int32], StoredPostings]:
    return made(tmp_path_factory.mktemp("postings"), np.random.default_rng(1), request.param)


def test_terms_have_bitmaps_and_lists(collection: tuple[NDArray[np.int32], StoredPostings]) -> None:
    impacts, backend = collection
    for block in backend._reader.postings.blocks:  # type: ignore[union-attr]
        assert set((block.sizes & 1).tolist()) == ({0, 1} if impacts.max() <= 255 else {0})


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    terms=st.integers(1, VOCAB),
    scale=st.sampled_from([1e-6, 1, 500]),
    count=st.sampled_from([1, 3, 10, 64, 65, 200, 3000]),
    eligible=st.sampled_from([0, 0.001, 0.1, 0.5, 1]),
)
def test_the_best_rows_and_their_ties(
    collection: tuple[NDArray[np.int32], StoredPostings],
    seed: int,
    terms: int,
    scale: float,
    count: int,
    eligible: float,
) -> None:
    impacts, backend = collection
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(VOCAB, terms, replace=False)).astype(np.uint32)
    weights = random.random(terms) if seed % 2 else random.integers(1, 3, terms)  # which ties
    query = QueryTerms(chosen, (weights * scale + 1e-9).astype(np.float32))
    allowed = random.random(len(impacts)) < eligible
    products = query.weights[None] * impacts[:, chosen].astype(np.float32)
    scores = np.where(allowed, products.astype(np.float64).sum(1).astype(np.float32), 0)
    best = np.sort(scores[scores > 0])[::-1][:count]
    wanted = {} if not len(best) else {row: scores[row] for row in np.flatnonzero(scores >= best[-1]).tolist()}
    assert backend._reader.postings is not None
    found = backend.best_rows(backend._reader.postings, query, allowed, count)
    assert dict(zip(found.rows.tolist(), found.scores.tolist(), strict=True)) == wanted


def test_a_damaged_block_leads_nowhere_else(tmp_path: Path) -> None:
    """Whatever its bytes say, once the tables are whole: other scores, no crash."""
    made(tmp_path, np.random.default_rng(2), 60)
    query = QueryTerms(np.arange(VOCAB, dtype=np.uint32), np.ones(VOCAB, np.float32))
    for seed in range(40):
        random = np.random.default_rng(seed)
        blocks = []
        for number, rows in enumerate(SIZES):
            path = tmp_path / f"{number}"
            data = bytearray(path.read_bytes())
            end = len(data) - 24 - 14 * VOCAB
            for place in random.integers(0, end, 300).tolist():
                data[place] = 255 if seed % 2 else random.integers(256)
            path.with_suffix(".damaged").write_bytes(data)
            blocks.append(open_block(path.with_suffix(".damaged"), rows))
        damaged: Any = Reader(Postings(blocks, [0, SIZES[0]]), sum(SIZES))
        found = StoredPostings(damaged).best_rows(damaged.postings, query, damaged.alive, 10)
        assert len(found.rows) >= 10 and found.rows.max() < sum(SIZES)


def test_searching_knows_the_kernel_s_numbers_without_importing_it() -> None:
    assert (sparse_postings.CHOSEN, sparse_postings.SMALL, 9) == (MANY, sparse_sums.SMALL, BLOCK_FIELDS)


def test_the_sums_of_a_group_with_wide_registers_and_without() -> None:
    def as_here(sums: Any, bits: Any, impacts: Any, weight: Any) -> None:
        instructions.add_group(sums, bits, impacts, weight)

    bit_by_bit, compiled = njit(instructions._add_bits), njit(as_here)

    random = np.random.default_rng(3)
    outcomes: Counter[bool] = Counter()
    for bits in (0, 1, 1 << 63, 2**64 - 1, *random.integers(0, 2**64 - 1, 20, np.uint64).tolist()):
        impacts = random.integers(0, 256, 64).astype(np.uint8)
        weight, start = np.uint16(random.integers(0, 65_536)), random.integers(0, 1000, 64).astype(np.uint16)
        wanted, place = start.copy(), 0
        for row in range(64):
            if bits >> row & 1:
                wanted[row] += int(impacts[place]) * int(weight) // 256 % 65_536
                place += 1
        for add in (bit_by_bit, compiled):
            found = start.copy()
            add(found.ctypes.data, np.uint64(bits), impacts.ctypes.data, weight)
            outcomes[bool((found == wanted).all())] += 1
    assert set(outcomes) == {True}
