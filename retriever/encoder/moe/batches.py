"""Texts in batches, and what the network makes of each, put together again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse

from retriever.types import TokenVectors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from retriever.types import FloatArray

__all__ = [
    "MIN_COST",
    "TERMS_PER_COST",
    "Views",
    "batches",
    "joined_expansions",
    "joined_tokens",
    "joined_vectors",
    "top_terms",
]

MIN_COST = 16  # a text counts as so many tokens at least: its sparse row takes memory too
TERMS_PER_COST = 2_000  # of its row: one of 250,000 terms, a megabyte, counts as 125 tokens


class Views(NamedTuple):
    """What the network makes of texts: vectors and expansions, a row for each; None where it is not wanted.

    texts: their numbers. tokens: of each of their tokens, one text behind the other.
    """

    texts: list[int]
    dense: FloatArray | None
    terms: sparse.csr_matrix | None
    tokens: FloatArray | None = None


def batches(lengths: Sequence[int], tokens_per_batch: int, least: int = MIN_COST) -> Iterator[list[int]]:
    """Yield batches of text numbers, sorted by length, each within the token budget (or one text), without empty texts.

    least: as how many tokens a text counts if it has fewer.

    >>> list(batches([3, 0, 99, 3], 40))
    [[0, 3], [2]]
    """
    batch: list[int] = []
    total = 0
    for i in sorted((i for i, length in enumerate(lengths) if length), key=lengths.__getitem__):
        cost = max(lengths[i], least)
        if batch and total + cost > tokens_per_batch:
            yield batch
            batch, total = [], 0
        batch.append(i)
        total += cost
    if batch:
        yield batch


def top_terms(weights: FloatArray, limit: int, least: float) -> sparse.csr_matrix:
    """Return at most `limit` positive terms of each row (n, vocab), the heaviest ones, none lighter than `least`."""
    chosen = [_heaviest(row, limit, least) for row in weights]
    ids = np.concatenate(chosen) if chosen else np.empty(0, np.int64)
    ends = np.cumsum([0, *map(len, chosen)])
    values = weights[np.repeat(np.arange(len(chosen)), np.diff(ends)), ids]
    return sparse.csr_matrix((values, ids.astype(np.int32), ends), weights.shape, dtype=np.float32)


def _heaviest(weights: FloatArray, limit: int, least: float) -> NDArray[np.int64]:
    """Return the ids, ascending, of at most `limit` positive weights (vocab,); of equal ones the lower ids."""
    # Of truth values: NumPy looks at numbers one by one.
    ids = np.flatnonzero(weights >= least if least else weights > 0)
    if len(ids) <= limit:
        return ids
    values = weights[ids]
    cut = np.partition(values, -limit)[-limit]
    above, equal = values > cut, np.flatnonzero(values == cut)
    above[equal[: limit - np.count_nonzero(above)]] = True
    heaviest: NDArray[np.int64] = ids[above]
    return heaviest


def joined_vectors(views: list[Views], texts: int, width: int) -> FloatArray:
    """Return float32 (texts, width); 0 for texts that the network did not read."""
    vectors = np.zeros((texts, width), dtype=np.float32)
    for part in views:
        vectors[part.texts] = part.dense
    return vectors


def joined_tokens(views: list[Views], read: NDArray[np.int64], dim: int) -> TokenVectors:
    """Return the vectors of the tokens of all texts, in the order of the texts; read: how many tokens each has (n,)."""
    vectors = np.zeros((int(read.sum()), dim), np.float32)
    ends = np.cumsum(read)
    for part in views:
        vectors[np.concatenate([np.arange(ends[i] - read[i], ends[i]) for i in part.texts])] = part.tokens
    return TokenVectors(vectors, read)


def joined_expansions(views: list[Views], texts: int, vocab_size: int) -> sparse.csr_matrix:
    """Return float32 (texts, vocab_size); nothing for texts that the network did not read."""
    read = [text for part in views for text in part.texts]
    if len(views) == 1 and read == list(range(texts)):
        [part] = views
        assert part.terms is not None
        return part.terms
    parts: list[Any] = [*(part.terms for part in views), sparse.csr_array((texts - len(read), vocab_size))]
    places = np.argsort(np.concatenate([read, np.setdiff1d(np.arange(texts), read)]).astype(np.int64))
    return sparse.csr_matrix(sparse.vstack(parts, format="csr", dtype=np.float32)[places])
