"""Hybrid text retrieval: one Mixture-of-Experts encoder, Lucene and FAISS indexes, fusion and evaluation.

Importing the package is cheap: torch, faiss and the JVM are loaded when they are first needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retriever.types import Document, Encoded, Encoder, Hit, Query, ScoredDoc, UserError

if TYPE_CHECKING:
    from retriever.indexing.writer import IndexWriter
    from retriever.search.retriever import Retriever

__all__ = ["Document", "Encoded", "Encoder", "Hit", "IndexWriter", "Query", "Retriever", "ScoredDoc", "UserError"]


def __getattr__(name: str) -> Any:
    """Import `Retriever` and `IndexWriter` on first use, because they bring NumPy and the indexes along."""
    if name == "Retriever":
        from retriever.search.retriever import Retriever

        return Retriever
    if name == "IndexWriter":
        from retriever.indexing.writer import IndexWriter

        return IndexWriter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
