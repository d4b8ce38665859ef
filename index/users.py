"""What several users of one process share, and the last one frees."""

from __future__ import annotations

import os
import threading

from retriever.processes import refuse_fork

__all__ = ["Users"]


class Users:
    """Counts who uses an open index, its opener first. Thread-safe; a forked process has no part in it."""

    def __init__(self) -> None:
        self._count, self._lock, self._process = 1, threading.Lock(), os.getpid()

    def check(self) -> None:
        """Raise UserError in a process that was forked from the one that opened the index."""
        refuse_fork(self._process, "this index was opened")

    def join(self) -> None:
        """Add a user; raise UserError as `check` does."""
        self.check()
        with self._lock:
            self._count += 1

    def leave(self) -> bool:
        """Take a user away, and say whether it was the last one; never in a forked process, whose the index is not."""
        if self._process != os.getpid():
            return False
        with self._lock:
            self._count -= 1
            return self._count == 0
