"""An index folder that a framework fills and searches at the same time."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.indexing.build import create_index
from retriever.indexing.writer import IndexWriter
from retriever.search.retriever import Retriever

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from retriever.types import Document, Encoder

__all__ = ["Store"]


class Store:
    """Documents by id. Every change is committed, and seen by the next search; several threads may use one store.

    One process at a time may change an index; others search it with a `Retriever`, and see changes by `reopen`.
    """

    def __init__(self, path: str | Path, encoder: str | Encoder | None = None) -> None:
        """Open an index folder, or make an empty one where nothing is.

        encoder: of a new index, "default" for None; of one that is there, where its encoder is if not where it was.

        Raises:
            UserError: the folder cannot be opened, or its encoder is another one.
        """
        self.path = Path(path)
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            create_index(self.path, encoder="default" if encoder is None else encoder)
        self.retriever = Retriever.open(self.path, encoder)
        self._writing = threading.Lock()

    def __len__(self) -> int:
        return self.retriever.reader.num_documents

    def add(self, documents: Iterable[Document]) -> None:
        """Add documents; one whose id is there already replaces that one."""
        self.change(documents, ())

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents; return how many there were."""
        return self.change((), ids)

    def change(self, added: Iterable[Document], deleted: Iterable[str]) -> int:
        """Delete and add in one commit; return how many were deleted."""
        with self._writing, IndexWriter.open(self.path, self.retriever.encoder) as writer:
            count = writer.delete(list(deleted))
            writer.add(added)
            writer.commit()
        self.retriever.reopen()
        return count

    def documents(self, ids: Iterable[str]) -> dict[str, Document]:
        """Return the documents of these ids; unknown ones are left out."""
        return self.retriever.documents(ids)

    def ids(self, filter: str | None = None) -> Sequence[str]:
        """Return the ids of all documents, or of those that a filter finds, oldest first."""
        with self.retriever._view() as view:  # another thread may see a new commit meanwhile
            reader = view.reader
            return reader.selected_ids(None if filter is None else reader.select(filter))

    def kinds(self) -> Mapping[str, set[str]]:
        """Return the metadata fields that documents have, with the kinds of their values.

        These are "text", "date" (which are texts besides), "number" and "boolean".
        """
        return {name: {*kinds, "text"} if "date" in kinds else set(kinds) for name, kinds, _ in self.retriever.fields()}

    def close(self) -> None:
        """Free the index."""
        self.retriever.close()
