"""The folder of a new index: empty and ours alone, and gone again where the index cannot be made."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from retriever.index.files import disk_errors
from retriever.index.lock import WriteLock
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["new_folder"]


@contextmanager
def new_folder(path: Path) -> Iterator[WriteLock]:
    """Make the folder of an index, or take an empty one, and lock it; after an error it is as it was.

    Raises:
        UserError: there is a file, or a folder that is not empty.
    """
    with disk_errors(path):
        if path.exists() and not path.is_dir():
            raise UserError(f"{path}: a file, need a new or empty folder for the index; give another path")
        new = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        _refuse_if_not_empty(path, set())
        try:
            lock = WriteLock(path)
        except OSError:
            if new:
                shutil.rmtree(path)
            raise
    try:
        _refuse_if_not_empty(path, {"write.lock"})  # somebody else may have been faster
    except UserError:
        lock.release()
        raise
    try:
        yield lock
    except BaseException:
        for part in path.iterdir():
            shutil.rmtree(part) if part.is_dir() else part.unlink()
        if new:
            path.rmdir()
        lock.release()
        raise


def _refuse_if_not_empty(path: Path, ours: set[str]) -> None:
    found = sorted({file.name for file in path.iterdir()} - ours)
    if found:
        raise UserError(
            f"{path}: the folder is not empty (it has {found[0]!r}); "
            "give a new folder, or add to an index with `retriever add`"
        )
