"""PyTerrier: an index as a transformer of a pipeline (`retriever >> reranker`), and an indexer that makes one.

Terrier's own Java is never started: PyTerrier's operators, experiments and measures work without it.

Examples:
    pipeline = HybridRetriever("my-index", text=True) % 100 >> reranker
    pipeline.search("how do vaccines work")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from retriever.extras import extra
from retriever.indexing.build import build_index
from retriever.integrations.common import document_of, opened
from retriever.types import Document, Query

with extra("pyterrier"):
    import pandas as pd
    import pyterrier as pt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from retriever import types
    from retriever.indexing.build import IndexingConfig
    from retriever.integrations.common import Index

__all__ = ["HybridIndexer", "HybridRetriever"]

OWN = ("docno", "text")
SHOWN = ("text", "title", "metadata", "parts")


class HybridRetriever(pt.Transformer):
    """Ranks documents for queries: columns qid, query, docno, score, rank, best first; `query` may be any text."""

    def __init__(
        self,
        index: Index,
        *,
        num_results: int = 1000,
        mode: str = "hybrid",
        text: bool = False,
        filter: str | None = None,
    ) -> None:
        """Open an index.

        index: its folder, or an open `Retriever` or `RemoteRetriever`. text: give the columns text, title, metadata and
        parts (what each leg says), too, for what comes behind; one query is searched at a time then.

        Raises:
            UserError: the folder cannot be opened.
        """
        self.index = opened(index)
        self.num_results, self.mode, self.text, self.filter = num_results, mode, text, filter

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Return the ranking of each query, with the columns that queries have."""
        pt.validate.columns(inp, includes=["qid", "query"])
        topics = inp.drop(columns=["docno", "score", "rank", *SHOWN], errors="ignore").drop_duplicates("qid")
        columns = ["qid", "docno", "score", "rank", *(SHOWN if self.text else [])]
        queries = [Query(qid, text) for qid, text in zip(topics["qid"], topics["query"], strict=True)]
        found = pd.DataFrame(self._with_texts(queries) if self.text else self._ranked(queries), columns=columns)
        return topics.merge(found.astype({"qid": topics["qid"].dtype, "score": float, "rank": int}), on="qid")

    def _ranked(self, queries: Iterable[Query]) -> Iterator[tuple[object, ...]]:
        for qid, ranking in self.index.rank(queries, self.num_results, mode=self.mode, filter=self.filter):
            for rank, (doc_id, score) in enumerate(ranking):
                yield qid, doc_id, score, rank

    def _with_texts(self, queries: Iterable[Query]) -> Iterator[tuple[object, ...]]:
        for qid, text in queries:
            if not text.strip():
                continue
            for hit in self.index.search(text, self.num_results, mode=self.mode, filter=self.filter):
                parts = {leg: part._asdict() for leg, part in hit.parts.items()}
                yield qid, hit.doc_id, hit.score, hit.rank - 1, hit.text, hit.title, dict(hit.metadata), parts

    def fuse_rank_cutoff(self, k: int) -> HybridRetriever:
        """Return a retriever that searches no deeper than what `% k` keeps."""
        if k >= self.num_results:
            return self
        return HybridRetriever(self.index, num_results=k, mode=self.mode, text=self.text, filter=self.filter)

    def __repr__(self) -> str:
        return f"HybridRetriever(mode={self.mode!r}, num_results={self.num_results})"


class HybridIndexer(pt.Indexer):
    """Makes an index folder of dictionaries: `docno`, `text`, and `title` if they have one; the rest is metadata."""

    def __init__(
        self,
        path: str | Path,
        *,
        encoder: str | types.Encoder = "default",
        config: IndexingConfig | None = None,
        progress: bool = False,
    ) -> None:
        """Keep the arguments of `build_index`."""
        self.path, self.encoder, self.config, self.progress = Path(path), encoder, config, progress

    def index_inputs(self) -> list[list[str]]:
        """Return the columns that documents need."""
        return [list(OWN)]

    def index(self, iter: Iterable[Mapping[str, Any]], **_: Any) -> HybridRetriever:
        """Index documents, and return a retriever of the new index.

        Raises:
            UserError: a document that cannot be stored, or a folder that is not empty.
        """
        build_index(map(_document, iter), self.path, encoder=self.encoder, config=self.config, progress=self.progress)
        return HybridRetriever(self.path)


def _document(record: Mapping[str, Any]) -> Document:
    return document_of(record["docno"], record["text"], {key: value for key, value in record.items() if key not in OWN})
