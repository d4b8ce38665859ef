"""What a search gives: hits, why they were found, and what fields there are to filter by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from retriever.types.documents import MetadataValue, Span

__all__ = [
    "ChunkHit",
    "FacetCount",
    "Hit",
    "IndexField",
    "LegPart",
    "PartialHits",
    "Snippet",
    "StagePart",
    "TermMatch",
]


class TermMatch(NamedTuple):
    """One term shared by query and document, with the weight that each side gives it."""

    leg: str
    term: str
    query_weight: float
    doc_weight: float
    contribution: float


class LegPart(NamedTuple):
    """What one leg says about a hit: its rank (from 1), its raw score and that score after normalisation."""

    rank: int
    score: float
    normalised: float


class StagePart(NamedTuple):
    """What one stage of a pipeline says about a hit.

    rank: from 1, and score: after the stage. milliseconds: what the stage took, for all hits together. matches: why, if
    that was asked for and the stage can say it.
    """

    stage: str
    rank: int
    score: float
    milliseconds: float
    matches: tuple[TermMatch, ...] = ()


class ChunkHit(NamedTuple):
    """A chunk of a document: its characters, their text, and its raw score in each leg that finds something in it."""

    start: int
    end: int
    text: str
    scores: Mapping[str, float]


class Hit(NamedTuple):
    """One search result; `parts` maps each leg that found it to its LegPart.

    chunks: the best chunks of the document, best first; none in an index of whole documents.
    highlights: the characters of `text` that the query's terms found, ascending, where they were asked for.
    title_highlights: those of `title`.
    stages: what each stage of the pipeline said, in their order; none without a pipeline.
    """

    rank: int
    doc_id: str
    score: float
    title: str
    text: str
    metadata: Mapping[str, MetadataValue]
    parts: Mapping[str, LegPart]
    terms: tuple[TermMatch, ...] = ()
    chunks: tuple[ChunkHit, ...] = ()
    highlights: tuple[Span, ...] = ()
    stages: tuple[StagePart, ...] = ()
    title_highlights: tuple[Span, ...] = ()


class PartialHits(list[Hit]):
    """The hits of a search that some shards did not answer. lost: the names of these shards."""

    def __init__(self, hits: Sequence[Hit], lost: Sequence[str]) -> None:
        super().__init__(hits)
        self.lost = tuple(lost)


class Snippet(NamedTuple):
    """The characters of a hit's text from `start` up to `end`, worth showing, and spans of them, counted from 0."""

    start: int
    end: int
    text: str
    highlights: tuple[Span, ...]


class IndexField(NamedTuple):
    """A metadata field that filters may name: the kinds of its values, and how many documents have one.

    kinds: of "text", "date" (ISO 8601, text as well unless every text is one), "number" and "boolean".
    """

    name: str
    kinds: tuple[str, ...]
    documents: int


class FacetCount(NamedTuple):
    """A value of a metadata field, and how many documents have it."""

    value: str | int | float | bool
    documents: int
