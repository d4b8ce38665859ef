"""LlamaIndex: an index as a retriever of a query engine.

Examples:
    retriever = HybridRetriever("my-index", top_k=5)
    retriever.retrieve("how do vaccines work")[0].score
"""

from __future__ import annotations

import asyncio
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from retriever.extras import extra
from retriever.integrations.common import KEYS, hit_metadata, opened

with extra("llama-index"):
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

if TYPE_CHECKING:
    from retriever.integrations.common import Index
    from retriever.types import Hit

__all__ = ["HitNode", "HybridRetriever"]


class HitNode(TextNode):
    """A document that was found. LlamaIndex merges nodes whose `hash` is the same: here it is that of the id."""

    @property
    def hash(self) -> str:
        """Return a digest of the id: documents with equal texts stay apart, one document from two searches does not."""
        return sha256(self.id_.encode("utf-8", "surrogatepass")).hexdigest()

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serialises it."""
        return "HitNode"


class HybridRetriever(BaseRetriever):
    """Searches an index. A node has the document's id, text and metadata, with what `hit_metadata` adds.

    What it adds (`_rank`, `_parts`, ...) stays out of the prompts.
    """

    def __init__(self, index: Index, *, top_k: int = 10, **search: Any) -> None:
        """Open an index.

        index: its folder, or an open `Retriever` or `RemoteRetriever`. search: further arguments of
        `Retriever.search`: mode, filter, explain.

        Raises:
            UserError: the folder cannot be opened.
        """
        super().__init__()
        self._index, self._top_k, self._search = opened(index), top_k, search

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = self._index.search(query_bundle.query_str, self._top_k, **self._search)
        return [NodeWithScore(node=_node(hit), score=hit.score) for hit in hits]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


def _node(hit: Hit) -> HitNode:
    hidden = list(KEYS)
    return HitNode(
        id_=hit.doc_id,
        text=hit.text,
        extra_info=hit_metadata(hit),
        excluded_llm_metadata_keys=hidden,
        excluded_embed_metadata_keys=hidden,
    )
