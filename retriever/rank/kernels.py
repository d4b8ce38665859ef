"""MaxSim, compiled: the best match of each query token among the tokens of each candidate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import f4, i1, i8, njit
from numba.core.types import Array

from retriever.network.kernel_cache import keep_compiled

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from retriever.types import FloatArray

    BestMatches = Callable[[FloatArray, NDArray[np.int8], FloatArray, NDArray[np.int64]], FloatArray]

__all__ = ["best_matches"]

_FLOATS, _WHOLES = Array(f4, 1, "C", readonly=True), Array(i8, 1, "C", readonly=True)
_TABLE = Array(f4, 2, "C", readonly=True)
_CODES = Array(i1, 2, "C", readonly=True)


def _best_matches(
    query: FloatArray, codes: NDArray[np.int8], scales: FloatArray, ends: NDArray[np.int64]
) -> FloatArray:
    """Return for each candidate and query token the highest inner product with one of its tokens; 0 without tokens.

    query float32 (q, dim). codes int8 (tokens, dim) and scales
    (tokens,): those of the candidates. ends (n,): where the tokens of each end. Returns (n, q).
    """
    width, tokens = query.shape[1], query.shape[0]
    found = np.zeros((ends.size, tokens), np.float32)
    vector = np.empty(width, np.float32)
    start = 0
    for candidate in range(ends.size):
        end = ends[candidate]
        for q in range(tokens):
            found[candidate, q] = -np.float32(np.inf) if end > start else np.float32(0)
        for place in range(start, end):
            for j in range(width):
                vector[j] = np.float32(codes[place, j])
            for q in range(tokens):
                total = np.float32(0)
                for j in range(width):
                    total += query[q, j] * vector[j]
                total *= scales[place]
                if total > found[candidate, q]:
                    found[candidate, q] = total
        start = end
    return found


def _compiled() -> BestMatches:
    # Sums of products may be taken in any order: only so do they become vector instructions.
    compiled: Any = njit(nogil=True, error_model="numpy", fastmath={"nnan", "nsz", "reassoc", "contract"})(
        _best_matches
    )
    keep_compiled(compiled)
    compiled.compile(Array(f4, 2, "C")(_TABLE, _CODES, _FLOATS, _WHOLES))
    compiled.disable_compile()
    found: BestMatches = compiled
    return found


best_matches = _compiled()
