"""The FAISS file of a commit: when a new one is due, how it is built, also while others may write."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.index.files import sync_path
from retriever.index.lock import WriteLock, patience
from retriever.index.vectors import dense
from retriever.index.vectors.faiss_types import choose_type
from retriever.index.vectors.rows import SEARCHABLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from retriever.index.commit import CommitRecord
    from retriever.index.vectors.rows import RowReader

__all__ = ["RENEWED", "DenseFile", "build_dense", "building", "placed", "type_due"]

NEWER_ROWS = 50_000
"""Rows that are searched exactly at most; with 384 dimensions they take a query about 20 ms."""
RENEWED = "dense/renewed"
"""A FAISS file that is built while others may write: a name that is no commit's, so none of them removes it."""


class DenseFile(NamedTuple):
    """The FAISS file of a commit: its type, its path in the index, how many rows it covers, its CRC-32."""

    kind: str
    file: str
    rows: int
    crc: int


def type_due(last: CommitRecord, rows: int) -> str | None:
    """Return the FAISS type to build: the chosen one where too many rows are newer than its file.

    last: the last commit. rows: how many there are now. Newer rows cost every query an exact scan, building costs once:
    it waits for a fifth more rows, or NEWER_ROWS.
    """
    kind = choose_type(last.dense_choice, rows)
    newer = rows - last.dense_rows
    outgrown = kind != "flat" and (newer > NEWER_ROWS or 5 * newer > last.dense_rows)
    return last.dense_choice if outgrown or kind != last.dense_type else None


def build_dense(path: Path, dense_type: str, name: str, rows: RowReader, flags: NDArray[np.uint8]) -> DenseFile:
    """Write the FAISS index of all rows to a file of the index; {kind} in its name stands for the type."""
    kind = choose_type(dense_type, len(flags))
    if kind == "flat" or not len(flags):
        return DenseFile(kind, "", 0, 0)
    file = name.format(kind=kind)
    crc = dense.build(path / file, kind, rows, (flags & SEARCHABLE).astype(bool))
    return DenseFile(kind, file, len(flags), crc)


def placed(path: Path, built: DenseFile, name: str) -> DenseFile:
    """Give a file that was built before the name that it has in a commit."""
    found = built._replace(file=name.format(kind=built.kind))
    (path / built.file).replace(path / found.file)
    sync_path(path / "dense")
    return found


@contextmanager
def building(path: Path) -> Iterator[None]:
    """Be the one who builds without the lock; remove what is not committed, of one that was killed, too.

    Raises:
        LockedError: another process builds.
    """
    with patience(0):
        lock = WriteLock(path, "build")
    try:
        yield
    finally:
        for file in path.glob(f"{RENEWED}*"):
            file.unlink()
        lock.release()
