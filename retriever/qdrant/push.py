"""Pushing an index folder to a collection: everything that is stored, nothing encoded, resumable."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from retriever.index.commit import UNFINISHED, unfinished
from retriever.index.reader import FolderReader
from retriever.index.shards.manifest import is_sharded
from retriever.index.shards.reader import ShardedReader
from retriever.qdrant.engine import ALL
from retriever.qdrant.folder import FolderDocument, folder_documents
from retriever.qdrant.place import open_engine
from retriever.qdrant.scan import pages
from retriever.qdrant.statistics import CRC_MODULUS, Head, read_head
from retriever.qdrant.writer import CollectionWriter
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from retriever.qdrant.engine import Engine
    from retriever.qdrant.points import NewChunk

__all__ = ["PushReport", "push"]

PUSHED, POSITION = "pushed", "push_position"
"""Notes of a commit: which commit of which folder is pushed, and the row to go on from."""
CHUNKS_AT_ONCE = 256


class PushReport(NamedTuple):
    """What was pushed: documents and chunks of the collection, those that this run sent, and how long it took."""

    documents: int
    chunks: int
    sent: int
    seconds: float


def push(folder: str | Path, place: str, *, commit_every: int = 20_000, progress: bool = False) -> PushReport:
    """Copy the last commit of an index, sharded or not, to a new collection, or go on with an interrupted run.

    Texts, metadata, vectors, terms and statistics are pushed. At the end the points are
    counted, and their checksums compared with those of what was sent. commit_every: a resumed run sends no more chunks
    again than this.

    Raises:
        UserError: the folder cannot be opened or is not finished; the collection holds something else; no server.
    """
    from tqdm import tqdm

    started = time.monotonic()
    with closing(ShardedReader.open(folder) if is_sharded(folder) else FolderReader.open(folder)) as reader:
        if unfinished(reader.commit_data):
            raise UserError(
                f"{folder}: its making was interrupted; finish it with `retriever index ... --resume` first"
            )
        with _open_writer(reader, *open_engine(place)) as writer:
            first = int(writer.committed.note.get(POSITION, 0))
            before = writer.state.chunks
            with tqdm(
                total=reader.num_chunks,
                initial=before,
                desc="push",
                unit=" chunks",
                file=sys.stderr,
                disable=not progress,
            ) as bar:
                _send(reader, writer, first, commit_every, bar.update)
            _check(reader, writer)
            state = writer.state
            return PushReport(state.documents, state.chunks, state.chunks - before, time.monotonic() - started)


_Source: TypeAlias = FolderReader | ShardedReader


def _folders(reader: _Source) -> Sequence[FolderReader]:
    """Return the index folders of an index: its shards, or itself."""
    return reader.shards if isinstance(reader, ShardedReader) else [reader]  # type: ignore[return-value]  # here they are


def _source(reader: _Source) -> str:
    """Return what tells this commit of this index from all others."""
    commits = [
        f"{commit.settings_crc:08x}-{commit.number}-{commit.live_crc:08x}-{commit.mark.ids_crc:08x}"
        for commit in (folder.commit_data for folder in _folders(reader))
    ]
    return commits[0] if len(commits) == 1 else blake2b(" ".join(commits).encode(), digest_size=16).hexdigest()


def _open_writer(reader: _Source, name: str, engine: Engine) -> CollectionWriter:
    """Make the collection, or open it where this folder's push was interrupted, or has come to its end."""
    settings = reader.settings
    note = {PUSHED: _source(reader), POSITION: "0", UNFINISHED: "yes"}
    try:
        if not engine.exists() or not engine.count(ALL):
            new = Head.new(settings, reader.num_chunks, {**reader.commit_data.note, **note})
            return CollectionWriter.create(name, engine, new)
        head = read_head(engine, name)
        pushed = head.state.note.get(PUSHED)
        if pushed != note[PUSHED] or head.settings != settings:
            what = "another index" if head.settings != settings else "another state of this index, or was changed since"
            raise UserError(f"{name}: holds {what}; push to a new collection, and delete this one if it is not needed")
        if UNFINISHED not in head.state.note and head.state.writer:
            raise UserError(
                f"{name}: a writer is changing it, or was interrupted; `retriever compact {name}` mends that"
            )
        return CollectionWriter(name, engine, head)
    except BaseException:
        engine.close()
        raise


def _size(reader: _Source) -> tuple[int, int]:
    """Return how many chunks have terms, and how many they have together."""
    return reader.collection.documents, reader.collection.length


def _documents(reader: _Source, first: int) -> Iterator[FolderDocument]:
    """Yield the live documents from a row on, where the rows of each shard follow those of the one before it."""
    before = 0
    for folder in _folders(reader):
        if first < before + len(folder.alive):
            for document in folder_documents(folder, max(0, first - before)):
                yield document._replace(row=document.row + before)
        before += len(folder.alive)


def _send(
    reader: _Source,
    writer: CollectionWriter,
    first: int,
    commit_every: int,
    advance: Callable[[int], object],
) -> None:
    """Send the documents from row `first` on, and commit now and then, and at the end."""
    note = dict(writer.committed.note)
    if UNFINISHED not in note:
        return
    batch: list[NewChunk] = []
    size, pending = _size(reader), 0
    for document in _documents(reader, first):
        if len(batch) >= CHUNKS_AT_ONCE:
            writer.send(batch, size=size)
            advance(len(batch))
            pending, batch = pending + len(batch), []
            if pending >= commit_every:
                writer.commit({**note, POSITION: str(document.row)})
                pending = 0
        batch += document.chunks
    writer.send(batch, size=size)
    advance(len(batch))
    del note[UNFINISHED]
    writer.commit({**note, POSITION: str(sum(len(folder.alive) for folder in _folders(reader)))})
    writer.engine.optimize()


def _check(reader: _Source, writer: CollectionWriter) -> None:
    """Compare what stands in the collection with what was sent, by counts and checksums.

    Raises:
        UserError: they differ.
    """
    state, count, total = writer.state, 0, 0
    for page in pages(writer.engine, ALL, ["crc"]):
        count += len(page)
        total += sum(record.payload["crc"] for record in page)
    found = {"chunks": count, "checksums": total % CRC_MODULUS, "terms": (state.worded, state.words)}
    sent = {"chunks": reader.num_chunks, "checksums": state.crc, "terms": _size(reader)}
    for name, value in found.items():
        if value != sent[name]:
            raise UserError(
                f"{writer.path}: found {name} {value}, sent {sent[name]}; delete the collection, and push again"
            )
