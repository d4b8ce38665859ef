"""Changing a sharded index: every document goes to the shard that holds it, and a new one to the smallest."""

from __future__ import annotations

from collections import ChainMap
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.index.lock import WriteLock
from retriever.index.shards.agreement import check_alike, joined_commits
from retriever.index.shards.manifest import read_manifest, shard_folders, write_manifest
from retriever.index.writer import FolderWriter
from retriever.types import Encoded, TokenVectors

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from types import TracebackType

    from retriever.index.commit import CommitRecord
    from retriever.index.shards.manifest import ShardManifest
    from retriever.types import Document, Span

__all__ = ["ShardedWriter"]


class ShardedWriter:
    """The one writer of a sharded index; it does what `FolderWriter` does, over all shards.

    A commit is one of each shard that has changed, one after the other: what is seen of a document is whole at any
    moment, and a kill between two of them leaves the one committed and the other not. Then the same change again
    completes it: adding what is there replaces it, and deleting what is gone is nothing.
    """

    def __init__(self, path: Path, manifest: ShardManifest, shards: Sequence[FolderWriter], lock: WriteLock) -> None:
        self.path, self.settings = path, check_alike(path, manifest.shards, [shard.settings for shard in shards])
        self._manifest, self._shards, self._lock = manifest, shards, lock
        self._changed: set[int] = set()

    @classmethod
    def open(cls, path: str | Path) -> ShardedWriter:
        """Continue after the last commit of every shard; raise UserError as `FolderWriter.open`."""
        path = Path(path)
        manifest = read_manifest(path)
        with ExitStack() as opened:
            lock = WriteLock(path)
            opened.callback(lock.release)
            shards = [opened.enter_context(FolderWriter.open(folder)) for folder in shard_folders(path)]
            writer = cls(path, manifest, shards, lock)
            opened.pop_all()
        return writer

    @property
    def committed(self) -> CommitRecord:
        """Return what the last commits of the shards say together."""
        return joined_commits(self._manifest, [shard.committed for shard in self._shards])

    @property
    def doc_ids(self) -> Collection[str]:
        """Return the ids of the documents, uncommitted changes included."""
        return ChainMap(*(dict.fromkeys(shard.doc_ids) for shard in self._shards)).keys()

    @property
    def wanted(self) -> bool:
        """Return False: the shards stay with one writer until it ends."""
        return False

    def __contains__(self, doc_id: str) -> bool:
        return any(doc_id in shard for shard in self._shards)

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    def add(
        self,
        documents: Sequence[Document],
        encoded: Encoded | None,
        chunks: Sequence[Sequence[Span]] | None = None,
        tokens: TokenVectors | None = None,
    ) -> None:
        """Add documents as `FolderWriter.add` does; one that is replaced stays in its shard."""
        counts = np.array([1] * len(documents) if chunks is None else [*map(len, chunks)], np.int64)
        ends = np.cumsum(counts)
        for number, places in self._shared_out(documents).items():
            rows = np.concatenate([np.arange(ends[place] - counts[place], ends[place]) for place in places])
            self._changed.add(number)
            self._shards[number].add(
                [documents[place] for place in places],
                None if encoded is None else _encoded_rows(encoded, rows),
                None if chunks is None else [chunks[place] for place in places],
                None if tokens is None else _token_rows(tokens, rows),
            )

    def _shared_out(self, documents: Sequence[Document]) -> dict[int, list[int]]:
        """Return for shards, by number, which of the documents are theirs."""
        own: dict[str, int] = {}
        sizes = [len(shard) for shard in self._shards]
        found: dict[int, list[int]] = {}
        for place, document in enumerate(documents):
            number = own.get(document.doc_id)
            if number is None:
                held = (n for n, shard in enumerate(self._shards) if document.doc_id in shard)
                number = next(held, None)
                if number is None:
                    number = int(np.argmin(sizes))
                    sizes[number] += 1
                own[document.doc_id] = number
            found.setdefault(number, []).append(place)
        return found

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents from every leg; return how many there were. Unknown ids are passed over."""
        wanted, total = set(ids), 0
        for number, shard in enumerate(self._shards):
            deleted = shard.delete(wanted)
            if deleted:
                self._changed.add(number)
            total += deleted
        return total

    def commit(self, note: Mapping[str, str] | None = None, dense_type: str | None = None) -> None:
        """Commit the shards that have changed, and then the note.

        dense_type: the FAISS type to build now in every shard.
        """
        for number, shard in enumerate(self._shards):
            if dense_type is not None or number in self._changed:
                shard.commit(shard.committed.note, dense_type)
                self._changed.discard(number)
        self._write_note(note or {})

    def _write_note(self, note: Mapping[str, str]) -> None:
        if dict(note) != dict(self._manifest.note):
            manifest = self._manifest.next(note)
            write_manifest(self.path, manifest)
            self._manifest = manifest

    def compact(self, dense_type: str | None = None) -> int:
        """Do what `FolderWriter.compact` does, shard by shard; return how many rows were dead."""
        dropped = sum(shard.compact(dense_type) for shard in self._shards)
        self._changed.clear()
        return dropped

    def renew_dense(self) -> None:
        """Do what `FolderWriter.renew_dense` does, shard by shard."""
        for shard in self._shards:
            shard.renew_dense()

    def close(self) -> None:
        """Forget what was not committed and let the next writer in."""
        with ExitStack() as closing:
            closing.callback(self._lock.release)
            for shard in self._shards:
                closing.callback(shard.close)

    def __enter__(self) -> ShardedWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _encoded_rows(encoded: Encoded, rows: Any) -> Encoded:
    """Return these rows of all views."""
    return Encoded(*(part if part is None else part[rows] for part in encoded))  # type: ignore[arg-type]  # as they were


def _token_rows(tokens: TokenVectors, rows: Any) -> TokenVectors:
    """Return the tokens of these texts."""
    starts = np.concatenate([[0], np.cumsum(tokens.counts)])
    places = np.concatenate([np.arange(starts[row], starts[row + 1]) for row in rows])
    ids = None if tokens.ids is None else tokens.ids[places]
    return tokens._replace(vectors=tokens.vectors[places], counts=tokens.counts[rows], ids=ids)
