"""Writing an index folder: documents go to Lucene and to the rows, and one Lucene commit makes both visible."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retriever.index.commit import CommitRecord, parse_commit
from retriever.index.files import damaged, disk_errors, sync_path
from retriever.index.lock import LockedError, WriteLock, patience
from retriever.index.lucene.jvm import read_user_data, start_jvm
from retriever.index.lucene.writer import LuceneDocument, LuceneWriter
from retriever.index.postings.sparse import SparseWriter
from retriever.index.postings.words import WordWriter
from retriever.index.settings import IndexSettings, check_settings, read_settings, settings_bytes, write_settings
from retriever.index.vectors.faiss_types import choose_type
from retriever.index.vectors.rows import (
    ALIVE,
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
from retriever.index.writing.dense_file import RENEWED, DenseFile, build_dense, building, placed, type_due
from retriever.index.writing.live_rows import LiveRows
from retriever.index.writing.new_folder import new_folder
from retriever.index.writing.unreferenced import remove_unreferenced
from retriever.processes import refuse_fork
from retriever.types import Document, Encoded, Span, TokenVectors

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from retriever.index.postings.blocks import BlockFile

__all__ = ["FolderWriter"]

BLOCK = 16_384
"""Rows copied at a time."""


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
        committed, self._rows_folder = self.committed, self.committed.rows_folder
        self._rows = RowWriter(path / self._rows_folder, settings.row_format, committed.mark)
        self._sparse = SparseWriter(path, committed.sparse_files, committed.mark.rows, committed.number + 1)
        self._words = WordWriter(path, committed.bm25_files, committed.mark.rows)
        try:
            self._live = self._load()
            remove_unreferenced(path, committed)
        except BaseException:
            self._rows.close()
            raise

    @classmethod
    def create(cls, path: str | Path, settings: IndexSettings) -> FolderWriter:
        """Make an empty index in a new or empty folder."""
        path = Path(path)
        start_jvm()
        with new_folder(path) as lock, disk_errors(path):
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

    def _load(self) -> LiveRows:
        mark, form = self.committed.mark, self.settings.row_format
        rows = self.path / self._rows_folder
        # A changed id would be added a second time, and never be deleted.
        check_ids(rows, mark, form)
        flags = read_flags(self.path / self.committed.live_file, mark.rows, self.committed.live_crc)
        return LiveRows(flags, RowReader(rows, form, mark).doc_ids(np.flatnonzero(flags & ALIVE)))

    @property
    def doc_ids(self) -> Collection[str]:
        """Return the ids of the documents, uncommitted changes included."""
        return self._live.row_of.keys()

    def __contains__(self, doc_id: str) -> bool:
        return doc_id in self._live.row_of

    def __len__(self) -> int:
        return len(self._live.row_of)

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
                fields = LuceneDocument(
                    document.doc_id, raw, len(self._live), document.metadata, batch.chunks[start:end], language
                )
                self._lucene.add(fields, replace=document.doc_id in self)
                self._live.add(document.doc_id, batch.flags[start:end])
                start = end

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents from every leg; return how many there were. Unknown ids are passed over."""
        self._take_back()
        known = {doc_id for doc_id in ids if doc_id in self}
        if known:
            with self._changes():
                self._lucene.delete(known)
                for doc_id in known:
                    self._live.remove(doc_id)
        return len(known)

    def commit(
        self, note: Mapping[str, str] | None = None, dense_type: str | None = None, *, built: DenseFile | None = None
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
        remove_unreferenced(self.path, self.committed)
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
            before = len(self._live)
            alive = np.flatnonzero(self._live.flags & ALIVE)
            if len(alive) < before:
                self._move_rows(alive)
                self._live.keep(alive)
            self._sparse.compact(alive)
            self._words.compact(len(alive))
            self._lucene.drop_deleted()
        self.commit(self.committed.note, dense_type or self.committed.dense_choice)
        return before - len(alive)

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
            new = zip(ids, range(start, start + len(ids)), strict=True)
            moved = [*compress(new, self._live.starts(part.tolist()))]
            self._lucene.renumber(moved)
            self._live.row_of.update(moved)

    def dense_type_due(self) -> str | None:
        """Return the FAISS type to build, None where the last commit's file is good enough: see `type_due`."""
        return type_due(self.committed, len(self._live)) if self.settings.encoder.dense_dim else None

    def renew_dense(self) -> None:
        """Build FAISS of the last commit where `dense_type_due` says so, and commit that; called after `commit`.

        It takes long: meanwhile other writers may have the index, and searches see the last commit. One process builds
        at a time.
        """
        due, last = self.dense_type_due(), self.committed
        if due is None:
            return
        with suppress(LockedError), building(self.path):
            self._lend()
            built = self._build_dense(due, RENEWED)
            self._take_back()
            now = self.committed
            if (now.rows_folder, now.dense_choice) == (last.rows_folder, last.dense_choice):
                self.commit(now.note, due, built=built if built.file else None)

    def _build_dense(self, dense_type: str, name: str) -> DenseFile:
        """Write the FAISS index of all rows to a file, see `build_dense`."""
        rows = RowReader(self.path / self._rows_folder, self.settings.row_format, self._rows.mark)
        return build_dense(self.path, dense_type, name, rows, self._live.flags)

    def _next_record(self, note: Mapping[str, str], dense_type: str | None, built: DenseFile | None) -> CommitRecord:
        """Write the files of the next commit beside those of the last one."""
        last, number = self.committed, self.committed.number + 1
        live_file = f"{self._rows_folder}/live-{number}.bin"
        found = DenseFile(last.dense_type, last.dense_file, last.dense_rows, last.dense_crc)
        if dense_type is not None and self.settings.encoder.dense_dim:
            name = f"dense/{{kind}}-{number}.faiss"
            found = self._build_dense(dense_type, name) if built is None else placed(self.path, built, name)
        return CommitRecord(
            number=number,
            settings_crc=last.settings_crc,
            rows_folder=self._rows_folder,
            mark=self._rows.mark,
            live_file=live_file,
            live_crc=write_flags(self.path / live_file, self._live.flags),
            dense_choice=dense_type or last.dense_choice,
            dense_type=found.kind,
            dense_file=found.file,
            dense_rows=found.rows,
            dense_crc=found.crc,
            sparse_files=self._sparse_files(number, len(self._live)),
            bm25_files=tuple(self._words.finish(number, len(self._live), self._lucene.words)),
            documents=len(self),
            empty=self._live.empty,
            truncated=self._live.truncated,
            unread=self._live.unread if self.settings.encoder.dense_dim else 0,
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


@contextmanager
def _closed_on_error(lucene: LuceneWriter) -> Iterator[None]:
    try:
        yield
    except BaseException:
        lucene.close()
        raise
