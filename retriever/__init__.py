"""Hybrid text retrieval: one Mixture-of-Experts encoder, Lucene and FAISS indexes, fusion and evaluation.

Importing the package is cheap: torch, FAISS and the JVM are loaded when they are first needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from retriever.types import (
    ChunkHit,
    Document,
    Encoded,
    Encoder,
    EncoderIdentity,
    FacetCount,
    Hit,
    IndexField,
    LegPart,
    Query,
    ScoredDoc,
    Snippet,
    Span,
    StagePart,
    TermMatch,
    UserError,
)

if TYPE_CHECKING:
    from retriever.encoder.base import EncoderBase
    from retriever.encoder.load import load_encoder
    from retriever.encoder.runtime import RuntimeConfig
    from retriever.eval.data.dataset import Dataset
    from retriever.eval.data.datasets import load_dataset
    from retriever.eval.evaluator import Evaluation, evaluate_run
    from retriever.experiments.experiment import ExperimentConfig, evaluate
    from retriever.indexing.build import IndexingConfig, IndexReport, build_index
    from retriever.indexing.writer import AddReport, IndexWriter, add_corpus
    from retriever.rank.pipeline import Pipeline
    from retriever.remote.asynchronous import AsyncRetriever
    from retriever.remote.client import RemoteRetriever
    from retriever.search.fusion.fusion import FusionConfig, fuse
    from retriever.search.retriever import Retriever
    from retriever.search.showing.highlights import snippet

    __version__: str

__all__ = [
    "AddReport",
    "AsyncRetriever",
    "ChunkHit",
    "Dataset",
    "Document",
    "Encoded",
    "Encoder",
    "EncoderBase",
    "EncoderIdentity",
    "Evaluation",
    "ExperimentConfig",
    "FacetCount",
    "FusionConfig",
    "Hit",
    "IndexField",
    "IndexReport",
    "IndexWriter",
    "IndexingConfig",
    "LegPart",
    "Pipeline",
    "Query",
    "RemoteRetriever",
    "Retriever",
    "RuntimeConfig",
    "ScoredDoc",
    "Snippet",
    "Span",
    "StagePart",
    "TermMatch",
    "UserError",
    "__version__",
    "add_corpus",
    "build_index",
    "evaluate",
    "evaluate_run",
    "fuse",
    "load_dataset",
    "load_encoder",
    "snippet",
]

_PLACES = {
    "AddReport": "retriever.indexing.writer",
    "AsyncRetriever": "retriever.remote.asynchronous",
    "Dataset": "retriever.eval.data.dataset",
    "EncoderBase": "retriever.encoder.base",
    "Evaluation": "retriever.eval.evaluator",
    "ExperimentConfig": "retriever.experiments.experiment",
    "FusionConfig": "retriever.search.fusion.fusion",
    "IndexReport": "retriever.indexing.build",
    "IndexWriter": "retriever.indexing.writer",
    "IndexingConfig": "retriever.indexing.build",
    "Pipeline": "retriever.rank.pipeline",
    "RemoteRetriever": "retriever.remote.client",
    "Retriever": "retriever.search.retriever",
    "RuntimeConfig": "retriever.encoder.runtime",
    "add_corpus": "retriever.indexing.writer",
    "build_index": "retriever.indexing.build",
    "evaluate": "retriever.experiments.experiment",
    "evaluate_run": "retriever.eval.evaluator",
    "fuse": "retriever.search.fusion.fusion",
    "load_dataset": "retriever.eval.data.datasets",
    "load_encoder": "retriever.encoder.load",
    "snippet": "retriever.search.showing.highlights",
}
"""Where names stand that bring NumPy and the indexes along: they are imported with their first use."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        found: Any = version("hybrid-retriever")
    elif name in _PLACES:
        found = getattr(import_module(_PLACES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
