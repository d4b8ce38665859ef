"""An encoder's dense view for the benchmarks of mteb: `mteb.evaluate(MtebEncoder("default"), tasks)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.encoder.load import load_encoder
from retriever.encoder.runtime import RuntimeConfig
from retriever.encoder.spec import parse_spec
from retriever.lazy import lazy
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from retriever.types import FloatArray

__all__ = ["MtebEncoder"]


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
        from mteb.models import ModelMeta

        identity = self.encoder.identity
        return ModelMeta.create_empty(
            overwrites={
                "name": f"retriever/{identity.name.rstrip('/').rpartition('/')[2]}",
                "revision": identity.sha256[:12],
                "embed_dim": identity.dense_dim,
                "similarity_fn_name": "cosine",
                "framework": ["PyTorch"],
            }
        )
