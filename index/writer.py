"""Writing an index folder: documents go to Lucene and to the rows, and one Lucene commit makes both visible."""

from __future__ import annotations

import math
import os
import re
import shutil
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.index.commit import CommitRecord, parse_commit
from retriever.index.files import damaged, disk_errors, sync_path
from retriever.index.lock import LockedError, WriteLock, patience
from retriever.index.lucene.jvm import read_user_data, start_jvm
from retriever.index.lucene.writer import LuceneDocument, LuceneWriter
from retriever.index.postings.sparse import SparseWriter
from retriever.index.postings.words import WordWriter
from retriever.index.settings import IndexSettings, check_settings, read_settings, settings_bytes, write_settings
from retriever.index.vectors import dense
from retriever.index.vectors.faiss_types import choose_type
from retriever.index.vectors.rows import (
    ALIVE,
    CONTINUES,
    EMPTY,
    SEARCHABLE,
    TRUNCATED,
    RowMark,
    RowReader,
    RowWriter,
    check_content,
    check_ids,
    committed_files,
    read_flags,
    write_flags,
)
from retriever.index.writing.batch import check_batch, token_records
from retriever.processes import refuse_fork
from retriever.types import Document, Encoded, Span, TokenVectors, UserError

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from retriever.index.postings.blocks import BlockFile

__all__ = ["FolderWriter"]

BLOCK = 16_384
"""Rows copied at a time."""
NEWER_ROWS = 50_000
"""Rows that are searched exactly at most; with 384 dimensions they take a query about 20 ms."""

RENEWED = "dense/renewed"
"""A FAISS file that is built while others may write: a name that is no commit's, so none of them removes it."""
ROWS_FOLDER = re.compile(r"rows(-\d+)?")


class _Dense(NamedTuple):
    """The FAISS file of a commit: its type, its path in the index, how many rows it covers, its CRC-32."""

    kind: str
    file: str
    rows: int
    crc: int


class FolderWriter:
    """The one writer of an index folder. Nothing lasts before `commit`; `close` forgets what was not committed.

    Use it from one thread, as a context manager. Open it with `create` or `open`. committed: what the last commit says.
    """

    def __init__(self, path: Path, settings: IndexSettings, lock: WriteLock, lucene: LuceneWriter) -> None:
        self.path, self.settings = path, settings
        self._lock, self._lucene = lock, lucene
        self._whole, self._lent, self._process = True, False, os.getpid()
        self.committed = parse_commit(path, read_user_data(path / "lucene"))
        check_settings(path, self.committed.settings_crc)
        self._rows_folder = self.committed.rows_folder
        rows = path / self._rows_folder
        self._flags = bytearray()
        self._row_of: dict[str, int] = {}  # the first row of a document
        committed = self.committed
        self._rows = RowWriter(rows, settings.row_format, committed.mark)
        self._sparse = SparseWriter(path, committed.sparse_files, committed.mark.rows, committed.number + 1)
        self._words = WordWriter(path, committed.bm25_files, committed.mark.rows)
        try:
            self._load(rows)
        except BaseException:
            self._rows.close()
            raise

    @classmethod
    def create(cls, path: str | Path, settings: IndexSettings) -> FolderWriter:
        """Make an empty index in a new or empty folder."""
        path = Path(path)
        start_jvm()
        with disk_errors(path):
            if path.exists() and not path.is_dir():
                raise UserError(f"{path}: a file, need a new or empty folder for the index; give another path")
            new = not path.exists()
            path.mkdir(parents=True, exist_ok=True)
            _refuse_if_not_empty(path, set())
            try:
                lock = WriteLock(path)
            except OSError:
                if new:
                    shutil.rmtree(path)
                raise
        try:
            _refuse_if_not_empty(path, {"write.lock"})  # somebody else may have been faster
        except UserError:
            lock.release()
            raise
        try:
            with disk_errors(path):
                (path / "dense").mkdir()
                (path / "lucene").mkdir()
                lucene = LuceneWriter(path / "lucene", settings.bm25)
                with _closed_on_error(lucene):
                    live = path / "rows" / "live-0.bin"
                    live.parent.mkdir()
                    crc = write_flags(live, np.empty(0, np.uint8))
                    record = CommitRecord(
                        settings_crc=zlib.crc32(settings_bytes(settings)), live_file="rows/live-0.bin", live_crc=crc
                    )
                    lucene.commit(record.user_data())
                    # Last: only with this file is the folder an index, and then it is a whole one.
                    write_settings(path, settings)
                    return cls(path, settings, lock, lucene)
        except BaseException:
            for part in path.iterdir():
                shutil.rmtree(part) if part.is_dir() else part.unlink()
            if new:
                path.rmdir()
            lock.release()
            raise

    @classmethod
    def open(cls, path: str | Path) -> FolderWriter:
        """Continue after the last commit; what an earlier writer left beyond it is cut off."""
        path = Path(path)
        settings = read_settings(path)
        with disk_errors(path):
            lock = WriteLock(path)
        try:
            with disk_errors(path):
                lucene = LuceneWriter(path / "lucene", settings.bm25)
                with _closed_on_error(lucene):
                    return cls(path, settings, lock, lucene)
        except FileNotFoundError as error:
            lock.release()
            raise damaged(error.filename, "missing") from None
        except BaseException:
            lock.release()
            raise

    def _load(self, rows: Path) -> None:
        mark = self.committed.mark
        form = self.settings.row_format
        # A changed id would be added a second time, and never be deleted.
        check_ids(rows, mark, form)
        flags = read_flags(self.path / self.committed.live_file, mark.rows, self.committed.live_crc)
        self._flags.extend(flags.tobytes())
        alive = np.flatnonzero(flags & ALIVE)
        ids = RowReader(rows, form, mark).doc_ids(alive)
        for doc_id, row in zip(ids, alive.tolist(), strict=True):
            if self._row_of.setdefault(doc_id, row) != row:
                self._flags[row] |= CONTINUES
        self._remove_unreferenced()

    @property
    def doc_ids(self) -> Collection[str]:
        """Return the ids of the documents, uncommitted changes included."""
        return self._row_of.keys()

    def __contains__(self, doc_id: str) -> bool:
        return doc_id in self._row_of

    def __len__(self) -> int:
        return len(self._row_of)

    def add(
        self,
        documents: Sequence[Document],
        encoded: Encoded | None,
        chunks: Sequence[Sequence[Span]] | None = None,
        tokens: TokenVectors | None = None,
    ) -> None:
        """Add documents with their vectors and terms; an id that is there already is replaced in every leg.

        encoded: both views of the `contents` of each chunk, in order; None only for an index without encoder.
        chunks: of each document's text, the spans that are its chunks; None for whole documents. tokens: the vectors of
        the tokens of each chunk, where the index has them.
        """
        batch = check_batch(documents, encoded, self.settings, chunks)
        records = token_records(tokens, len(batch.chunks), self.settings)
        with self._changes():
            ids = [doc.doc_id for doc, count in zip(documents, batch.counts, strict=True) for _ in range(count)]
            self._rows.append(ids, batch.records, records)
            if self.settings.encoder.vocab_size:
                self._sparse.add(batch.impacts)
            start = 0
            for document, raw, count, language in zip(
                documents, batch.raws, batch.counts, batch.languages, strict=True
            ):
                end = start + count
                row, old = len(self._flags), self._row_of.get(document.doc_id)
                fields = LuceneDocument(document.doc_id, raw, row, document.metadata, batch.chunks[start:end], language)
                self._lucene.add(fields, replace=old is not None)
                if old is not None:
                    self._bury(old)
                self._flags.extend(batch.flags[start:end])
                self._row_of[document.doc_id] = row
                start = end

    def _bury(self, row: int) -> None:
        """Mark the rows of the document that starts with this one as dead."""
        self._flags[row] = 0
        row += 1
        while row < len(self._flags) and self._flags[row] & CONTINUES:
            self._flags[row] = 0
            row += 1

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents from every leg; return how many there were. Unknown ids are passed over."""
        self._take_back()
        known = {doc_id for doc_id in ids if doc_id in self._row_of}
        if known:
            with self._changes():
                self._lucene.delete(known)
                for doc_id in known:
                    self._bury(self._row_of.pop(doc_id))
        return len(known)

    def commit(
        self, note: Mapping[str, str] | None = None, dense_type: str | None = None, *, built: _Dense | None = None
    ) -> None:
        """Make everything so far durable, and visible to readers that open from now on.

        Where another writer stands in line (see `WriteLock`) it has the index until the next change, which waits.
        note: what `committed.note` will say. dense_type: the FAISS type to build now, see `choose_type`;
        None keeps the FAISS file that there is, and newer rows are searched exactly. built: is taken instead, if it was
        built already.
        """
        with self._changes():
            self._rows.sync()
            record = self._next_record(note or {}, dense_type, built)
            self._lucene.commit(record.user_data())
            self.committed = record
        self._remove_unreferenced()
        if self.wanted:
            self._lend()

    def _lend(self) -> None:
        """Let others have the index until the next change; nothing of ours is left to commit."""
        self.close()
        self._lent = True

    @property
    def wanted(self) -> bool:
        """Say whether another writer stands in line, who could have the index after the next commit."""
        return not self._lent and self._lock.wanted

    def _take_back(self) -> None:
        """Wait for the writer who has the index, and go on from its last commit."""
        if self._lent:
            with patience(math.inf):
                found = FolderWriter.open(self.path)
            vars(self).update(vars(found))

    def compact(self, dense_type: str | None = None) -> int:
        """Drop the rows and the Lucene documents that are dead, build FAISS again from the rows, and commit.

        Nothing is encoded, and the last commit is whole until the new one is. Returns how many rows were dead.
        dense_type: the FAISS type from now on, see `choose_type`; as before for None.
        """
        choose_type(dense_type or "auto", 0)
        with self._changes():
            # Else a copy of damaged rows would have a checksum that says that they are whole.
            files = committed_files(self._rows.mark, self.settings.row_format)
            check_content(self.path / self._rows_folder, files)
            flags = np.frombuffer(bytes(self._flags), np.uint8)
            alive = np.flatnonzero(flags & ALIVE)
            if len(alive) < len(flags):
                self._move_rows(alive)
                self._flags = bytearray(flags[alive].tobytes())
            self._sparse.compact(alive)
            self._words.compact(len(alive))
            self._lucene.drop_deleted()
        self.commit(self.committed.note, dense_type or self.committed.dense_choice)
        return len(flags) - len(alive)

    def _move_rows(self, alive: NDArray[np.int64]) -> None:
        """Copy these rows into a new folder, and tell Lucene where they are now."""
        form = self.settings.row_format
        old = RowReader(self.path / self._rows_folder, form, self._rows.mark)
        self._rows.close()
        self._rows_folder = f"rows-{self.committed.number + 1}"
        self._rows = RowWriter(self.path / self._rows_folder, form, RowMark())
        sync_path(self.path)
        for start in range(0, len(alive), BLOCK):
            part = alive[start : start + BLOCK]
            ids = old.doc_ids(part)
            vectors = None if old.vectors is None else old.vectors.records[part]
            self._rows.append(ids, vectors, None if old.tokens is None else old.tokens.of_rows(part.tolist()))
            first = [not self._flags[row] & CONTINUES for row in part.tolist()]
            moved = [*compress(zip(ids, range(start, start + len(ids)), strict=True), first)]
            self._lucene.renumber(moved)
            self._row_of.update(moved)

    def dense_type_due(self) -> str | None:
        """Return the FAISS type to build: the chosen one where too many rows are newer than its file.

        Newer rows cost every query an exact scan, building costs once: it waits for a fifth more rows, or NEWER_ROWS.
        """
        last, rows = self.committed, len(self._flags)
        kind = choose_type(last.dense_choice, rows)
        newer = rows - last.dense_rows
        outgrown = kind != "flat" and (newer > NEWER_ROWS or 5 * newer > last.dense_rows)
        return last.dense_choice if self.settings.encoder.dense_dim and (outgrown or kind != last.dense_type) else None

    def renew_dense(self) -> None:
        """Build FAISS of the last commit where `dense_type_due` says so, and commit that; called after `commit`.

        It takes long: meanwhile other writers may have the index, and searches see the last commit. One process builds
        at a time.
        """
        due, last = self.dense_type_due(), self.committed
        if due is None:
            return
        with suppress(LockedError), self._building():
            self._lend()
            built = self._build_dense(due, RENEWED)
            self._take_back()
            now = self.committed
            if (now.rows_folder, now.dense_choice) == (last.rows_folder, last.dense_choice):
                self.commit(now.note, due, built=built if built.file else None)

    @contextmanager
    def _building(self) -> Iterator[None]:
        """Be the one who builds without the lock; remove what is not committed, of one that was killed, too."""
        with patience(0):
            lock = WriteLock(self.path, "build")
        try:
            yield
        finally:
            for file in self.path.glob(f"{RENEWED}*"):
                file.unlink()
            lock.release()

    def _build_dense(self, dense_type: str, name: str) -> _Dense:
        """Write the FAISS index of all rows to a file; {kind} in its name stands for the type."""
        flags = np.frombuffer(bytes(self._flags), np.uint8)
        kind = choose_type(dense_type, len(flags))
        if kind == "flat" or not len(flags):
            return _Dense(kind, "", 0, 0)
        file = name.format(kind=kind)
        reader = RowReader(self.path / self._rows_folder, self.settings.row_format, self._rows.mark)
        crc = dense.build(self.path / file, kind, reader, (flags & SEARCHABLE).astype(bool))
        return _Dense(kind, file, len(flags), crc)

    def _next_record(self, note: Mapping[str, str], dense_type: str | None, built: _Dense | None) -> CommitRecord:
        """Write the files of the next commit beside those of the last one."""
        last, number = self.committed, self.committed.number + 1
        flags = np.frombuffer(bytes(self._flags), np.uint8)
        live_file = f"{self._rows_folder}/live-{number}.bin"
        found = _Dense(last.dense_type, last.dense_file, last.dense_rows, last.dense_crc)
        if dense_type is not None and self.settings.encoder.dense_dim:
            name = f"dense/{{kind}}-{number}.faiss"
            if built is None:
                found = self._build_dense(dense_type, name)
            else:
                found = built._replace(file=name.format(kind=built.kind))
                (self.path / built.file).replace(self.path / found.file)
                sync_path(self.path / "dense")
        return CommitRecord(
            number=number,
            settings_crc=last.settings_crc,
            rows_folder=self._rows_folder,
            mark=self._rows.mark,
            live_file=live_file,
            live_crc=write_flags(self.path / live_file, flags),
            dense_choice=dense_type or last.dense_choice,
            dense_type=found.kind,
            dense_file=found.file,
            dense_rows=found.rows,
            dense_crc=found.crc,
            sparse_files=self._sparse_files(number, len(flags)),
            bm25_files=tuple(self._words.finish(number, len(flags), self._lucene.words)),
            documents=len(self._row_of),
            empty=int(np.count_nonzero(flags & EMPTY)),
            truncated=int(np.count_nonzero(flags & TRUNCATED)),
            unread=self._unread(flags),
            note=dict(note),
        )

    def _sparse_files(self, number: int, rows: int) -> tuple[BlockFile, ...]:
        """Write the postings of the next commit; Lucene gives them where there are none, or damaged ones."""
        if not self.settings.encoder.vocab_size:
            return ()
        if not self._sparse.complete:
            reader = self._lucene.reader()
            try:
                self._sparse.rebuild(reader.impacts(), rows)
            finally:
                reader.close()
        return tuple(self._sparse.finish(number))

    def _unread(self, flags: NDArray[np.uint8]) -> int:
        """Return how many live rows have text but no vector."""
        if not self.settings.encoder.dense_dim:
            return 0
        return int(np.count_nonzero(flags & (ALIVE | SEARCHABLE | EMPTY) == ALIVE))

    @contextmanager
    def _changes(self) -> Iterator[None]:
        """Refuse changes after one that failed or was interrupted half-way: only the last commit counts then."""
        refuse_fork(self._process, "this index was opened")
        if not self._whole:
            raise RuntimeError("an earlier change failed; close this writer and open the index again")
        self._take_back()
        self._whole = False
        with disk_errors(self.path):
            yield
        self._whole = True

    def _remove_unreferenced(self) -> None:
        """Remove files that the last commit does not name: those of older commits and of interrupted ones."""
        named = {self.path / self.committed.live_file, self.path / (self.committed.dense_file or "dense")}
        rows = self.path / self.committed.rows_folder
        blocks = (*self.committed.sparse_files, *self.committed.bm25_files)
        named |= {self.path / block.file for block in blocks}
        found = {*rows.glob("live-*.bin*"), *self.path.glob("dense/*.faiss*"), *self.path.glob("index.json.tmp")}
        found |= {*self.path.glob("sparse/*.postings*"), *self.path.glob("bm25/*.words*")}
        for file in found - named:
            file.unlink()
        if any(self.path.glob(f"{RENEWED}*")):
            with suppress(LockedError), self._building():
                pass
        for folder in set(self.path.glob("rows*/")) - {rows}:
            if ROWS_FOLDER.fullmatch(folder.name):  # anything else is the user's
                shutil.rmtree(folder)

    def close(self) -> None:
        """Forget what was not committed and let the next writer in; nothing in a forked process, whose it is not."""
        if self._process != os.getpid() or self._lent:
            return
        self._rows.close()
        try:
            self._lucene.close()
        finally:
            self._lock.release()

    def __enter__(self) -> FolderWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _refuse_if_not_empty(path: Path, ours: set[str]) -> None:
    found = sorted({file.name for file in path.iterdir()} - ours)
    if found:
        raise UserError(
            f"{path}: the folder is not empty (it has {found[0]!r}); "
            "give a new folder, or add to an index with `retriever add`"
        )


@contextmanager
def _closed_on_error(lucene: LuceneWriter) -> Iterator[None]:
    try:
        yield
    except BaseException:
        lucene.close()
        raise
