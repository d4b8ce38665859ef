"""What an encoder is, and what it makes of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    FloatArray: TypeAlias = NDArray[np.float32]
    BoolArray: TypeAlias = NDArray[np.bool_]

__all__ = [
    "Encoded",
    "EncodedByToken",
    "Encoder",
    "EncoderIdentity",
    "ExpertRoutes",
    "Parameters",
    "TermSpan",
    "TermStatistics",
    "TokenExperts",
    "TokenVectors",
]


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
