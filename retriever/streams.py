"""What can be read only once: standard input ("-"), named pipes, process substitution; and standard output as a file.

Where something has to be read twice, such as a corpus that is checked before it is indexed, a stream is spooled: copied
to a temporary file without a name, which is gone with the process, however that ends.
"""

from __future__ import annotations

import io
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast
from weakref import WeakSet, finalize

from retriever.types import UserError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = [
    "STANDARD",
    "Readable",
    "Spooled",
    "is_stream",
    "named",
    "open_binary",
    "refuse_stream",
    "spooled",
    "standard_output",
]

STANDARD = "-"
"""The name of standard input, or of standard output, where a file is expected."""
_taken: WeakSet[object] = WeakSet()  # standard inputs that were read


def is_stream(path: Path) -> bool:
    """Return whether `path` can be read only once: "-", or a pipe, socket or device rather than a file or folder."""
    if str(path) == STANDARD:
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def refuse_stream(path: Path, why: str) -> None:
    """Raise UserError for a stream where a file is needed; `why` says what for."""
    if is_stream(path):
        raise UserError(f"{path}: can be read only once, and {why}; write it to a file first and give that")


def open_binary(path: Readable) -> IO[bytes]:
    """Open a file, a stream or a spooled copy for reading.

    Raises:
        UserError: standard input is asked for a second time.
        OSError: as `open`.
    """
    if str(path) != STANDARD or isinstance(path, Spooled):
        return path.open("rb")
    if sys.stdin is None:
        raise UserError("-: there is no standard input; give the path of a file")
    if sys.stdin in _taken:
        raise UserError("-: standard input is asked for a second time, and can be read only once; give a file instead")
    _taken.add(sys.stdin)
    return cast("IO[bytes]", io.BufferedReader(_Unclosed(sys.stdin.buffer)))


def standard_output() -> IO[bytes]:
    """Return standard output for bytes; what was printed before is written first."""
    sys.stdout.flush()
    return sys.stdout.buffer


class _Unclosed(io.RawIOBase):
    """Reads another stream and leaves it open."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        data = self._stream.read1(len(view)) if hasattr(self._stream, "read1") else self._stream.read(len(view))
        view[: len(data)] = data
        return len(data)


class Spooled:
    """A stream's whole content, to be opened for reading as often as is needed; `name` is the stream's.

    It stands for a `Path` where a corpus or queries are read: `open`, `suffix`, `suffixes`, `name`, `str`.
    """

    def __init__(self, path: Path, folder: Path | None = None) -> None:
        """Copy the stream into `folder`, the system's temporary folder for None or where it cannot be written."""
        self._path = path
        try:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed with this object
        except OSError:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
        finalize(self, self._file.close)
        with open_binary(path) as stream:
            # Not `read`, which waits for all of a block and so may miss Ctrl-C.
            while block := cast("io.BufferedReader", stream).read1(1 << 20):
                self._file.write(block)
        self._file.flush()
        self.suffixes = _suffixes(path, os.pread(self._file.fileno(), 4096, 0))

    def __str__(self) -> str:
        return str(self._path)

    @property
    def name(self) -> str:
        """Return the last part of the stream's name."""
        return self._path.name

    @property
    def suffix(self) -> str:
        """Return the last suffix: the stream's own, or one that its content tells."""
        return self.suffixes[-1] if self.suffixes else ""

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Open the content for reading, independent of other readers."""
        if mode != "rb":
            raise ValueError(f"mode {mode!r}: a spooled stream is read as bytes")
        return cast("IO[bytes]", io.BufferedReader(_Shared(self, self._file.fileno()), 1 << 16))


Readable = Path | Spooled


class _Shared(io.RawIOBase):
    """Reads a file from a place of its own, whoever else reads it."""

    def __init__(self, owner: Spooled, handle: int) -> None:
        self._owner = owner  # which closes the file when nobody reads it any more
        self._handle, self._at = handle, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: os.fstat(self._handle).st_size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        data = os.pread(self._handle, len(view), self._at)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def spooled(path: Path, folder: Path | None = None) -> Readable:
    """Return a path that can be read again and again: `path` itself, or a copy of it if it is a stream."""
    return Spooled(path, folder) if is_stream(path) else path


def named(path: Path) -> bool:
    """Return whether the name of a stream has a suffix that tells its form: not "-" or /dev/fd/63."""
    return bool(path.suffixes) and not str(path).startswith("/dev/")


def _suffixes(path: Path, head: bytes) -> list[str]:
    """Return the suffixes of the stream's name, or, where it has none, those of what its first bytes are."""
    if named(path):
        return path.suffixes
    if head.startswith(b"PAR1"):
        return [".parquet"]
    return [".jsonl", ".gz"] if head.startswith(b"\x1f\x8b") else [".jsonl"]
