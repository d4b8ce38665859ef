"""A port for a program that cannot take any free one and say which."""

from __future__ import annotations

import os
import socket
from itertools import count

__all__ = ["free_port"]

FIRST, LAST = 20_000, 30_000
"""Below those that the system gives to whoever wants any port (Linux: from 32,768), so that nobody is given it."""


def free_port() -> int:
    """Return a port of the loopback that is free now; processes of a parallel run look in different places."""
    for number in count(os.getpid() * 97):
        port = FIRST + number % (LAST - FIRST)
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError
