"""Documents encoded in worker processes, each on its own processor cores or its own device; queries stay at home.

A worker is a fresh Python that never imports the caller's script, so no `if __name__ == "__main__"` is needed. It waits
at one end of a socket and ends when the other end closes, however its parent ended.

Workers are for many cores and many texts: what threads do one after the other (Python, products too small to share) is
done side by side. Each takes seconds to start and the memory of a whole encoder; `bench encode --workers` compares.
"""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
import weakref
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection, Pipe, wait
from threading import Lock, Thread
from traceback import format_exc
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever.encoder.moe.encoder import MoEEncoder
from retriever.encoder.runtime import RuntimeConfig
from retriever.encoder.views import joined_by_token, picked_by_token
from retriever.processes import refuse_fork
from retriever.types import EncodedByToken, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from retriever.types import FloatArray

__all__ = ["WorkerEncoder", "core_shares"]

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
PATIENCE = 5.0
"""Seconds that a worker has to end before it is killed."""


class WorkerEncoder(MoEEncoder):
    """Runs an encoder folder in `runtime.workers` processes; satisfies `Encoder`.

    They are started by the first documents and end with this object. Results are those of one process with one thread,
    to the bit. A worker holds one window of texts and its views at a time; queries are encoded in this process.
    """

    def __init__(self, folder: str | Path, name: str | None = None, runtime: RuntimeConfig | None = None) -> None:
        """Read the settings; the workers find out whether the weights fit."""
        runtime = runtime or RuntimeConfig(workers=1)
        devices = runtime.device.split(",")
        at_home = replace(runtime, device=devices[0], workers=0)
        super().__init__(folder, name, at_home, lazy=True)
        count = runtime.workers or len(devices)
        self._pool = _Pool(
            str(folder), [replace(at_home, device=devices[number % len(devices)]) for number in range(count)]
        )

    def encode_by_token(
        self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True, projection: FloatArray | None = None
    ) -> EncodedByToken:
        """Encode n passages, in order.

        Raises:
            UserError: the encoder or a device cannot be used, or a worker was killed.
            RuntimeError: an error of ours in a worker, with its traceback; the workers are then started anew.
        """
        wanted = {"dense": dense, "sparse": sparse, "projection": projection}
        return self._pool.encode(texts, self.runtime.window, wanted)

    def close(self) -> None:
        """End the workers; documents that still come start new ones."""
        self._pool.close()


def core_shares(cores: Sequence[int], workers: int) -> list[list[int]]:
    """Deal processor cores out, as evenly as can be; more workers than cores share them.

    >>> core_shares([0, 1, 2, 3, 6], 2)
    [[0, 1], [2, 3, 6]]
    >>> core_shares([4, 5], 3)
    [[4], [5], [4]]
    """
    count = len(cores)
    if workers > count:
        return [[cores[number % count]] for number in range(workers)]
    return [list(cores[number * count // workers : (number + 1) * count // workers]) for number in range(workers)]


class _Worker(NamedTuple):
    process: subprocess.Popen[bytes]
    connection: Connection[Any, Any]


class _Reply(NamedTuple):
    """What a worker says: views (None once it is ready), the user's fault, or the traceback of ours."""

    encoded: EncodedByToken | None
    user_error: str = ""
    traceback: str = ""


class _Pool:
    """The processes, started when there is something to do and ended with this object or this process."""

    def __init__(self, folder: str, runtimes: Sequence[RuntimeConfig]) -> None:
        self._folder, self._runtimes = folder, runtimes
        self._workers: list[_Worker] = []
        self._lock, self._process = Lock(), os.getpid()
        self._finalizer = weakref.finalize(self, _end, self._workers)

    def encode(self, texts: Sequence[str], window: int, wanted: Mapping[str, Any]) -> EncodedByToken:
        """Encode texts; wanted: the parameters of `MoEEncoder.encode_by_token`."""
        refuse_fork(self._process, "its encoder's workers could start")
        with self._lock:
            try:
                parts = _dealt([len(text) for text in texts], len(self._runtimes), window)
                if not self._workers:
                    self._start()
                requests = (([texts[row] for row in rows], wanted) for rows in parts)
                done = [(parts[number], encoded) for number, encoded in self._exchange(requests)]
            except BaseException:
                _end(self._workers)  # one in the middle of something would answer the next question with it
                raise
            return _in_order(done)

    def close(self) -> None:
        if self._process == os.getpid():  # they are the parent's
            with self._lock:
                _end(self._workers)

    def _start(self) -> None:
        shares = core_shares(sorted(os.sched_getaffinity(0)), len(self._runtimes))
        for _ in self._runtimes:
            ours, theirs = Pipe()
            command = f"from retriever.encoder.workers import serve; serve({theirs.fileno()})"
            process = subprocess.Popen(
                [sys.executable, "-c", command],
                pass_fds=[theirs.fileno()],
                env={**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # ours is for results
                process_group=0,  # Ctrl-C is for the parent, whose end is theirs
            )
            theirs.close()
            self._workers.append(_Worker(process, ours))
        for worker, runtime, cores in zip(self._workers, self._runtimes, shares, strict=True):
            _send(worker, (self._folder, runtime, cores))
        for worker in self._workers:
            _read(_receive(worker))

    def _exchange(self, requests: Iterator[Any]) -> Iterator[tuple[int, EncodedByToken]]:
        """Yield the number of a request and its answer, as they come; each worker has one request at a time."""
        waiting = enumerate(requests)
        busy: dict[Any, tuple[_Worker, int]] = {}

        def give(worker: _Worker) -> None:
            for number, request in waiting:
                _send(worker, request)
                busy[worker.connection] = worker, number
                return

        for worker in self._workers:
            give(worker)
        while busy:
            for connection in wait(list(busy)):
                worker, number = busy.pop(connection)
                reply = _receive(worker)
                give(worker)  # before what it said is unpacked, which takes a while
                encoded = _read(reply)
                assert encoded is not None
                yield number, encoded


def _send(worker: _Worker, request: Any) -> None:
    try:
        worker.connection.send(request)
    except (BrokenPipeError, ConnectionResetError):
        raise _gone(worker) from None


def _receive(worker: _Worker) -> bytes:
    try:
        return worker.connection.recv_bytes()
    except (EOFError, ConnectionResetError):
        raise _gone(worker) from None


def _read(reply: bytes) -> EncodedByToken | None:
    """Return the views of a reply, or raise what went wrong."""
    found: _Reply = pickle.loads(reply)
    if found.user_error:
        raise UserError(found.user_error)
    if found.traceback:
        raise RuntimeError(f"a worker process failed:\n{found.traceback}")
    return found.encoded


def _gone(worker: _Worker) -> UserError:
    code = worker.process.wait()
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return UserError(f"a worker process {how} while it was needed; is there enough memory? Use fewer with --workers")


def _end(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.connection.close()
    for worker in workers:
        try:
            worker.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
    workers.clear()


def _dealt(lengths: Sequence[int], workers: int, window: int) -> list[NDArray[np.intp]]:
    """Deal the rows of texts out, a part to each worker or several, each with texts of all lengths: they take as long.

    A part is no longer than a window, which a worker sorts by length for itself.
    """
    order = np.argsort(lengths, kind="stable")
    turns = max(1, math.ceil(len(order) / (workers * window)))
    parts = max(1, min(workers * turns, len(order)))
    return [order[number::parts] for number in range(parts)]


def _in_order(done: Sequence[tuple[NDArray[np.intp], EncodedByToken]]) -> EncodedByToken:
    """Join the parts and put each row where its text stands."""
    back = np.argsort(np.concatenate([rows for rows, _ in done]))
    return picked_by_token(joined_by_token([encoded for _, encoded in done]), back)


def serve(handle: int) -> None:
    """Load an encoder and answer the requests that come through a socket: the life of a worker process."""
    connection: Connection[Any, Any] = Connection(handle)
    Thread(target=_end_with_parent, args=(handle,), daemon=True).start()
    with suppress(EOFError, ConnectionError):  # the parent is gone
        folder, runtime, cores = connection.recv()
        os.sched_setaffinity(0, cores)
        loaded: list[MoEEncoder] = []
        connection.send(_answer(lambda: loaded.append(_alone(folder, runtime))))
        while True:
            texts, wanted = connection.recv()
            connection.send(_answer(partial(loaded[0].encode_by_token, texts, **wanted)))


def _answer(work: Callable[[], EncodedByToken | None]) -> _Reply:
    try:
        return _Reply(work())
    except UserError as error:
        return _Reply(None, user_error=str(error))
    except Exception:
        return _Reply(None, traceback=format_exc())


def _alone(folder: str, runtime: RuntimeConfig) -> MoEEncoder:
    """Load an encoder that uses one thread."""
    import torch

    torch.set_num_threads(1)
    return MoEEncoder(folder, runtime=runtime)


def _end_with_parent(handle: int) -> None:
    """End this process, whatever it is doing, when the other end of the socket closes."""
    import select

    hangup = select.poll()
    hangup.register(handle, 0)  # a hang-up is reported whatever the mask says
    hangup.poll()
    os._exit(1)
