"""What answers hold, for the OpenAPI document; `retriever.wire` writes them, and the tests compare."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from retriever.serve.schema.models import EXAMPLE_DOCUMENT, TEXT

__all__ = [
    "Changed",
    "Deleted",
    "DocumentModel",
    "DocumentsAnswer",
    "EncodedAnswer",
    "ExpertsAnswer",
    "FacetsAnswer",
    "HitsAnswer",
    "IndexModel",
    "IndexesAnswer",
    "Problem",
    "RankingsAnswer",
    "Status",
]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LegPartModel(_Answer):
    """What one leg says about a hit."""

    rank: int
    score: float
    normalised: float


class TermMatchModel(_Answer):
    """A term that query and document share, with both weights."""

    leg: str
    term: str
    query_weight: float
    doc_weight: float
    contribution: float


class SpanModel(_Answer):
    """Characters of the text from `start` up to `end`, which is not included."""

    start: int
    end: int


class ChunkModel(SpanModel):
    """A chunk of a document, with its raw score in each leg."""

    text: str
    scores: dict[str, float]


class StageModel(_Answer):
    """What one stage of a pipeline says about a hit."""

    stage: str
    rank: int
    score: float
    milliseconds: float
    matches: list[TermMatchModel]


class SnippetModel(SpanModel):
    """The characters of the text that are worth showing; highlights are counted from their start."""

    text: str
    highlights: list[SpanModel]


class HitModel(_Answer):
    """One hit; its snippet stands there where highlights were asked for."""

    rank: int
    doc_id: str
    score: float
    title: str
    text: str
    metadata: dict[str, Any]
    parts: dict[str, LegPartModel]
    terms: list[TermMatchModel]
    chunks: list[ChunkModel]
    highlights: list[SpanModel]
    stages: list[StageModel]
    title_highlights: list[SpanModel]
    snippet: SnippetModel | None = None


class HitsAnswer(_Answer):
    """The hits, best first."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "hits": [
                    {
                        "rank": 1,
                        "doc_id": EXAMPLE_DOCUMENT["id"],
                        "score": 1.0,
                        "title": EXAMPLE_DOCUMENT["title"],
                        "text": TEXT,
                        "metadata": EXAMPLE_DOCUMENT["metadata"],
                        "parts": {"bm25": {"rank": 1, "score": 4.83, "normalised": 1.0}},
                        "terms": [],
                        "chunks": [],
                        "highlights": [],
                        "stages": [],
                        "title_highlights": [],
                    }
                ],
                "milliseconds": 4.2,
            }
        },
    )
    hits: list[HitModel]
    milliseconds: float = Field(description="What the search took, without the way to it and back.")
    lost: list[str] = Field([], description="Shards that the hits are without; there where some are lost.")


class ScoredDocModel(_Answer):
    """A document of a ranking."""

    doc_id: str
    score: float


class QueryRankingsModel(_Answer):
    """The rankings of one query, by mode, or that of a pipeline by what was asked for.

    milliseconds: of a pipeline's stages. lists: of a pipeline, what its legs, the fusion and its stages found.
    """

    query_id: str
    rankings: dict[str, list[ScoredDocModel]]
    milliseconds: list[float] = []
    lists: dict[str, list[ScoredDocModel]] = {}


class RankingsAnswer(_Answer):
    """The rankings of each query, in the order of the queries."""

    results: list[QueryRankingsModel]


class DenseRows(_Answer):
    """Vectors of `width` numbers, one for each text."""

    width: int
    rows: list[list[float]]


class SparseRow(_Answer):
    """The weights above 0 of one text; `terms` are their names."""

    indices: list[int]
    values: list[float]
    terms: list[str] | None = None


class SparseRows(_Answer):
    """Weighted terms of a vocabulary of `width`, one row for each text."""

    width: int
    rows: list[SparseRow]


class EncodedAnswer(_Answer):
    """The views of the texts; null for one that the encoder lacks, or that was not asked for."""

    dense: DenseRows | None
    sparse: SparseRows | None
    truncated: list[bool]
    tokens: SparseRows | None
    unread: list[bool] | None


class DocumentModel(_Answer):
    """A document."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": EXAMPLE_DOCUMENT})
    id: str
    title: str
    text: str
    metadata: dict[str, Any]


class DocumentsAnswer(_Answer):
    """Documents, and the ids that the index does not have."""

    documents: list[DocumentModel]
    unknown: list[str]


class Changed(_Answer):
    """What was added, as `retriever add --json` says it."""

    added: int
    updated: int
    bad: int
    duplicates: int
    first_bad: str
    documents: int
    truncated: int
    seconds: float
    unread: int


class Deleted(_Answer):
    """What was deleted, how many ids were not there, and how many documents there are now."""

    deleted: int
    unknown: int
    documents: int


class ExpertLayer(_Answer):
    """A layer of experts, and how many it has to choose from."""

    name: str
    experts: int


class TokenRoute(_Answer):
    """A token of the query, and the experts that it goes to in each of the layers."""

    text: str
    experts: list[list[int]]


class ExpertsAnswer(_Answer):
    """Where the tokens of a query go; no layers where the encoder of the index has no experts."""

    layers: list[ExpertLayer]
    tokens: list[TokenRoute]


class FacetModel(_Answer):
    """A value of a field, and how many documents have it."""

    value: str | int | float | bool
    documents: int


class FacetsAnswer(_Answer):
    """The values that most documents have, first."""

    field: str
    facets: list[FacetModel]


class FieldModel(_Answer):
    """A metadata field, the kinds of its values, and how many documents have one."""

    name: str
    kinds: list[str]
    documents: int


class EncoderModel(_Answer):
    """The encoder of an index."""

    name: str
    sha256: str
    dense_dim: int
    vocab_size: int


class IndexModel(_Answer):
    """What an index holds."""

    name: str
    documents: int
    chunks: int
    commit: int
    legs: list[str]
    fields: list[FieldModel]
    fusion: dict[str, Any]
    pipelines: list[str] = Field(description="Pipelines that a search may name, beside any line of stages.")
    encoder: EncoderModel
    writable: bool


class IndexesAnswer(_Answer):
    """All indexes."""

    indexes: list[IndexModel]


class Status(_Answer):
    """Whether all is well, and the indexes where it is not."""

    status: str
    indexes: list[str] = []


class Problem(BaseModel):
    """An error (RFC 9457): `detail` says in one line what was found, what is allowed, and what to do."""

    type: str = Field(examples=["urn:retriever:problem:user-error"])
    title: str = Field(examples=["Bad Request"])
    status: int = Field(examples=[400])
    detail: str = Field(examples=["the query is empty; give at least one word"])
