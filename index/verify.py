"""Reading every byte that the last commit names, and saying which files are not what was committed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.index.commit import CommitRecord, parse_commit
from retriever.index.files import COMPACT, RESTORE, checksum
from retriever.index.lucene.jvm import (
    as_type,
    damage_named,
    java_error,
    lucene,
    one_at_a_time,
    open_directory,
    read_user_data,
)
from retriever.index.settings import FILE, read_settings
from retriever.index.vectors.rows import committed_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retriever.index.vectors.row_formats import RowFormat

__all__ = ["Damage", "Verification", "damage_text", "lucene_names", "verify_folder"]

ATTEMPTS = 20
"""A writer may commit meanwhile, and remove the files of the commit that is being read."""


class Damage(NamedTuple):
    """A file of an index folder that is not what was committed."""

    file: str
    problem: str


class Verification(NamedTuple):
    """How much was read of which commit, and what of it is damaged."""

    commit: int
    files: int
    bytes: int
    damages: tuple[Damage, ...]


def damage_text(folder: Path, found: Verification) -> str:
    """Return which files are damaged and what to do, in one line."""
    files = ", ".join(f"{damage.file} ({damage.problem})" for damage in found.damages)
    derived = all({"dense", "sparse", "bm25"} & set(damage.file.split("/")[:-1]) for damage in found.damages)
    remedy = COMPACT if derived else RESTORE
    return f"{folder}: {len(found.damages)} of {found.files} files damaged: {files}; {remedy}"


class _Expected(NamedTuple):
    """A file with the checksum of its first `size` bytes; all of it for None."""

    file: str
    crc: int
    size: int | None


def verify_folder(path: str | Path) -> Verification:
    """Compare every file of the last commit with its checksum: no changed byte, no missing end is passed over.

    Raises:
        UserError: the folder is no index, or its settings or its commit cannot be read at all; it names the file.
    """
    path = Path(path)
    for _ in range(ATTEMPTS):
        settings = read_settings(path)
        commit = parse_commit(path, read_user_data(path / "lucene"))
        names = [(expected.file, _problem(path, expected)) for expected in _expected(commit, settings.row_format)]
        names += _lucene_files(path)
        damages = tuple(Damage(name, problem) for name, problem in names if problem)
        if not damages or commit.number == parse_commit(path, read_user_data(path / "lucene")).number:
            break
    size = sum((path / name).stat().st_size for name, problem in names if problem is None)
    return Verification(commit.number, len(names), size, damages)


def _expected(commit: CommitRecord, form: RowFormat) -> Iterator[_Expected]:
    yield _Expected(FILE, commit.settings_crc, None)
    yield _Expected(commit.live_file, commit.live_crc, None)
    for file in committed_files(commit.mark, form):
        yield _Expected(f"{commit.rows_folder}/{file.name}", file.crc, file.size)
    if commit.dense_file:
        yield _Expected(commit.dense_file, commit.dense_crc, None)
    for block in (*commit.sparse_files, *commit.bm25_files):
        yield _Expected(block.file, block.crc, None)


def _problem(path: Path, expected: _Expected) -> str | None:
    file = path / expected.file
    try:
        if expected.size is not None and file.stat().st_size < expected.size:
            return f"{file.stat().st_size} bytes, the commit needs {expected.size}"
        return None if checksum(file, expected.size) == expected.crc else "wrong checksum"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


@one_at_a_time()
def lucene_names(path: Path) -> list[str]:
    """Return the files of the last Lucene commit of an index folder, sorted."""
    directory = open_directory(path / "lucene")
    try:
        with damage_named(path / "lucene"):
            return sorted(str(name) for name in lucene("index.SegmentInfos").readLatestCommit(directory).files(True))
    finally:
        directory.close()


@one_at_a_time()
def _lucene_files(path: Path) -> list[tuple[str, str | None]]:
    """Return the files of the last Lucene commit, each with its problem: all end with a checksum of what is before."""
    names = lucene_names(path)
    directory = open_directory(path / "lucene")
    found = []
    for name in names:
        try:
            data = directory.openInput(name, lucene("store.IOContext").READONCE)
            try:
                lucene("codecs.CodecUtil").checksumEntireFile(as_type("store.IndexInput", data))
            finally:
                data.close()
            problem = None
        except java_error() as error:
            problem = _reason(error)
        found.append((f"lucene/{name}", problem))
    directory.close()
    return found


def _reason(error: Any) -> str:
    kind = str(error.classname).rpartition(".")[2]
    return {"NoSuchFileException": "missing", "CorruptIndexException": "wrong checksum"}.get(kind, kind)
