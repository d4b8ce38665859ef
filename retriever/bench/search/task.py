"""What the systems that `bench search` compares are given, and what they give back."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

from retriever.bench.sample import PerturbedBatch, Sample, repeated
from retriever.index.vectors.dense import load_faiss

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retriever.types import Encoded

__all__ = [
    "SHOWN",
    "Answers",
    "Built",
    "Request",
    "System",
    "Task",
    "cores",
    "one_thread",
]

SHOWN = 10
"""Hits whose ids come back, so that systems can be seen to find the same."""


class Task(NamedTuple):
    """What every system gets: encodings to repeat, how many documents to make of them, queries, a folder to use.

    encoder: of the queries, to measure searches with encoding; "" for an index whose encoder is not loaded.
    """

    sample: Sample
    size: int
    texts: list[str]
    encoded: Encoded
    folder: Path
    progress: bool
    encoder: str = ""

    def batches(self) -> Iterator[PerturbedBatch]:
        """Return the documents: the same ones for every system."""
        from tqdm import tqdm

        with tqdm(total=self.size, unit=" docs", file=sys.stderr, disable=not self.progress, leave=False) as bar:
            for batch in repeated(self.sample, self.size):
                yield batch
                bar.update(len(batch.documents))


class Built(NamedTuple):
    """What it took to index: seconds without those of making the documents, bytes on disk, or in memory for FAISS.

    peak_mib: resident memory of the process that indexes, with its JVM. open_s: from files to the first answer.
    private_mib, mapped_mib: resident memory of the process after all queries, its own and that of mapped files.
    """

    seconds: float
    size_bytes: int
    peak_mib: float
    open_s: float
    private_mib: float = 0.0
    mapped_mib: float = 0.0


class Request(NamedTuple):
    """Which queries to answer by which leg and how many hits, and how many of them at a time."""

    leg: str
    top_k: int
    threads: int
    queries: list[int]


class Answers(NamedTuple):
    """Milliseconds of each query, seconds for all of them, and the first ids of each."""

    milliseconds: list[float]
    seconds: float
    ids: list[list[str]]


class System(Protocol):
    """What is measured: it indexes the documents of a task, and answers the task's queries by each of its legs."""

    legs: ClassVar[tuple[str, ...]]

    def __init__(self, task: Task) -> None: ...

    def build(self) -> Built:
        """Index, and open what was written."""
        ...

    def ask(self, leg: str, top_k: int, query: int) -> list[str]:
        """Return the ids of the best documents for a query."""
        ...


def one_thread() -> None:
    """Let FAISS use one thread for a query: queries at the same time are what is measured."""
    load_faiss().omp_set_num_threads(1)


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
