"""What HTTP costs: searches by the library, by our server and by pyserini's, in turn, on one machine."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from time import monotonic, perf_counter, process_time, sleep
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode

from retriever.bench.serving.load import Load, drive
from retriever.corpus.corpus import load_queries
from retriever.search.retriever import Retriever
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["BenchServeConfig", "ServingSpeed", "bench_serve"]

LIBRARY, OURS, PYSERINI = "library", "retriever", "pyserini"
NAME = "bench"
START_SECONDS = 300.0
"""How long a server may take to start: torch is imported and kernels are compiled on a machine that is busy."""


@dataclass(frozen=True)
class BenchServeConfig:
    """modes: what is asked for; behind @ the query mode. connections: how many ask at once, each number in turn.

    seconds: of a turn. rounds: turns of each. top_k: hits, with their texts. pyserini: whether its server is measured.
    """

    modes: tuple[str, ...] = ("bm25", "hybrid@lexical", "hybrid@encoder")
    connections: tuple[int, ...] = (1, 4, 16)
    seconds: float = 2.0
    rounds: int = 3
    top_k: int = 10
    pyserini: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be measured before anything is started."""
        if not self.modes or not self.connections or min(self.connections) < 1:
            raise UserError("nothing to measure; give modes, and numbers of connections from 1")


class ServingSpeed(NamedTuple):
    """How fast one system answers. connections: 0 for the library, which is called by one thread.

    p50, p95, p99: milliseconds. cpu: milliseconds of the processor for a request, all threads of the server together;
    None where the system does not say.
    """

    system: str
    mode: str
    connections: int
    requests: int
    failed: int
    per_second: float
    p50: float
    p95: float
    p99: float
    cpu: float | None


class _Key(NamedTuple):
    system: str
    mode: str
    connections: int


class _Turn(NamedTuple):
    """What one turn gave. cpu: seconds of the processor."""

    load: Load
    cpu: float | None


class _Server(NamedTuple):
    port: int
    process: int


def bench_serve(index: Path, queries: Path, config: BenchServeConfig | None = None) -> list[ServingSpeed]:
    """Measure an index; every system has its turn in every round, so that what else the machine does hits all alike.

    queries: of a file; an encoder remembers the last 128, so more than these should be different.

    Raises:
        UserError: the index cannot be opened or has not the modes, or a server does not start.
    """
    config = config or BenchServeConfig()
    texts = list(dict.fromkeys(query.text for query in load_queries(queries) if query.text.strip()))
    with ExitStack() as stack:
        turns = _turns(index, texts, config, stack)
        found: dict[_Key, list[_Turn]] = {key: [] for key in turns}
        for number in range(-1, config.rounds):  # the first one warms up
            for key, turn in turns.items():
                measured = turn()
                if number >= 0:
                    found[key].append(measured)
    return [_speed(key, measured) for key, measured in found.items()]


def _turns(
    index: Path, texts: Sequence[str], config: BenchServeConfig, stack: ExitStack
) -> dict[_Key, Callable[[], _Turn]]:
    """Open and start everything; return what measures each system once."""
    asked = [_Asked.read(mode) for mode in config.modes]
    query_modes = list(dict.fromkeys(one.query_mode for one in asked))
    libraries = {name: stack.enter_context(Retriever.open(index, query_mode=name)) for name in query_modes}
    for one in asked:
        libraries[one.query_mode].search(texts[0], config.top_k, mode=one.mode)  # or it has not this mode
    servers = {name: stack.enter_context(_started(_command(index, name), "/readyz")) for name in query_modes}
    peer = stack.enter_context(_started(_pyserini_command(index), "/")) if config.pyserini else None
    turns: dict[_Key, Callable[[], _Turn]] = {}
    for one in asked:
        call = partial(libraries[one.query_mode].search, top_k=config.top_k, mode=one.mode)
        turns[_Key(LIBRARY, one.name, 0)] = partial(_called, call, cycle(texts), config.seconds)
        systems = [(OURS, servers[one.query_mode], cycle([_request(one.mode, text, config.top_k) for text in texts]))]
        if peer is not None and one.mode == "bm25":
            systems.append((PYSERINI, peer, cycle([_pyserini_request(text, config.top_k) for text in texts])))
        for connections in config.connections:
            for name, server, requests in systems:
                turns[_Key(name, one.name, connections)] = partial(
                    _driven, server, requests, connections, config.seconds
                )
    return turns


class _Asked(NamedTuple):
    """A mode, and how queries become terms in it."""

    name: str
    mode: str
    query_mode: str | None

    @classmethod
    def read(cls, name: str) -> _Asked:
        mode, _, query_mode = name.partition("@")
        return cls(name, mode, query_mode or None)


def _called(call: Callable[[str], object], texts: Iterator[str], seconds: float) -> _Turn:
    """Search in this process."""
    times: list[float] = []
    cpu, begun = process_time(), perf_counter()
    while not times or perf_counter() - begun < seconds:
        text, started = next(texts), perf_counter()
        call(text)
        times.append(perf_counter() - started)
    return _Turn(Load(times, perf_counter() - begun, 0), process_time() - cpu)


def _driven(server: _Server, requests: Iterator[bytes], connections: int, seconds: float) -> _Turn:
    """Search by a server."""
    before = _processor_seconds(server.process)
    load = drive(server.port, requests, connections, seconds)
    after = _processor_seconds(server.process)
    return _Turn(load, None if before is None or after is None else after - before)


def _processor_seconds(process: int) -> float | None:
    """Return what a process has had of the processor; None where the system does not say (Linux's /proc does)."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _speed(key: _Key, turns: Sequence[_Turn]) -> ServingSpeed:
    times = sorted(seconds * 1000 for turn in turns for seconds in turn.load.seconds)
    elapsed = sum(turn.load.elapsed for turn in turns)
    cuts = statistics.quantiles(times, n=100, method="inclusive") if len(times) > 1 else times * 99
    cpu = [turn.cpu for turn in turns if turn.cpu is not None]
    return ServingSpeed(
        *key,
        requests=len(times),
        failed=sum(turn.load.failed for turn in turns),
        per_second=len(times) / elapsed,
        p50=cuts[49],
        p95=cuts[94],
        p99=cuts[98],
        cpu=sum(cpu) * 1000 / len(times) if len(cpu) == len(turns) else None,
    )


def _request(mode: str, text: str, top_k: int) -> bytes:
    parameters = urlencode({"query": text, "mode": mode, "top_k": top_k})
    return f"GET /indexes/{NAME}/search?{parameters} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def _pyserini_request(text: str, top_k: int) -> bytes:
    body = json.dumps({"query": text, "hits": top_k}).encode()
    head = f"POST /v1/indexes/{NAME}/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _command(index: Path, query_mode: str | None) -> list[str]:
    given = [] if query_mode is None else ["--query-mode", query_mode]
    return ["-m", "retriever", "serve", f"{NAME}={index}", *given, "--port"]


def _pyserini_command(index: Path) -> list[str]:
    return ["-m", "retriever.bench.serving.pyserini_server", str(index / "lucene")]


@contextmanager
def _started(command: list[str], path: str) -> Iterator[_Server]:
    """Start a server on a free port, which is its last argument, and wait until it answers there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([sys.executable, *command, str(port)], stdout=log, stderr=log)
        try:
            until = monotonic() + START_SECONDS
            while not _answers(port, path):
                if process.poll() is not None or monotonic() > until:
                    log.seek(0)
                    said = log.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
                    raise UserError(f"{' '.join(command[1:3])}: does not start ({said or 'it says nothing'})")
                sleep(0.1)
            yield _Server(port, process.pid)
        finally:
            process.terminate()
            process.wait()


def _answers(port: int, path: str) -> bool:
    try:
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        return not drive(port, cycle([request]), 1, 0.0).failed
    except OSError:
        return False
