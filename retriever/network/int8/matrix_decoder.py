"""The decoder for processors with AMX: its products are oneDNN's, which has kernels for AMX, where `tiles` has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from retriever.network.int8.decoder import Decoder
from retriever.network.int8.kernels.packed import BLOCK, unpack_int8
from retriever.network.int8.matrices import Rows, Scratch, padded_rows, product
from retriever.network.reach import WHOLE, Reach

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from retriever.machine_code import Argument
    from retriever.types import FloatArray

    Places = NDArray[np.int64]

__all__ = ["MatrixDecoder"]

LARGEST_LOGITS = 2**18
"""Logits held at once, 1 MiB of them as whole numbers: as much as a core's cache."""


class MatrixDecoder(Decoder):
    """The same numbers as `Decoder`: sums of whole numbers are exact in any order."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], *, vocabulary: int, reach: Reach = WHOLE) -> None:
        super().__init__({**arrays, "weights": arrays["weights"][:0]}, vocabulary=vocabulary, reach=reach)
        self._matrix = torch.from_numpy(unpack_int8(arrays["weights"])).t()  # (hidden, slots)
        self._blocks: list[int] = arrays["blocks"].tolist()
        self._scale, self._bias, self._stem = (arrays[name] for name in ("scale", "bias", "stem"))
        self._scratch = Scratch()

    def _weigh(
        self, values: Argument, step: Argument, ends: Places, first: Places, tokens: Places, out: FloatArray
    ) -> None:
        best = np.empty(BLOCK, np.float32)
        for cluster, (begin, end) in enumerate(zip(first.tolist(), first[1:].tolist(), strict=False)):
            if begin == end:
                continue
            found = tokens[begin:end]
            sent = self._scratch.rows("sent", len(found), values.array.shape[1])
            np.take(values.array, found, axis=0, out=sent.values[: len(found)])
            for part in self._parts(cluster, len(found)):
                sums = self._product(sent, part, len(found))
                terms = self._scale[part], self._bias[part], self._stem[part]
                self._kernels["largest"](sums, step, found, ends, *terms, out, best)

    def _parts(self, cluster: int, tokens: int) -> Iterator[slice]:
        """Yield blocks of a cluster that are multiplied at once."""
        count = max(1, LARGEST_LOGITS // (padded_rows(tokens) * BLOCK))
        for start in range(self._blocks[cluster], self._blocks[cluster + 1], count):
            yield slice(start, min(start + count, self._blocks[cluster + 1]))

    def _product(self, rows: Rows, part: slice, tokens: int) -> NDArray[np.int32]:
        return product(rows, self._matrix[:, part.start * BLOCK : part.stop * BLOCK], tokens, self._scratch)
