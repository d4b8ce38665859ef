"""Waiting for what another thread or process does: for as long as a very busy machine may take."""

from __future__ import annotations

import signal
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["interrupted", "wait_until"]

SECONDS = 120


def wait_until(condition: Callable[[], object]) -> None:
    """Return when a condition holds; fail when it has not for two minutes."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "what was waited for did not come"
        time.sleep(0.02)


def interrupted(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Press Ctrl-C in a process and return what it printed on standard output and error until it ended.

    It is pressed again after two minutes, as people do: Python loses one that comes while an object is freed.
    """
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        try:
            return process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    raise AssertionError(f"Ctrl-C did not end it: {process.communicate()}")
