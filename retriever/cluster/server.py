"""What runs on the machines of a cluster: an actor that has one shard open and answers for it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.index.reader import FolderReader
from retriever.index.shards.manifest import check_there
from retriever.index.verify import damage_text, verify_folder
from retriever.search.opened.commit_view import open_legs
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retriever.index.commit import CommitRecord
    from retriever.index.settings import IndexSettings
    from retriever.search.leg import LegOptions, LegQuery, OpenLeg
    from retriever.types import Ranking

__all__ = ["TOKENS", "Epoch", "Failed", "Filtered", "ShardServer", "ShardState"]

TOKENS = "document_frequency"
"""The method that the statistics of tokens have, not the reader."""
KEPT = 2
"""States of the index that a shard has open: searches that began before `reopen` end in the older one."""


class ShardState(NamedTuple):
    """What a shard is at its last commit: what a reader of all shards has to know of each before it searches."""

    settings: IndexSettings
    commit: CommitRecord
    chunks: int
    languages: Mapping[str, int]
    documents: int
    length: int
    token_documents: int


class Epoch(NamedTuple):
    """A state of the whole index. commit: of the shard. documents, length, languages: of the collection, for BM25."""

    commit: int
    documents: int
    length: int
    languages: tuple[tuple[str, int], ...]


class Filtered(NamedTuple):
    """The documents that a filter finds. comparable: the kinds of all fields, of the collection."""

    text: str
    comparable: Mapping[str, set[str]]


class Failed(NamedTuple):
    """What a user is told of an error."""

    message: str


class _Told:
    """The statistics of a collection as far as its reader has told them."""

    def __init__(self, epoch: Epoch) -> None:
        self.documents, self.length, self.languages = epoch.documents, epoch.length, dict(epoch.languages)
        self.known: dict[str, int] = {}

    def frequencies(self, terms: Sequence[str]) -> list[int]:
        return [self.known[term] for term in terms]


class _Open(NamedTuple):
    reader: FolderReader
    legs: Mapping[str, OpenLeg]
    told: _Told


class ShardServer:
    """Has a shard open. It has no state that its requests do not bring along: a new one takes the place of a dead one.

    Every method answers in a thread of its own, and gives what a user is told of an error as `Failed`.
    """

    def __init__(self, folder: str, options: LegOptions) -> None:
        self._folder, self._options = Path(folder), options
        self._opened: OrderedDict[Epoch, _Open] = OrderedDict()
        self._lock = threading.Lock()

    def verify(self) -> Failed | None:
        """Read every file of the shard."""
        try:
            check_there(self._folder)
            found = verify_folder(self._folder)
        except UserError as error:
            return Failed(str(error))
        return Failed(damage_text(self._folder, found)) if found.damages else None

    def state(self) -> ShardState | Failed:
        """Return what the shard is now."""
        try:
            check_there(self._folder)
            with FolderReader.open(self._folder) as reader:
                collection = reader.collection
                return ShardState(
                    reader.settings,
                    reader.commit_data,
                    reader.num_chunks,
                    dict(reader.languages),
                    collection.documents,
                    collection.length,
                    reader.token_statistics.documents,
                )
        except UserError as error:
            return Failed(str(error))

    def run(
        self,
        epoch: Epoch,
        leg: str,
        queries: Sequence[LegQuery],
        depth: int,
        selected: Filtered | None,
        frequencies: Mapping[str, int],
    ) -> list[Ranking] | Failed:
        """Search one leg for several queries. frequencies: of the terms that their words are, in the collection."""
        try:
            opened = self._at(epoch)
            opened.told.known.update(frequencies)
            selection = self._selection(opened, selected)
            return [opened.legs[leg].run(query, depth, selection) for query in queries]
        except UserError as error:
            return Failed(str(error))

    def leg(self, epoch: Epoch, leg: str, method: str, arguments: Sequence[Any], frequencies: Mapping[str, int]) -> Any:
        """Ask something else of a leg: the scores of chunks, or why a document was found."""
        try:
            opened = self._at(epoch)
            opened.told.known.update(frequencies)
            return getattr(opened.legs[leg], method)(*arguments)
        except UserError as error:
            return Failed(str(error))

    def ask(self, epoch: Epoch, method: str, arguments: Sequence[Any], selected: Filtered | None = None) -> Any:
        """Ask the reader of the shard: a method, or the value of a property."""
        try:
            opened = self._at(epoch)
            asked = getattr(opened.reader.token_statistics if method == TOKENS else opened.reader, method)
            if selected is not None:
                return asked(*arguments, self._selection(opened, selected))
            return asked(*arguments) if callable(asked) else asked
        except UserError as error:
            return Failed(str(error))

    def hold(self, epoch: Epoch) -> None:
        """Open the shard at a state of the index: later commits do not change what searches of that state find."""
        with suppress(UserError):  # whoever asks it hears that
            self._at(epoch)

    def check(self, epoch: Epoch, selected: Filtered) -> Failed | None:
        """Say what is wrong with a filter."""
        try:
            self._selection(self._at(epoch), selected)
        except UserError as error:
            return Failed(str(error))
        return None

    def _selection(self, opened: _Open, selected: Filtered | None) -> Any:
        return None if selected is None else opened.reader.select_among(*selected)

    def _at(self, epoch: Epoch) -> _Open:
        """Return the shard at a state of the index."""
        with self._lock:
            if epoch not in self._opened:
                check_there(self._folder)
                reader = FolderReader.open(self._folder)
                if reader.commit_data.number != epoch.commit:
                    reader.close()
                    raise UserError(
                        f"{self._folder}: is at commit {reader.commit_data.number}, the search began with "
                        f"{epoch.commit}; call reopen to see the newer one"
                    )
                told = _Told(epoch)
                reader.join(told)
                self._opened[epoch] = _Open(reader, open_legs(reader, self._options), told)
                while len(self._opened) > KEPT:
                    self._opened.popitem(last=False)  # freed with the last search that has it
            return self._opened[epoch]
