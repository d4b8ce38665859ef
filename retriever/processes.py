"""What a process may not take over from the one that forked it: threads, a JVM, locks that somebody held meanwhile."""

from __future__ import annotations

import functools
import os
import sys

from retriever.types import UserError

__all__ = ["one_thread_after_fork", "processors", "refuse_fork"]


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def refuse_fork(owner: int, what: str) -> None:
    """Raise UserError in any process but `owner`, a process id; `what` was done there: "this index was opened".

    Threads do not live on in a forked process: what waits for them, or for a lock that one of them held, never returns.
    """
    if os.getpid() != owner:
        raise UserError(
            f"this process was forked after {what} in process {owner}, whose threads it does not have; "
            "open the index in each process by itself, and start processes by spawn where Java runs already "
            "(multiprocessing.get_context('spawn'), gunicorn without --preload)"
        )


@functools.cache
def one_thread_after_fork() -> None:
    """Let torch use one thread in the processes that are forked from now on, as its DataLoader does in workers.

    It would wait for its others, which stayed behind.
    """
    os.register_at_fork(after_in_child=_leave_other_threads)


def _leave_other_threads() -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
