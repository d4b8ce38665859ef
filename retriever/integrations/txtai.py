"""txtai: an index as the scoring index of an Embeddings database, which keeps the content, the SQL and the pipelines.

Examples:
    scoring = {"method": "retriever.integrations.txtai.HybridScoring", "terms": True, "encoder": "default"}
    embeddings = txtai.Embeddings(content=True, scoring=scoring)
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any
from weakref import finalize

from retriever.extras import extra
from retriever.integrations.store import Store
from retriever.types import Document

with extra("txtai"):
    from txtai.scoring import Scoring

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["HybridScoring"]

Found = list[tuple[int, float]]


class HybridScoring(Scoring):  # type: ignore[misc]  # txtai has no types
    """Finds txtai's documents, which are numbered, by BM25, sparse terms and vectors, fused; scores are 0 to 1.

    Settings, beside `method` and `terms` (which has to be true): `encoder`, as `load_encoder` takes it, and `mode`. The
    index lies in a temporary folder until the database is saved, which copies it into the saved folder.
    """

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        super().__init__(config)
        self._folder = Path(mkdtemp(prefix="retriever-txtai-"))
        self._remove = finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._store: Store | None = None
        self._waiting: list[Document] = []

    @property
    def store(self) -> Store:
        """Return the index, which is made with its first use; raise UserError if that cannot be."""
        if self._store is None:
            self._store = Store(self._folder / "index", self.config.get("encoder"))
        return self._store

    def insert(self, documents: Iterable[Any], index: int | None = None, checkpoint: str | None = None) -> None:
        """Keep documents (id, text or its record, tags) for `index`, numbered from `index` on, or by their ids."""
        for place, (doc_id, data, _) in enumerate(documents):
            text = data.get(self.text) or data.get(self.object) if isinstance(data, dict) else data
            number = doc_id if index is None else index + place
            self._waiting.append(Document(str(number), " ".join(text) if isinstance(text, list) else str(text or "")))

    def index(self, documents: Iterable[Any] | None = None) -> None:
        """Add what was inserted, in one commit."""
        if documents:
            self.insert(documents)
        self.store.add(self._waiting)
        self._waiting = []

    def delete(self, ids: Sequence[int]) -> None:
        """Delete documents by their numbers."""
        self.store.delete(map(str, ids))

    def search(self, query: str, limit: int = 3) -> Found:
        """Return numbers and scores of the best documents."""
        hits = self.store.retriever.search(query, limit, mode=self.config.get("mode", "hybrid"))
        return [(int(hit.doc_id), hit.score) for hit in hits]

    def batchsearch(self, queries: Iterable[str], limit: int = 3, threads: bool = True) -> list[Found]:
        """Return what `search` does for each query."""
        return [self.search(query, limit) for query in queries]

    def count(self) -> int:
        """Return the number of documents."""
        return len(self.store)

    def load(self, path: str) -> None:
        """Take over an index that `save` wrote: a copy, so that the saved one stays as it is."""
        if self._store is not None:
            self._store.close()
            self._store = None
        shutil.rmtree(self._folder / "index", ignore_errors=True)
        shutil.copytree(path, self._folder / "index")

    def save(self, path: str) -> None:
        """Write the index to a folder."""
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self.store.path, path)

    def close(self) -> None:
        """Free the index, and remove it."""
        if self._store is not None:
            self._store.close()
            self._store = None
        self._remove()

    def weights(self, tokens: Sequence[str]) -> Mapping[str, float] | None:
        """Return None: single terms are not weighted here."""
        return None

    def issparse(self) -> bool:
        """Say that it finds documents, and does not only weigh terms."""
        return True

    def isnormalized(self) -> bool:
        """Say whether scores lie between 0 and 1: those of hybrid search do."""
        return bool(self.config.get("mode", "hybrid") == "hybrid")

    def isbayes(self) -> bool:
        """Return False."""
        return False
