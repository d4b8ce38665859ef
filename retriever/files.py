"""Lines of a plain or gzipped file with their numbers, and a file that appears only when it is complete."""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, cast

from retriever.streams import STANDARD, is_stream, open_binary, standard_output
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

    from retriever.streams import Readable

__all__ = [
    "BOM",
    "INNER_BOM",
    "OTHER_HEADS",
    "Line",
    "atomic_file",
    "cache_errors",
    "cache_root",
    "decode",
    "file_errors",
    "numbered_lines",
    "read_lines",
]

BOM = b"\xef\xbb\xbf"
OTHER_HEADS = {
    b"\x1f\x8b": "this is gzip data; give the file a name that ends in .gz",
    b"\xff\xfe": "this is UTF-16; save the file as UTF-8",
    b"\xfe\xff": "this is UTF-16; save the file as UTF-8",
}
"""What a line that is not UTF-8 begins with, and what the file then is."""
INNER_BOM = "a byte order mark stands before this line, as where files were joined; remove its three bytes, ef bb bf"


class Line(NamedTuple):
    """One line without its line break; `where` is "FILE:NUMBER" for messages."""

    where: str
    text: str


@contextmanager
def file_errors(path: Path, verb: str) -> Iterator[None]:
    """Turn what the operating system says about `path` into one UserError; `verb` is "read" or "write"."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such file or folder; check the path") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path}: cannot {verb} ({reason}); check permissions, free space and the path") from None


def numbered_lines(path: Readable) -> Iterator[Line]:
    r"""Yield the lines of a UTF-8 file that are not blank; a path ending in .gz is unpacked on the way.

    Only "\n" and "\r\n" end a line: ids may hold the other characters that `str.splitlines` breaks at.
    """
    for number, raw in enumerate(read_lines(path), start=1):
        if raw.strip():
            try:
                yield Line(f"{path}:{number}", decode(raw))
            except ValueError as error:
                raise UserError(f"{path}:{number}: {error}") from None


@contextmanager
def atomic_file(path: Path, *, overwrite: bool = True) -> Iterator[IO[bytes]]:
    """Open a new file beside `path` for writing and rename it when the block ends well, so that no reader sees a part.

    On an error nothing is left. A path ending in .gz is packed on the way. Standard output ("-"), pipes and devices
    are written as they are: what has gone out cannot be called back.
    """
    if is_stream(path):
        with _output_stream(path) as output:
            yield output
        return
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise UserError(f"{path}: exists and is not a regular file; give the path of a file")
    if target.exists() and not overwrite:
        raise UserError(f"{path}: exists; give another path, remove it, or allow overwriting")
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    with file_errors(path, "write"):
        raw = partial.open("wb")
    stream = gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) if target.suffix == ".gz" else raw
    try:
        yield cast("IO[bytes]", stream)
        with file_errors(path, "write"):
            if stream is not raw:
                stream.close()
            raw.flush()
            os.fsync(raw.fileno())
            raw.close()
            partial.replace(target)
    finally:
        # Closing a file on a full disk tries to write once more; the first error is the one to report.
        for opened in (stream, raw):
            with suppress(OSError):
                opened.close()
        partial.unlink(missing_ok=True)


@contextmanager
def _output_stream(path: Path) -> Iterator[IO[bytes]]:
    if str(path) == STANDARD:
        stream = standard_output()
        yield stream
        stream.flush()
        return
    with file_errors(path, "write"):
        opened = path.open("wb")
    with opened:
        yield opened


def read_lines(path: Readable) -> Iterator[bytes]:
    r"""Yield the lines of a plain or gzip file, without a byte order mark, with their line ends.

    Lines end at \n only: the other line separators of Unicode may stand inside a text.
    """
    try:
        with open_binary(path) as raw:
            packed = path.suffix.lower() == ".gz" or (str(path) == STANDARD and _is_gzip(raw))
            stream = gzip.GzipFile(fileobj=raw) if packed else raw
            yield stream.readline().removeprefix(BOM)
            yield from stream
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{path}: the gzip data is damaged or cut off ({error}); get or compress the file again"
        ) from None
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give the path of a readable file") from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}); give the path of a readable file"
        ) from None


def _is_gzip(stream: IO[bytes]) -> bool:
    return cast("BufferedReader", stream).peek(2)[:2] == b"\x1f\x8b"


def decode(line: bytes) -> str:
    """Decode one line; raise ValueError that names the first byte that is not UTF-8, or a byte order mark.

    A mark may stand before the first line alone, which `read_lines` takes off; elsewhere it would become part of an id.
    """
    if line.startswith(BOM):
        raise ValueError(INNER_BOM)
    for head, what in OTHER_HEADS.items():
        if line.startswith(head):
            raise ValueError(what)
    try:
        return line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        place = f"byte {line[error.start]:#04x} at position {error.start + 1}"
        raise ValueError(f"{place} is not UTF-8; save the file as UTF-8") from None


def cache_root() -> Path:
    """Return the cache folder: everything in it can be deleted and recomputed."""
    chosen = os.environ.get("XDG_CACHE_HOME")
    if chosen:
        return Path(chosen) / "retriever"
    try:
        return Path.home() / ".cache" / "retriever"
    except RuntimeError:  # a user whom the system does not know, without HOME
        return Path("/nonexistent/retriever")


_told: set[str] = set()


@contextmanager
def cache_errors(what: str) -> Iterator[None]:
    """Go on where a cache of `what` cannot be read or written, with one notice for all of it on standard error."""
    try:
        yield
    except (OSError, UserError) as error:
        if what not in _told:
            _told.add(what)
            print(f"cannot keep {what} for next time ({error}); all else works", file=sys.stderr)  # noqa: T201
