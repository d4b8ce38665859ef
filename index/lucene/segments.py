"""Lucene's last commit, read without Java: which segments it has, of which files, and what its writer said of it.

The formats are those of Lucene 9 (`SegmentInfos`, `Lucene90SegmentInfoFormat`, `Lucene94FieldInfosFormat`,
`Lucene90CompoundFormat`). What is not as they say it raises `ForeignError`: then Java has to be asked.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Commit",
    "Data",
    "ForeignError",
    "Segment",
    "SegmentFiles",
    "base36",
    "checked",
    "last_commit_file",
    "read_commit",
]

MAGIC, FOOTER_MAGIC = 0x3FD76C17, 0xC02893E8
FOOTER = 16
ID = 16
SEGMENTS = re.compile("segments_([0-9a-z]+)")
CODEC = "Lucene99"


class ForeignError(Exception):
    """A file of Lucene's is not as this program knows them, or is damaged."""


class Data:
    """Reads numbers and texts of a file in Lucene's ways, one behind the other. place: where the next one begins."""

    def __init__(self, data: bytes | memoryview, place: int = 0) -> None:
        self.data, self.place = data, place

    def take(self, size: int) -> bytes:
        """Read so many bytes."""
        found = bytes(self.data[self.place : self.place + size])
        if size < 0 or len(found) < size:
            raise ForeignError("ends too early")
        self.place += size
        return found

    def big(self, size: int) -> int:
        """Read a number of so many bytes, the highest first."""
        return int.from_bytes(self.take(size), "big", signed=True)

    def little(self, size: int) -> int:
        """Read a number of so many bytes, the lowest first."""
        return int.from_bytes(self.take(size), "little", signed=True)

    def short(self) -> int:
        """Read a number of seven bits a byte."""
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def text(self) -> str:
        """Read a text behind its size."""
        return self.take(self.short()).decode()

    def texts(self) -> list[str]:
        """Read texts behind their number."""
        return [self.text() for _ in range(self.short())]

    def pairs(self) -> dict[str, str]:
        """Read pairs of texts behind their number."""
        return {self.text(): self.text() for _ in range(self.short())}

    def header(self, name: str, *versions: int) -> tuple[int, bytes, str]:
        """Read what every file begins with; return its version, the id of its segment, and the end of its name."""
        if self.big(4) & 0xFFFFFFFF != MAGIC or self.text() != name:
            raise ForeignError(f"is no {name}")
        version = self.big(4)
        if version not in versions:
            raise ForeignError(f"has version {version}")
        return version, self.take(ID), self.take(self.take(1)[0]).decode()


def checked(data: bytes) -> bytes:
    """Return what is before the footer; raise ForeignError where its checksum is another."""
    footer = Data(data, max(len(data) - FOOTER, 0))
    if footer.big(4) & 0xFFFFFFFF != FOOTER_MAGIC or footer.big(4) or footer.big(8) != zlib.crc32(data[:-8]):
        raise ForeignError("has a wrong checksum")
    return data[:-FOOTER]


class Segment(NamedTuple):
    """A segment in a commit: its name and id, and the generations of what was written later, -1 for nothing.

    updates: of the numbers of fields whose doc values were written again, the files that have them.
    """

    name: str
    id: bytes
    deletions: int
    fields_generation: int
    updates: dict[int, list[str]]


class Commit(NamedTuple):
    """Lucene's last commit. file: its name. user_data: what its writer said."""

    file: str
    id: bytes
    segments: list[Segment]
    user_data: dict[str, str]


def last_commit_file(folder: Path) -> str:
    """Return the name of the file of the last commit of a Lucene index; raise ForeignError if there is none."""
    found = [match for match in map(SEGMENTS.fullmatch, (path.name for path in folder.iterdir())) if match]
    if not found:
        raise ForeignError(f"{folder}: no commit")
    return max(found, key=lambda match: int(match[1], 36))[0]


def read_commit(folder: Path) -> Commit:
    """Read the last commit; raise ForeignError or OSError where that cannot be."""
    file = last_commit_file(folder)
    data = Data(checked((folder / file).read_bytes()))
    _, own, suffix = data.header("segments", 9, 10)
    if f"segments_{suffix}" != file:
        raise ForeignError("is of another generation")
    for _ in range(4):  # the version of Lucene, in three numbers, and that of the index
        data.short()
    data.big(8)
    data.short()
    count = data.big(4)
    for _ in range(3 if count else 0):
        data.short()
    segments = [_segment(data) for _ in range(count)]
    return Commit(file, own, segments, data.pairs())


def _segment(data: Data) -> Segment:
    name, own, codec = data.text(), data.take(ID), data.text()
    if codec != CODEC:
        raise ForeignError(f"has the codec {codec}")
    deletions = data.big(8)
    data.big(4)
    fields = data.big(8)
    data.take(8 + 4)
    if data.take(1) == b"\1":
        data.take(ID)
    data.texts()
    updates = {data.big(4): data.texts() for _ in range(data.big(4))}
    return Segment(name, own, deletions, fields, updates)


def base36(number: int) -> str:
    """Return a number as Lucene writes it in names of files.

    >>> base36(53)
    '1h'
    """
    return np.base_repr(number, 36).lower()


class SegmentFiles:
    """Opens the files of a segment, which may all stand in one.

    names: of the files that it was written with. documents: how many it has, deleted ones included.
    """

    def __init__(self, folder: Path, segment: Segment, map_file: Callable[[Path], memoryview]) -> None:
        self._folder, self._segment, self._map = folder, segment, map_file
        data = Data(checked(bytes(map_file(folder / f"{segment.name}.si"))))
        _, own, _ = data.header("Lucene90SegmentInfo", 0)
        if own != segment.id:
            raise ForeignError("is of another segment")
        data.take(12)  # the version of Lucene
        if data.take(1) == b"\1":
            data.take(12)
        self.documents = data.little(4)
        compound = data.little(1) == 1
        data.take(1)  # whether there are blocks of documents
        data.pairs()
        self.names = data.texts()
        self.attributes = data.pairs()
        self._parts: dict[str, memoryview] | None = self._compound() if compound else None

    def _compound(self) -> dict[str, memoryview]:
        name = self._segment.name
        entries = Data(checked(bytes(self._map(self._folder / f"{name}.cfe"))))
        _, own, _ = entries.header("Lucene90CompoundEntries", 0)
        if own != self._segment.id:
            raise ForeignError("is of another segment")
        whole = self._map(self._folder / f"{name}.cfs")
        found = {}
        for _ in range(entries.short()):
            part, start, size = entries.text(), entries.little(8), entries.little(8)
            found[part] = whole[start : start + size]
        return found

    def part(self, ending: str, *, own_file: bool = False) -> memoryview:
        """Return a file by the end of its name; own_file: it was written after the segment."""
        if self._parts is None or own_file:
            return self._map(self._folder / f"{self._segment.name}{ending}")
        if ending not in self._parts:
            raise ForeignError(f"has no {ending}")
        return self._parts[ending]
