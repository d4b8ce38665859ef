"""The replicas of one shard: a request goes to one of them, and to another one if it dies, or does not answer soon."""

from __future__ import annotations

import itertools
import logging
import time
from dataclasses import dataclass
from typing import Any

from retriever.cluster.server import Failed
from retriever.types import ShardLostError, UserError

__all__ = ["Replicas", "SearchCluster"]

START = 120.0
"""Seconds for processes to start, and to import what they need."""
PAUSE = 0.2
"""Seconds between two attempts to reach a shard whose replicas all are dead, while Ray starts new ones."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SearchCluster:
    """How the shards of an index are searched on a Ray cluster.

    address: "local" for a cluster of this machine, or that of another one, as `ray.init` takes it. replicas: processes
    that have each shard open; Ray starts another one where one dies. patience: seconds after which a shard that has
    not answered counts as lost. hedge: seconds after which a request goes to a second replica, too, whichever answers
    first; None for never. partial: leave a lost shard out of the answer, which is then `PartialHits`, and log it,
    instead of raising an error. memory: bytes to reserve on a machine for each process, None for none.

    Raises:
        UserError: settings that cannot be.
    """

    address: str = "local"
    replicas: int = 1
    patience: float = 30.0
    hedge: float | None = None
    partial: bool = False
    memory: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.replicas < 1 or not self.patience > 0:
            raise UserError(f"{self.replicas} replicas, patience {self.patience}; need 1 or more, and above 0 seconds")
        if self.hedge is not None and self.replicas < 2:
            raise UserError("hedged requests need a second replica; give replicas=2 or more, or no hedge")


class Replicas:
    """Sends requests to the actors of one shard, each in turn, from any number of threads."""

    def __init__(self, ray: Any, name: str, actors: list[Any], how: SearchCluster) -> None:
        self.name, self.actors = name, actors
        self._ray, self._how = ray, how
        self._turn = itertools.count()
        self._lost_until = 0.0
        errors = ray.exceptions
        self._dead = (errors.RayActorError, errors.ActorUnavailableError, errors.GetTimeoutError)

    @property
    def lost(self) -> bool:
        """Say whether the shard has not answered lately."""
        return time.monotonic() < self._lost_until

    def ask(self, method: str, *arguments: Any) -> Any:
        """Return what a replica answers.

        Raises:
            UserError: the shard says what is wrong.
            ShardLostError: no replica answers within the patience; at once, if that was so a moment ago.
        """
        if self.lost:
            raise self._loss(self._how.patience)
        return self._ask_for(self._how.patience, method, arguments)

    def ask_at_start(self, method: str) -> Any:
        """Do as `ask`, while processes are started, which takes longer than any answer."""
        return self._ask_for(max(START, self._how.patience), method, ())

    def tell_all(self, method: str, *arguments: Any) -> None:
        """Ask all replicas, and wait for those that answer, as long as `ask_at_start` does."""
        asked = [getattr(actor, method).remote(*arguments) for actor in self.actors]
        self._ray.wait(asked, num_returns=len(asked), timeout=max(START, self._how.patience))

    def _ask_for(self, seconds: float, method: str, arguments: tuple[Any, ...]) -> Any:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            first = next(self._turn)
            order = [self.actors[(first + n) % len(self.actors)] for n in range(len(self.actors))]
            for place, actor in enumerate(order):
                spare = order[place + 1 :][:1] if self._how.hedge is not None else []
                try:
                    found = self._answer(actor, spare, method, arguments, ends)
                except self._dead:
                    continue
                if isinstance(found, Failed):
                    raise UserError(found.message)
                return found
            time.sleep(PAUSE)
        self._lost_until = time.monotonic() + self._how.patience
        raise self._loss(seconds)

    def _answer(self, actor: Any, spare: list[Any], method: str, arguments: tuple[Any, ...], ends: float) -> Any:
        """Return what an actor answers, or the spare one, if the first takes too long."""
        asked = [getattr(actor, method).remote(*arguments)]
        if spare:
            done, _ = self._ray.wait(asked, timeout=self._how.hedge)
            if not done:
                asked.append(getattr(spare[0], method).remote(*arguments))
        left = list(asked)
        while True:
            done, left = self._ray.wait(left, timeout=max(0.0, ends - time.monotonic()))
            if not done:
                raise self._ray.exceptions.GetTimeoutError
            try:
                return self._ray.get(done[0])
            except self._dead:
                if not left:
                    raise

    def _loss(self, seconds: float) -> ShardLostError:
        return ShardLostError(
            f"{self.name}: no replica of this shard answers within {seconds:g} s; look at its machine, give "
            "it a replica, or ask for partial answers"
        )
