"""An index whose shards are open in actors of a Ray cluster: what `Retriever.open(DIR, cluster=...)` searches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.cluster.remote_leg import RemoteLeg
from retriever.cluster.remote_shard import RemoteShard
from retriever.cluster.replicas import Replicas, SearchCluster
from retriever.cluster.server import ShardState
from retriever.cluster.session import Session
from retriever.index.shards.joined import JoinedReader
from retriever.index.shards.manifest import read_manifest
from retriever.search.leg import LEGS, LegOptions
from retriever.search.opened.commit_view import open_legs
from retriever.search.opened.joined import joined_legs
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from retriever.search.leg import OpenLeg

__all__ = ["ClusterReader", "open_reader"]


def open_reader(place: str | Path, cluster: str | SearchCluster, *, verify: bool, options: LegOptions) -> ClusterReader:
    """Start the actors of a sharded index, and see its last commits.

    Raises:
        UserError: no sharded index, no such cluster, or a shard that cannot be opened where its actor is.
    """
    path = Path(place).absolute()
    read_manifest(path)
    how = SearchCluster(cluster) if isinstance(cluster, str) else cluster
    session = Session(path, how, options)
    try:
        if verify:
            session.verify()
        return ClusterReader(session, session.states(Replicas.ask_at_start))
    except BaseException:
        session.close()
        raise


class ClusterReader(JoinedReader):
    """The state of all shards when it was opened, read through their actors. states: None for a shard left out."""

    def __init__(self, session: Session, states: Sequence[ShardState | None]) -> None:
        self._session, self._states = session, states
        self._whole = read_manifest(session.path)
        self.remote = [
            RemoteShard(session.path / replicas.name, replicas, state, session.how.partial)
            for replicas, state in zip(session.shards, states, strict=True)
            if state is not None
        ]
        there = tuple(shard.path.name for shard in self.remote)
        super().__init__(session.path, replace(self._whole, shards=there), self.remote)
        self.each(lambda shard: shard.hold())

    @property
    def lost(self) -> tuple[str, ...]:
        """Return the names of the shards that were left out, or have not answered lately: answers are without them."""
        pairs = zip(self._session.shards, self._states, strict=True)
        return tuple(replicas.name for replicas, state in pairs if state is None or replicas.lost)

    def reopen(self) -> Self | None:
        """Return a reader of what the shards are now, None if none has changed. A lost shard stays as it was."""
        found, manifest = self._session.states(Replicas.ask), read_manifest(self.path)
        if manifest.shards != self._whole.shards:
            raise UserError(f"{self.path}: was built again with other shards; open it anew")
        states = [newer or older for newer, older in zip(found, self._states, strict=True)]
        if [state and state.commit for state in states] == [state and state.commit for state in self._states] and (
            manifest == self._whole
        ):
            return None
        return type(self)(self._session.share(), states)

    def _free(self) -> None:
        """Free the reader; with the last one of the session the actors end."""
        super()._free()
        self._session.close()


@open_legs.register(ClusterReader)
def _(reader: ClusterReader, options: LegOptions | None = None) -> dict[str, OpenLeg]:
    names = [name for name, leg in LEGS.items() if leg.available(reader.settings.encoder)]
    return joined_legs(reader, [{name: RemoteLeg(shard, name) for name in names} for shard in reader.remote])
