"""The impacts of an index outside Lucene, for back ends of the sparse leg: read once per commit, then cached."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retriever.files import cache_errors, cache_root

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from retriever.index.contract import LegReader

__all__ = ["impacts_of", "kept_folder"]

PARTS = ("indptr", "indices", "data")
PARTIAL = ".partial-"


def impacts_of(reader: LegReader) -> csr_matrix:
    """Return float32 csr (rows, vocab_size), memory-mapped: the impacts of each live row.

    Reading them from Lucene takes about a microsecond each, from the cache next to nothing.
    """
    folder = kept_folder(reader)
    with cache_errors("sparse terms"):
        if (folder / "data.npy").exists():
            return _kept(folder, reader)
    impacts = reader.stored_terms("impact").astype(np.float32)
    impacts.sort_indices()
    with cache_errors("sparse terms"):
        _keep(folder, impacts)
        return _kept(folder, reader)
    return impacts


def _keep(folder: Path, impacts: csr_matrix) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=PARTIAL) as partial:
        for part in PARTS:
            np.save(Path(partial) / f"{part}.npy", getattr(impacts, part))
        for old in folder.parent.iterdir():  # of earlier commits; who has it open keeps what is mapped
            if not old.name.startswith(PARTIAL):
                shutil.rmtree(old, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        for part in PARTS:  # "data", which says that all are there, comes last
            (Path(partial) / f"{part}.npy").replace(folder / f"{part}.npy")


def _kept(folder: Path, reader: LegReader) -> csr_matrix:
    from scipy.sparse import csr_matrix

    shape = (reader.commit_data.mark.rows, reader.settings.encoder.vocab_size)
    try:
        indptr, indices, data = (np.load(folder / f"{part}.npy", mmap_mode="r") for part in PARTS)
        return csr_matrix((data, indices, indptr), shape=shape, copy=False)
    except ValueError as error:  # cut off, or another kind of file
        raise OSError(f"{folder}: damaged: {error}") from None


def kept_folder(reader: LegReader) -> Path:
    """Return the folder in the user's cache for what is derived from this commit of this index."""
    path = hashlib.sha256(str(Path(reader.path).resolve()).encode()).hexdigest()[:16]
    commit = json.dumps([dataclasses.asdict(reader.commit_data), dataclasses.asdict(reader.settings)], default=str)
    return cache_root() / "impacts" / path / hashlib.sha256(commit.encode()).hexdigest()[:16]
