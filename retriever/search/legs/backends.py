"""How the sparse leg is searched: by its postings, by Lucene, or by Seismic, behind one protocol."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from retriever.index.lucene.calls import Found
from retriever.search.legs.sparse_impacts import impacts_of, kept_folder
from retriever.search.legs.sparse_postings import StoredPostings
from retriever.types import Ranking, UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from retriever.index.contract import LegReader, Selection

__all__ = [
    "FIRST_TERMS",
    "SPARSE_BACKENDS",
    "SparseBackend",
    "build_seismic",
    "installed_backends",
    "make_sparse_backend",
]

FIRST_TERMS = 12
"""Query terms of the first of two steps: with so many, 99.7 percent of the exact first ten are found."""
POSTINGS = 2000
"""Postings of a term that Seismic keeps, on average over the terms."""
QUERY_TERMS = 20
HEAP_FACTOR = 0.8
"""Seismic skips blocks that promise less than the worst hit so far divided by this."""


class SparseBackend(Protocol):
    """Searches the sparse terms of one reader from any number of threads."""

    def search(self, terms: csr_matrix, top_k: int, selection: Selection | None = None) -> Ranking:
        """Rank by the inner product of query terms (1, vocab_size) and stored term weights, where it is above 0."""
        ...


class Lucene:
    """Exact, from disk, with Lucene's block-max pruning."""

    def __init__(self, reader: LegReader) -> None:
        self._reader = reader

    def search(self, terms: csr_matrix, top_k: int, selection: Selection | None = None) -> Ranking:
        """Search with all terms."""
        return self._reader.sparse(terms, top_k, selection)


class TwoStep:
    """Lucene with the strongest terms alone, and all terms for what these find: not exact, and nothing to build."""

    def __init__(self, reader: LegReader) -> None:
        self._reader = reader

    def search(self, terms: csr_matrix, top_k: int, selection: Selection | None = None) -> Ranking:
        """Search in two steps."""
        return self._reader.sparse(terms, top_k, selection, first_terms=FIRST_TERMS)


class Seismic:
    """Approximate, in memory, by the blocks of similar documents that promise most (Bruch et al., 2404.18812).

    It cannot filter: a search within a filter is Lucene's.
    """

    def __init__(self, reader: LegReader) -> None:
        if importlib.util.find_spec("seismic") is None:
            raise UserError("seismic is not installed: pip install 'hybrid-retriever[seismic]'")
        self._reader, self._lock = reader, threading.Lock()
        self._index: Any = None
        self._rows: NDArray[np.int64] = np.empty(0, np.int64)
        self._terms = 0  # Seismic ends the process at a term beyond those that documents have

    def search(self, terms: csr_matrix, top_k: int, selection: Selection | None = None) -> Ranking:
        """Search the blocks of the strongest query terms."""
        if selection is not None:
            return self._reader.sparse(terms, top_k, selection)
        with self._lock:
            if self._index is None:
                self._load()
        known = terms.indices < self._terms
        query = terms.indices[known].astype(np.int32), terms.data[known].astype(np.float32)
        if not known.any():
            return []

        def best(count: int) -> Found:
            hits = self._index.search(*query, min(count, len(self._rows)), QUERY_TERMS, HEAP_FACTOR, 0, True)
            scores = np.array([hit[0] for hit in hits], np.float64)
            places = np.array([hit[1] for hit in hits], np.int64)
            return _found(self._reader, self._rows[places[scores > 0]], scores[scores > 0])

        return self._reader.ranking(best, top_k)

    def _load(self) -> None:
        """Read the Seismic index of this commit; build it first if it was not searched before."""
        import seismic

        impacts = impacts_of(self._reader)
        self._rows = np.flatnonzero(np.diff(impacts.indptr))
        path = kept_folder(self._reader) / "seismic"
        if len(self._rows):
            if not path.exists():
                build_seismic(path, impacts, self._rows)
            self._index = getattr(seismic, _kind(impacts.shape[1])).load(str(path))
            self._terms = int(impacts.indices.max()) + 1


def _kind(vocab_size: int) -> str:
    """Return Seismic's class for so many terms: the usual one counts them in 16 bits."""
    return "SeismicIndexRaw" if vocab_size <= 1 << 16 else "SeismicIndexRawLV"


def build_seismic(path: Path, impacts: csr_matrix, rows: NDArray[np.int64]) -> None:
    """Build in another process: what Seismic prints while it builds does not belong among the results of this one."""
    program = (
        "import sys, seismic; kind = getattr(seismic, sys.argv[4]); "
        "kind.build(sys.argv[1], n_postings=int(sys.argv[3])).save(sys.argv[2])"
    )
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        dump, built = Path(folder) / "dump", Path(folder) / "built"
        _write_seismic(dump, impacts, rows)
        command = [sys.executable, "-c", program, str(dump), str(built), str(POSTINGS), _kind(impacts.shape[1])]
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode or not built.exists():
            reason = (ended.stderr.strip() or "it was ended").splitlines()[-1]
            raise UserError(f"{path}: Seismic could not build it ({reason}); choose another sparse back end")
        built.replace(path)


def _write_seismic(path: Path, impacts: csr_matrix, rows: NDArray[np.int64]) -> None:
    """Write rows as Seismic reads them: their number; of each the number of its terms, the terms, the weights."""
    with path.open("wb") as file:
        file.write(np.uint32(len(rows)).tobytes())
        for start, end in zip(impacts.indptr[rows].tolist(), impacts.indptr[rows + 1].tolist(), strict=True):
            file.write(np.uint32(end - start).tobytes())
            file.write(impacts.indices[start:end].astype("<u4").tobytes())
            file.write(impacts.data[start:end].astype("<f4").tobytes())


def _found(reader: LegReader, rows: NDArray[np.int64], scores: NDArray[np.float64]) -> Found:
    return Found(rows, scores / reader.settings.impact_scale)


SPARSE_BACKENDS: dict[str, Callable[[LegReader], SparseBackend]] = {
    "postings": StoredPostings,
    "lucene": Lucene,
    "two-step": TwoStep,
    "seismic": Seismic,
}


def installed_backends() -> list[str]:
    """Return the back ends that can be used here."""
    missing = importlib.util.find_spec("seismic") is None
    return [name for name in SPARSE_BACKENDS if not (missing and name == "seismic")]


def make_sparse_backend(name: str, reader: LegReader) -> SparseBackend:
    """Return a back end by name; what it builds is built with the first query.

    Raises:
        UserError: an unknown name, or one that is not installed.
    """
    if name not in SPARSE_BACKENDS:
        if name == "memory":
            raise UserError("the sparse back end 'memory' is gone; 'postings' replaces it, and is the default")
        raise UserError(f"sparse back end {name!r} is not known; choose one of {', '.join(SPARSE_BACKENDS)}")
    return SPARSE_BACKENDS[name](reader)
