"""Files in an index folder that its last commit does not name."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from retriever.index.lock import LockedError
from retriever.index.writing.dense_file import RENEWED, building

if TYPE_CHECKING:
    from pathlib import Path

    from retriever.index.commit import CommitRecord

__all__ = ["remove_unreferenced"]

ROWS_FOLDER = re.compile(r"rows(-\d+)?")


def remove_unreferenced(path: Path, committed: CommitRecord) -> None:
    """Remove files that the last commit does not name: those of older commits and of interrupted ones."""
    named = {path / committed.live_file, path / (committed.dense_file or "dense")}
    rows = path / committed.rows_folder
    named |= {path / block.file for block in (*committed.sparse_files, *committed.bm25_files)}
    found = {*rows.glob("live-*.bin*"), *path.glob("dense/*.faiss*"), *path.glob("index.json.tmp")}
    found |= {*path.glob("sparse/*.postings*"), *path.glob("bm25/*.words*")}
    for file in found - named:
        file.unlink()
    if any(path.glob(f"{RENEWED}*")):
        with suppress(LockedError), building(path):
            pass
    for folder in set(path.glob("rows*/")) - {rows}:
        if ROWS_FOLDER.fullmatch(folder.name):  # anything else is the user's
            shutil.rmtree(folder)
