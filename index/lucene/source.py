"""One commit of Lucene as an index reads it: from its files where these are enough, by Java for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retriever.index.lucene.held import HeldCommit, hold
from retriever.index.lucene.reader import LuceneReader
from retriever.index.lucene.segments import ForeignError
from retriever.index.lucene.stored_fields import StoredFields
from retriever.lazy import lazy

if TYPE_CHECKING:
    from pathlib import Path

    from retriever.index.lucene.collection import Collection
    from retriever.index.settings import Bm25

__all__ = ["LuceneSource"]


class LuceneSource:
    """A commit that is held, or that Java has opened. user_data: what stands in it. joined: see `join`."""

    def __init__(self, folder: Path, bm25: Bm25, commit: LuceneReader | HeldCommit) -> None:
        self._folder, self._bm25, self._commit = folder, bm25, commit
        self.user_data = commit.user_data
        self.joined: Collection | None = None
        if isinstance(commit, LuceneReader):
            self.__dict__["lucene"] = commit  # as if it had been asked for

    @classmethod
    def open(cls, folder: Path, bm25: Bm25) -> LuceneSource:
        """Open the last commit; raise UserError if Lucene cannot, either."""
        return cls(folder, bm25, hold(folder) or LuceneReader.open(folder, bm25))

    def newer(self) -> LuceneSource | None:
        """Return the last commit, None if it is this one; what Java has open and has not changed is shared."""
        if self._started and not self.lucene.linked:
            reopened = self.lucene.reopen()
            return None if reopened is None else LuceneSource(self._folder, self._bm25, reopened)
        newer = self.open(self._folder, self._bm25)
        if newer._commit.identity != self._commit.identity:
            return newer
        newer.close()
        return None

    @property
    def _started(self) -> bool:
        return "lucene" in self.__dict__

    @lazy
    def lucene(self) -> LuceneReader:
        """Return what asks Java, which is started if it was not."""
        commit = self._commit
        lucene = commit.open_lucene(self._bm25) if isinstance(commit, HeldCommit) else commit
        if self.joined is not None:
            lucene.join(self.joined)
        return lucene

    def join(self, collection: Collection) -> None:
        """Rank by BM25 as a part of a collection from now on: before the first search."""
        self.joined = collection
        if self._started:
            self.lucene.join(collection)

    def stored_fields(self, rows: int) -> StoredFields | None:
        """Return what reads stored documents without Java, None where Java has to. rows: how many the index has."""
        if not isinstance(self._commit, HeldCommit):
            return None
        try:
            return StoredFields(self._commit, rows)
        except (ForeignError, ValueError):
            return None

    def close(self) -> None:
        """Free the files."""
        if self._started and self.lucene is not self._commit:
            self.lucene.close()
        self._commit.close()
