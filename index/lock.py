"""One writer at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from retriever.types import UserError

__all__ = ["LockedError", "WriteLock"]


class LockedError(UserError):
    """Another writer has the index open: the same may succeed later."""


class WriteLock:
    """An exclusive lock on `folder`/write.lock, which holds the pid of the writer.

    The kernel frees it when the holder dies, so what a dead process left behind never blocks.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "write.lock"
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise LockedError(
                f"{folder}: another writer has it open (process {holder}); wait for it to end, or stop it"
            ) from None
        try:
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, b"%d\n" % os.getpid())
        except OSError:
            self.release()
            raise

    def release(self) -> None:
        """Let the next writer in; the file stays, because removing it would race with a writer that opens it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
