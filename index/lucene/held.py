"""A commit of Lucene that is open without Java: its files are held, so that they can be read when they are removed.

Java starts with the first question that needs it, and sees the same commit then.
"""

from __future__ import annotations

import mmap
import os
import resource
import tempfile
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from retriever.index.lucene.segments import ForeignError, SegmentFiles, base36, last_commit_file, read_commit
from retriever.types import UserError

if TYPE_CHECKING:
    from retriever.index.lucene.reader import LuceneReader
    from retriever.index.settings import Bm25

__all__ = ["HeldCommit", "hold"]

DESCRIPTORS = Path("/proc/self/fd")
SHARE = 4
"""A quarter of the files that a process may have open is held at most, by all readers together."""
_counting = Lock()
_held = [0]


class HeldCommit:
    """The files of a commit. user_data: what its writer said. Close it once; what was mapped stays mapped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, int] = {}
        self._counted = 0
        try:
            self.commit = read_commit(folder)
            for name in self._names():
                self._files[name] = os.open(folder / name, os.O_RDONLY)
            self._count()
            if last_commit_file(folder) != self.commit.file:
                raise ForeignError("is not the last one any more")
        except BaseException:
            self.close()
            raise
        self.user_data = self.commit.user_data
        self.identity = (self.commit.file, self.user_data)

    def _names(self) -> list[str]:
        names = [self.commit.file]
        there = {path.name for path in self.folder.iterdir()}
        for segment in self.commit.segments:
            files = SegmentFiles(self.folder, segment, self.mapped)
            own = {*files.names, *(name for update in segment.updates.values() for name in update)}
            own |= (
                {f"{segment.name}_{base36(segment.fields_generation)}.fnm"} if segment.fields_generation > 0 else set()
            )
            own |= {f"{segment.name}_{base36(segment.deletions)}.liv"} if segment.deletions > 0 else set()
            if not own <= there:
                raise FileNotFoundError(sorted(own - there)[0])
            names += sorted(own)
        return names

    def _count(self) -> None:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        with _counting:
            if SHARE * (_held[0] + len(self._files)) > most or not DESCRIPTORS.is_dir():
                raise ForeignError("has too many files to hold them")
            self._counted = len(self._files)
            _held[0] += self._counted

    def mapped(self, path: Path) -> memoryview:
        """Map a file of the commit."""
        descriptor = self._files.get(path.name)
        own = os.open(path, os.O_RDONLY) if descriptor is None else descriptor
        try:
            size = os.fstat(own).st_size
            return memoryview(mmap.mmap(own, size, access=mmap.ACCESS_READ) if size else b"")
        finally:
            if descriptor is None:
                os.close(own)

    def open_lucene(self, bm25: Bm25) -> LuceneReader:
        """Start Java, and open the commit there; raise UserError if Lucene cannot.

        Where a newer commit has come, and a writer may have removed these files, or the folder was moved away, by links
        to them.
        """
        from retriever.index.lucene.reader import LuceneReader

        if self._is_there():  # Lucene would make a folder that is not there
            try:
                found = LuceneReader.open(self.folder, bm25)
            except UserError:
                if self._is_there() and last_commit_file(self.folder) == self.commit.file:
                    raise
            else:
                if found.identity == self.identity:
                    return found
                found.close()
        with tempfile.TemporaryDirectory(prefix="retriever-") as links:
            for name, descriptor in self._files.items():
                (Path(links) / name).symlink_to(DESCRIPTORS / str(descriptor))
            return LuceneReader.open(Path(links), bm25, of=self.folder)

    def _is_there(self) -> bool:
        """Say whether the folder has a commit, this one or another."""
        return any(self.folder.glob("segments_*"))

    def close(self) -> None:
        """Let the files go."""
        with _counting:
            _held[0] -= self._counted
            self._counted = 0
            while self._files:
                os.close(self._files.popitem()[1])


def hold(folder: Path) -> HeldCommit | None:
    """Hold the last commit of a Lucene index; None where it cannot be read without Java, or is damaged."""
    try:
        return HeldCommit(folder)
    except (ForeignError, OSError, ValueError):
        return None
