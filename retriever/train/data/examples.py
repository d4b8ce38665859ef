"""Training examples as a stream: files of pairs mixed by weight, shuffled in bounded memory, and put into batches."""

from __future__ import annotations

import math
import random
import zlib
from collections import deque
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, NamedTuple

from retriever.train.data.pairs import HELD_OUT_PERCENT, Example, held_out, keep_negatives, normalised, read_pairs
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Example", "SourceConfig", "batches", "held_out", "stream"]

SHUFFLE_BUFFER = 4096
"""Examples of each file that are held for shuffling: at 2 kB an example 8 MB, whatever the size of the file."""
DEFERRED_BATCHES = 8


@dataclass(frozen=True)
class SourceConfig:
    """A file of pairs and its weight in the mixture: examples are drawn from each file in proportion to it.

    share: how much of the file to use, chosen by the passages' text: the same part in every run.
    """

    path: str
    weight: float = 1.0
    share: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a weight that is none."""
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise UserError(f"{self.path}: the weight is {self.weight}, need a number above 0; or leave the file out")
        if not 0 < self.share <= 1:
            raise UserError(f"{self.path}: the share is {self.share}, need a number above 0, at most 1")


def stream(
    sources: Sequence[SourceConfig],
    *,
    seed: int = 0,
    skip: int = 0,
    endless: bool = True,
    held_out_percent: int = HELD_OUT_PERCENT,
    shuffle_buffer: int = SHUFFLE_BUFFER,
) -> Iterator[Example]:
    """Mix the examples of several files, each shuffled within a buffer that bounds the memory.

    The order follows from `seed` and the arguments alone. Held-out passages come out neither as positives nor as
    negatives. endless: begin a file again at its end, in another order; otherwise each is read once, and the mixture
    continues with those that are left. skip: how many examples were used already (about 25,000 a second are skipped).

    Raises:
        UserError: no source, a line that cannot be used, or a file without an example to train on.
    """
    if not sources:
        raise UserError("no training data; name at least one file of pairs")
    streams = [
        _source(source, f"{seed}/{place}", endless, held_out_percent, shuffle_buffer)
        for place, source in enumerate(sources)
    ]
    weights = [source.weight for source in sources]
    return islice(_mixture(streams, weights, random.Random(f"{seed}/mixture")), skip, None)


def _mixture(streams: list[Iterator[Example]], weights: list[float], chooser: random.Random) -> Iterator[Example]:
    left = list(range(len(streams)))
    while left:
        [place] = chooser.choices(left, [weights[i] for i in left])
        example = next(streams[place], None)
        if example is None:
            left.remove(place)
        else:
            yield example


def _source(source: SourceConfig, seed: str, endless: bool, percent: int, buffer: int) -> Iterator[Example]:
    for epoch in count() if endless else (0,):
        empty = True
        for example in _shuffled(_trainable(source, percent), buffer, random.Random(f"{seed}/{epoch}")):
            empty = False
            yield example
        if empty:
            raise UserError(f"{source.path}: holds no example outside the held-out part; leave the file out")


def _trainable(source: SourceConfig, percent: int) -> Iterator[Example]:
    for record in read_pairs(source.path):
        example = record.example
        if not held_out(example.positive, percent) and _chosen(example.positive, source.share):
            yield keep_negatives(example, [not held_out(text, percent) for text in example.negatives])


def _chosen(text: str, share: float) -> bool:
    return share == 1 or zlib.crc32(text.encode()) < share * 2**32


def _shuffled(examples: Iterable[Example], size: int, chooser: random.Random) -> Iterator[Example]:
    """Give out, for each example that comes in, a random one of the `size` held."""
    held: list[Example] = []
    for example in examples:
        if len(held) < size:
            held.append(example)
            continue
        place = chooser.randrange(size)
        yield held[place]
        held[place] = example
    chooser.shuffle(held)
    yield from held


class _Keyed(NamedTuple):
    """An example with what it must not share with another of its batch, normalised."""

    example: Example
    own: frozenset[str]
    positive: str
    negatives: frozenset[str]


class _Batch:
    """Examples among which none is a negative of another by mistake."""

    def __init__(self) -> None:
        self.examples: list[Example] = []
        self._own: set[str] = set()
        self._positives: set[str] = set()
        self._negatives: set[str] = set()

    def take(self, found: _Keyed) -> bool:
        """Take an example in, unless it conflicts with one that is there; return whether it did."""
        if (
            not self._own.isdisjoint(found.own)
            or not self._positives.isdisjoint(found.negatives)
            or found.positive in self._negatives
        ):
            return False
        self.examples.append(found.example)
        self._own |= found.own
        self._positives.add(found.positive)
        self._negatives |= found.negatives
        return True


def batches(examples: Iterable[Example], size: int) -> Iterator[list[Example]]:
    """Put examples into batches in which every other passage is a fair negative (DPR, Karpukhin et al. 2020).

    No two of a batch share their document, their passage or their question, and no negative of one is the positive of
    another. What conflicts waits for a later batch; at most 8 batches' worth waits: a batch is cut short rather than
    made unfair. `islice(batches(...), done, None)` resumes after `done` batches exactly.
    """
    incoming = map(_keyed, examples)
    waiting: deque[_Keyed] = deque()
    while True:
        batch = _Batch()
        for _ in range(len(waiting)):
            found = waiting.popleft()
            if len(batch.examples) == size or not batch.take(found):
                waiting.append(found)
        while len(batch.examples) < size and len(waiting) < DEFERRED_BATCHES * size:
            following = next(incoming, None)
            if following is None:
                break
            if not batch.take(following):
                waiting.append(following)
        if not batch.examples:
            return
        yield batch.examples


def _keyed(example: Example) -> _Keyed:
    positive = normalised(example.positive)
    own = {f"query {normalised(example.query)}", f"passage {positive}"}
    if example.document:
        own.add(f"document {normalised(example.document)}")
    return _Keyed(example, frozenset(own), positive, frozenset(map(normalised, example.negatives)))
