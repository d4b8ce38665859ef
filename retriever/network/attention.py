"""Self-attention inside each text of a packed batch."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor, nn

from retriever.network.matmul import Linear

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from retriever.network.model import RetrieverConfig
    from retriever.network.packing import Group

__all__ = ["SCORES", "Attention", "PaddedTexts", "padded_together", "portions"]

LENGTH_STEP = 16
"""Texts are padded to multiples of it, for attention alone: texts of about one length share a product, and few shapes
of products have to be compiled."""
SCORES = 2**19
"""Attention scores held at once: 1 MiB of them in bfloat16, as much as a core's cache."""
LARGEST_SCORE = 60.0
"""exp of it, and of its negative, leaves room in bfloat16 for sums over a text."""


class PaddedTexts(NamedTuple):
    """Texts that stand together in a packed batch and are padded to one length for attention.

    start, stop: their tokens; texts: how many; length: padded; slots: int64, where each token stands after padding.
    """

    start: int
    stop: int
    texts: int
    length: int
    slots: Tensor


def padded_together(groups: Sequence[Group]) -> list[PaddedTexts]:
    """Join groups of equal length, sorted by it, whose lengths are padded to the same multiple of LENGTH_STEP."""
    spans = []
    for length, found in groupby(groups, lambda group: group.length + -group.length % LENGTH_STEP):
        together = list(found)
        lengths = [group.length for group in together for _ in range(group.count)]
        slots = torch.cat([torch.arange(own) + text * length for text, own in enumerate(lengths)])
        spans.append(PaddedTexts(together[0].start, together[-1].stop, len(lengths), length, slots))
    return spans


def portions(rows: int, heads: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield starts and sizes of portions of rows, those of whole texts or of a share of the heads of one.

    Few sizes, at most `most`, since oneDNN keeps a kernel for each: heads times a power of two, or a share of them.

    >>> list(portions(36, 12, 30)), list(portions(24, 12, 8))
    ([(0, 24), (24, 12)], [(0, 6), (6, 6), (12, 6), (18, 6)])
    """
    first = 0
    while first < rows:
        left = max(1, min(most, rows - first))
        if left >= heads:
            size = heads << ((left // heads).bit_length() - 1)
        else:
            size = next(size for size in range(left, 0, -1) if heads % size == 0)
        yield first, size
        first += size


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, config: RetrieverConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.qkv = Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, groups: Sequence[Group], spans: Sequence[PaddedTexts] | None = None) -> Tensor:
        """Return (n_tokens, hidden): each text attends to itself alone.

        spans: of these groups, for x in bfloat16 on the CPU, for inference alone.
        """
        qkv = self.qkv(x)  # (n_tokens, 3 * hidden)
        if spans is None:
            parts = torch.split(qkv, [group.count * group.length for group in groups])
            mixed = [_attend(part, group, self.heads) for part, group in zip(parts, groups, strict=True)]
        else:
            mixed = [_attend_padded(qkv[span.start : span.stop], span, self.heads) for span in spans]
        joined: Tensor = self.out(torch.cat(mixed))
        return joined


def _attend(qkv: Tensor, group: Group, heads: int) -> Tensor:
    """Return softmax(q k^T / sqrt(head_size)) v of a group's tokens, (count * length, hidden)."""
    query, key, value = qkv.view(group.count, group.length, 3, heads, -1).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(query, key, value)  # (count, heads, length, head_size)
    return mixed.transpose(1, 2).reshape(group.count * group.length, -1)


def _attend_padded(qkv: Tensor, span: PaddedTexts, heads: int) -> Tensor:
    """Return what `_attend` does, in bfloat16; two thirds of the time of torch's softmax and its fused attention.

    The exponentials are taken without subtracting the row's maximum first; scores beyond LARGEST_SCORE, which no
    trained network comes near, are cut. Each value has a 1 beside it, so that the product with the values gives the
    sum to divide by as well. Padding has zeros there: it counts for nothing, without a mask.
    """
    size = qkv.shape[1] // (3 * heads)
    batch = (span.texts * heads, span.length, -1)
    rows = span.texts * span.length
    real = qkv.new_ones(rows, 1)
    if rows > len(qkv):
        real = qkv.new_zeros(rows, 1).index_fill_(0, span.slots, 1)
        qkv = qkv.new_zeros(rows, qkv.shape[1]).index_copy_(0, span.slots, qkv)
    query, key, value = qkv.view(span.texts, span.length, 3, heads, size).permute(2, 0, 3, 1, 4).contiguous()
    query, key = (query * size**-0.5).view(batch), key.view(batch).transpose(1, 2)
    ones = real.view(span.texts, 1, span.length, 1).expand(-1, heads, -1, -1)
    value = torch.cat([value, ones], -1).view(batch)  # (texts * heads, length, size + 1)
    sums = torch.empty_like(value)
    scores = value.new_empty(max(SCORES, span.length**2))
    for start, count in portions(len(value), heads, SCORES // span.length**2):
        part = slice(start, start + count)
        weights = scores[: count * span.length**2].view(count, span.length, span.length)
        torch.bmm(query[part], key[part], out=weights)
        weights.clamp_(-LARGEST_SCORE, LARGEST_SCORE).exp_()
        torch.bmm(weights, value[part], out=sums[part])
    mixed = (sums[..., :size] / sums[..., size:]).view(span.texts, heads, span.length, size)
    mixed = mixed.transpose(1, 2).reshape(rows, -1)
    return mixed if rows == len(span.slots) else mixed.index_select(0, span.slots)
