"""LangChain: an index as a retriever of a chain, and an index that LangChain fills as a vector store.

Examples:
    retriever = HybridRetriever(index="my-index", k=5)
    retriever.invoke("how do vaccines work")[0].metadata["_score"]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from retriever.extras import extra
from retriever.integrations.common import document_of, hit_metadata, metadata_of, opened
from retriever.integrations.store import Store
from retriever.types import UserError

with extra("langchain"):
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.vectorstores import VectorStore
    from pydantic import Field, PrivateAttr

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.embeddings import Embeddings

    from retriever import types
    from retriever.integrations.common import Searcher

__all__ = ["HybridRetriever", "HybridVectorStore"]


class HybridRetriever(BaseRetriever):
    """Searches an index. `invoke` takes `k` and the arguments of `Retriever.search`, too, for one query.

    A document has its id, its text, and its metadata with what `hit_metadata` adds: `_score`, `_rank`, `_parts`.
    """

    index: Any
    """The folder of an index, or an open `Retriever` or `RemoteRetriever`."""
    k: int = 10
    """How many documents."""
    search: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of `Retriever.search`: mode, filter, explain."""
    _searcher: Searcher = PrivateAttr()

    def __init__(self, **fields: Any) -> None:
        """Open the index; raise UserError if that cannot be."""
        super().__init__(**fields)
        self._searcher = opened(self.index)  # pydantic would hide an error of its own hooks in a page of text

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None, **search: Any
    ) -> list[Document]:
        hits = self._searcher.search(query, self.k if k is None else k, **{**self.search, **search})
        return [Document(hit.text, id=hit.doc_id, metadata=hit_metadata(hit)) for hit in hits]


class HybridVectorStore(VectorStore):
    """An index folder as a vector store: its own encoder makes the vectors, and search is hybrid.

    Documents are told apart by id, never by text; one without an id gets a new one. Searches take the arguments of
    `Retriever.search`. Scores are higher for better documents; those of hybrid search lie between 0 and 1.
    """

    def __init__(self, path: str | Path, *, encoder: str | types.Encoder | None = None) -> None:
        """Open an index folder, or make an empty one where nothing is.

        encoder: of a new index; what `load_encoder` takes, the default encoder for None.

        Raises:
            UserError: the folder cannot be opened.
        """
        self.store = Store(path, encoder)

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        embedding: Embeddings | None = None,
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        *,
        ids: Sequence[str] | None = None,
        path: str | Path | None = None,
        encoder: str | types.Encoder | None = None,
        **_: Any,
    ) -> HybridVectorStore:
        """Open or make the index at `path` and add texts.

        Raises:
            UserError: there is no path, or an embedding: the index has an encoder of its own.
        """
        if path is None or embedding is not None:
            raise UserError(
                "an index needs a folder and encodes by itself: give path=..., and encoder=... in place of an embedding"
            )
        store = cls(path, encoder=encoder)
        store.add_texts(
            texts, [dict(given) for given in metadatas] if metadatas else None, ids=list(ids) if ids else None
        )
        return store

    def add_documents(
        self, documents: list[Document], *, ids: Sequence[str | None] | None = None, **_: Any
    ) -> list[str]:
        """Add documents in one commit; one whose id is there already replaces that one. Return the ids."""
        given = [document.id for document in documents] if ids is None else ids
        known = [doc_id or str(uuid4()) for doc_id in given]
        pairs = zip(known, documents, strict=True)
        self.store.add([document_of(doc_id, found.page_content, found.metadata) for doc_id, found in pairs])
        return known

    def delete(self, ids: Sequence[str] | None = None, **_: Any) -> bool:
        """Delete documents, all for None; unknown ids are passed over."""
        self.store.delete(self.store.ids() if ids is None else ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return documents in the order of their ids; unknown ids are left out."""
        found = self.store.documents(ids)
        return [_document(found[doc_id]) for doc_id in dict.fromkeys(ids) if doc_id in found]

    def similarity_search(self, query: str, k: int = 4, **search: Any) -> list[Document]:
        """Return the best `k` documents, as they were added."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **search)]

    def similarity_search_with_score(self, query: str, k: int = 4, **search: Any) -> list[tuple[Document, float]]:
        """Return the best `k` documents with their scores, higher for better ones."""
        return [(_document(hit), hit.score) for hit in self.store.retriever.search(query, k, **search)]


def _document(record: types.Document | types.Hit) -> Document:
    return Document(record.text, id=record.doc_id, metadata=metadata_of(record))
