"""The records that cross module boundaries, the Encoder protocol and the one error class.

Importing this imports neither numpy nor torch: the command line's help stays instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retriever.types.documents import (
    Document,
    FrozenMapping,
    MetadataValue,
    PipelineRanking,
    Qrels,
    Query,
    QueryRanking,
    QueryRankings,
    Ranking,
    Run,
    ScoredDoc,
    Span,
)
from retriever.types.encoding import (
    Encoded,
    EncodedByToken,
    Encoder,
    EncoderIdentity,
    ExpertRoutes,
    Parameters,
    TermSpan,
    TermStatistics,
    TokenExperts,
    TokenVectors,
)
from retriever.types.errors import (
    ShardLostError,
    UserError,
)
from retriever.types.hits import (
    ChunkHit,
    FacetCount,
    Hit,
    IndexField,
    LegPart,
    PartialHits,
    Snippet,
    StagePart,
    TermMatch,
)

if TYPE_CHECKING:
    from retriever.types.encoding import BoolArray as BoolArray
    from retriever.types.encoding import FloatArray as FloatArray

__all__ = [
    "ChunkHit",
    "Document",
    "Encoded",
    "EncodedByToken",
    "Encoder",
    "EncoderIdentity",
    "ExpertRoutes",
    "FacetCount",
    "FrozenMapping",
    "Hit",
    "IndexField",
    "LegPart",
    "MetadataValue",
    "Parameters",
    "PartialHits",
    "PipelineRanking",
    "Qrels",
    "Query",
    "QueryRanking",
    "QueryRankings",
    "Ranking",
    "Run",
    "ScoredDoc",
    "ShardLostError",
    "Snippet",
    "Span",
    "StagePart",
    "TermMatch",
    "TermSpan",
    "TermStatistics",
    "TokenExperts",
    "TokenVectors",
    "UserError",
]
