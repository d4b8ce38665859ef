"""Signal handlers of the process, kept as they are while a library installs its own.

Ray's core replaces the handlers of faults in the process that joins a cluster. Java's compiled code needs its own
there: it finds out by a fault that a reference is null, and goes on.
"""

from __future__ import annotations

import ctypes
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["signal_handlers_kept"]

FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
SIZE = 1024
"""Bytes for what the C library says of a handler: more than on any system (152 on Linux, x86-64)."""


@contextmanager
def signal_handlers_kept() -> Iterator[None]:
    """Give back, after the block, the handlers of faults that the process had before it; Python's own are no matter."""
    library = ctypes.CDLL(None)
    before = {number: ctypes.create_string_buffer(SIZE) for number in FAULTS}
    for number, handler in before.items():
        library.sigaction(int(number), None, handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            library.sigaction(int(number), handler, None)
