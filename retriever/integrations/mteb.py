"""The benchmarks of mteb, on an encoder's dense view or on the hybrid as a whole.

Examples:
    mteb.evaluate(MtebEncoder("default"), tasks)
    mteb.evaluate(MtebSearch("default", mode="hybrid"), retrieval_tasks)
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.encoder.load import load_encoder
from retriever.encoder.runtime import RuntimeConfig
from retriever.encoder.spec import parse_spec
from retriever.extras import extra
from retriever.indexing.build import build_index
from retriever.lazy import lazy
from retriever.ranking import separate_ties
from retriever.search.modes import HYBRID, legs_named
from retriever.search.retriever import Retriever
from retriever.types import Document, Query, UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from retriever.indexing.build import IndexingConfig
    from retriever.search.fusion.fusion import FusionConfig
    from retriever.types import Encoder, FloatArray

__all__ = ["MtebEncoder", "MtebSearch"]


class MtebEncoder:
    """Satisfies mteb's EncoderProtocol (mteb 2), for every encoder that has a dense view.

    The sparse view goes through mteb's own wrapper of SparseEncoder: export it with `retriever export --view sparse`.
    """

    def __init__(self, model_name: str, revision: str | None = None, *, device: str | None = None, **_: Any) -> None:
        """Load the encoder called `model_name` as `load_encoder` does; `revision` is ignored."""
        runtime = RuntimeConfig(device=device) if device and parse_spec(model_name).own else None
        self.encoder = load_encoder(model_name, runtime)
        if not self.encoder.identity.dense_dim:
            raise UserError(f"{model_name}: has no dense view to benchmark; give an encoder with one")

    def encode(
        self,
        inputs: Iterable[Mapping[str, Sequence[str]]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **_: Any,
    ) -> FloatArray:
        """Return float32 (n, dense_dim) of batches that hold texts; a document's is title and text in one.

        Queries are encoded as queries, all else as documents, with the encoder's own prompts.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        is_query = getattr(prompt_type, "value", prompt_type) == "query"
        encode = self.encoder.encode_queries if is_query else self.encoder.encode_documents
        encoded = encode(texts, sparse=False)
        assert encoded.dense is not None
        return encoded.dense

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the inner products, a tensor (n1, n2): cosines, as vectors are of unit length."""
        import torch

        return torch.from_numpy(np.atleast_2d(embeddings1) @ np.atleast_2d(embeddings2).T)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the inner product of each pair, a tensor (n,)."""
        import torch

        return torch.from_numpy(np.einsum("nd,nd->n", np.atleast_2d(embeddings1), np.atleast_2d(embeddings2)))

    @lazy
    def mteb_model_meta(self) -> Any:
        """Return what mteb writes beside its results."""
        return _meta(self.encoder, "", similarity_fn_name="cosine", embed_dim=self.encoder.identity.dense_dim)


class MtebSearch:
    """Satisfies mteb's SearchProtocol (mteb 2): indexes a task's corpus in a temporary folder, and searches it.

    Documents are indexed as elsewhere: the title belongs to the text that every leg reads.
    """

    def __init__(
        self,
        encoder: str | Encoder = "default",
        *,
        mode: str = HYBRID,
        fusion: FusionConfig | None = None,
        config: IndexingConfig | None = None,
    ) -> None:
        """Load the encoder; raise UserError if that cannot be.

        fusion: how "hybrid" combines the legs. config: how the corpus is indexed.
        """
        legs_named(mode)
        self.encoder = load_encoder(encoder) if isinstance(encoder, str) else encoder
        self.mode, self._fusion, self._config = mode, fusion, config
        self._folder: TemporaryDirectory[str] | None = None

    def index(self, corpus: Iterable[Mapping[str, Any]], **_: Any) -> None:
        """Index the corpus of a task, in place of the one before."""
        self.close()
        self._folder = TemporaryDirectory(prefix="retriever-mteb-")
        documents = (Document(str(row["id"]), row["text"], row.get("title") or "") for row in corpus)
        build_index(documents, self._index, encoder=self.encoder, config=self._config)

    def search(
        self, queries: Iterable[Mapping[str, Any]], *, top_k: int, top_ranked: Any = None, **_: Any
    ) -> dict[str, dict[str, float]]:
        """Return the scores of each query's best `top_k` documents, ties set apart in our order.

        Raises:
            UserError: for a task of reranking, which gives the documents, or before `index`.
        """
        if top_ranked is not None or self._folder is None:
            raise UserError("MtebSearch searches what `index` has indexed, and does not rerank; give a retrieval task")
        asked = [Query(str(row["id"]), row["text"]) for row in queries]
        with Retriever.open(self._index, self.encoder, fusion=self._fusion) as retriever:
            found = retriever.rank(asked, top_k, mode=self.mode)
            return {query_id: dict(separate_ties(ranking)) for query_id, ranking in found}

    @property
    def _index(self) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / "index"

    def close(self) -> None:
        """Remove the index."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    @lazy
    def mteb_model_meta(self) -> Any:
        """Return what mteb writes beside its results."""
        return _meta(self.encoder, f"-{self.mode}", model_type=["hybrid"])


def _meta(encoder: Encoder, suffix: str, **more: Any) -> Any:
    with extra("mteb"):
        from mteb.models import ModelMeta

    name = encoder.identity.name.rstrip("/").rpartition("/")[2]
    revision = encoder.identity.sha256[:12] or None
    overwrites = {"name": f"retriever/{name}{suffix}", "revision": revision, "framework": ["PyTorch"], **more}
    return ModelMeta.create_empty(overwrites=overwrites)
