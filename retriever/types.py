"""The records that cross module boundaries, the Encoder protocol and the one error class.

Importing this module imports neither numpy nor torch: the command line's help stays instant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    FloatArray: TypeAlias = NDArray[np.float32]
    BoolArray: TypeAlias = NDArray[np.bool_]

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
    "Qrels",
    "Query",
    "QueryRanking",
    "QueryRankings",
    "Ranking",
    "Run",
    "ScoredDoc",
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

MetadataValue: TypeAlias = "str | int | float | bool | list[MetadataValue] | dict[str, MetadataValue] | None"


class UserError(ValueError):
    """The user's input, folder or setting is at fault.

    The message is one line that says what was found, what is allowed and the remedy;
    the command line prints it without a traceback and exits with 1.
    """


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


Ranking: TypeAlias = list[ScoredDoc]
"""Hits of one query, ordered by (score descending, doc_id ascending), each doc_id once."""

Run: TypeAlias = dict[str, Ranking]
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


class TermMatch(NamedTuple):
    """One term shared by query and document, with the weight that each side gives it."""

    leg: str
    term: str
    query_weight: float
    doc_weight: float
    contribution: float


class TermSpan(NamedTuple):
    """A word: the characters of a text from `start` up to `end`, and the dimension of the sparse view for them.

    A word of several pieces has several dimensions, one record each.
    """

    term: int
    start: int
    end: int


class TokenExperts(NamedTuple):
    """A token of a text, and the experts that it goes to in each MoE layer, the likeliest first."""

    text: str
    experts: tuple[tuple[int, ...], ...]


class ExpertRoutes(NamedTuple):
    """Where the tokens of a text go. layers: the name of each MoE layer, and how many experts it has to choose from."""

    layers: tuple[tuple[str, int], ...]
    tokens: tuple[TokenExperts, ...]


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


class ShardLostError(UserError):
    """No replica of a shard answers: another request may do better later."""


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


class Encoded(NamedTuple):
    """Both views of n texts, on the CPU; a view that the encoder lacks, or that was not requested, is None.

    dense: float32 (n, dense_dim), unit length, zero for a text without tokens.
    sparse: float32 csr (n, vocab_size), weights > 0, sorted indices, an empty row for a text without tokens.
    truncated: bool (n,), True where the text was longer than the network reads; never where no network was needed.
    tokens: csr (n, vocab_size), with the sparse view of documents, of encoders whose queries `adapt` to the collection
    alone: positive where a term is a token of the text itself, for the collection's document frequencies.
    unread: bool (n,), True where the encoder cannot read the text, which then has no vector and at most its own words
    as terms; None for an encoder that does not look.
    """

    dense: FloatArray | None
    sparse: csr_matrix | None
    truncated: BoolArray
    tokens: csr_matrix | None = None
    unread: BoolArray | None = None

    def __eq__(self, other: object) -> bool:
        """Say whether both hold the same numbers; arrays themselves compare element by element."""
        return isinstance(other, Encoded) and all(map(_same_numbers, self, other))

    def __ne__(self, other: object) -> bool:
        return not self == other


class TokenVectors(NamedTuple):
    """The vectors of all tokens of n texts, one text behind the other.

    vectors: float32 (tokens, dim). counts: int64 (n,), how many of them each text has. ids: int32 (tokens,), of the
    tokens of queries in the vocabulary of the encoder; None where they are another model's, and for documents.
    """

    vectors: FloatArray
    counts: NDArray[np.int64]
    ids: NDArray[np.int32] | None = None


class EncodedByToken(NamedTuple):
    """Both views of n texts, and the vectors of their tokens, None where none were asked for."""

    encoded: Encoded
    tokens: TokenVectors | None


def _same_numbers(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    if one.shape != other.shape:
        return False
    differ = one != other
    return not (differ.nnz if hasattr(differ, "nnz") else differ.any())


class EncoderIdentity(NamedTuple):
    """What an index remembers of its encoder, so that it is never searched with another one.

    name: the specification that `load_encoder` takes (a folder, a hub name, "default", "st:...", "none").
    sha256: digest of the weights and of the settings that change the output; "" for "none".
    dense_dim, vocab_size: 0 where the view is missing.
    """

    name: str
    sha256: str
    dense_dim: int
    vocab_size: int


class Parameters(NamedTuple):
    """How many parameters an encoder has, and how many of them a token meets; None where they are not known."""

    active: int | None
    total: int | None


class TermStatistics(Protocol):
    """In how many documents of a collection each term occurs as a token."""

    documents: int

    def document_frequency(self, terms: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return for each vocabulary id the number of documents that hold it."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """Encodes texts as both views, or only the requested one, and declares what else it can do.

    Nothing downstream knows which encoder it is. `retriever.encoder.base.EncoderBase` has all but the encoding.
    """

    @property
    def identity(self) -> EncoderIdentity:
        """Return name, digest and sizes."""
        ...

    @property
    def vocabulary(self) -> Sequence[str]:
        """Return the term of each sparse dimension, length vocab_size; empty without a sparse view."""
        ...

    def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        """Encode n passages, in order; a view that was not requested is None and costs nothing."""
        ...

    def encode_queries(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        """Encode n queries, in order; a view that was not requested is None and costs nothing."""
        ...

    @property
    def query_modes(self) -> tuple[str, ...]:
        """Return the ways in which it can make sparse terms of queries."""
        ...

    @property
    def query_mode(self) -> str:
        """Return the one of these that it uses."""
        ...

    def with_query_mode(self, mode: str) -> Encoder:
        """Return this encoder, weights shared, in another query mode; raise UserError where it has not that one."""
        ...

    @property
    def languages(self) -> frozenset[str] | None:
        """Return the codes of the languages that it was made for, None where that is not known, or all are."""
        ...

    @property
    def adapts(self) -> bool:
        """Say whether the weights of query terms depend on the collection that is searched, see `adapt`."""
        ...

    def adapt(self, terms: csr_matrix, statistics: TermStatistics) -> csr_matrix:
        """Return query terms (n, vocab_size) weighted for the document frequencies of the collection searched."""
        ...

    @property
    def precision(self) -> str:
        """Return the precision that the network runs in, "" where there is no choice."""
        ...

    @property
    def parameters(self) -> Parameters:
        """Return the number of parameters."""
        ...

    @property
    def max_tokens(self) -> int | None:
        """Return how many tokens of a passage are read, None where it is not known."""
        ...

    def token_starts(self, text: str) -> list[int]:
        """Return at which character of a text each of its tokens starts, ascending: what chunks are measured in."""
        ...

    def term_spans(self, text: str) -> list[TermSpan]:
        """Return the words of a text that stand for dimensions of the sparse view, ascending: to highlight them."""
        ...

    def expert_routes(self, query: str) -> ExpertRoutes:
        """Return which experts the tokens of a query go to; no layers where none is known."""
        ...
