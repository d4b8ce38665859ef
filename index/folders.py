"""Folders as a kind of place, see `retriever.index.places`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retriever.index.info import describe
from retriever.index.reader import FolderReader
from retriever.index.verify import verify_folder as verify
from retriever.index.writer import FolderWriter

if TYPE_CHECKING:
    from pathlib import Path

    from retriever.index.contract import IndexReader, IndexWriter

__all__ = ["describe", "open_reader", "open_writer", "verify"]


def open_reader(place: str | Path, *, verify: bool) -> IndexReader:
    """Open the last commit of a folder."""
    return FolderReader.open(place, verify=verify)


def open_writer(place: str | Path) -> IndexWriter:
    """Open a folder for changes."""
    return FolderWriter.open(place)
