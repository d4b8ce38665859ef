"""Batches of one topic: the other passages of a batch are hard negatives without having been mined."""

from __future__ import annotations

import random
import re
import zlib
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from retriever.train.data.pairs import Example
    from retriever.types import FloatArray

__all__ = ["by_topic"]

BUCKETS = 4096
WORDS = re.compile(r"\w{3,}")


def by_topic(examples: Iterable[Example], size: int, window: int, seed: int) -> Iterator[Example]:
    """Reorder a stream so that runs of about `size` examples are alike (topic-aware batches, Hofstätter et al. 2021).

    Each `window` of examples is cut in halves along the difference of two random examples, by the words of their
    queries and passages, until the parts are no larger than `size`; the parts come out in random order. The order
    follows from the arguments alone; memory holds one window.
    """
    chooser = random.Random(seed)
    stream = iter(examples)
    while held := list(islice(stream, window)):
        vectors = _vectors(held)
        parts = list(_parts(vectors, np.arange(len(held)), size, chooser))
        chooser.shuffle(parts)
        for part in parts:
            yield from (held[i] for i in part)


def _vectors(examples: Sequence[Example]) -> FloatArray:
    """Return unit (n, BUCKETS) vectors of hashed words, weighted by inverse document frequency."""
    vectors = np.zeros((len(examples), BUCKETS), np.float32)
    for row, example in enumerate(examples):
        words = WORDS.findall(f"{example.query} {example.positive}".lower())
        vectors[row, [zlib.crc32(word.encode()) % BUCKETS for word in words]] = 1
    vectors *= np.log((len(examples) + 1) / (vectors.sum(0) + 1))
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    return vectors


def _parts(
    vectors: FloatArray, members: NDArray[np.int64], size: int, chooser: random.Random
) -> Iterator[NDArray[np.int64]]:
    if len(members) <= size:
        yield members
        return
    one, other = chooser.sample(range(len(members)), 2)
    along = vectors[members] @ (vectors[members[one]] - vectors[members[other]])
    order = members[np.argsort(along, kind="stable")]
    # Cut at a multiple of the size, so that the parts fill their batches.
    cut = max(1, round(len(order) / size / 2)) * size
    yield from _parts(vectors, order[:cut], size, chooser)
    yield from _parts(vectors, order[cut:], size, chooser)
