"""The actors that have the shards of an index open on a Ray cluster."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.cluster.connect import joined, spread
from retriever.cluster.replicas import Replicas, SearchCluster
from retriever.cluster.server import ShardServer, ShardState
from retriever.index.shards.manifest import read_manifest
from retriever.index.users import Users
from retriever.search.leg import LegOptions
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

__all__ = ["Session"]

THREADS = 4
"""Requests that an actor answers at a time."""
log = logging.getLogger(__name__)


class Session:
    """The actors of an index, which the readers of its commits share: the last one that is closed ends them."""

    def __init__(self, path: Path, how: SearchCluster, options: LegOptions) -> None:
        self.path, self.how = path, how
        self._users = Users()
        self._ends = ExitStack()
        ray = self._ends.enter_context(joined(how.address))
        places = spread(ray)
        # Ray heeds a place only where a resource is asked for, too; a processor may be all taken by builders of shards.
        kind = ray.remote(num_cpus=0, memory=how.memory or 1, max_restarts=-1, max_concurrency=THREADS)(ShardServer)
        self.shards = []
        for number, name in enumerate(read_manifest(path).shards):
            there = [places[(number + copy) % len(places)] for copy in range(how.replicas)]
            servers = [kind.options(scheduling_strategy=place).remote(str(path / name), options) for place in there]
            self.shards.append(Replicas(ray, name, servers, how))
        self._left_out: set[str] = set()
        self._ends.callback(lambda: [ray.kill(actor) for shard in self.shards for actor in shard.actors])

    def states(self, ask: Callable[[Replicas, str], ShardState]) -> list[ShardState | None]:
        """Return what the shards are now, None for one that cannot be opened, if partial answers will do."""
        with ThreadPoolExecutor(len(self.shards)) as pool:
            found = list(pool.map(lambda shard: self._state(shard, ask), self.shards))
        errors = [one for one in found if isinstance(one, UserError)]
        if errors and (not self.how.partial or len(errors) == len(found)):
            raise errors[0]
        return [None if isinstance(one, UserError) else one for one in found]

    def _state(self, shard: Replicas, ask: Callable[[Replicas, str], ShardState]) -> ShardState | UserError:
        try:
            state = ask(shard, "state")
        except UserError as error:
            if self.how.partial and shard.name not in self._left_out and not shard.lost:  # a lost one was logged
                log.warning("the answer is partial: %s", error)
            self._left_out.add(shard.name)
            return error
        self._left_out.discard(shard.name)
        return state

    def verify(self) -> None:
        """Raise UserError for the first shard that is damaged."""
        with ThreadPoolExecutor(len(self.shards)) as pool:
            list(pool.map(lambda shard: shard.ask_at_start("verify"), self.shards))

    def share(self) -> Self:
        """Return this session to one more user."""
        self._users.join()
        return self

    def close(self) -> None:
        """End the actors, if nobody else uses them."""
        if self._users.leave():
            self._ends.close()
