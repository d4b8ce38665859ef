"""Putting indexes together without encoding anything: each becomes a shard, or all of its shards do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retriever.index.commit import unfinished
from retriever.index.files import disk_errors, sync_path
from retriever.index.reader import FolderReader
from retriever.index.shards.agreement import check_alike
from retriever.index.shards.manifest import ShardManifest, is_sharded, read_manifest, shard_folders, write_manifest
from retriever.index.snapshot import Snapshot, take_snapshot
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Merged", "merge_indexes", "shard_name", "snapshot_index"]


class Merged(NamedTuple):
    """What was put together: shards, documents, files that are links, files that are copies, and their bytes."""

    shards: int
    documents: int
    links: int
    copies: int
    copied_bytes: int


def shard_name(number: int) -> str:
    """Return the name of a shard's folder.

    >>> shard_name(7)
    'shard-00007'
    """
    return f"shard-{number:05d}"


def merge_indexes(indexes: Sequence[str | Path], out: str | Path) -> Merged:
    """Make a sharded index of the last commits of some indexes in the new folder `out`; they stay as they are.

    Files that are never changed are linked, as in a snapshot: they take no space as long as the indexes have them.

    Raises:
        UserError: an index cannot be opened or is not finished, they differ in encoder or settings, a document is in
            two of them, or `out` is there already.
    """
    out = Path(out)
    folders = [folder for path in indexes for folder in shard_folders(Path(path))]
    _check_outside(map(Path, indexes), out)
    _check(folders)
    return _snapshots(folders, out, {})


def snapshot_index(path: str | Path, out: str | Path) -> Snapshot:
    """Do what `take_snapshot` does; of a sharded index shard by shard, whose commits are added up."""
    path, out = Path(path), Path(out)
    _check_outside([path], out)
    if not is_sharded(path):
        return take_snapshot(path, out)
    manifest = read_manifest(path)
    taken = _snapshots(shard_folders(path), out, dict(manifest.note))
    return Snapshot(manifest.number, taken.documents, taken.links, taken.copies, taken.copied_bytes)


def _snapshots(folders: Sequence[Path], out: Path, note: dict[str, str]) -> Merged:
    if out.exists() or out.is_symlink():
        raise UserError(f"{out}: is there already, need a new folder for the index; give another path")
    names = tuple(map(shard_name, range(len(folders))))
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_name(f".{out.name}.{os.getpid()}")
        try:
            part.mkdir()
            taken = [take_snapshot(folder, part / name) for folder, name in zip(folders, names, strict=True)]
            write_manifest(part, ShardManifest(names, note=note))
            part.rename(out)
            sync_path(out.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return Merged(
        len(folders),
        sum(one.documents for one in taken),
        sum(one.links for one in taken),
        sum(one.copies for one in taken),
        sum(one.copied_bytes for one in taken),
    )


def _check_outside(paths: Iterable[Path], out: Path) -> None:
    for path in paths:
        if path.resolve() in out.resolve().parents:
            raise UserError(f"{out}: lies inside the index {path}; give a folder outside of it")


def _check(folders: Sequence[Path]) -> None:
    """Refuse indexes that cannot be one: other settings, interrupted ones, documents that are in two of them."""
    places: dict[str, Path] = {}
    settings = []
    for number, folder in enumerate(folders):
        if folder.resolve() in [other.resolve() for other in folders[:number]]:
            raise UserError(f"{folder}: is given twice; give each index once")
        with FolderReader.open(folder) as reader:
            settings.append(reader.settings)
            check_alike(Path(), [str(one) for one in folders[: len(settings)]], settings)
            if unfinished(reader.commit_data):
                raise UserError(f"{folder}: its making was interrupted; finish it with `retriever index ... --resume`")
            for doc_id in reader.selected_ids(None):
                if (other := places.setdefault(doc_id, folder)) != folder:
                    raise UserError(
                        f"{folder}: holds the document {ascii(doc_id)[:80]}, which is in {other}, too; "
                        "delete it from one of them with `retriever delete`"
                    )
