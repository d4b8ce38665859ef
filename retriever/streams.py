"""What can be read only once: standard input ("-"), named pipes, process substitution; and standard output as a file.

Where something has to be read twice, such as a corpus that is checked before it is indexed, a stream is spooled: copied
to a temporary file without a name, which is gone with the process, however that ends.
"""

from __future__ import annotations

import io
import os
import select
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, Protocol, cast
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
WAKE = 100
"""After so many milliseconds a wait for a stream lets Python look for Ctrl-C."""


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
    if not isinstance(path, Path) or not is_stream(path):
        return path.open("rb")
    if str(path) == STANDARD:
        return _buffered(_Waiting(_standard_input(), close=False))
    # A named pipe is opened without waiting for somebody who writes into it: `_Waiting` does that. Elsewhere than on
    # Linux, a pipe into which nobody writes yet would look like one that has ended.
    unblocked = os.O_NONBLOCK if sys.platform == "linux" else 0
    return _buffered(_Waiting(io.FileIO(os.open(path, os.O_RDONLY | os.O_CLOEXEC | unblocked))))


def _buffered(stream: io.RawIOBase) -> IO[bytes]:
    return cast("IO[bytes]", io.BufferedReader(stream))


def _standard_input() -> IO[bytes]:
    if sys.stdin is None:
        raise UserError("-: there is no standard input; give the path of a file")
    if sys.stdin in _taken:
        raise UserError("-: standard input is asked for a second time, and can be read only once; give a file instead")
    _taken.add(sys.stdin)
    return cast("IO[bytes]", sys.stdin.buffer)


def standard_output() -> IO[bytes]:
    """Return standard output for bytes; what was printed before is written first."""
    sys.stdout.flush()
    return sys.stdout.buffer


class _Waiting(io.RawIOBase):
    """Reads another stream once it has something to read, so that no Ctrl-C is lost.

    A signal that comes just before the system call `read` (or `open`, for a named pipe) only sets a mark for Python: it
    does not end the call, and with a pipe that stays silent Python would never come to look at the mark.
    """

    def __init__(self, stream: io.FileIO | IO[bytes], *, close: bool = True) -> None:
        self._stream, self._close = stream, close
        self._poll: select.poll | None = None
        with suppress(OSError):  # bytes in memory have no descriptor, and keep nobody waiting
            descriptor = stream.fileno()
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLIN)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        data = None
        while data is None:  # another reader of the same pipe was quicker
            while self._poll and not self._poll.poll(WAKE):
                pass
            data = self._stream.read1(len(view)) if hasattr(self._stream, "read1") else self._stream.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if self._close and not self.closed:
            self._stream.close()
        super().close()


class Spooled:
    """A stream's whole content, to be opened for reading as often as is needed; `name` is the stream's.

    It stands for a `Path` where a corpus or queries are read: `open`, `suffix`, `suffixes`, `name`, `str`.
    """

    def __init__(self, path: Path, folder: Path | None = None) -> None:
        """Copy the stream into `folder`, the system's temporary folder for None or where it cannot be written."""
        self._path = path
        try:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  # closed with this object
        except OSError:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        finalize(self, self._file.close)
        with open_binary(path) as stream:
            while block := cast("io.BufferedReader", stream).read1(1 << 20):
                self._write(block)
        self.suffixes = _suffixes(path, os.pread(self._file.fileno(), 4096, 0))

    def _write(self, block: bytes) -> None:
        rest = memoryview(block)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise UserError(
                f"{self._path}: cannot be copied to a temporary file ({error.strerror}); free some space, "
                "or write it to a file first and give that"
            ) from None

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


class Readable(Protocol):
    """What a corpus or queries are read from: a `Path`, a `Spooled`, or a file elsewhere."""

    @property
    def name(self) -> str:
        """Return the last part of the name."""

    @property
    def suffix(self) -> str:
        """Return the last suffix of the name, with its point."""

    @property
    def suffixes(self) -> list[str]:
        """Return all suffixes of the name."""

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """Open the content for reading."""


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
