"""How many vocabulary experts a token computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["WHOLE", "Reach"]


class Reach(NamedTuple):
    """per_token: clusters of terms that a token computes; per_text: that a text's tokens compute together at least.

    In a long text many tokens could give a term its largest weight, in a query one or two: what they leave out is gone.
    """

    per_token: int
    per_text: int = 0

    def clusters(self, lengths: NDArray[np.int64], clusters: int) -> NDArray[np.int64]:
        """Return for texts of some lengths (n,) in tokens how many of the `clusters` each of their tokens computes.

        >>> Reach(8, 256).clusters(np.array([1, 10, 32, 200]), 100).tolist()
        [100, 26, 8, 8]
        """
        shares = -(-self.per_text // np.maximum(lengths, 1))
        counts: NDArray[np.int64] = np.minimum(np.maximum(shares, self.per_token), clusters).astype(np.int64)
        return counts


WHOLE = Reach(0)
"""Of a decoder without experts."""
