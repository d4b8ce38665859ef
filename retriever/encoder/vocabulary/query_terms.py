"""What only queries need of an encoder, and no index depends on: terms that go with a word, and how many are searched.

A table says for each term what the network gave to it and to which others most when it read that term in queries, and
alone (`retriever.train.associations`). With it lexical queries are expanded without a network: a translation model
(Berger and Lafferty 1999, "Information Retrieval as Statistical Translation"), taught by the encoder instead
of by clicks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

from retriever.network.checkpoint import QUERY_TERMS
from retriever.types import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from retriever.types import FloatArray

__all__ = ["QueryTerms", "heaviest", "read_query_terms", "write_query_terms"]

STEPS = 255


class QueryTerms(NamedTuple):
    """Which terms go with each one of a vocabulary, it among them, k at most; how many terms of a query are searched.

    terms: int (vocab_size, k), -1 where there are fewer; weights: float32 (vocab_size, k), in units of the network's
    expansions; most: of a query that the network expanded, the heaviest terms that are searched, 0 for all.
    """

    terms: NDArray[np.signedinteger]
    weights: FloatArray
    most: int = 0

    def expansions(self, counts: sparse.csr_matrix) -> sparse.csr_matrix:
        """Return float32 (n, vocab_size): the largest weight that a term of a query gives each term.

        counts: (n, vocab_size) how often terms occur in queries; only which of them do matters.
        """
        own = counts.sorted_indices()
        query = np.repeat(np.arange(own.shape[0]), np.diff(own.indptr) * self.terms.shape[1])
        term, weight = self.terms[own.indices].ravel().astype(np.int64), self.weights[own.indices].ravel()
        found = term >= 0
        places, which = np.unique((query * own.shape[1] + term)[found], return_inverse=True)
        best = np.zeros(len(places), np.float32)
        np.maximum.at(best, which, weight[found])
        ends = np.searchsorted(places, np.arange(own.shape[0] + 1) * own.shape[1])
        return sparse.csr_matrix((best, (places % own.shape[1]).astype(np.int32), ends), own.shape)


def heaviest(terms: sparse.csr_matrix, most: int) -> sparse.csr_matrix:
    """Return the `most` heaviest terms of each row, of equal weights the lower numbers; 0: all."""
    long = np.flatnonzero(np.diff(terms.indptr) > most) if most else ()
    if not len(long):
        return terms
    kept = np.ones(terms.nnz, np.bool_)
    for row in long:
        begin, end = terms.indptr[row : row + 2]
        order = np.lexsort((terms.indices[begin:end], -terms.data[begin:end]))
        kept[begin + order[most:]] = False
    ends = np.concatenate([[0], np.cumsum(kept)])[terms.indptr]
    return sparse.csr_matrix((terms.data[kept], terms.indices[kept], ends), terms.shape)


def read_query_terms(folder: Path, vocabulary: int) -> QueryTerms | None:
    """Return what an encoder folder of a vocabulary of so many terms has for queries, None where it has nothing.

    Raises:
        UserError: the file is damaged, or of another vocabulary.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / QUERY_TERMS
    if not path.is_file():
        return None
    try:
        stored = load_file(path)
        terms, weights = stored["terms"], stored["weights"] * stored["scale"]
        found = QueryTerms(terms, weights, int(stored["most"][0]))
    except (SafetensorError, OSError, LookupError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: damaged file ({reason}); copy it again, or remove it") from None
    fits = terms.ndim == 2 and terms.shape == weights.shape and len(terms) == vocabulary and terms.dtype.kind == "i"
    if not fits or not -1 <= terms.min(initial=-1) <= terms.max(initial=-1) < vocabulary:
        raise UserError(f"{path}: not of this vocabulary of {vocabulary} terms; make it again, or remove it")
    return found


def write_query_terms(found: QueryTerms, folder: Path) -> Path:
    """Write it beside an encoder's weights, weights in 256 steps; return the file."""
    from safetensors.numpy import save_file

    kind = np.int16 if len(found.terms) <= np.iinfo(np.int16).max else np.int32
    scale = np.float32(max(found.weights.max(initial=0), 1e-30) / STEPS)
    values = {
        "terms": found.terms.astype(kind),
        "weights": np.rint(found.weights / scale).astype(np.uint8),
        "scale": np.array([scale], np.float32),
        "most": np.array([found.most], np.int32),
    }
    save_file(values, folder / QUERY_TERMS)
    (folder / QUERY_TERMS).chmod(0o644)
    return folder / QUERY_TERMS
