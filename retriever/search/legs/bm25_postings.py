"""BM25 by its postings: the scores of all postings of the query's words are added up, block by block, without Java.

Every ranking is Lucene's to the last tie, as of an index of the live documents alone: its statistics are theirs.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever.index.lucene.calls import Found, no_hits
from retriever.index.postings.blocks import BLOCK_ROWS
from retriever.lazy import lazy
from retriever.machine_code import Argument, argument, load_kernels
from retriever.ranking import check_top_k

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from retriever.index.contract import LegReader, Selection
    from retriever.index.lucene.collection import Collection
    from retriever.index.postings.words import WordPostings
    from retriever.types import BoolArray, Ranking

__all__ = ["StoredWords", "idf", "norm_factors"]

KERNELS = "retriever.search.kernels.bm25"
SOURCES = ("retriever.instructions",)
NAMES = ("find_words", "live_counts", "best_rows")
EXACT_LENGTHS = 24
"""Norms below it are lengths; those from it on have three bits of a length and its size (Lucene's SmallFloat)."""
NORMS = 256


class _Scratch(NamedTuple):
    """What a thread computes in. sums, touched: as the kernel takes them. rows, scores: of what it finds."""

    sums: Argument
    touched: Argument
    rows: Argument
    scores: Argument


class StoredWords:
    """Ranks by the postings of one reader, from any number of threads."""

    def __init__(self, reader: LegReader, words: WordPostings) -> None:
        self._reader, self._words = reader, words
        self._scratch = threading.local()

    def search(self, weights: Mapping[str, float], top_k: int, selection: Selection | None = None) -> Ranking:
        """Rank for a query of analysed words with weights above 0, such as how often each stands in it."""
        check_top_k(top_k)
        if not weights or not self._words.blocks:
            return []
        eligible = self._words.alive if selection is None else self._words.alive & selection.rows
        query = self._query(weights)
        return self._reader.ranking(lambda count: self._best(query, eligible, count), top_k)

    def among(self, weights: Mapping[str, float], rows: Sequence[int]) -> dict[int, float]:
        """Return the scores of those of some live rows that hold a word, by row, as `search` gives them."""
        if not weights or not self._words.blocks:
            return {}
        eligible = np.zeros_like(self._words.alive)
        eligible[rows] = True
        query = self._query(weights)
        held = np.zeros((len(self._words.blocks), 1), np.bool_)
        held[np.searchsorted(self._words.first_rows, rows, side="right") - 1] = True
        query = query._replace(last=np.where(held, query.last, query.first))  # no postings of other blocks
        found = self._best(query, eligible, len(rows))
        return dict(zip(found.rows.tolist(), found.scores.tolist(), strict=True))

    def _query(self, weights: Mapping[str, float]) -> _Query:
        """Find the words, and weigh them."""
        kernels = word_kernels()
        encoded = [word.encode() for word in weights]
        ends = np.cumsum([len(word) for word in encoded], dtype=np.int64)
        first = np.empty((len(self._words.blocks), len(encoded)), np.int64)
        last = np.empty_like(first)
        kernels["find_words"](self._table, np.frombuffer(b"".join(encoded), np.uint8), ends, first, last)
        collection = self._reader.collection
        if not self._words.owns(collection):
            frequencies = collection.frequencies(list(weights))
        elif self._words.all_alive:
            frequencies = (last - first).sum(axis=0).tolist()
        else:
            counts = np.empty(len(encoded), np.int64)
            kernels["live_counts"](self._table, first, last, self._words.alive, counts)
            frequencies = counts.tolist()
        documents = collection.documents
        wanted = [
            np.float32(weight) * idf(frequency, documents) if frequency else np.float32(0)
            for weight, frequency in zip(weights.values(), frequencies, strict=True)
        ]
        return _Query(first, last, np.array(wanted, np.float32), self._factors(collection))

    def _factors(self, collection: Collection) -> NDArray[np.float32]:
        made: tuple[int, int, NDArray[np.float32]] | None = getattr(self, "_made", None)
        if made is None or made[:2] != (collection.documents, collection.length):
            bm25 = self._reader.settings.bm25
            factors = norm_factors(bm25.k1, bm25.b, collection.documents, collection.length)
            made = self._made = (collection.documents, collection.length, factors)
        return made[2]

    def _best(self, query: _Query, eligible: BoolArray, count: int) -> Found:
        """Return the eligible rows with the best `count` scores, and all that tie with the last."""
        if not query.weights.any():
            return no_hits()
        scratch = getattr(self._scratch, "arrays", None)
        if scratch is None:
            # what is found is few of these, and memory that is not touched is not taken
            found = argument(np.empty(len(eligible), np.int64)), argument(np.empty(len(eligible)))
            scratch = _Scratch(argument(np.zeros(BLOCK_ROWS)), argument(np.empty(BLOCK_ROWS, np.int64)), *found)
            self._scratch.arrays = scratch
        heap = np.zeros(min(count, len(eligible)))
        number = word_kernels()["best_rows"](
            self._table, *query, eligible, scratch.sums, scratch.touched, heap, *scratch[2:]
        )
        return Found(scratch.rows.array[:number].copy(), scratch.scores.array[:number].copy())

    @lazy
    def _table(self) -> Argument:
        """Return where the kernels find the blocks, int64 (blocks, fields).

        Of each its first row, how many rows, words, postings, exceptions and bytes of text it has, and the addresses of
        its norms, ends, starts, rows, exceptions, text and frequencies.
        """
        table = []
        for first, block in zip(self._words.first_rows, self._words.blocks, strict=True):
            counts = (len(part) for part in (block.norms, block.ends, block.rows, block.exceptions, block.text))
            parts = (*block[1:6], block.text, block.frequencies)
            table.append([first, *counts, *(part.ctypes.data for part in parts)])
        return argument(np.array(table, np.int64))


class _Query(NamedTuple):
    """Where the postings of each word begin and end in each block, its weight, and what norms make of frequencies."""

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    weights: NDArray[np.float32]
    inverse: NDArray[np.float32]


def word_kernels() -> dict[str, Any]:
    """Return the compiled steps; compiling them, once after an installation, takes some seconds."""
    return load_kernels(KERNELS, NAMES, sources=SOURCES)


def idf(frequency: int, documents: int) -> np.float32:
    """Return Lucene's idf of a word that stands in so many documents of all."""
    return np.float32(math.log(1 + (documents - frequency + 0.5) / (frequency + 0.5)))


def norm_factors(k1: float, b: float, documents: int, length: int) -> NDArray[np.float32]:
    """Return 1 / (k1 * (1 - b + b * length / mean length)) of the length of each norm, float32 (256,), as Lucene does.

    documents, length: how many documents have a word, and how many words they have together.
    """
    norms = np.arange(NORMS) - EXACT_LENGTHS
    bits, size = norms & 7, np.maximum((norms >> 3) - 1, 0)
    rounded = np.where(norms < 8, bits, (bits | 8) << size) + EXACT_LENGTHS
    lengths = np.where(norms < 0, np.arange(NORMS), rounded).astype(np.float32)
    k, share, one = np.float32(k1), np.float32(b), np.float32(1)
    mean = np.float32(length / documents) if documents else one
    factors: NDArray[np.float32] = one / (k * ((one - share) + share * lengths / mean))
    return factors
