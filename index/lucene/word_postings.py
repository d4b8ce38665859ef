"""What BM25 reads of some rows, taken out of Lucene in one call: see `java/Words.java`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from retriever.index.lucene.jvm import define_class, one_at_a_time

__all__ = ["word_postings"]


@functools.cache
def _words() -> Any:
    return define_class("org.retriever.Words", Path(__file__).parent / "java" / "Words.class")


@one_at_a_time()
def word_postings(index: Any, first: int, end: int) -> bytes:
    """Return the postings of the live rows from `first` up to `end` as `index.word_blocks` writes them."""
    data: bytes = _words().of(index, first, end).tostring()
    return data
