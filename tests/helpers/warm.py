"""Programs in processes of their own that start at once: forked from one in which the heavy libraries are imported.

The fixture `warm` of tests/conftest.py runs one, `warm("-m", "retriever", "info", folder)` or `warm("-c", program)`, as
`subprocess.run([sys.executable, ...], capture_output=True, text=True)` does, in a tenth of the time: torch, FAISS,
transformers, numba's kernels and the command line are imported already; Java is not started. `warm.start` does not wait
for the end. Not for what depends on how Python starts: which modules are imported, encodings, the threads of OpenMP
(one, here), Ctrl-C.

This file is also the program that forks.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["WarmPython"]

SECONDS = 300
"""No program may take longer."""
ROOT = Path(__file__).parents[2]


class Program(NamedTuple):
    """A program that runs: its command, where it writes, and a pipe that its exit status comes from."""

    command: list[str]
    stdout: IO[str]
    stderr: IO[str]
    status: int

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Return how it ended and what it wrote."""
        with self.stdout, self.stderr, os.fdopen(self.status) as status:
            code = int(status.read())
            for file in (self.stdout, self.stderr):
                file.seek(0)
            return subprocess.CompletedProcess(self.command, code, self.stdout.read(), self.stderr.read())


class WarmPython:
    """The process that forks, from its first program on until the end of the block."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def __enter__(self) -> WarmPython:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.communicate()

    def __call__(
        self, kind: str, what: str, *arguments: object, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a module ("-m") or a program ("-c"); working directory and environment are this process's or as given."""
        return self.start(kind, what, *arguments, cwd=cwd, env=env).wait()

    def start(
        self, kind: str, what: str, *arguments: object, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> Program:
        """Start one and do not wait for it."""
        if self._server is None:
            environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
            server = [sys.executable, "-W", "ignore", __file__]
            self._server = subprocess.Popen(server, stdin=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
        assert self._server.stdin is not None
        reader, writer = os.pipe()
        out, err = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed by `wait`
        program = Program([kind, what, *map(str, arguments)], out, err, reader)
        files = (out.fileno(), err.fileno(), writer)
        job = {
            "command": program.command,
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
            "files": [f"/proc/{os.getpid()}/fd/{number}" for number in files],
        }
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        os.read(reader, 1)  # it has opened the files
        os.close(writer)
        return program


def serve() -> None:
    """Fork for each line of the input."""
    import faiss  # noqa: F401
    import sentence_transformers  # noqa: F401

    import retriever.cli.main
    import retriever.encoder.moe.encoder
    import retriever.experiments.experiment
    import retriever.network.int8.kernels.steps
    import retriever.search.retriever
    import retriever.train.trainer  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait for the programs
    gc.collect()
    gc.freeze()  # or the first collection of each process would copy all that is shared
    for line in sys.stdin:
        if not os.fork():
            _run(json.loads(line))


def _run(job: dict[str, Any]) -> NoReturn:
    """Run a program in a process of its own, and say how that ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *files, status = (os.open(name, os.O_WRONLY) for name in job["files"])
    os.write(status, b" ")
    pid = os.fork()
    if not pid:
        os.close(status)
        signal.alarm(SECONDS)
        for number, file in enumerate([os.open(os.devnull, os.O_RDONLY), *files]):
            os.dup2(file, number)
        _end(_become(job))
    os.write(status, str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
    os._exit(0)


def _become(job: dict[str, Any]) -> int:
    """Run the program in this process; return its exit status."""
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    kind, what, *arguments = job["command"]
    sys.path[0] = ""
    sys.argv = [kind, *arguments]
    try:
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as ended:
        if isinstance(ended.code, str):
            sys.stderr.write(f"{ended.code}\n")
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _end(code: int) -> NoReturn:
    """End as processes do, but without taking torch apart, which takes half a second."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve()
