"""One view of an encoder as a module of sentence-transformers, which loads it from the folder that export writes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sentence_transformers.base.modules import InputModule
from transformers import AutoTokenizer

from retriever.encoder.moe.encoder import MoEEncoder
from retriever.encoder.runtime import RuntimeConfig
from retriever.encoder.views import unit
from retriever.network.checkpoint import WEIGHT_FILES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scipy.sparse import csr_matrix
    from torch import Tensor

    from retriever.types import FloatArray

__all__ = ["ENCODER_FILES", "EncoderView", "folded"]

ENCODER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", *WEIGHT_FILES)


SPREAD = 2_654_435_761
"""Odd, so that neighbours in the vocabulary, which are often alike, come into different slices."""


def folded(terms: csr_matrix, slices: int) -> FloatArray:
    """Return weights of terms (n, vocab_size) in slices, float32 (n, slices) of unit length; zeros stay zeros.

    A slice has the largest weight of its terms (densified lexical representations, Lin & Lin, 2112.04666, without their
    gate, which stores of vectors do not have).
    """
    found = np.zeros((terms.shape[0], slices), np.float32)
    rows = np.repeat(np.arange(terms.shape[0]), np.diff(terms.indptr))
    places = terms.indices.astype(np.int64) * SPREAD % 2**32 % slices
    np.maximum.at(found, (rows, places), terms.data.astype(np.float32))
    return unit(found)


class EncoderView(InputModule):
    """Runs an encoder folder; `view` is "dense", "sparse" or "folded".

    The folded one is the dense vector and, behind it, the sparse terms in some hundred `slices`, for stores that have
    no sparse vectors: both parts count the same, and the whole has unit length.

    The encoder's own prompts, its way to make queries sparse and its tokeniser are used. It runs on the CPU whatever
    the device, and in float32, so that its vectors are the encoder's own, unless loaded with `model_kwargs`
    {"precision": "bfloat16"} or another one. It is for inference: it has no parameters to train.
    """

    config_file_name = "view.json"
    config_keys = ["view", "slices"]  # noqa: RUF012  # as the base class has it

    def __init__(self, folder: str | Path, view: str, precision: str = "float32", slices: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.folder, self.view, self.slices = Path(folder), view, slices
        self.encoder = MoEEncoder(self.folder, runtime=RuntimeConfig(precision=precision))
        self.tokenizer = AutoTokenizer.from_pretrained(str(folder))

    @property
    def max_seq_length(self) -> int:
        """Return the number of tokens that are read of a text."""
        return int(self.encoder.config.max_length)

    def get_embedding_dimension(self) -> int:
        """Return the length of a vector of this view."""
        identity = self.encoder.identity
        sizes = {
            "dense": identity.dense_dim,
            "sparse": identity.vocab_size,
            "folded": identity.dense_dim + self.slices,
        }
        return sizes[self.view]

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Pass the texts on; the encoder tokenises them itself. They are documents unless the `task` is "query"."""
        return {"texts": [f"{prompt or ''}{text}" for text in inputs], "is_query": kwargs.get("task") == "query"}

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Encode; "sentence_embedding" is float32 (n, dense_dim), (n, vocab_size) or (n, dense_dim + slices)."""
        encode = self.encoder.encode_queries if features["is_query"] else self.encoder.encode_documents
        encoded = encode(features["texts"], dense=self.view != "sparse", sparse=self.view != "dense")
        vectors = encoded.dense
        if self.view == "sparse":
            vectors = encoded.sparse.toarray()  # type: ignore[union-attr]
        elif self.view == "folded":
            assert encoded.dense is not None and encoded.sparse is not None
            vectors = unit(np.hstack([encoded.dense, folded(encoded.sparse, self.slices)]))
        embedding: Tensor = torch.from_numpy(vectors)
        return features | {"sentence_embedding": embedding}

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Write the encoder's files and which view this is."""
        for name in ENCODER_FILES:
            if (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, Path(output_path) / name)
        self.save_config(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> EncoderView:  # type: ignore[override]
        """Load what `save` wrote, from a folder or from the hub."""
        where = {key: kwargs.get(key) for key in ("token", "cache_folder", "revision")}
        local = bool(kwargs.get("local_files_only"))
        config = cls.load_config(model_name_or_path, subfolder=subfolder, local_files_only=local, **where)
        folder = cls.load_dir_path(model_name_or_path, subfolder=subfolder, local_files_only=local, **where)
        assert folder is not None
        precision = (kwargs.get("model_kwargs") or {}).get("precision", "float32")
        return cls(folder, config["view"], precision, config.get("slices", 0))
