"""What requests and answers hold: pydantic models, which check requests and from which the OpenAPI document is made.

Answers are written by `retriever.wire` and not checked again; the tests compare them with their models.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, model_validator

from retriever.names import HYBRID
from retriever.search.fusion.fusion import METHODS, MISSING, NORMALISATIONS, FusionConfig

__all__ = [
    "BatchRequest",
    "DocumentRequest",
    "DocumentsRequest",
    "EncodeRequest",
    "FacetParameters",
    "FusionRequest",
    "IdsRequest",
    "LikeParameters",
    "QueryItem",
    "SearchParameters",
    "SearchRequest",
    "Shown",
]

BODY = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
ADDRESS = ConfigDict(extra="forbid", allow_inf_nan=False)
TEXT = (
    "A sourdough starter is a mixture of flour and water in which wild yeast and lactic acid bacteria live together. "
    "It has to be fed every day or kept cold."
)
EXAMPLE_DOCUMENT: dict[str, Any] = {
    "id": "d02",
    "title": "Sourdough starters",
    "text": TEXT,
    "metadata": {"year": 2021, "topic": "food"},
}
EXAMPLE_QUERY = "how to keep a sourdough starter alive"
Mode = Annotated[
    str, Field(description="hybrid, a leg (bm25, sparse, dense), or legs joined as in dense+sparse.", examples=[HYBRID])
]
Filter = Annotated[
    str | None,
    Field(description="Only documents whose metadata satisfy it.", examples=["year >= 2020 and topic = food"]),
]
PipelineLine = Annotated[
    str | None,
    Field(
        description="What follows the fusion: a mode and stages behind it, or the name of one of the server's "
        "pipelines (see `pipelines` of the index). It names the mode itself.",
        examples=["hybrid > feedback"],
    ),
]
Language = Annotated[
    str | None, Field(description="Of the queries, by code or English name; looked at by default.", examples=["en"])
]
MOST = 1_000
"""Fields or weights; an index has a few."""


def _not_too_many(values: Any) -> Any:
    if isinstance(values, list | dict) and len(values) > MOST:
        raise ValueError(f"{len(values)} are too many, need {MOST} or less")
    return values


Fields = Annotated[
    list[str] | None,
    BeforeValidator(_not_too_many),
    Field(description="The metadata that hits have; all by default."),
]


class _Asked(BaseModel):
    """What a client sends. The first thing that is wrong with it is said: a million would take a gigabyte to say.

    Lists stop at their first wrong item, and of the fields that there are not, one is kept to be complained of.
    """

    @model_validator(mode="before")
    @classmethod
    def _one_unknown_field(cls, values: Any) -> Any:
        fields = cls.model_fields
        if not isinstance(values, dict) or len(values) <= len(fields):
            return values
        unknown = next(name for name in values if name not in fields)
        return {name: value for name, value in values.items() if name in fields or name == unknown}


class Shown(_Asked):
    """Which hits of a ranking are shown, and how."""

    top_k: int = Field(10, ge=1, description="How many hits.")
    mode: Mode = HYBRID
    filter: Filter = None
    explain: bool = Field(False, description="Also say which terms matched, with both weights.")
    offset: int = Field(0, ge=0, description="How many hits to pass over.")
    min_score: float | None = Field(None, description="Leave out hits below this score.")
    fields: Fields = None
    highlight: bool = Field(False, description="Say which words were found, with a snippet.")


class FusionRequest(_Asked):
    """How hybrid search fuses its legs; what is left out is at its default."""

    model_config = BODY
    method: Literal[tuple(METHODS)] = FusionConfig.method  # type: ignore[valid-type]
    weights: Annotated[dict[str, float] | None, BeforeValidator(_not_too_many)] = Field(
        None, examples=[{"bm25": 0.3, "sparse": 0.2, "dense": 0.5}]
    )
    normalisation: Literal[tuple(NORMALISATIONS)] = FusionConfig.normalisation  # type: ignore[valid-type]
    missing: Literal[tuple(MISSING)] = FusionConfig.missing  # type: ignore[valid-type]
    k: float = Field(FusionConfig.k, description="Of reciprocal rank fusion.")
    rank_base: int = Field(FusionConfig.rank_base, description="The rank of the first hit, in reciprocal rank fusion.")

    def config(self) -> FusionConfig:
        """Return the fusion; raise UserError for weights that cannot be used."""
        return FusionConfig(**self.model_dump(exclude_none=True))


class SearchRequest(Shown):
    """A search, as the body of a POST."""

    model_config = BODY
    query: str = Field(description="What to search for.", examples=[EXAMPLE_QUERY])
    fusion: FusionRequest | None = None
    pipeline: PipelineLine = None
    language: Language = None


class SearchParameters(Shown):
    """A search, as the parameters of a GET."""

    model_config = ADDRESS
    query: str = Field(description="What to search for.", examples=[EXAMPLE_QUERY])
    pipeline: PipelineLine = None
    language: Language = None


class LikeParameters(Shown):
    """A search for documents like one of the index."""

    model_config = ADDRESS
    id: str = Field(description="The document's id.", examples=[EXAMPLE_DOCUMENT["id"]])


class ExpertsParameters(_Asked):
    """The query whose tokens are followed."""

    model_config = ADDRESS
    query: str = Field(examples=[EXAMPLE_QUERY])


class FacetParameters(_Asked):
    """Which values of a field to count, and in which documents."""

    model_config = ADDRESS
    field: str = Field(examples=["topic"])
    query: str | None = Field(None, description="Count among its first hits, instead of all documents.")
    top_k: int = Field(10, ge=1, description="How many values.")
    mode: Mode = HYBRID
    filter: Filter = None


class QueryItem(_Asked):
    """One query of a batch."""

    model_config = BODY
    query_id: str = Field(examples=["q1"])
    text: str = Field(examples=[EXAMPLE_QUERY])


class BatchRequest(_Asked):
    """Many queries, each ranked in each mode; queries are encoded once and each leg is searched once.

    Or ranked by a pipeline, which names its mode.
    """

    model_config = BODY
    queries: Annotated[list[QueryItem], FailFast()]
    top_k: int = Field(1000, ge=1)
    modes: Annotated[list[Mode], FailFast()] = Field([HYBRID], min_length=1)
    filter: Filter = None
    fusion: FusionRequest | None = None
    language: Language = None
    pipeline: PipelineLine = None
    lists: bool = Field(False, description="With a pipeline: give the rankings of its legs and stages, too.")
    exclude_self: bool = Field(False, description="With a pipeline: leave out the document with the query's own id.")


class EncodeRequest(_Asked):
    """Texts to encode, in one view or both, as queries or as documents."""

    model_config = BODY
    texts: Annotated[list[str], FailFast()] = Field(examples=[[EXAMPLE_QUERY]])
    kind: Literal["query", "document"] = "query"
    dense: bool = True
    sparse: bool = True


class IdsRequest(_Asked):
    """Documents by their ids."""

    model_config = BODY
    ids: Annotated[list[str], FailFast()] = Field(examples=[["d01", "d02"]])


class DocumentRequest(_Asked):
    """A document whose id stands in the address."""

    model_config = BODY
    text: str = Field(examples=[TEXT])
    title: str = Field("", examples=[EXAMPLE_DOCUMENT["title"]])
    metadata: dict[str, Any] = Field({}, examples=[EXAMPLE_DOCUMENT["metadata"]])


class DocumentsRequest(BaseModel):
    """Documents as a corpus has them: `_id`, `id` or `doc_id`, `text` or `contents`, `title`; all else is metadata."""

    model_config = ConfigDict(extra="forbid")
    documents: list[dict[str, Any]] = Field(examples=[[EXAMPLE_DOCUMENT]])
