"""What requests hold: pydantic models, from which the OpenAPI document is made, too."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from retriever.names import HYBRID

__all__ = [
    "BatchRequest",
    "EncodeRequest",
    "FusionRequest",
    "IdsRequest",
    "QueryItem",
    "SearchParameters",
    "SearchRequest",
]

BODY = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Mode = Annotated[
    str, Field(description="hybrid, a leg (bm25, sparse, dense), or legs joined as in dense+sparse.", examples=[HYBRID])
]
Filter = Annotated[
    str | None,
    Field(description="Only documents whose metadata satisfy it.", examples=["year >= 2020 and lang = en", None]),
]


class _Search(BaseModel):
    """What a search by address and one by body have in common."""

    query: str = Field(description="What to search for.", examples=["how do vaccines work"])
    top_k: int = Field(10, ge=1, description="How many hits.")
    mode: Mode = HYBRID
    filter: Filter = None
    explain: bool = Field(False, description="Also say which terms matched, with both weights.")


class FusionRequest(BaseModel):
    """How hybrid search fuses its legs; what is left out is at its default."""

    model_config = BODY
    method: str | None = Field(None, examples=["weighted-sum"])
    weights: dict[str, float] | None = Field(None, examples=[{"bm25": 0.3, "sparse": 0.2, "dense": 0.5}])
    normalisation: str | None = Field(None, examples=["min-max"])


class SearchRequest(_Search):
    """A search, as the body of a POST."""

    model_config = BODY


class SearchParameters(_Search):
    """A search, as the parameters of a GET."""

    model_config = ConfigDict(extra="forbid")


class QueryItem(BaseModel):
    """One query of a batch."""

    model_config = BODY
    query_id: str = Field(examples=["q1"])
    text: str = Field(examples=["how do vaccines work"])


class BatchRequest(BaseModel):
    """Many queries, each ranked in each mode; queries are encoded once and each leg is searched once."""

    model_config = BODY
    queries: list[QueryItem]
    top_k: int = Field(1000, ge=1)
    modes: list[Mode] = [HYBRID]
    filter: Filter = None


class EncodeRequest(BaseModel):
    """Texts to encode, in one view or both, as queries or as documents."""

    model_config = BODY
    texts: list[str] = Field(examples=[["how do vaccines work"]])
    kind: str = Field("query", description="query or document", pattern="^(query|document)$")
    dense: bool = True
    sparse: bool = True


class IdsRequest(BaseModel):
    """Documents by their ids."""

    model_config = BODY
    ids: list[str] = Field(examples=[["d1", "d2"]])


def example_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return the first example of each field that has one."""
    fields = model.model_fields.items()
    return {name: field.examples[0] for name, field in fields if field.examples}
