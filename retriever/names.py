"""Names that users choose by and whose code is heavy to import: the command line offers them without that code.

Each tuple holds the names of a registry elsewhere, in its order; a test compares them. Where a registry is light
(legs, fusion, normalisations, precisions, FAISS types), the command line reads the registry itself.
"""

from __future__ import annotations

__all__ = [
    "BASELINE",
    "DEFAULT_MEASURES",
    "FEEDBACK_METHODS",
    "HYBRID",
    "LEARNED_MODELS",
    "QUERY_MODES",
    "ROW_TYPES",
    "SPARSE_BACKENDS",
    "TOKEN_BITS",
    "VIEWS",
]

HYBRID = "hybrid"
"""The mode of search that fuses all legs that have a weight."""
BASELINE = "bm25"
"""The default baseline: the system that others are compared with."""
DEFAULT_MEASURES = ("nDCG@10", "R@100")
"""The measures that are computed by default."""
QUERY_MODES = ("encoder", "lexical")
"""How queries become sparse terms: by the network, or without it."""
VIEWS = ("dense", "sparse", "folded")
"""What can be exported of an encoder: its representations, and both in one vector."""
ROW_TYPES = ("float32", "float16", "int8")
"""See `retriever.index.vectors.row_formats`."""
SPARSE_BACKENDS = ("postings", "lucene", "two-step", "seismic")
"""See `retriever.search.legs.backends`; the first is the default."""
TOKEN_BITS = (8, 2)
"""Of each number of a token's vector, as an index stores it."""
FEEDBACK_METHODS = ("joint", "rm3", "rocchio", "average")
"""See `retriever.rank.feedback`."""
LEARNED_MODELS = ("auto", "both", "lambdamart", "logistic")
"""See `retriever.experiments.learning`."""
