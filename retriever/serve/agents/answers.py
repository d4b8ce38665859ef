"""What agents are given: records of few fields, and of a bounded size."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from retriever.search.showing.highlights import snippet

if TYPE_CHECKING:
    from retriever.search.retriever import Retriever
    from retriever.serve.indexes.pipelines import Pipelines
    from retriever.types import Hit

__all__ = [
    "LONGEST_VALUE",
    "DocumentPortion",
    "FoundDocument",
    "IndexList",
    "IndexSummary",
    "SearchAnswer",
    "found",
    "summary",
]

SNIPPET, LONGEST_VALUE = 400, 300
"""Characters of a passage, and of a metadata value of a hit."""


class FieldSummary(BaseModel):
    """A metadata field that filters may name."""

    name: str
    kinds: list[str] = Field(description="Kinds of its values: text, date, number, boolean.")
    documents: int = Field(description="How many documents have it.")


class IndexSummary(BaseModel):
    """One index."""

    name: str
    documents: int
    modes: list[str] = Field(description="Ways to search it; hybrid is usually the best.")
    pipelines: list[str] = Field(description="What a search may do beyond a mode; slower, for hard questions.")
    fields: list[FieldSummary]


class IndexList(BaseModel):
    """The indexes that can be searched."""

    indexes: list[IndexSummary]


class FoundDocument(BaseModel):
    """A document that was found."""

    rank: int
    id: str = Field(description="What fetch_document takes.")
    title: str
    score: float = Field(description="Higher is better; comparable within one answer alone.")
    snippet: str = Field(description="The passage that answers best.")
    snippet_start: int = Field(description="The character of the document at which it starts.")
    characters: int = Field(description="How long the document's text is.")
    metadata: dict[str, Any] = Field(description="Long values are cut short; fetch_document gives all.")


class SearchAnswer(BaseModel):
    """The best documents for a query."""

    index: str
    hits: list[FoundDocument]
    next_offset: int | None = Field(description="The offset of the next hits; null where there are no more.")


class DocumentPortion(BaseModel):
    """A document, or a portion of it where it is long."""

    index: str
    id: str
    title: str
    metadata: dict[str, Any]
    text: str
    start: int = Field(description="The character at which `text` starts.")
    characters: int = Field(description="How long the whole text is.")
    next_start: int | None = Field(description="Where the next portion starts; null at the end.")


def summary(name: str, retriever: Retriever, pipelines: Pipelines) -> IndexSummary:
    """Return what an index holds."""
    modes = ["hybrid", *retriever.legs] if len(retriever.legs) > 1 else list(retriever.legs)
    fields = [FieldSummary(name=field.name, kinds=list(field.kinds), documents=field.documents)
              for field in retriever.fields()]  # fmt: skip
    return IndexSummary(
        name=name,
        documents=retriever.reader.num_documents,
        modes=modes,
        pipelines=pipelines.of(retriever),
        fields=fields,
    )


def found(hit: Hit) -> FoundDocument:
    """Return a hit with its passage in place of its text."""
    shown = snippet(hit, length=SNIPPET)
    return FoundDocument(
        rank=hit.rank,
        id=hit.doc_id,
        title=hit.title,
        score=round(hit.score, 4),
        snippet=shown.text,
        snippet_start=shown.start,
        characters=len(hit.text),
        metadata={name: _short(value) for name, value in hit.metadata.items()},
    )


def _short(value: Any) -> Any:
    """Return a metadata value, or the start of it as text where it is long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return value if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."
