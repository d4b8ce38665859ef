"""The postings of BM25 beside Lucene's: derived from the same words, in blocks that follow the rows.

A commit names the blocks, and they cover all its rows; of rows that were dead when a block was made nothing stands in
it. New rows become new blocks, and small neighbours become one, by the rule of `sparse/`. Lucene is the durable form
and gives whatever is written: nothing is analysed again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.index.files import checksum, sync_path
from retriever.index.postings.blocks import BLOCK_ROWS, BlockFile
from retriever.index.postings.sparse import groups
from retriever.index.postings.word_blocks import open_word_block, write_word_block
from retriever.lazy import lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from retriever.index.postings.word_blocks import WordBlock
    from retriever.types import BoolArray

    Ranges = Sequence[tuple[int, int]]

__all__ = ["FOLDER", "OwnCollection", "WordPostings", "WordWriter", "open_words"]

FOLDER = "bm25"


class TokenCounts(NamedTuple):
    """How many rows have any token of the encoder, and how many have each: int64 (tokens,), tokens ascending."""

    documents: int
    tokens: NDArray[np.int64]
    counts: NDArray[np.int64]

    def of(self, tokens: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return how many rows have each of some tokens."""
        places = np.searchsorted(self.tokens, tokens)
        found = np.append(self.tokens, -1)[places] == tokens
        counts: NDArray[np.int64] = np.append(self.counts, 0)[places] * found
        return counts


class Totals(NamedTuple):
    """What BM25 knows of all live rows: how many have a word, and how many words they have together."""

    documents: int
    length: int


class WordPostings:
    """All postings of a commit. blocks: in the order of the rows that they cover; first_rows: the first of each.

    alive: bool (rows,).
    """

    def __init__(self, blocks: Sequence[WordBlock], alive: BoolArray) -> None:
        self.blocks, self.alive = blocks, alive
        self.first_rows = np.cumsum([0, *(len(block.norms) for block in blocks)]).tolist()[:-1]
        self.all_alive = bool(alive.all())

    @lazy
    def tokens(self) -> TokenCounts | None:
        """Return how many live rows have each token; None where rows have died since it was counted."""
        for block, first in zip(self.blocks, self.first_rows, strict=True):
            if block.live != np.count_nonzero(self.alive[first : first + len(block.norms)]):
                return None
        pairs = np.concatenate([np.empty((0, 2), np.int64), *(block.tokens for block in self.blocks)]).astype(np.int64)
        tokens, places = np.unique(pairs[:, 0], return_inverse=True)  # a damaged one may be any number
        counts = np.zeros(len(tokens), np.int64)
        np.add.at(counts, places, pairs[:, 1])
        return TokenCounts(sum(block.with_tokens for block in self.blocks), tokens, counts)

    def owns(self, collection: object) -> bool:
        """Say whether a collection is that of these rows alone."""
        return isinstance(collection, OwnCollection) and collection.words is self

    def frequencies(self, words: Sequence[str]) -> list[int]:
        """Return in how many live rows each word stands."""
        return [sum(int(np.count_nonzero(self.alive[rows])) for rows in self._rows_of(word)) for word in words]

    def _rows_of(self, word: str) -> Iterator[NDArray[np.int64]]:
        for block, first in zip(self.blocks, self.first_rows, strict=True):
            rows = block.rows_of(word)
            yield first + rows[rows < len(block.norms)].astype(np.int64)  # all but in a damaged block

    @lazy
    def totals(self) -> Totals:
        """Return the statistics of the live rows."""
        documents = length = 0
        for block, first in zip(self.blocks, self.first_rows, strict=True):
            lengths = block.lengths * self.alive[first : first + len(block.lengths)]
            documents += int(np.count_nonzero(lengths))
            length += int(lengths.sum(dtype=np.int64))
        return Totals(documents, length)


class OwnCollection:
    """What BM25 knows where it ranks the rows of one index alone: an `index.lucene.collection.Collection`."""

    def __init__(self, words: WordPostings, languages: Mapping[str, int]) -> None:
        self.words, self.languages = words, languages

    @property
    def documents(self) -> int:
        """Return how many live rows have a word."""
        return self.words.totals.documents

    @property
    def length(self) -> int:
        """Return how many words they have together."""
        return self.words.totals.length

    def frequencies(self, terms: Sequence[str]) -> list[int]:
        """Return in how many live rows each word stands."""
        return self.words.frequencies(terms)


def open_words(folder: Path, files: Sequence[BlockFile], alive: BoolArray) -> WordPostings | None:
    """Map the postings of a commit; None if it has none, as those of indexes that were made before there were any."""
    if sum(file.rows for file in files) != len(alive):
        return None
    return WordPostings([open_word_block(folder / file.file, file.rows) for file in files], alive)


class WordWriter:
    """Writes the postings of the next commit beside those of the last one.

    files: the blocks of the last commit, of none where they do not cover its rows.
    """

    def __init__(self, folder: Path, files: Sequence[BlockFile], rows: int) -> None:
        self._folder = folder
        self._files = list(files) if sum(file.rows for file in files) == rows else []

    def compact(self, kept: int) -> None:
        """Forget all blocks where `kept` rows are left and numbered anew, or where one is damaged."""
        paths = [self._folder / file.file for file in self._files]
        whole = (path.exists() and checksum(path) == file.crc for path, file in zip(paths, self._files, strict=True))
        if sum(file.rows for file in self._files) != kept or not all(whole):
            self._files = []

    def finish(self, number: int, rows: int, words: Callable[[Ranges], Iterator[bytes]]) -> list[BlockFile]:
        """Return the blocks of all rows, for commit `number`, durable.

        words: yields Lucene's postings of each of some ranges of rows, see `index.lucene.word_postings`.
        """
        covered = sum(file.rows for file in self._files)
        bounds = [*range(covered, rows, BLOCK_ROWS), rows]
        wanted: list[BlockFile | None] = [*self._files, *(None for _ in bounds[1:])]
        edges = np.cumsum([0, *(file.rows for file in self._files)]).tolist() + bounds[1:]
        files: list[BlockFile | None] = []
        ranges, place = [], 0
        for count in groups(np.diff(edges).tolist()):
            old = wanted[place] if count == 1 else None
            files.append(old)
            ranges += [] if old else [(edges[place], edges[place + count])]
            place += count
        made = self._write(number, ranges, words)
        self._files = [file or next(made) for file in files]
        return self._files

    def _write(self, number: int, ranges: Ranges, words: Callable[[Ranges], Iterator[bytes]]) -> Iterator[BlockFile]:
        if not ranges:
            return
        folder = self._folder / FOLDER
        folder.mkdir(exist_ok=True)
        sync_path(self._folder)  # else a commit could outlive the folder that it names
        for serial, ((first, end), data) in enumerate(zip(ranges, words(ranges), strict=True), start=1):
            name = f"{FOLDER}/{number}-{serial}.words"
            yield BlockFile(name, end - first, write_word_block(self._folder / name, end - first, data))
