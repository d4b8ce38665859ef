"""An encoder that counts letters, the tiny data set, and its evaluation in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from retriever.encoder.base import EncoderBase
from retriever.eval.evaluator import Evaluation
from retriever.experiments.experiment import ExperimentConfig, evaluate
from retriever.types import Encoded, Encoder, EncoderIdentity

TINY = Path(__file__).parents[1] / "data" / "tiny"


def evaluate_dataset(dataset: Path, encoder: Encoder, **settings: Any) -> dict[str, Evaluation]:
    """Evaluate with the settings of an ExperimentConfig, lists as its tuples, and with places by their names."""
    places = {name: settings.pop(name) for name in ("folder", "output") if name in settings}
    tuples: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
    }
    return evaluate(dataset, encoder, config=ExperimentConfig(**tuples), **places)


LETTERS = 26


class Letters(EncoderBase):
    """Counts letters, which is enough to rank by; `limit` texts are encoded before it fails."""

    def __init__(self, sha: str = "a", limit: int = 1_000) -> None:
        self.identity = EncoderIdentity("letters", sha * 64, LETTERS, LETTERS)
        self.vocabulary: Sequence[str] = [chr(97 + i) for i in range(LETTERS)]
        self.texts, self.queries, self._limit = 0, 0, limit
        self.query_mode = "encoder"
        self.views = list[tuple[bool, bool]]()

    def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        self.texts += len(texts)
        if self.texts > self._limit:
            raise RuntimeError("stopped")
        counts = np.array([[text.lower().count(letter) for letter in self.vocabulary] for text in texts], np.float32)
        vectors = counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1)
        return Encoded(
            vectors if dense else None, csr_matrix(counts / 10) if sparse else None, np.zeros(len(texts), bool)
        )

    def encode_queries(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        self.queries += len(texts)
        self.views.append((dense, sparse))
        encoded = Letters().encode_documents(texts, dense=dense, sparse=sparse)
        if encoded.sparse is None or self.query_mode == "encoder":
            return encoded
        return encoded._replace(sparse=encoded.sparse.sign())


MODES = ("bm25", "sparse", "dense", "dense+sparse", "hybrid")
