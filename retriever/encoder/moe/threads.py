"""Threads that encode a batch each: on a CPU they beat several threads inside every small product."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch

__all__ = ["encoding_threads"]


def encoding_threads() -> ThreadPoolExecutor | None:
    """Return as many threads as torch would use for one product, each limited to one of them; None for a single one."""
    count = torch.get_num_threads()
    if count < 2:
        return None
    barrier = Barrier(count + 1)
    pool = ThreadPoolExecutor(count, "encode", initializer=_one_thread, initargs=(barrier,))
    for _ in range(count):
        pool.submit(int)  # a thread begins with the first task for it
    barrier.wait()
    torch.set_num_threads(count)  # what each of them set for itself is the default of others that come, too
    return pool


def _one_thread(barrier: Barrier) -> None:
    torch.get_num_threads()  # takes the default, which it would else do later
    torch.set_num_threads(1)
    barrier.wait()
