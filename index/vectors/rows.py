"""Vectors, ids and flags of the chunks of every document version, in files that only grow: rows, in order of adding.

A document that is not split has one row. Rows with one id that are alive belong to one document, and are neighbours.
"""

from __future__ import annotations

import os
import zlib
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever.index.background_check import BackgroundCheck, Expected
from retriever.index.files import checksum, damaged, sync_path, write_all, write_whole
from retriever.index.vectors.row_formats import StoredVectors

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from retriever.index.vectors.row_formats import Records, RowFormat
    from retriever.types import BoolArray

__all__ = [
    "ALIVE",
    "CONTINUES",
    "EMPTY",
    "SEARCHABLE",
    "TRUNCATED",
    "RowFile",
    "RowMark",
    "RowReader",
    "RowWriter",
    "StoredTokens",
    "TokenRecords",
    "check_content",
    "check_ids",
    "committed_files",
    "id_files",
    "read_flags",
    "write_flags",
]

IDS, ENDS = "ids.utf8", "ids.end"
TOKEN_ENDS = "tokens.end"
REMEMBERED = 10_000
"""Ids whose rows are remembered."""

ALIVE, SEARCHABLE, EMPTY, TRUNCATED = 1, 2, 4, 8
"""Flags of a row: it is its document's newest version; its vector may be returned; its text is empty; was cut short."""
CONTINUES = 16
"""Flag of a row that belongs to the document of the row before; it is not stored, the ids say it."""
PLANES = (ALIVE, SEARCHABLE, EMPTY, TRUNCATED)


class RowMark(NamedTuple):
    """How far the files reach at a commit, and the CRC-32 of each up to there."""

    rows: int = 0
    id_bytes: int = 0
    vectors_crc: int = 0
    ids_crc: int = 0
    ends_crc: int = 0
    tokens: int = 0
    tokens_crc: int = 0
    token_ends_crc: int = 0


class TokenRecords(NamedTuple):
    """The vectors of the tokens of n rows, as they are stored, one row behind the other; counts (n,): how many each."""

    records: Records
    counts: NDArray[np.int64]


class RowFile(NamedTuple):
    """A row file as of a commit: how many bytes of it count, and their CRC-32."""

    name: str
    size: int
    crc: int


def committed_files(mark: RowMark, form: RowFormat) -> list[RowFile]:
    """Return the files that a mark speaks of."""
    files = [RowFile(IDS, mark.id_bytes, mark.ids_crc), RowFile(ENDS, 8 * mark.rows, mark.ends_crc)]
    if form.dim:
        files.append(RowFile(form.file, form.record.itemsize * mark.rows, mark.vectors_crc))
    if form.token_dim:
        files.append(RowFile(form.token_file, form.token_record.itemsize * mark.tokens, mark.tokens_crc))
        files.append(RowFile(TOKEN_ENDS, 8 * mark.rows, mark.token_ends_crc))
    return files


def _check_sizes(folder: Path, mark: RowMark, form: RowFormat) -> None:
    """Raise FileNotFoundError for a missing file and UserError for one shorter than the commit says."""
    for name, size, _ in committed_files(mark, form):
        found = (folder / name).stat().st_size
        if found < size:
            raise damaged(folder / name, f"{found} bytes, the commit needs {size}")


def check_content(folder: Path, files: Iterable[RowFile]) -> None:
    """Raise UserError for a row file that does not begin with what was committed."""
    for name, size, crc in files:
        if checksum(folder / name, size) != crc:
            raise damaged(folder / name, "wrong checksum")


def id_files(folder: Path, mark: RowMark, form: RowFormat) -> list[Expected]:
    """Return the files of the rows' ids as they were committed."""
    files = (file for file in committed_files(mark, form) if file.name != form.file)
    return [Expected(folder / file.name, file.size, file.crc) for file in files]


def check_ids(folder: Path, mark: RowMark, form: RowFormat) -> None:
    """Raise UserError if the ids of the rows are not those that were committed."""
    check_content(folder, [file for file in committed_files(mark, form) if file.name in (IDS, ENDS)])


class RowWriter:
    """Appends rows after a mark; what lies beyond it was never committed and is cut off."""

    def __init__(self, folder: Path, form: RowFormat, mark: RowMark) -> None:
        folder.mkdir(exist_ok=True)
        self.mark, self._form, self._folder = mark, form, folder
        if mark.rows:
            _check_sizes(folder, mark, form)
        self._files: dict[str, int] = {}
        try:
            for name, size, _ in committed_files(mark, form):
                self._files[name] = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
                os.ftruncate(self._files[name], size)
        except BaseException:
            self.close()
            raise

    def append(self, doc_ids: Sequence[str], records: Records | None, tokens: TokenRecords | None = None) -> None:
        """Append n rows: ids and, if the index has them, what `RowFormat` made of vectors and of those of tokens."""
        if not doc_ids:
            return
        encoded = [doc_id.encode() for doc_id in doc_ids]
        lengths = np.fromiter(map(len, encoded), dtype=np.uint64, count=len(encoded))
        ids, ends = b"".join(encoded), (np.cumsum(lengths) + np.uint64(self.mark.id_bytes)).astype("<u8").tobytes()
        mark = self.mark
        vectors_crc = mark.vectors_crc
        if records is not None:
            data = np.ascontiguousarray(records).view(np.uint8).data
            write_all(self._files[self._form.file], data)
            vectors_crc = zlib.crc32(data, vectors_crc)
        write_all(self._files[IDS], ids)
        write_all(self._files[ENDS], ends)
        self.mark = mark._replace(
            rows=mark.rows + len(doc_ids),
            id_bytes=mark.id_bytes + len(ids),
            vectors_crc=vectors_crc,
            ids_crc=zlib.crc32(ids, mark.ids_crc),
            ends_crc=zlib.crc32(ends, mark.ends_crc),
        )
        if tokens is not None:
            self._append_tokens(tokens)

    def _append_tokens(self, tokens: TokenRecords) -> None:
        data = np.ascontiguousarray(tokens.records).view(np.uint8).data
        ends = (np.cumsum(tokens.counts) + self.mark.tokens).astype("<u8").tobytes()
        write_all(self._files[self._form.token_file], data)
        write_all(self._files[TOKEN_ENDS], ends)
        self.mark = self.mark._replace(
            tokens=self.mark.tokens + len(tokens.records),
            tokens_crc=zlib.crc32(data, self.mark.tokens_crc),
            token_ends_crc=zlib.crc32(ends, self.mark.token_ends_crc),
        )

    def sync(self) -> None:
        """Make all rows durable."""
        for descriptor in self._files.values():
            os.fsync(descriptor)
        sync_path(self._folder)

    def close(self) -> None:
        """Close the files; what was not committed stays behind until the next writer cuts it off."""
        while self._files:
            os.close(self._files.popitem()[1])


class StoredTokens(NamedTuple):
    """The vectors of all tokens, as they are stored (tokens,), and where those of each row end, uint64 (rows,)."""

    records: Records
    ends: NDArray[np.uint64]

    def places(self, row: int) -> slice:
        """Return where the tokens of a row stand."""
        return slice(int(self.ends[row - 1]) if row else 0, int(self.ends[row]))

    def of_rows(self, rows: Iterable[int]) -> TokenRecords:
        """Return the tokens of some rows."""
        parts = [self.records[self.places(row)] for row in rows]
        counts = np.array([len(part) for part in parts], np.int64)
        return TokenRecords(np.concatenate([self.records[:0], *parts]), counts)


def _mapped(file: Path, kind: Any, count: int) -> Any:
    return np.memmap(file, kind, "r", shape=(count,)) if count else np.empty(0, kind)


def _bytes_of(file: Path, size: int) -> mmap | bytes:
    """Map the beginning of a file: a slice of it is bytes, in a fraction of the time that one of an array takes."""
    if not size:
        return b""
    with file.open("rb") as opened:
        return mmap(opened.fileno(), size, access=ACCESS_READ)


class RowReader:
    """The rows of one commit, memory-mapped.

    vectors: the stored vectors (n, dim), None if the index has none. tokens: those of all tokens (tokens,), as they are
    stored, and where those of each row end, uint64 (n,); None if the index has none.
    """

    def __init__(self, folder: Path, form: RowFormat, mark: RowMark, *, checked: bool = False) -> None:
        """Map the files; `checked`: compare the ids with their checksums before the first one is given out."""
        _check_sizes(folder, mark, form)
        self.folder = folder
        self._check = BackgroundCheck(id_files(folder, mark, form)) if checked else None
        self.vectors: StoredVectors | None = None
        if form.dim:
            empty, file = np.empty(0, form.record), folder / form.file
            records = np.memmap(file, form.record, "r", shape=(mark.rows,)) if mark.rows else empty
            self.vectors = StoredVectors(records, form)
        self.tokens: StoredTokens | None = None
        if form.token_dim:
            self.tokens = StoredTokens(
                _mapped(folder / form.token_file, form.token_record, mark.tokens),
                _mapped(folder / TOKEN_ENDS, "<u8", mark.rows),
            )
        self._known: dict[str, int] = {}
        self._ids = _bytes_of(folder / IDS, mark.id_bytes)
        self._ends: NDArray[np.uint64] = np.asarray(_mapped(folder / ENDS, "<u8", mark.rows))

    def doc_ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the ids of these rows."""
        if self._check is not None:
            self._check.wait()
            self._check = None
        ids = self._ids
        try:
            ends = self._ends[rows].tolist()
            starts = (self._ends[rows - 1] * (rows > 0)).tolist()
            found = [ids[start:end].decode() for start, end in zip(starts, ends, strict=True)]
            self._remember(found, rows)
            return found
        except (UnicodeDecodeError, IndexError) as error:
            raise damaged(self.folder / IDS, str(error)) from None

    def _remember(self, ids: Sequence[str], rows: NDArray[np.int64]) -> None:
        """Note the rows of what was found: its texts are likely to be asked for."""
        if len(ids) <= REMEMBERED:
            if len(self._known) > REMEMBERED:
                self._known = {}
            self._known.update(zip(ids, rows.tolist(), strict=True))

    def row_of(self, doc_id: str, alive: BoolArray) -> int | None:
        """Return a live row of a document, None for an unknown id; alive: bool (rows,). Milliseconds in a large index.

        Those of ids that were given out lately are remembered.
        """
        known = self._known.get(doc_id)
        if known is not None and alive[known]:
            return known
        wanted = np.frombuffer(doc_id.encode(), np.uint8)
        ends = self._ends
        starts = np.concatenate([np.zeros(1, np.uint64), ends[:-1]])[: len(ends)]
        rows = np.flatnonzero((ends - starts == len(wanted)) & alive)
        ids = np.frombuffer(self._ids, np.uint8)
        places = starts[rows].astype(np.int64)
        for place in range(len(wanted) - 1, -1, -1):  # the last letters tell most
            same = ids[places + place] == wanted[place]
            rows, places = rows[same], places[same]
        found = rows.tolist()
        return found[0] if found and self.doc_ids(rows[:1])[0] == doc_id else None


def write_flags(path: Path, flags: NDArray[np.uint8]) -> int:
    """Write the flags of all rows as one packed bitmap after the other, in the order of PLANES; return the CRC-32."""
    data = b"".join(np.packbits(flags & plane != 0, bitorder="little").tobytes() for plane in PLANES)
    write_whole(path, data)
    return zlib.crc32(data)


def read_flags(path: Path, rows: int, crc: int) -> NDArray[np.uint8]:
    """Read what `write_flags` wrote: uint8 (rows,); raise UserError if the file is not the one that was committed."""
    data = path.read_bytes()
    if zlib.crc32(data) != crc:
        raise damaged(path, "wrong checksum")
    planes = np.frombuffer(data, np.uint8).reshape(len(PLANES), (rows + 7) // 8)
    flags = np.zeros(rows, np.uint8)
    for plane, bits in zip(PLANES, planes, strict=True):
        flags |= np.unpackbits(bits, count=rows, bitorder="little") * np.uint8(plane)
    return flags
