"""Verifying an index that may be sharded."""

from __future__ import annotations

from pathlib import Path

from retriever.index.shards.manifest import is_sharded, shard_folders
from retriever.index.verify import Verification, verify_folder

__all__ = ["verify_index"]


def verify_index(path: str | Path) -> Verification:
    """Do what `verify_folder` does; of a sharded index with every shard, whose files are named with their folder.

    commit: of several shards the sum of their commits.
    """
    path = Path(path)
    if not is_sharded(path):
        return verify_folder(path)
    folders = shard_folders(path)
    found = [verify_folder(folder) for folder in folders]
    return Verification(
        commit=sum(one.commit for one in found),
        files=sum(one.files for one in found),
        bytes=sum(one.bytes for one in found),
        damages=tuple(
            damage._replace(file=f"{folder.name}/{damage.file}")
            for folder, one in zip(folders, found, strict=True)
            for damage in one.damages
        ),
    )
