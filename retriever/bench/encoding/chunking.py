"""What splitting a long text costs, whatever it is made of: texts without sentences beside prose of as many bytes."""

from __future__ import annotations

import base64
import random
import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

from retriever.indexing.chunking import Chunker, chunking_for
from retriever.types import Document, UserError

if TYPE_CHECKING:
    from retriever.types import Encoder

__all__ = ["PROSE", "SHAPES", "ChunkingSpeed", "bench_chunking", "shaped_text"]

PROSE = "prose"
SHAPES = {
    PROSE: "The river rose for two days, and nobody in the valley slept. On the third day it fell again. ",
    "cjk": "東京都渋谷区神南二丁目",
    "cjk sentences": "今日は雨です。明日は晴れますか\uff1f",
    "words": "river valley night water ",
    "log": "2026-01-01T00:00:00Z INFO worker=7 path=/var/tmp/a status=200\n",
    "base64": base64.b64encode(random.Random(7).randbytes(3000)).decode(),
    "one letter": "a",
    "spaces": " ",
    "newlines": "\n",
    "emoji": "😀🎉👩\u200d🚀",
    "combining marks": "e\u0301\u0323",
    "dots": ".",
    "quotes": "\"'\u201d",
    "dots and quotes": '."',
    "mixed": '東京 x=1😀e\u0301..")\n',
}
"""What each text repeats; all but the first have no sentences, or only such as no white space divides."""


class ChunkingSpeed(NamedTuple):
    """One shape: median seconds of splitting one text, as a multiple of prose, and what it came to.

    tokens: as the encoder counts them; a text of more tokens than prose takes longer in proportion.
    """

    shape: str
    seconds: float
    ratio: float
    tokens: int
    chunks: int


def shaped_text(shape: str, length: int) -> str:
    """Return a shape of `SHAPES` repeated to `length` bytes of UTF-8, or up to 3 fewer: no character is cut."""
    unit = SHAPES[shape]
    return (unit * (length // len(unit.encode()) + 1)).encode()[:length].decode(errors="ignore")


def bench_chunking(encoder: Encoder, length: int = 1_000_000, *, rounds: int = 3) -> list[ChunkingSpeed]:
    """Time `Chunker` on one text of `length` UTF-8 bytes of each shape; shapes take turns, so that ratios are fair.

    Raises:
        UserError: no bytes or no rounds.
    """
    if min(length, rounds) < 1:
        raise UserError(f"{length} bytes in {rounds} rounds cannot be timed; need at least 1 of each")
    chunker = Chunker(encoder, chunking_for(encoder))
    documents = {shape: Document(shape, shaped_text(shape, length)) for shape in SHAPES}
    seconds: dict[str, list[float]] = {shape: [] for shape in SHAPES}
    chunks: dict[str, int] = {}
    for _ in range(rounds):
        for shape, document in documents.items():
            started = time.perf_counter()
            chunks[shape] = len(chunker(document))
            seconds[shape].append(time.perf_counter() - started)
    medians = {shape: statistics.median(times) for shape, times in seconds.items()}
    return [
        ChunkingSpeed(
            shape,
            medians[shape],
            medians[shape] / medians[PROSE],
            len(encoder.token_starts(document.text)),
            chunks[shape],
        )
        for shape, document in documents.items()
    ]
