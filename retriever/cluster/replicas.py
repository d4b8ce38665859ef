"""The replicas of one shard: a request goes to one of them, and to another one if it dies, or does not answer soon."""

from __future__ import annotations

import itertools
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retriever.cluster.server import Failed
from retriever.types import ShardLostError, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    that have each shard open, on different machines if there are as many; Ray starts another one where one dies.
    patience: seconds after which a shard that has not answered counts as lost. hedge: seconds after which a request
    goes to the next replica, too, whichever answers first; for None an equal share of the patience, which is for
    machines that are gone. partial: leave a lost shard out of the answer, which is then `PartialHits`, and log it,
    instead of raising an error, also one that cannot be opened. memory: bytes to reserve on a machine for each
    process, None for none.

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
        self._late_until = dict.fromkeys(actors, 0.0)
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
        late = seconds / len(self.actors) if self._how.hedge is None else self._how.hedge
        while time.monotonic() < ends:
            try:
                found = self._first_answer(self._order(), method, arguments, late, ends)
            except self._dead:
                time.sleep(PAUSE)
                continue
            if isinstance(found, Failed):
                raise UserError(found.message)
            return found
        self._lose(self._loss(seconds))
        raise self._loss(seconds)

    def _order(self) -> list[Any]:
        """Return the actors in turn; last those that were late a moment ago."""
        first, now = next(self._turn) % len(self.actors), time.monotonic()
        turned = [*self.actors[first:], *self.actors[:first]]
        return sorted(turned, key=lambda actor: self._late_until[actor] > now)

    def _first_answer(
        self, order: Sequence[Any], method: str, arguments: tuple[Any, ...], late: float, ends: float
    ) -> Any:
        """Return the first answer: each next actor is asked where one has died, or is late, by this many seconds."""
        waiting: list[Any] = []
        for number, actor in enumerate(order, 1):
            waiting.append(getattr(actor, method).remote(*arguments))
            last = number == len(order)
            while waiting:
                left = max(0.0, ends - time.monotonic())
                done, waiting = self._ray.wait(waiting, timeout=left if last else min(late, left))
                if not done:
                    if self._how.hedge is None:  # hedges are for pauses, which are over soon
                        self._late_until[actor] = time.monotonic() + self._how.patience
                    break
                try:
                    return self._ray.get(done[0])
                except self._dead:
                    if not last:
                        break
        raise self._ray.exceptions.GetTimeoutError

    def _lose(self, error: ShardLostError) -> None:
        if self._how.partial and not self.lost:  # said once, not by every request that waited
            log.warning("the answer is partial: %s", error)
        self._lost_until = time.monotonic() + self._how.patience

    def _loss(self, seconds: float) -> ShardLostError:
        return ShardLostError(
            f"{self.name}: no replica of this shard answers within {seconds:g} s; look at its machine, give "
            "it a replica, or ask for partial answers"
        )
