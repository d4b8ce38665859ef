"""Load on a server of this machine: so many connections, each of which asks again when it has its answer."""

from __future__ import annotations

import selectors
import socket
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Load", "drive"]

PATIENCE = 30.0
"""Seconds without any answer after which a server counts as stuck."""
END = b"\r\n\r\n"


class Load(NamedTuple):
    """What was measured. seconds: the time of each answer; elapsed: of all. failed: answers other than 200."""

    seconds: list[float]
    elapsed: float
    failed: int


@dataclass
class _Connection:
    """A connection and the answer that it waits for; size: how long that is, 0 as long as its head is not there."""

    socket: socket.socket
    answer: bytearray = field(default_factory=bytearray)
    size: int = 0
    begun: float = 0.0

    def ask(self, request: bytes) -> None:
        self.answer.clear()
        self.size = 0
        self.begun = perf_counter()
        self.socket.sendall(request)

    def read(self) -> bool:
        """Read what is there; return whether the answer is whole."""
        part = self.socket.recv(1 << 18)
        if not part:
            raise ConnectionError("the server closed the connection")
        self.answer += part
        if not self.size and (end := self.answer.find(END)) >= 0:
            head = bytes(self.answer[:end]).lower()
            _, found, length = head.partition(b"content-length:")
            self.size = end + len(END) + (int(length.split(b"\r\n")[0]) if found else 0)
        return bool(self.size) and len(self.answer) >= self.size


def drive(port: int, requests: Iterator[bytes], connections: int, seconds: float) -> Load:
    """Send requests of HTTP/1.1, of which there are enough, to 127.0.0.1; each answer has to say its length.

    Raises:
        ConnectionError: the server closes a connection, or does not answer at all.
    """
    found: list[float] = []
    failed = 0
    with selectors.DefaultSelector() as selector:
        lanes = [_Connection(socket.create_connection(("127.0.0.1", port), PATIENCE)) for _ in range(connections)]
        try:
            begun = perf_counter()
            for lane in lanes:
                lane.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(lane.socket, selectors.EVENT_READ, lane)
                lane.ask(next(requests))
            open_lanes = len(lanes)
            while open_lanes:
                ready = selector.select(PATIENCE)
                if not ready:
                    raise ConnectionError(f"no answer in {PATIENCE:g} s")
                for key, _ in ready:
                    lane = key.data
                    if not lane.read():
                        continue
                    now = perf_counter()
                    found.append(now - lane.begun)
                    failed += not lane.answer.startswith(b"HTTP/1.1 200 ")
                    if now - begun < seconds:
                        lane.ask(next(requests))
                    else:
                        open_lanes -= 1
            return Load(found, perf_counter() - begun, failed)
        finally:
            for lane in lanes:
                lane.socket.close()
