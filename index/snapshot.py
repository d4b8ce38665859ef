"""A copy of one commit of an index that others go on writing to, for the cost of a few links."""

from __future__ import annotations

import errno
import os
import shutil
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retriever.index.commit import parse_commit
from retriever.index.files import BLOCK, damaged, disk_errors, sync_path, write_all
from retriever.index.lucene.jvm import read_user_data
from retriever.index.settings import FILE, read_settings
from retriever.index.vectors.rows import committed_files
from retriever.index.verify import lucene_names
from retriever.types import UserError

if TYPE_CHECKING:
    from retriever.index.commit import CommitRecord

__all__ = ["Snapshot", "take_snapshot"]

ATTEMPTS = 20
"""A writer may commit meanwhile, and remove the files of the commit that is being copied."""
NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES)
"""Another file system, or one without hard links, or not for these files."""


class Snapshot(NamedTuple):
    """What was taken: the number of the commit, its documents, how many files are links, and how many copies."""

    commit: int
    documents: int
    links: int
    copies: int
    copied_bytes: int


def take_snapshot(folder: str | Path, out: str | Path) -> Snapshot:
    """Make of the last commit of an index a folder `out`, an index of its own; writers and readers are not disturbed.

    Files that are never changed are linked, so that they take no space as long as the index has them. Those that grow
    (rows) are copied as far as the commit reaches and compared with its checksums: whoever writes to one folder does
    not change the other.

    Raises:
        UserError: the folder is no index or is damaged, `out` is there already, or cannot be written.
    """
    folder, out = Path(folder), Path(out)
    read_settings(folder)
    if out.exists() or out.is_symlink():
        raise UserError(f"{out}: is there already, need a new folder for the snapshot; give another path")
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        missing = ""
        for _ in range(ATTEMPTS):
            part = out.with_name(f".{out.name}.{os.getpid()}")
            try:
                part.mkdir()
                taken = _take(folder, part)
                part.rename(out)
                sync_path(out.parent)
                return taken
            except FileNotFoundError as error:
                missing = str(error.filename)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    raise damaged(missing, "missing")


def _take(folder: Path, out: Path) -> Snapshot:
    settings = read_settings(folder)
    commit = parse_commit(folder, read_user_data(folder / "lucene"))
    names = lucene_names(folder)
    copier = _Copier(folder, out)
    copier.copy(FILE, crc=commit.settings_crc)
    for file in committed_files(commit.mark, settings.row_format):
        copier.copy(f"{commit.rows_folder}/{file.name}", file.size, file.crc)
    for name in _unchanging(commit, names):
        copier.link(name)
    (out / "dense").mkdir(exist_ok=True)  # every index has it
    copier.sync()
    # Between the record and the list of names another commit may have come.
    if parse_commit(folder, read_user_data(folder / "lucene")).number != commit.number:
        raise FileNotFoundError(errno.ENOENT, "a newer commit came", str(folder))
    return Snapshot(commit.number, commit.documents, copier.links, copier.copies, copier.copied_bytes)


def _unchanging(commit: CommitRecord, lucene: list[str]) -> list[str]:
    """Return the files that no writer ever changes: it makes new ones, and removes these."""
    blocks = (*commit.sparse_files, *commit.bm25_files)
    names = [commit.live_file, *(f"lucene/{name}" for name in lucene), *(block.file for block in blocks)]
    return [*names, commit.dense_file] if commit.dense_file else names


class _Copier:
    """Brings files of one folder into another under their names."""

    def __init__(self, source: Path, target: Path) -> None:
        self._source, self._target = source, target
        self.links = self.copies = self.copied_bytes = 0

    def link(self, name: str) -> None:
        """Link a file, or copy it where that cannot be."""
        target = self._place(name)
        try:
            os.link(self._source / name, target)
            self.links += 1
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            self.copy(name)

    def copy(self, name: str, size: int | None = None, crc: int | None = None) -> None:
        """Copy the first `size` bytes of a file, all of it for None; raise UserError if they have another CRC-32."""
        value, left = 0, size
        target = self._place(name)
        with (self._source / name).open("rb") as source:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                while block := source.read(BLOCK if left is None else min(BLOCK, left)):
                    write_all(descriptor, block)
                    value = zlib.crc32(block, value)
                    self.copied_bytes += len(block)
                    left = None if left is None else left - len(block)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        self.copies += 1
        if left or (crc is not None and value != crc):
            raise damaged(self._source / name, "shorter than committed" if left else "wrong checksum")

    def _place(self, name: str) -> Path:
        target = self._target / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def sync(self) -> None:
        """Make names and folders durable."""
        for folder in (self._target, *(path for path in self._target.rglob("*") if path.is_dir())):
            sync_path(folder)
