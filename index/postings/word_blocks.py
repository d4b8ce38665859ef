"""Files of what BM25 reads: of up to 65,536 neighbouring rows, the rows that hold each word, and how often.

A file holds, little-endian, the `_HEAD` (64 bytes), and then, each from a place that 8 divides: of each row its length
in words (uint32) and Lucene's norm, which is that length in 8 bits (uint8); of each word, in the order of their UTF-8
bytes, where its text ends (uint32), and where its postings begin (uint32, one more than words); of each posting its row
from the first one of the block (uint16); the exceptions, each the place of a posting and a frequency (uint32 each); of
each of the encoder's tokens that the rows have its number, and how many have it (uint32 each); the texts; of each
posting its frequency (uint8), 255 for an exception. Three bytes a posting.
"""

from __future__ import annotations

import os
import struct
import zlib
from bisect import bisect_left
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.index.files import COMPACT, damaged, sync_path, write_all
from retriever.index.postings.blocks import BLOCK_ROWS

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MANY", "WordBlock", "open_word_block", "write_word_block"]

MANY = 255
"""A frequency from which on it stands among the exceptions."""
_HEAD = struct.Struct(
    "<8s5Q4I"
)  # magic; rows, words, bytes of texts, postings, exceptions; tokens, rows alive, rows with tokens
_MAGIC = b"bm25-002"
_STEP = 8
COUNTS = 7
"""Numbers that Lucene's answer begins with."""


class WordBlock(NamedTuple):
    """An open file.

    lengths: of each row, uint32 (rows,). norms: Lucene's, uint8 (rows,). ends: where the text of each word ends in
    `text`, uint32 (words,). starts: where its postings begin, uint32 (words + 1,). rows: of the postings, uint16 (n,).
    exceptions: places of postings, and their frequencies, uint32 (e, 2). tokens: of the encoder, and how many rows have
    each, uint32 (t, 2). frequencies: uint8 (n,). live, with_tokens: rows that were alive, and that had a token.
    """

    lengths: NDArray[np.uint32]
    norms: NDArray[np.uint8]
    ends: NDArray[np.uint32]
    starts: NDArray[np.uint32]
    rows: NDArray[np.uint16]
    exceptions: NDArray[np.uint32]
    tokens: NDArray[np.uint32]
    text: NDArray[np.uint8]
    frequencies: NDArray[np.uint8]
    live: int
    with_tokens: int

    def rows_of(self, word: str) -> NDArray[np.uint16]:
        """Return the rows that hold a word, ascending."""
        place = bisect_left(range(len(self.ends)), word.encode(), key=self.word)
        if place == len(self.ends) or self.word(place) != word.encode():
            return self.rows[:0]
        return self.rows[self.starts[place] : self.starts[place + 1]]

    def word(self, place: int) -> bytes:
        """Return the UTF-8 bytes of a word, by its place in their order."""
        return self.text[self.ends[place - 1] if place else 0 : self.ends[place]].tobytes()


def _sizes(rows: int, words: int, text: int, postings: int, exceptions: int, tokens: int) -> list[int]:
    """Return the bytes of each part."""
    return [4 * rows, rows, 4 * words, 4 * (words + 1), 2 * postings, 8 * exceptions, 8 * tokens, text, postings]


def write_word_block(path: Path, rows: int, data: bytes) -> int:
    """Write what `index.lucene.words.word_postings` gives of so many rows, durably; return the file's CRC-32."""
    words, text, postings, exceptions, tokens, live, with_tokens = np.frombuffer(data, "<u4", COUNTS).tolist()
    numbers = rows, words, text, postings, exceptions, tokens
    parts: list[bytes | memoryview] = [_HEAD.pack(_MAGIC, *numbers, live, with_tokens, 0)]
    place, crc = 4 * COUNTS, 0
    for size in _sizes(*numbers):
        parts += [memoryview(data)[place : place + size], bytes(-size % _STEP)]
        place += size
    temporary = path.with_name(path.name + ".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        for part in filter(len, parts):
            write_all(descriptor, part)
            crc = zlib.crc32(part, crc)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    sync_path(path.parent)
    return crc


def open_word_block(path: Path, rows: int) -> WordBlock:
    """Map a file of so many rows; raise UserError if its parts do not fit together.

    Nothing but its head is read. Who follows what is found in it has to look that it stays within the file.
    """
    data = np.memmap(path, np.uint8, "r").view(np.ndarray) if path.stat().st_size else np.empty(0, np.uint8)
    head = data[: _HEAD.size].tobytes().ljust(_HEAD.size, b"\0")
    magic, covered, words, texts, postings, exceptions, tokens, live, with_tokens, _ = _HEAD.unpack(head)
    sizes = _sizes(covered, words, texts, postings, exceptions, tokens)
    whole = _HEAD.size + sum(size + -size % _STEP for size in sizes)
    if magic != _MAGIC or covered != rows or rows > BLOCK_ROWS or whole != len(data):
        raise damaged(path, "its parts are not those of a file of words", COMPACT)
    found, place = [], _HEAD.size
    for size in sizes:
        found.append(data[place : place + size])
        place += size + -size % _STEP
    return WordBlock(
        found[0].view("<u4"),
        found[1],
        found[2].view("<u4"),
        found[3].view("<u4"),
        found[4].view("<u2"),
        found[5].view("<u4").reshape(-1, 2),
        found[6].view("<u4").reshape(-1, 2),
        found[7],
        found[8],
        live,
        with_tokens,
    )
