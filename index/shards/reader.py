"""The shards in a folder, opened as one index."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.index.reader import FolderReader
from retriever.index.shards.joined import JoinedReader
from retriever.index.shards.manifest import read_manifest, shard_folders
from retriever.types import UserError

if TYPE_CHECKING:
    from typing import Self

__all__ = ["ShardedReader"]


class ShardedReader(JoinedReader):
    """The state of the shards in a folder when it was opened."""

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = False) -> Self:
        """Open the last commit of every shard; raise UserError for a folder that is missing, foreign or damaged.

        verify: read every file of every shard first.
        """
        path = Path(path)
        manifest = read_manifest(path)
        with ExitStack() as opened:
            shards = [FolderReader.open(folder, verify=verify) for folder in shard_folders(path)]
            for shard in shards:
                opened.callback(shard.close)
            reader = cls(path, manifest, shards)
            opened.pop_all()
        return reader

    def reopen(self) -> Self | None:
        """Return a reader of what the shards are now, None if none has changed.

        All of them are opened again: the statistics of one that has changed are those of all.

        Raises:
            UserError: the folder is not there any more, was built again, or is damaged.
        """
        newer = self.open(self.path)
        if newer.commit_data == self.commit_data:
            newer.close()
            return None
        if newer.settings != self.settings:
            newer.close()
            raise UserError(f"{self.path}: was built again with other settings; open it anew")
        return newer
