"""Measure search at size: an index of ours beside other engines, on the same data, in turn."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import sys
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.bench.sample import read_sample
from retriever.bench.search.report import Key, SizeReport, read_reports, speeds_of, write_reports
from retriever.bench.search.systems import ENCODED, SYSTEMS, installed_systems, serve
from retriever.bench.search.task import Answers, Built, Request, Task
from retriever.corpus.corpus import documents, load_queries, survey
from retriever.indexing.build import build_index
from retriever.indexing.documents import opened
from retriever.search.modes import CANDIDATES, HYBRID
from retriever.search.retriever import Retriever
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

__all__ = ["BenchSearchConfig", "bench_search"]

BLOCK = 10
"""Queries that a system answers before it is the next one's turn: drift of the machine hits all alike."""


@dataclass(frozen=True)
class BenchSearchConfig:
    """sizes: documents, one run each. top_k and threads: how many hits, and how many queries at a time, each with each.

    queries: at most so many of those that are given. systems: all that are installed, if none are named.
    """

    sizes: tuple[int, ...] = (100_000, 1_000_000)
    systems: tuple[str, ...] = ()
    top_k: tuple[int, ...] = (10, CANDIDATES)
    threads: tuple[int, ...] = (1, 2)
    queries: int = 100

    def __post_init__(self) -> None:
        """Refuse what cannot be measured before anything is built."""
        unknown = [name for name in self.systems if name not in SYSTEMS]
        if unknown:
            raise UserError(f"systems {', '.join(unknown)}: choose among {', '.join(SYSTEMS)}")
        missing = sorted({*self.systems} - {*installed_systems()})
        if missing:
            what = "install bm25s, qdrant-edge-py or pyseismic-lsr, or leave it out with --systems"
            raise UserError(f"{', '.join(missing)}: not installed; {what}")
        for name in ("sizes", "top_k", "threads"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise UserError(f"{name} {list(getattr(self, name))}: need whole numbers from 1")


def bench_search(
    source: str,
    queries: Path,
    output: Path,
    config: BenchSearchConfig | None = None,
    *,
    encoder: str = "default",
    progress: bool = False,
) -> Iterator[SizeReport]:
    """Measure each size in turn, and keep it in `output` (bench-search.json, bench-search.md).

    source: a corpus, of which as many documents are encoded as the largest size needs and there are, into
    `output`/encoded, which is kept, and continued after an interruption; or an index with all legs. A size beyond its
    documents is made of copies with noise. encoder: of a corpus; searches with encoding are measured for one.
    A size that was measured before is not measured again; while one is under way its indexes lie in `output`.

    Raises:
        UserError: an index without all legs, an unreadable file, or records of something else.
    """
    config = config or BenchSearchConfig()
    output.mkdir(parents=True, exist_ok=True)
    settings = {"source": source, "encoder": encoder, "queries_from": str(queries.resolve())} | _settings(config)
    found = read_reports(output, settings)
    texts = list(dict.fromkeys(query.text for query in load_queries(queries)))[: config.queries]
    is_index = (Path(source) / "index.json").exists()
    sample = Path(source) if is_index else _encoded(source, output / "encoded", encoder, max(config.sizes), progress)
    with Retriever.open(sample, None if is_index else encoder) as retriever:
        encoded = retriever.encode(texts)
    encodings = read_sample(sample)
    spec = "" if is_index else encoder
    for size in config.sizes:
        if size not in found:
            folder = output / f"bench-{size}"
            folder.mkdir(exist_ok=True)
            found[size] = _measure(Task(encodings, size, texts, encoded, folder, progress, spec), config)
            shutil.rmtree(folder)
            write_reports(output, settings, [found[key] for key in sorted(found)])
        yield found[size]


def _encoded(source: str, folder: Path, encoder: str, most: int, progress: bool) -> Path:
    """Index the first documents of a corpus, those that are not indexed yet."""
    with opened(source, folder.absolute().parent) as corpus:
        found = survey(corpus, "skip", "skip", progress)
        first = (numbered.document for numbered in islice(documents(corpus, found), most))
        build_index(first, folder, encoder=encoder, resume=(folder / "index.json").exists(), progress=progress)
    return folder


class _Running(NamedTuple):
    process: SpawnProcess
    connection: Connection


def _measure(task: Task, config: BenchSearchConfig) -> SizeReport:
    """Build the systems one after the other, and then ask them in turn."""
    from tqdm import tqdm

    context = multiprocessing.get_context("spawn")  # a JVM does not survive a fork
    running: dict[str, _Running] = {}
    built: dict[str, Built] = {}
    systems = config.systems or installed_systems()
    rounds = list(_rounds(config, systems, len(task.texts), bool(task.encoder)))
    bar = tqdm(total=len(systems) + len(rounds), file=sys.stderr, disable=not task.progress, unit=" steps")
    try:
        with bar:
            for name in systems:
                bar.set_description(f"{task.size:,}: build {name}")
                ours, theirs = context.Pipe()
                process = context.Process(target=serve, args=(name, task, theirs), daemon=True)
                process.start()
                theirs.close()
                running[name] = _Running(process, ours)
                built[name] = _receive(running[name], name)
                bar.update()
            answers: dict[Key, list[Answers]] = {}
            for name, request in rounds[: len(rounds) // -(-len(task.texts) // BLOCK)]:  # to warm up: the first block
                running[name].connection.send(request)
                _receive(running[name], name)
            for name, request in rounds:
                bar.set_description(f"{task.size:,}: {name} {request.leg}")
                running[name].connection.send(request)
                answers.setdefault((name, request.leg, request.top_k, request.threads), []).append(
                    _receive(running[name], name)
                )
                bar.update()
        for name, (process, connection) in running.items():
            connection.send(None)
            own, mapped = _receive(running[name], name)
            built[name] = built[name]._replace(private_mib=own, mapped_mib=mapped)
            process.join()
    finally:
        for process, _ in running.values():
            process.terminate()
    real = len(task.sample.texts)
    return SizeReport(task.size, built, speeds_of(answers), real if task.size > real else 0)


def _rounds(
    config: BenchSearchConfig, systems: Sequence[str], queries: int, encoder: bool
) -> Iterator[tuple[str, Request]]:
    """Yield whom to ask what: every system and leg has its turn with a block of queries before the next block comes.

    The first block comes twice, and its first turn is not counted: caches fill, Java compiles.
    """
    for start in range(0, queries, BLOCK):
        block = list(range(start, min(start + BLOCK, queries)))
        for threads in config.threads:
            for top_k in config.top_k:
                for name in systems:
                    for leg in SYSTEMS[name].legs:
                        whole = leg in ENCODED
                        # the legs of hybrid search give the same hits for any number
                        if (encoder or not whole) and (top_k == config.top_k[0] or not (whole or leg == HYBRID)):
                            yield name, Request(leg, top_k, threads, block)


def _receive(running: _Running, name: str) -> Any:
    try:
        return running.connection.recv()
    except EOFError:
        running.process.join()
        raise UserError(
            f"{name}: its process ended with exit code {running.process.exitcode}; see the messages above, "
            "or leave it out with --systems"
        ) from None


def _settings(config: BenchSearchConfig) -> dict[str, Any]:
    values = asdict(config)
    del values["sizes"]
    return json.loads(json.dumps(values))  # type: ignore[no-any-return]  # as it is read back: lists for tuples
