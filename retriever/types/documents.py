"""Documents, queries, and rankings of the one for the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

__all__ = [
    "Document",
    "FrozenMapping",
    "MetadataValue",
    "PipelineRanking",
    "Qrels",
    "Query",
    "QueryRanking",
    "QueryRankings",
    "Ranking",
    "Run",
    "ScoredDoc",
    "Span",
]

MetadataValue: TypeAlias = "str | int | float | bool | list[MetadataValue] | dict[str, MetadataValue] | None"


class FrozenMapping(Mapping[str, Any]):
    """A mapping that nobody can change, which can be copied and pickled, unlike `types.MappingProxyType`.

    >>> FrozenMapping({"year": 2024})
    {'year': 2024}
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._values = dict(values or {})

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)

    def __reduce__(self) -> tuple[type[FrozenMapping], tuple[dict[str, Any]]]:
        return FrozenMapping, (self._values,)


class Span(NamedTuple):
    """The characters of a text from `start` up to `end`, which is not included."""

    start: int
    end: int


class Document(NamedTuple):
    """One record of a corpus: an opaque id, a text, an optional title and further fields.

    expansion: words that it is found by as well and that are not shown, such as questions that it answers.
    """

    doc_id: str
    text: str
    title: str = ""
    metadata: Mapping[str, MetadataValue] = FrozenMapping()
    expansion: str = ""

    @property
    def contents(self) -> str:
        """Return title, text and expansion as the one field that every leg reads (BEIR's "flat" form).

        >>> Document("d1", "Trees make wood.", title="Trees").contents
        'Trees Trees make wood.'
        """
        return f"{self.title} {self.text} {self.expansion}".strip()

    def split(self, spans: Sequence[Span]) -> list[Document]:
        """Return the document's chunks as documents: spans of its text, each with its title.

        >>> Document("d1", "Rain. Snow.", title="Weather").split([Span(6, 11)])[0].contents
        'Weather Snow.'
        """
        return [self._replace(text=self.text[start:end]) for start, end in spans]


class Query(NamedTuple):
    """One question with its id."""

    query_id: str
    text: str


class ScoredDoc(NamedTuple):
    """A document and its score in one ranking."""

    doc_id: str
    score: float


Ranking: TypeAlias = Sequence[ScoredDoc]
"""Hits of one query, ordered by (score descending, doc_id ascending), each doc_id once: a list, or what names its
documents when they are looked at."""

Run: TypeAlias = Mapping[str, Ranking]
"""A ranking for each query_id."""

Qrels: TypeAlias = dict[str, dict[str, int]]
"""Judged grades: query_id -> doc_id -> relevance."""


class QueryRanking(NamedTuple):
    """The hits of one query of a batch, without their texts."""

    query_id: str
    ranking: Ranking


class QueryRankings(NamedTuple):
    """The hits of one query of a batch, without their texts, by leg or by mode."""

    query_id: str
    rankings: dict[str, Ranking]


class PipelineRanking(NamedTuple):
    """The hits of one query behind the stages of a pipeline.

    milliseconds: what each stage took. lists: every ranking that led to it, by name: those of the legs, of "fusion" and
    of the stages.
    """

    query_id: str
    ranking: Ranking
    milliseconds: Sequence[float]
    lists: Mapping[str, Ranking]
