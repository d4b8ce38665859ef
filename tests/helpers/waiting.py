"""Waiting for what another thread or process does: for as long as a very busy machine may take."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["wait_until"]

SECONDS = 120


def wait_until(condition: Callable[[], object]) -> None:
    """Return when a condition holds; fail when it has not for two minutes."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "what was waited for did not come"
        time.sleep(0.02)
