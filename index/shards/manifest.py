"""The manifest of a sharded index: which index folders are its shards, and what holds for all of them together."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.index.files import damaged, write_whole
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FILE", "ShardManifest", "check_there", "is_sharded", "read_manifest", "shard_folders", "write_manifest"]

FILE = "shards.json"
FORMAT = "retriever-shards"
VERSION = 1


@dataclass(frozen=True)
class ShardManifest:
    """What shards.json says.

    shards: names of index folders beside it. number: how often the manifest was written.
    note: the caller's own words, such as the fusion that hybrid search uses, as in a commit of a single index.
    """

    shards: tuple[str, ...]
    number: int = 0
    note: Mapping[str, str] = field(default_factory=dict)

    def next(self, note: Mapping[str, str]) -> ShardManifest:
        """Return the manifest that follows this one, with another note."""
        return replace(self, number=self.number + 1, note=dict(note))


def is_sharded(path: str | Path) -> bool:
    """Say whether a folder is a sharded index."""
    return (Path(path) / FILE).is_file()


def write_manifest(folder: Path, manifest: ShardManifest) -> None:
    """Write shards.json in one step."""
    values = {"format": FORMAT, "version": VERSION} | asdict(manifest)
    write_whole(folder / FILE, (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode())


def read_manifest(folder: Path) -> ShardManifest:
    """Read shards.json; raise UserError for a foreign one, another version or damage."""
    path = folder / FILE
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{folder}: not a sharded index (it has no {FILE}); give a folder that has one") from None
    except ValueError:
        raise damaged(path, "not JSON") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(f"{path}: not the manifest of a sharded index; need format {FORMAT!r}")
    if values.get("version") != VERSION:
        raise UserError(
            f"{path}: found format version {values.get('version')!r}, this program reads {VERSION}; "
            "build it with `retriever index --shards`"
        )
    try:
        names = tuple(values["shards"])
        manifest = ShardManifest(names, int(values["number"]), dict(values["note"]))
    except (KeyError, TypeError, ValueError):
        raise damaged(path, "its parts are missing or not of their types") from None
    if not names or not all(isinstance(name, str) and name == Path(name).name for name in names):
        raise damaged(path, "its shards are no names of folders")
    return manifest


def shard_folders(path: Path) -> list[Path]:
    """Return the index folders of an index: its shards, or itself; raise UserError for a shard that is missing."""
    if not is_sharded(path):
        return [path]
    folders = [path / name for name in read_manifest(path).shards]
    for folder in folders:
        check_there(folder)
    return folders


def check_there(shard: Path) -> None:
    """Raise UserError if the folder of a shard is missing."""
    if not shard.is_dir():
        raise UserError(
            f"{shard.parent}: its {shard.name} is missing; restore it from a copy, or build the index again"
        )
