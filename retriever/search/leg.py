"""What a leg is, and the legs that there are: each searches an index in its own way, and fusion puts them together.

A leg is one class in one file, registered in `retriever.search`. Whatever searches, fuses, explains, evaluates, tunes
or draws asks the registry and branches on no leg's name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

from retriever.names import HYBRID, SPARSE_BACKENDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from scipy.sparse import csr_matrix

    from retriever.index.chunks import ScoredChunk
    from retriever.index.contract import LegReader, Selection
    from retriever.index.stored import StoredDocument
    from retriever.types import Encoded, Encoder, EncoderIdentity, FloatArray, Ranking, Span, TermMatch

__all__ = [
    "LEGS",
    "BatchLeg",
    "Candidates",
    "Leg",
    "LegOptions",
    "LegQuery",
    "OpenLeg",
    "View",
    "default_weights",
    "register",
    "registered",
    "views_of",
]

View: TypeAlias = Literal["dense", "sparse"]
"""A representation that an encoder gives a query: a vector, or weighted terms."""
NOT_IN_A_NAME = "+@/"
"""What joins legs to a mode, a mode to a query mode, and an encoder to a system."""


class LegQuery(NamedTuple):
    """A query as legs read it: its text, and its row in a batch of encoded queries, None where no leg needs a view.

    words: analysed terms with weights above 0, which BM25 reads in place of the text: what feedback made of it.
    """

    text: str
    encoded: Encoded | None = None
    row: int = 0
    words: Mapping[str, float] | None = None

    @property
    def terms(self) -> csr_matrix:
        """Return the sparse view, float32 csr (1, vocab_size)."""
        assert self.encoded is not None and self.encoded.sparse is not None
        found = self.encoded.sparse
        return found if found.shape[0] == 1 else found[self.row]  # to take a row of one takes 50 us

    @property
    def vector(self) -> FloatArray:
        """Return the dense view, float32 (1, dense_dim)."""
        assert self.encoded is not None and self.encoded.dense is not None
        return self.encoded.dense[self.row : self.row + 1]


class Candidates(NamedTuple):
    """Texts to rank all together, by `Leg.rank_candidates`.

    ids: of n texts, as the index has them. encoded: their views, a row for each. selection: these texts in the index.
    """

    ids: Sequence[str]
    encoded: Encoded | None
    selection: Selection


@dataclass(frozen=True)
class LegOptions:
    """How legs search. sparse_backend: what searches sparse terms, see `retriever.search.legs.backends`."""

    sparse_backend: str = SPARSE_BACKENDS[0]


class Leg(ABC):
    """One way to search one commit of an index, from any number of threads at once.

    The class describes the leg, an object of it searches. name: without "+", "@" and "/". views: which representations
    of a query it reads; a leg that reads the sparse one gives another ranking in another query mode. folders: the parts
    of the index folder that it reads, as `IndexReader.sizes` names them. weight: its share in the default fusion, 0
    for none. cost: the costliest leg is started first. colour: of its line in charts.
    """

    name: ClassVar[str]
    views: ClassVar[tuple[View, ...]] = ()
    folders: ClassVar[tuple[str, ...]] = ("lucene",)
    weight: ClassVar[float] = 0.0
    cost: ClassVar[int] = 1
    colour: ClassVar[str | None] = None

    def __init__(self, reader: LegReader, options: LegOptions) -> None:
        """Take the commit to search; what has to be built or loaded for it waits for the first query."""
        self.reader = reader

    @classmethod
    def available(cls, encoder: EncoderIdentity) -> bool:
        """Say whether an index that was built with this encoder has the leg: by default, whether it has the views."""
        sizes = {"dense": encoder.dense_dim, "sparse": encoder.vocab_size}
        return all(sizes[view] > 0 for view in cls.views)

    @classmethod
    def by_query_mode(cls) -> bool:
        """Say whether what it finds depends on the encoder's query mode."""
        return "sparse" in cls.views

    @abstractmethod
    def run(self, query: LegQuery, depth: int, selection: Selection | None = None) -> Ranking:
        """Return the best `depth` hits, by (score descending, id ascending), within the selection if there is one."""

    def chunks(self, query: LegQuery, documents: Mapping[str, StoredDocument]) -> list[ScoredChunk]:
        """Return the scores of the chunks of these documents, of those that it finds; by default none."""
        return []

    def explain(self, query: LegQuery, doc_id: str, chunk: int, vocabulary: Sequence[str]) -> list[TermMatch]:
        """Return the terms that the query shares with a chunk of a document; by default none.

        vocabulary: the term of each dimension of the sparse view.
        """
        return []

    def highlight(self, query: LegQuery, text: str, encoder: Encoder | None) -> list[Span]:
        """Return the characters of a text that the query's terms find; by default none.

        encoder: of the index; None where no leg of the search reads a view.
        """
        return []

    def rank_candidates(self, texts: Sequence[str], encoded: Encoded | None, candidates: Candidates) -> list[Ranking]:
        """Rank all candidates, without approximation, for each query text; encoded: the queries' views.

        By default by searching among them.
        """
        queries = (LegQuery(text, encoded, row) for row, text in enumerate(texts))
        return [self.run(query, len(candidates.ids), candidates.selection) for query in queries]


class OpenLeg(Protocol):
    """What a search asks of a leg of an index that is open: a `Leg` does it for a folder.

    selection: what `select` of the index's reader returned for a filter.
    """

    @property
    def cost(self) -> int: ...  # noqa: D102
    def run(self, query: LegQuery, depth: int, selection: Any = None) -> Ranking: ...  # noqa: D102
    def chunks(self, query: LegQuery, documents: Mapping[str, StoredDocument]) -> list[ScoredChunk]: ...  # noqa: D102
    def explain(  # noqa: D102
        self, query: LegQuery, doc_id: str, chunk: int, vocabulary: Sequence[str]
    ) -> list[TermMatch]: ...
    def highlight(self, query: LegQuery, text: str, encoder: Encoder | None) -> list[Span]: ...  # noqa: D102


@runtime_checkable
class BatchLeg(OpenLeg, Protocol):
    """A leg that is asked several queries at once, where each question has a price of its own."""

    def run_several(self, queries: Sequence[LegQuery], depth: int, selection: Any = None) -> list[Ranking]:
        """Return for each query what `run` does."""
        ...


LEGS: dict[str, type[Leg]] = {}
"""The legs by name, in the order in which they are named and shown."""


def register(leg: type[Leg]) -> type[Leg]:
    """Add a leg, after the others; raise ValueError for a name that is taken or cannot stand in a mode."""
    if not leg.name or leg.name in (*LEGS, HYBRID) or any(sign in leg.name for sign in NOT_IN_A_NAME):
        raise ValueError(f"a leg cannot be called {leg.name!r}: taken, empty, or with one of {NOT_IN_A_NAME}")
    LEGS[leg.name] = leg
    return leg


@contextmanager
def registered(leg: type[Leg]) -> Iterator[type[Leg]]:
    """Add a leg for the time of a `with` block."""
    register(leg)
    try:
        yield leg
    finally:
        del LEGS[leg.name]


def views_of(legs: Iterable[str]) -> frozenset[View]:
    """Return the views of a query that these legs need."""
    return frozenset(view for leg in legs for view in LEGS[leg].views)


def default_weights() -> dict[str, float]:
    """Return the weights of the default fusion, of the legs that have one."""
    return {name: leg.weight for name, leg in LEGS.items() if leg.weight > 0}
