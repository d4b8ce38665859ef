"""One writer at a time, and each in its turn."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LockedError", "WriteLock", "patience"]

TURN_SECONDS = 10.0
"""How long a writer stands aside for those who were in line before it."""
PAUSE = 0.01
"""Seconds between two tries."""
_patience: ContextVar[float] = ContextVar("patience", default=0.0)


class LockedError(UserError):
    """Another writer has the index open: the same may succeed later."""


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Let the writers that are opened in a `with` block stand in line so long, instead of being refused at once."""
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


class WriteLock:
    """An exclusive lock on `folder`/write.lock, or another name, which holds the pid of the writer.

    Who waits for it holds a lock on write.line meanwhile. Whoever comes later stands behind: a process that opens the
    index again and again, or the one writer that looks at `wanted` after each commit, lets the one in line go first.
    The kernel frees both locks when the holder dies, so what a dead process left behind never blocks.
    """

    def __init__(self, folder: Path, name: str = "write") -> None:
        self._folder, self._line = folder, folder / f"{name}.line"
        seconds = _patience.get()
        line = _open(self._line) if seconds or self._line.exists() else -1
        self._descriptor = _open(folder / f"{name}.lock")
        until = monotonic() + seconds
        try:
            if line >= 0 and not _taken(line):
                until = monotonic() + max(seconds, TURN_SECONDS)
                self._wait(line, until)
            self._wait(self._descriptor, until)
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, b"%d\n" % os.getpid())
        except BaseException:
            self.release()
            raise
        finally:
            if line >= 0:
                os.close(line)

    def _wait(self, descriptor: int, until: float) -> None:
        while not _taken(descriptor):
            if monotonic() >= until:
                holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
                raise LockedError(
                    f"{self._folder}: another writer has it open (process {holder}); wait for it to end, or stop it"
                )
            sleep(PAUSE)

    @property
    def wanted(self) -> bool:
        """Say whether somebody stands in line for it."""
        try:
            line = os.open(self._line, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            return not _taken(line)
        finally:
            os.close(line)

    def release(self) -> None:
        """Let the next writer in; the file stays, because removing it would race with a writer that opens it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)


def _taken(descriptor: int) -> bool:
    """Take an exclusive lock, and say whether that was possible."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
