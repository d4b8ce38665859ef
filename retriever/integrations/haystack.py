"""Haystack: an index as a document store, and the retriever that searches it in a pipeline.

Examples:
    pipeline.add_component("retriever", HybridRetriever(HybridDocumentStore("my-index"), top_k=5))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retriever.extras import extra
from retriever.integrations.common import PARTS, RANK, document_of, hit_metadata, metadata_of
from retriever.integrations.haystack_filters import filter_text
from retriever.integrations.store import Store

with extra("haystack"):
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.document_stores.errors import DuplicateDocumentError
    from haystack.document_stores.types import DuplicatePolicy, FilterPolicy, apply_filter_policy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from retriever import types

__all__ = ["HybridDocumentStore", "HybridRetriever"]

Filters = dict[str, Any]


class HybridDocumentStore:
    """An index folder as a document store. Its own encoder makes the vectors: embeddings of documents are not kept.

    Documents are told apart by id. What filters mean is in `retriever.integrations.haystack_filters`.
    """

    def __init__(self, path: str | Path, encoder: str | types.Encoder | None = None) -> None:
        """Open an index folder, or make an empty one where nothing is.

        encoder: of a new index; what `load_encoder` takes, the default encoder for None.

        Raises:
            UserError: the folder cannot be opened.
        """
        self.path, self.encoder = str(path), encoder
        self.store = Store(path, encoder)

    def to_dict(self) -> dict[str, Any]:
        """Return the folder and the encoder's specification; raise ValueError for an encoder that has none."""
        if not (self.encoder is None or isinstance(self.encoder, str)):
            raise ValueError("a store with an encoder of your own cannot be written down; give its specification")
        return default_to_dict(self, path=self.path, encoder=self.encoder)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> HybridDocumentStore:
        """Open what `to_dict` wrote down."""
        store: HybridDocumentStore = default_from_dict(cls, data)
        return store

    def count_documents(self) -> int:
        """Return the number of documents."""
        return len(self.store)

    def filter_documents(self, filters: Filters | None = None) -> list[Document]:
        """Return the documents that a filter finds, all for none, oldest first."""
        return [_document(document) for document in self.store.documents(self._ids(filters)).values()]

    def count_documents_by_filter(self, filters: Filters) -> int:
        """Return how many documents a filter finds."""
        return len(self._ids(filters))

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """Write documents in one commit; return how many. Without a policy an id that is there already is refused.

        Raises:
            ValueError: what is given are not documents with texts.
            DuplicateDocumentError: an id is there already, or twice among them.
        """
        if not isinstance(documents, list) or not all(isinstance(document, Document) for document in documents):
            raise ValueError("write_documents needs a list of Documents")
        if textless := [document.id for document in documents if document.content is None]:
            raise ValueError(
                f"document {textless[0]} has no text, which is all that the index searches; give `content`"
            )
        new = {document.id: document for document in documents}
        if policy != DuplicatePolicy.OVERWRITE:
            there = self.store.documents(new)
            if policy == DuplicatePolicy.SKIP:
                new = {doc_id: document for doc_id, document in new.items() if doc_id not in there}
            elif there or len(new) < len(documents):
                shown = next(iter(there), "twice among these")
                raise DuplicateDocumentError(f"ID '{shown}' already exists.")
        self.store.add([document_of(d.id, d.content or "", d.meta) for d in new.values()])
        return len(documents) if policy == DuplicatePolicy.OVERWRITE else len(new)

    def delete_documents(self, document_ids: list[str]) -> None:
        """Delete documents; unknown ids are passed over."""
        self.store.delete(document_ids)

    def delete_all_documents(self) -> None:
        """Delete every document."""
        self.store.delete(self.store.ids())

    def delete_by_filter(self, filters: Filters) -> int:
        """Delete the documents that a filter finds; return how many."""
        return self.store.delete(self._ids(filters))

    def update_by_filter(self, filters: Filters, meta: dict[str, Any]) -> int:
        """Set metadata of the documents that a filter finds; return how many."""
        found = self.store.documents(self._ids(filters))
        self.store.add([document_of(d.doc_id, d.text, {**metadata_of(d), **meta}) for d in found.values()])
        return len(found)

    def search(self, query: str, top_k: int, filters: Filters | None, **search: Any) -> list[Document]:
        """Return the best documents with their scores; `meta` says what each leg found as well (`_rank`, `_parts`)."""
        filter = self._filter(filters)
        hits = self.store.retriever.search(query, top_k, filter=filter, **search)
        return [_found(hit) for hit in hits]

    def _filter(self, filters: Filters | None) -> str | None:
        return filter_text(filters, self.store.kinds()) if filters else None

    def _ids(self, filters: Filters | None) -> Sequence[str]:
        return self.store.ids(self._filter(filters))


@component
class HybridRetriever:
    """Searches a `HybridDocumentStore`: BM25, sparse terms and vectors, fused."""

    def __init__(
        self,
        document_store: HybridDocumentStore,
        *,
        filters: Filters | None = None,
        top_k: int = 10,
        mode: str = "hybrid",
        filter_policy: FilterPolicy = FilterPolicy.REPLACE,
    ) -> None:
        """Keep the settings of searches: `mode` is that of `Retriever.search`, the rest is Haystack's."""
        self.document_store = document_store
        self.filters, self.top_k, self.mode, self.filter_policy = filters, top_k, mode, filter_policy

    def to_dict(self) -> dict[str, Any]:
        """Return the settings and the store's folder."""
        return default_to_dict(
            self,
            document_store=self.document_store.to_dict(),
            filters=self.filters,
            top_k=self.top_k,
            mode=self.mode,
            filter_policy=self.filter_policy.value,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> HybridRetriever:
        """Make again what `to_dict` wrote down."""
        settings = dict(data["init_parameters"])
        settings["document_store"] = HybridDocumentStore.from_dict(settings["document_store"])
        settings["filter_policy"] = FilterPolicy.from_str(settings.get("filter_policy", "replace"))
        retriever: HybridRetriever = default_from_dict(cls, {**data, "init_parameters": settings})
        return retriever

    @component.output_types(documents=list[Document])
    def run(self, query: str, filters: Filters | None = None, top_k: int | None = None) -> dict[str, list[Document]]:
        """Return the best documents for a query."""
        merged = apply_filter_policy(self.filter_policy, self.filters, filters)
        return {
            "documents": self.document_store.search(
                query, self.top_k if top_k is None else top_k, merged, mode=self.mode
            )
        }


def _document(document: types.Document) -> Document:
    return Document(id=document.doc_id, content=document.text, meta=metadata_of(document))


def _found(hit: types.Hit) -> Document:
    said = {key: value for key, value in hit_metadata(hit).items() if key in (RANK, PARTS)}
    return Document(id=hit.doc_id, content=hit.text, meta={**metadata_of(hit), **said}, score=hit.score)
