"""Files that are compared with their checksums while other things go on: opening an index does not wait for it.

Whoever relies on a file waits. Small files are compared at once.
"""

from __future__ import annotations

import zlib
from threading import Lock, Thread
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from retriever.index.files import RESTORE, damaged

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from retriever.types import UserError

__all__ = ["BackgroundCheck", "Expected"]

AT_ONCE = 4 << 20
"""Bytes that take less time to read than a thread takes to start."""
BLOCK = 1 << 20


class Expected(NamedTuple):
    """A file as it was committed: how many bytes of it count, their CRC-32, and the remedy for another one."""

    path: Path
    size: int
    crc: int
    remedy: str = RESTORE


class BackgroundCheck:
    """Compares files from the moment on that it is made; they may be removed meanwhile, as by a newer commit."""

    def __init__(self, files: Sequence[Expected]) -> None:
        """Open the files.

        Raises:
            FileNotFoundError: one is missing.
            UserError: a small one is not what was committed.
        """
        self._comparing = Lock()
        self._found: UserError | None = None
        self._left: list[tuple[Expected, BinaryIO]] = []
        try:
            for file in files:
                self._left.append((file, file.path.open("rb")))
        except OSError:
            self._close()
            raise
        if sum(file.size for file in files) <= AT_ONCE:
            self.wait()
        else:
            # It holds up no exit: a process that ends relies on nothing any more.
            Thread(target=self._compare, name="check", daemon=True).start()

    def _close(self) -> None:
        while self._left:
            self._left.pop()[1].close()

    def wait(self) -> None:
        """Return when the files are known to be what was committed; raise UserError where one is not."""
        self._compare()
        if self._found is not None:
            raise self._found

    def _compare(self) -> None:
        with self._comparing:
            while self._left:
                expected, file = self._left.pop()
                with file:
                    if _crc(file, expected.size) != expected.crc:
                        self._found = damaged(expected.path, "wrong checksum", expected.remedy)


def _crc(file: BinaryIO, size: int) -> int:
    crc = 0
    while size and (block := file.read(min(size, BLOCK))):
        crc = zlib.crc32(block, crc)
        size -= len(block)
    return crc
