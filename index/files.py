"""Writing files so that a crash leaves the old one or the new one, and telling the user when the disk is at fault."""

from __future__ import annotations

import errno
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retriever.types import UserError

__all__ = [
    "COMPACT",
    "DISK_FULL",
    "RESTORE",
    "VERIFY",
    "DamagedError",
    "MissingError",
    "checksum",
    "damaged",
    "disk_errors",
    "named_in",
    "sync_path",
    "write_all",
    "write_whole",
]

BLOCK = 1 << 20
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space, no quota, or no room in one file: the remedy is the same."""
RESTORE = "restore from a copy, or build the index again with `retriever index`"
COMPACT = "`retriever compact` makes it again"
VERIFY = "`retriever verify` says which file"
"""Remedies for damage: of what nothing else holds, of what is derived from the rows, of what is not known closely."""


class DamagedError(UserError):
    """A part of an index is not what was committed: no other request would do better."""


class MissingError(UserError):
    """There is no index folder where one should be."""


def damaged(path: str | Path, found: str, remedy: str = RESTORE) -> DamagedError:
    """Return the error for a part of an index that is not what was committed."""
    return DamagedError(f"{path}: damaged ({found}); {remedy}")


def write_all(descriptor: int, data: Any) -> None:
    """Write every byte of `data` (bytes or a contiguous array): a nearly full disk takes only a part at a time."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(descriptor, view) :]


def sync_path(path: Path) -> None:
    """Make a file's content, or the creations, renames and deletions in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, data: bytes) -> None:
    """Write `path` through a temporary file, fsync and rename."""
    temporary = path.with_name(path.name + ".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    sync_path(path.parent)


def checksum(path: Path, size: int | None = None) -> int:
    """Return the CRC-32 of a file, or of its first `size` bytes, read in blocks."""
    value, left = 0, path.stat().st_size if size is None else size
    with path.open("rb") as file:
        while block := file.read(min(BLOCK, left)):
            value = zlib.crc32(block, value)
            left -= len(block)
    return value


@contextmanager
def named_in(encoding: str, path: Path) -> Iterator[str]:
    """Give a path as text that is its bytes in an encoding, to a library that makes bytes of it by that one.

    It is absolute. A path may be any bytes, and Python's text for it goes by the locale. Where there is no such text,
    it is that of a link, which lasts as long as the block: open the file or folder, and name it no more.
    """
    try:
        name = os.fsencode(path.absolute()).decode(encoding)
    except (LookupError, UnicodeDecodeError):
        with tempfile.TemporaryDirectory(prefix="retriever-") as links:
            link = Path(links) / "link"
            link.symlink_to(path.absolute().parent)
            yield str(link / path.name)
    else:
        yield name


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk, a missing permission, an impossible or a lost folder into a UserError; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise UserError(
                f"{folder}: no space left on device ({error.strerror}); "
                "the last commit is kept: free some space and run again"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(
                f"{folder}: cannot write there ({error.strerror}); give write access or another folder"
            ) from error
        if error.errno in (errno.ENOTDIR, errno.ENAMETOOLONG):
            raise UserError(f"{folder}: not a possible folder ({error.strerror}); give another path") from error
        if error.errno == errno.ENOENT and not folder.exists():
            raise UserError(
                f"{folder}: cannot be made there, or was moved away meanwhile ({error.strerror}); give another folder"
            ) from error
        raise
