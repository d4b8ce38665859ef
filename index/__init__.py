"""The index folder: Lucene for text and impacts, rows and FAISS for vectors, one commit point."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retriever.index.reader import FolderReader
    from retriever.index.settings import IndexSettings
    from retriever.index.writer import FolderWriter

__all__ = ["FolderReader", "FolderWriter", "IndexSettings"]

MODULES = {"FolderReader": "reader", "FolderWriter": "writer", "IndexSettings": "settings"}
"""Imported when they are first needed: the command line reads `faiss_types` alone."""


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)
