"""Self-attention of the int8 network, in bfloat16 up to its sums: scores magnify what rounding to 8 bits loses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from retriever.network.attention import SCORES, padded_together, portions
from retriever.network.int8.kernels import steps
from retriever.network.int8.matrices import Scratch, add_product, blocks, int8_layer, padded_rows, taken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from retriever.network.packing import Group
    from retriever.types import FloatArray

__all__ = ["Attention", "Spots", "spots_of"]

LOG2_E = 1.4426950408889634


class Spots(NamedTuple):
    """Where the heads of n tokens lie in attention's arrays: head h of token i in row place[i] + h * stride[i]."""

    place: NDArray[np.int64]
    stride: NDArray[np.int64]
    stretches: list[Stretch]


class Stretch(NamedTuple):
    """Texts padded to one length for attention, from row start to stop; own: a text's own length, for each head."""

    start: int
    stop: int
    length: int
    own: NDArray[np.int64]


def spots_of(groups: Sequence[Group], heads: int) -> Spots:
    """Give texts rows of attention's arrays, a stretch of them to each span."""
    places, strides = [], []
    stretches: list[Stretch] = []
    start = 0
    for span in padded_together(groups):
        text, position = np.divmod(span.slots.numpy(), span.length)
        places.append(start + text * heads * span.length + position)
        strides.append(np.full(len(text), span.length))
        stop = start + span.texts * heads * span.length
        stretches.append(Stretch(start, stop, span.length, np.repeat(np.bincount(text), heads)))
        start = stop
    return Spots(np.concatenate(places), np.concatenate(strides), stretches)


class Attention:
    """Self-attention inside each text, first `mix` and then `add`, both with the same scratch."""

    def __init__(self, attention: Any, heads: int) -> None:
        self.heads = heads
        weight, bias = taken(attention.qkv.weight).clone(), taken(attention.qkv.bias).clone()
        width = weight.shape[1]
        for values in weight, bias:  # queries are scaled so that attention's exponentials are powers of 2
            values[:width] *= LOG2_E / (width // heads) ** 0.5
        self.qkv, self.bias = weight.bfloat16().t(), bias.bfloat16()
        self.out = int8_layer(attention.out)
        self.together = np.uint64 if width // heads % 4 == 0 else np.uint16  # numbers that are moved as one

    def mix(self, x: FloatArray, spots: Spots, scratch: Scratch) -> None:
        """Let tokens x (n, hidden) attend to their texts; what they find stays in scratch."""
        width = x.shape[1]
        query, key, value, mixed, sums = self._arrays(spots, scratch)
        for start, stop in blocks(len(x)):
            rows = scratch.array("narrow", (padded_rows(stop - start), width), np.uint16)
            steps.narrow(x[start:stop], rows)
            qkv = scratch.array("qkv", (len(rows), 3 * width), np.uint16)
            torch.addmm(self.bias, _bfloat16(rows), self.qkv, out=_bfloat16(qkv))
            wide = [array.view(self.together) for array in (qkv, query, key, value)]
            places = spots.place[start:stop], spots.stride[start:stop]
            steps.split_heads(wide[0], wide[1], wide[2], wide[3], *places)
        for stretch in spots.stretches:
            for first, count in portions(len(stretch.own), self.heads, SCORES // stretch.length**2):
                own = stretch.own[first : first + count]
                start = stretch.start + first * stretch.length
                shape = (len(own), stretch.length, -1)
                part = slice(start, start + len(own) * stretch.length)
                scores = scratch.array("scores", (len(own), stretch.length, stretch.length), np.uint16)
                keys = _bfloat16(key[part]).view(shape).transpose(1, 2)
                torch.bmm(_bfloat16(query[part]).view(shape), keys, out=_bfloat16(scores))
                steps.exponentials(scores, own, sums[part].reshape(len(own), -1))
                torch.bmm(_bfloat16(scores), _bfloat16(value[part]).view(shape), out=_bfloat16(mixed[part]).view(shape))

    def add(self, x: FloatArray, start: int, spots: Spots, scratch: Scratch) -> None:
        """Add what was found to the block x (n, hidden), which begins with token `start`."""
        *_, mixed, sums = self._arrays(spots, scratch)
        found = scratch.rows("found", len(x), x.shape[1])
        part = slice(start, start + len(x))
        steps.merge_heads(mixed, sums, spots.place[part], spots.stride[part], *found)
        add_product(found, self.out, x, scratch)

    def _arrays(self, spots: Spots, scratch: Scratch) -> tuple[NDArray[Any], ...]:
        """Return bfloat16 queries, keys, values and what they mix to (rows, size), and sums of weights (rows,)."""
        rows = spots.stretches[-1].stop
        size = len(self.bias) // (3 * self.heads)
        found = [scratch.array(name, (rows, size), np.uint16) for name in ("query", "key", "value", "mixed")]
        return *found, scratch.array("sums", (rows,), np.float32)


def _bfloat16(array: NDArray[np.uint16]) -> Tensor:
    return torch.from_numpy(array).view(torch.bfloat16)
