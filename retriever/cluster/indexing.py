"""Building the shards of an index on a Ray cluster: each is a task, which Ray gives to another worker if one dies."""

from __future__ import annotations

import functools
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from retriever.cluster.connect import joined
from retriever.indexing.shards import ShardDone, ShardTask, build_shard, build_shards, run_here
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from retriever.corpus.corpus import Corpus
    from retriever.encoder.runtime import RuntimeConfig
    from retriever.indexing.build import IndexingConfig, IndexReport
    from retriever.types import Document, Encoder

__all__ = ["build_sharded_index", "run_on"]

DEATHS = 50
"""Workers that may die over one shard: each of them goes on where the one before it had committed."""
LOOK = 0.5
"""Seconds between two looks at the progress."""


def build_sharded_index(
    corpus: str | Path | Corpus | Iterable[Document],
    folder: str | Path,
    *,
    shards: int,
    cluster: str | None = None,
    encoder: str | Encoder = "default",
    runtime: RuntimeConfig | None = None,
    config: IndexingConfig | None = None,
    resume: bool = False,
    progress: bool = False,
) -> IndexReport:
    """Index a corpus into a new folder of several shards, as `build_index` does into one; `Retriever.open` searches it.

    shards: how many index folders to make: as many as there are processors in the cluster, or a multiple.
    cluster: "local" for a Ray cluster of this machine, the address of another one ("ray://HOST:10001", "HOST:6379"), or
    None to build one shard after the other in this process. All machines of a cluster need the corpus's index folder
    and the encoder under the same paths, such as on a shared file system.
    resume: give the same corpus again, and what is committed in any shard is not encoded again.

    Raises:
        UserError: as `build_index`; no such cluster; a worker's disk is full; workers die again and again.
    """
    with nullcontext() if cluster is None else joined(cluster):  # what is wrong with it is said before any work
        return build_shards(
            corpus,
            folder,
            shards=shards,
            run=run_here if cluster is None else functools.partial(run_on, cluster),
            encoder=encoder,
            runtime=runtime,
            config=config,
            resume=resume,
            progress=progress,
        )


def run_on(cluster: str, tasks: Sequence[ShardTask], advance: Callable[[int], object]) -> Iterator[ShardDone]:
    """Build shards on a cluster; yield them as they are finished."""
    with joined(cluster) as ray:
        counter = ray.remote(num_cpus=0, max_restarts=-1)(_Counter).remote()
        gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
        remote = ray.remote(max_retries=DEATHS, num_cpus=1, num_gpus=gpus, scheduling_strategy="SPREAD")(_build)
        waiting = {remote.remote(task, counter): task for task in tasks}
        while waiting:
            done, _ = ray.wait(list(waiting), timeout=LOOK)
            advance(_seen(ray, counter))
            for reference in done:
                yield _result(ray, reference, waiting.pop(reference))
        advance(_seen(ray, counter))


class _Counter:
    """Adds up the documents that all workers have added since somebody looked."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, count: int) -> None:
        self._count += count

    def take(self) -> int:
        count, self._count = self._count, 0
        return count


def _seen(ray: Any, counter: Any) -> int:
    """Return the documents added since the last look; 0 if the counter has died, which is no reason to stop."""
    try:
        return int(ray.get(counter.take.remote(), timeout=10 * LOOK))
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
        return 0


def _build(task: ShardTask, counter: Any) -> ShardDone | str:
    """Build a shard in a worker; return what a user is told of an error: Ray would wrap it, or try again."""
    try:
        return build_shard(task, counter.add.remote, _loaded(*task.how[:2]))
    except UserError as error:
        return str(error)


def _loaded(encoder: str | Encoder, runtime: RuntimeConfig | None) -> Encoder | None:
    return _load(encoder, runtime) if isinstance(encoder, str) else None


@functools.lru_cache(maxsize=1)
def _load(encoder: str, runtime: RuntimeConfig | None) -> Encoder:
    """Load an encoder once for all shards that a worker builds one after the other."""
    from retriever.encoder.load import load_encoder

    return load_encoder(encoder, runtime)


def _result(ray: Any, reference: Any, task: ShardTask) -> ShardDone:
    try:
        found: ShardDone | str = ray.get(reference)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError) as error:
        raise UserError(
            f"{task.folder}: more than {DEATHS} workers died while they built it ({type(error).__name__}); is there "
            "enough memory? What is committed is kept: continue with --resume"
        ) from None
    if isinstance(found, str):
        raise UserError(found)
    return found
