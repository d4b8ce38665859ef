"""Chunks: how documents are split, and how a ranking of chunks becomes one of documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from retriever.types import Ranking, ScoredDoc, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from retriever.index.stored import StoredDocument

__all__ = ["Chunking", "ScoredChunk", "best_documents", "chunk_rows"]


@dataclass(frozen=True)
class Chunking:
    """How documents are split: into chunks of at most `tokens` tokens, `overlap` of which are from the one before."""

    tokens: int
    overlap: int

    def __post_init__(self) -> None:
        """Refuse sizes that no text can be split by."""
        if not self.tokens >= 1:
            raise UserError(f"chunks of {self.tokens} tokens are out of range; need 1 or more")
        if not 0 <= self.overlap < self.tokens:
            raise UserError(
                f"an overlap of {self.overlap} tokens is out of range for chunks of {self.tokens}; need 0 or more, and "
                "fewer than a chunk has"
            )

    def __str__(self) -> str:
        return f"by {self.tokens} tokens with an overlap of {self.overlap}"


class ScoredChunk(NamedTuple):
    """A chunk of a document, by its number from 0, and its score in one leg."""

    doc_id: str
    number: int
    score: float


def chunk_rows(documents: Mapping[str, StoredDocument], first_row: Callable[[str], int]) -> dict[int, tuple[str, int]]:
    """Return the rows of the chunks of documents, each with its document and its number there."""
    rows: dict[int, tuple[str, int]] = {}
    for doc_id, stored in documents.items():
        first = first_row(doc_id)
        rows |= {first + number: (doc_id, number) for number in range(max(1, len(stored.chunks)))}
    return rows


def best_documents(search: Callable[[int], Ranking], top_k: int, chunks_per_document: int) -> Ranking:
    """Return the best `top_k` documents, each with the score of its best chunk (MaxP, Dai & Callan, 1905.09217).

    search: returns the best n chunks by (score descending, doc_id ascending), all if they are fewer; it is asked for
    more until the documents are complete. chunks_per_document: how many of them to expect, 1 where all have just one.

    >>> chunks = [ScoredDoc("b", 3.0), ScoredDoc("b", 3.0), ScoredDoc("a", 2.0), ScoredDoc("b", 1.0)]
    >>> [hit.doc_id for hit in best_documents(lambda n: chunks[:n], 2, 2)]
    ['b', 'a']
    """
    if chunks_per_document == 1:
        return search(top_k)
    wanted = top_k * chunks_per_document
    while True:
        chunks = search(wanted)
        best: dict[str, ScoredDoc] = {}
        for chunk in chunks:
            best.setdefault(chunk.doc_id, chunk)
        if len(best) >= top_k or len(chunks) < wanted:
            return list(best.values())[:top_k]
        wanted *= 2
