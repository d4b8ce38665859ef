"""What encoding costs: the latency of one query, memory over many texts, time by length."""

from __future__ import annotations

import os
import time
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.bench.encoding.encode import count_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from retriever.encoder.moe.encoder import MoEEncoder

__all__ = ["LengthCost", "MemoryPoint", "QueryLatency", "cost_by_length", "memory_over_texts", "query_latency"]

QUERY_WARM_UP = 20
LENGTHS = (0, 32, 64, 128, 192, 256, 512)
TEXTS_PER_LENGTH = 64
WINDOW = 1000


class QueryLatency(NamedTuple):
    """Milliseconds to encode one query alone (batch of 1) with a warm encoder."""

    query_mode: str
    views: str
    p50: float
    p95: float
    p99: float
    queries: int


class MemoryPoint(NamedTuple):
    """The process after so many texts: memory in use, and the tokens and seconds since the point before."""

    texts: int
    resident_mib: float
    tokens: int
    seconds: float
    microseconds_per_token: float


class LengthCost(NamedTuple):
    """Texts of one range of lengths, encoded by themselves; linear cost is the same time per token in each."""

    shortest: int
    longest: int
    texts: int
    tokens: int
    microseconds_per_token: float


def query_latency(encoder: MoEEncoder, queries: Sequence[str]) -> Iterator[QueryLatency]:
    """Encode each query by itself, in both query modes, for the sparse view alone and with the dense one."""
    for mode in encoder.query_modes:
        in_mode = encoder.with_query_mode(mode)
        for dense in (False, True):
            for query in queries[:QUERY_WARM_UP]:
                in_mode.encode_queries([query], dense=dense)
            found = []
            for query in queries:
                begun = time.perf_counter()
                in_mode.encode_queries([query], dense=dense)
                found.append((time.perf_counter() - begun) * 1000)
            p50, p95, p99 = np.percentile(found, [50, 95, 99]).tolist()
            yield QueryLatency(mode, "dense and sparse" if dense else "sparse", p50, p95, p99, len(found))


def memory_over_texts(encoder: MoEEncoder, texts: Iterable[str], every: int) -> Iterator[MemoryPoint]:
    """Encode a stream of texts and forget them; tell the memory of the process after each `every` of them."""
    stream, done, tokens, seconds = iter(texts), 0, 0, 0.0
    while window := list(islice(stream, min(WINDOW, every - done % every))):
        tokens += sum(count_tokens(encoder, window))
        begun = time.perf_counter()
        encoder.encode_documents(window)
        seconds += time.perf_counter() - begun
        done += len(window)
        if done % every == 0:
            yield MemoryPoint(done, _resident_mib(), tokens, seconds, 1e6 * seconds / max(tokens, 1))
            tokens, seconds = 0, 0.0


def cost_by_length(encoder: MoEEncoder, texts: Sequence[str]) -> Iterator[LengthCost]:
    """Encode texts of each range of lengths by themselves, at most TEXTS_PER_LENGTH of each range that has any."""
    lengths = np.array(count_tokens(encoder, texts))
    for shortest, longest in pairwise(LENGTHS):
        places = np.flatnonzero((lengths > shortest) & (lengths <= longest))[:TEXTS_PER_LENGTH]
        if not len(places):
            continue
        chosen = [texts[place] for place in places]
        encoder.encode_documents(chosen[:4])
        begun = time.perf_counter()
        encoder.encode_documents(chosen)
        seconds = time.perf_counter() - begun
        tokens = int(lengths[places].sum())
        yield LengthCost(shortest + 1, longest, len(chosen), tokens, 1e6 * seconds / tokens)


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
