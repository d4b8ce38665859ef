"""Search over vectors: FAISS proposes rows, their exact scores decide.

Every type returns exact inner products with the stored rows, ordered by (score descending, doc_id ascending) before the
cut; types differ only in which rows they propose: "flat" all of them. The FAISS file is derived from the rows and may
be older than they are: rows that it does not cover are searched exactly.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever.index.background_check import BackgroundCheck, Expected
from retriever.index.files import COMPACT, VERIFY, checksum, damaged, named_in, sync_path
from retriever.index.vectors.faiss_types import FAISS_TYPES
from retriever.index.vectors.scan import Scan, scannable
from retriever.lazy import lazy
from retriever.ranking import RowRanking
from retriever.types import Ranking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from retriever.index.vectors.row_formats import StoredVectors
    from retriever.index.vectors.rows import RowReader
    from retriever.types import BoolArray, FloatArray

    Rows = NDArray[np.int64]

__all__ = ["DenseSearcher", "build", "load_faiss"]

BLOCK = 16_384
"""Rows that FAISS is given at a time."""
SCAN_BLOCK = 2_048
"""Rows scored at a time: decoded, they stay in the processor's cache."""
SCAN_BELOW = 4_096
"""With so few rows to choose from, scoring all of them beats a search that skips most of what it visits."""
SAMPLE = 65_536
"""Rows that FAISS is trained on."""
SPARE = 32
"""Candidates beyond those for each hit."""
ROWS_PER_VISIT = 200
"""Where there are no more rows for each candidate that a graph keeps, a compiled scan of all of them is faster."""


def load_faiss() -> Any:
    """Import FAISS."""
    import faiss

    return faiss  # its stubs lack half of what it has


def build(path: Path, kind: str, rows: RowReader, live: BoolArray) -> int:
    """Write the FAISS index of all rows, read in blocks, to `path`; return its CRC-32.

    live: bool (n,); only these rows are trained on, all are added, so that positions are row numbers.
    """
    faiss = load_faiss()
    vectors = rows.vectors
    assert vectors is not None
    candidates = np.flatnonzero(live)
    if not len(candidates):
        candidates = np.arange(len(vectors))
    stride = -(-len(candidates) // SAMPLE)
    sample = vectors[candidates[::stride]]
    lists = max(1, min(round(4 * np.sqrt(len(vectors))), len(sample) // 39))
    factory = FAISS_TYPES[kind].factory.format(lists=lists)
    index = faiss.index_factory(vectors.dim, factory, faiss.METRIC_INNER_PRODUCT)
    FAISS_TYPES[kind].prepare(index)
    index.train(sample)
    for start in range(0, len(vectors), BLOCK):
        index.add(vectors[start : start + BLOCK])
    temporary = path.with_name(path.name + ".tmp")
    _write(index, temporary)
    sync_path(temporary)
    crc = checksum(temporary)
    temporary.replace(path)
    sync_path(path.parent)
    return crc


def _write(index: Any, path: Path) -> None:
    """Write through Python, whose errors say why (FAISS's own writer says only "write error")."""
    faiss = load_faiss()
    with path.open("wb") as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))


class _Candidates(NamedTuple):
    rows: Rows
    scores: FloatArray


class _Eligible:
    """The rows that may be returned, bool (n,), and what is counted and made of them once."""

    def __init__(self, rows: BoolArray) -> None:
        self.rows = rows
        self.count = int(np.count_nonzero(rows))

    @lazy
    def bits(self) -> NDArray[np.uint8]:
        """Return them as FAISS reads them."""
        return np.packbits(self.rows, bitorder="little")

    def first(self, count: int) -> _Eligible:
        """Return those of the first `count` rows."""
        return self if count == len(self.rows) else _Eligible(self.rows[:count])


class DenseSearcher:
    """Searches the rows of one commit from any number of threads.

    live: bool (n,), the rows that may be returned.
    path: the FAISS file, None to score all rows ("flat"). crc: its CRC-32, None where it is known to be whole.
    """

    def __init__(self, rows: RowReader, live: BoolArray, kind: str, path: Path | None, crc: int | None = None) -> None:
        assert rows.vectors is not None
        self._rows, self._live = rows, live
        self._vectors: StoredVectors = rows.vectors
        self._kind, self._path = kind, path
        self._compiled = Scan(rows.vectors) if scannable(rows.vectors) else None
        self._check: BackgroundCheck | None = None
        if path is not None:
            # The file may be removed, by a newer commit, before the first search.
            self._descriptor = os.open(path, os.O_RDONLY)
            self._close = weakref.finalize(self, os.close, self._descriptor)
            if crc is not None:
                self._check = BackgroundCheck([Expected(path, path.stat().st_size, crc, COMPACT)])

    @lazy
    def _index(self) -> Any:
        """Return the FAISS index, mapped; None where there is none.

        FAISS follows the links of a damaged graph wherever they lead: the file is compared with its checksum first.
        """
        if self._path is None:
            return None
        if self._check is not None:
            self._check.wait()
        faiss = load_faiss()
        try:
            with named_in("utf-8", self._path) as name:
                opened = f"/dev/fd/{self._descriptor}"
                index = faiss.read_index(opened if os.path.exists(opened) else name, faiss.IO_FLAG_MMAP_IFC)  # noqa: PTH110
        except RuntimeError:
            raise damaged(self._path, "FAISS cannot read it", COMPACT) from None
        self._close()
        return index

    def search(self, queries: FloatArray, top_k: int, allowed: BoolArray | None = None) -> list[Ranking]:
        """Rank the live rows, of those only the `allowed` ones (bool (n,)) if given, for queries (m, dim).

        A query of zeros (a text without tokens) has no hits.
        """
        eligible = self._all if allowed is None else _Eligible(self._live & allowed)
        return [self._search(query, top_k, eligible) if query.any() else [] for query in queries]

    @lazy
    def _all(self) -> _Eligible:
        return _Eligible(self._live)

    def _search(self, query: FloatArray, top_k: int, eligible: _Eligible) -> Ranking:
        kind = FAISS_TYPES.get(self._kind)
        visits = 1 if kind is None else kind.visits(top_k * kind.proposals_per_hit + SPARE)
        if self._compiled is not None and (kind is None or eligible.count <= ROWS_PER_VISIT * visits):
            nearest = self._compiled.nearest(query, top_k, eligible.rows)
            return self._ranked(nearest, self._vectors.scores(nearest, query), top_k)
        covered = 0 if self._index is None else self._index.ntotal
        fresh = self._scan(query, top_k, covered + np.flatnonzero(eligible.rows[covered:]))
        old = self._propose(query, top_k, eligible.first(covered)) if covered else _nothing()
        rows, scores = np.concatenate([old.rows, fresh.rows]), np.concatenate([old.scores, fresh.scores])
        return self._ranked(rows, scores, top_k)

    def _ranked(self, rows: Rows, scores: FloatArray, top_k: int) -> Ranking:
        rows, scores = _best(rows, scores, top_k)
        if not np.isfinite(scores).all():
            raise damaged(self._rows.folder, "a vector is not finite", VERIFY)
        return RowRanking.ordered(rows, scores.astype(np.float64), self._rows.doc_ids, top_k=top_k)

    def _propose(self, query: FloatArray, top_k: int, eligible: _Eligible) -> _Candidates:
        """Let FAISS propose rows, and score them exactly.

        Where it finds too few, or more rows may tie with the last hit than it proposed, all rows are scored: a graph
        full of equal vectors does not reach all of them.
        """
        kind = FAISS_TYPES[self._kind]
        wanted = top_k * kind.proposals_per_hit + SPARE
        if wanted < eligible.count and eligible.count > SCAN_BELOW:
            faiss = load_faiss()
            selector = faiss.IDSelectorBitmap(eligible.bits)
            parameters = kind.search_parameters(faiss, self._index, selector, wanted)
            approximate, rows = self._index.search(query[None], wanted, params=parameters)
            approximate, rows = approximate[0][rows[0] >= 0], rows[0][rows[0] >= 0]
            scores = self._vectors.scores(rows, query)
            if len(rows) == wanted:
                last = np.argsort(-scores, kind="stable")[:top_k][-1]
                # What FAISS left out scores at most the boundary: it matters only if the last hit is there, too.
                boundary = approximate.min()
                if approximate[last] > boundary + 1e-5 * max(1.0, abs(boundary)):
                    return _Candidates(rows, scores)
        return self._scan(query, top_k, np.flatnonzero(eligible.rows))

    def _scan(self, query: FloatArray, top_k: int, rows: Rows) -> _Candidates:
        """Score these rows (ascending) exactly; return the best top_k at least, and all that tie with the last."""
        kept = _nothing()
        for block in _blocks(rows):
            scores = self._scores(block, query)
            kept = _best(np.concatenate([kept.rows, block]), np.concatenate([kept.scores, scores]), top_k)
        return kept

    def _scores(self, rows: Rows, query: FloatArray) -> FloatArray:
        """Return the exact scores of rows (ascending); where few are left out, reading all is faster than picking."""
        first, end = int(rows[0]), int(rows[-1]) + 1
        if end - first > 2 * len(rows):
            return self._vectors.scores(rows, query)
        return self._vectors.scores(slice(first, end), query)[rows - first]


def _nothing() -> _Candidates:
    return _Candidates(np.empty(0, np.int64), np.empty(0, np.float32))


def _best(rows: Rows, scores: FloatArray, top_k: int) -> _Candidates:
    """Return the best top_k, and all that tie with the last of them."""
    if len(rows) <= top_k:
        return _Candidates(rows, scores)
    chosen = scores >= np.partition(scores, -top_k)[-top_k]
    return _Candidates(rows[chosen], scores[chosen])


def _blocks(rows: Rows) -> Iterator[Rows]:
    return (rows[start : start + SCAN_BLOCK] for start in range(0, len(rows), SCAN_BLOCK))
