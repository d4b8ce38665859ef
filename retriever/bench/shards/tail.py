"""Tail latency of many shards: how long a query waits for the slowest of them, with and without replicas and hedging.

Real actors of a local Ray cluster are asked as a search asks them (`Replicas`). They do not search: each waits for as
long as a delay says that is drawn for it.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from retriever.cluster.connect import joined
from retriever.cluster.replicas import Replicas, SearchCluster

__all__ = ["Delays", "TailLatency", "bench_tail"]

MACHINES = 4
PATIENCE = 60.0


class Delays(NamedTuple):
    """How long a shard takes to answer, in seconds: log-normal about `median`, and `pause` more in a share of cases.

    spread: the standard deviation of the logarithm. pauses: the share, as of a collection of garbage or a busy disk.
    """

    median: float = 0.02
    spread: float = 0.3
    pause: float = 0.5
    pauses: float = 0.01

    def draw(self, random: np.random.Generator) -> float:
        """Return one of them."""
        usual = self.median * float(np.exp(self.spread * random.standard_normal()))
        return usual + (self.pause if random.random() < self.pauses else 0.0)


class TailLatency(NamedTuple):
    """Milliseconds of queries that wait for all of their shards. requests: sent for each query and shard."""

    setting: str
    p50: float
    p95: float
    p99: float
    requests: float


class _Machine:
    """Stands for a machine with replicas of some shards."""

    def __init__(self, seed: int, delays: Delays) -> None:
        self._random, self._delays, self._asked = np.random.default_rng(seed), delays, 0

    def answer(self) -> None:
        self._asked += 1
        time.sleep(self._delays.draw(self._random))

    def asked(self) -> int:
        return self._asked


def bench_tail(
    shards: int = 32, queries: int = 200, *, delays: Delays | None = None, hedge: float = 0.06
) -> list[TailLatency]:
    """Measure a query at a time: without replicas, with two that take turns, and with hedged requests beside.

    hedge: seconds after which a request goes to the second replica, too.
    """
    delays = delays or Delays()
    settings = {
        "1 replica": SearchCluster(patience=PATIENCE),
        "2 replicas": SearchCluster(replicas=2, patience=PATIENCE),
        f"2 replicas, hedged after {hedge * 1000:g} ms": SearchCluster(replicas=2, hedge=hedge, patience=PATIENCE),
    }
    with joined("local") as ray, ThreadPoolExecutor(shards) as pool:
        kind = ray.remote(num_cpus=0, max_concurrency=2 * shards)(_Machine)
        found = []
        for name, how in settings.items():
            machines = [kind.remote(seed, delays) for seed in range(MACHINES)]
            ray.get([machine.asked.remote() for machine in machines])  # they run
            placed = [
                Replicas(ray, str(n), [machines[(n + r) % MACHINES] for r in range(how.replicas)], how)
                for n in range(shards)
            ]
            times = []
            for _ in range(queries):
                started = time.perf_counter()
                list(pool.map(lambda shard: shard.ask("answer"), placed))
                times.append((time.perf_counter() - started) * 1000)
            asked = sum(ray.get([machine.asked.remote() for machine in machines]))
            p50, p95, p99 = np.percentile(times, [50, 95, 99]).tolist()
            found.append(TailLatency(name, p50, p95, p99, asked / (queries * shards)))
            for machine in machines:
                ray.kill(machine)
    return found
