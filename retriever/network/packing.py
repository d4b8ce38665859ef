"""Batches without padding: texts of equal length stand together."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Group", "Kept", "Packed", "pack", "without_tokens"]


class Group(NamedTuple):
    """Texts of one length, which stand together in a packed batch."""

    start: int
    count: int  # type: ignore[assignment]  # a tuple has a method of this name, which nobody calls
    length: int

    @property
    def stop(self) -> int:
        """Return the end of the group's tokens."""
        return self.start + self.count * self.length


class Packed(NamedTuple):
    """A batch without padding: input_ids and positions int64 (n_tokens,), and the groups of equal length in order."""

    input_ids: Tensor
    positions: Tensor
    groups: tuple[Group, ...]


def pack(token_ids: Sequence[Sequence[int]]) -> Packed:
    """Pack token lists that are sorted by length."""
    groups = []
    start = 0
    for length, texts in groupby(len(ids) for ids in token_ids):
        groups.append(Group(start, sum(1 for _ in texts), length))
        start = groups[-1].stop
    input_ids = torch.tensor([token for ids in token_ids for token in ids], dtype=torch.int64)
    positions = torch.cat([torch.arange(group.length).repeat(group.count) for group in groups])
    return Packed(input_ids, positions, tuple(groups))


class Kept(NamedTuple):
    """Some tokens of a packed batch: int64 (n_kept,) their places, and the batch that they form."""

    places: Tensor
    packed: Packed


def without_tokens(packed: Packed, first: int, count: int) -> Kept:
    """Leave out `count` tokens of each text from its token `first` on, but never its last one."""
    parts, groups, start = [], [], 0
    for group in packed.groups:
        places = torch.arange(group.start, group.stop).view(group.count, group.length)
        behind = min(first + count, group.length - 1)
        own = torch.cat([places[:, : min(first, behind)], places[:, behind:]], dim=1)
        parts.append(own.flatten())
        groups.append(Group(start, *own.shape))
        start = groups[-1].stop
    places = torch.cat(parts).to(packed.input_ids.device)
    return Kept(places, Packed(packed.input_ids[places], packed.positions[places], tuple(groups)))
