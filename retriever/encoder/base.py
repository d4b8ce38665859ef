"""What an encoder is unless it says otherwise: the base class of those here and of one's own."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING

from retriever.lazy import lazy
from retriever.types import ExpertRoutes, Parameters, TermSpan, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from scipy.sparse import csr_matrix

    from retriever.types import Encoded, EncoderIdentity, TermStatistics

__all__ = ["EncoderBase", "word_starts"]

WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]{1,16}|[^\w\s]")
"""What counts as a token where the encoder's own tokeniser is not at hand: a word, at most 16 characters of it, a
Chinese or Japanese character, a sign."""


WHOLE_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


def word_starts(text: str) -> list[int]:
    """Return at which character of a text each of its words (`WORD`) starts, ascending."""
    return [found.start() for found in WORD.finditer(text)]


class EncoderBase:
    """Satisfies `Encoder` once a subclass gives `identity`, `vocabulary` (for a sparse view) and `encode_documents`.

    Queries are then encoded as documents are, in one query mode and one precision, with terms that are the same in
    every collection; documents are split by words.
    """

    identity: EncoderIdentity
    vocabulary: Sequence[str] = ()
    query_modes: tuple[str, ...] = ("encoder",)
    query_mode: str = "encoder"
    adapts: bool = False
    languages: frozenset[str] | None = None

    def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        """Encode n passages, in order; a view that was not requested is None."""
        raise NotImplementedError(f"{type(self).__name__} has no encode_documents")

    def encode_queries(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        """Encode n queries, in order, as if they were passages."""
        return self.encode_documents(texts, dense=dense, sparse=sparse)

    def with_query_mode(self, mode: str) -> Self:
        """Return this encoder in another query mode; raise UserError where it has not that one."""
        if mode not in self.query_modes:
            raise UserError(
                f"the encoder {self.identity.name} has no query mode {mode!r}, only "
                f"{', '.join(map(repr, self.query_modes))}; leave the query mode out, or index with an encoder of ours"
            )
        if mode == self.query_mode:
            return self
        other = copy.copy(self)
        other.query_mode = mode
        return other

    def adapt(self, terms: csr_matrix, statistics: TermStatistics) -> csr_matrix:
        """Return query terms (n, vocab_size) as they are."""
        return terms

    @property
    def precision(self) -> str:
        """Return "": there is no choice."""
        return ""

    @property
    def parameters(self) -> Parameters:
        """Return how many parameters there are: not known."""
        return Parameters(None, None)

    @property
    def max_tokens(self) -> int | None:
        """Return how many tokens of a text are read: not known."""
        return None

    def token_starts(self, text: str) -> list[int]:
        """Return at which character of a text each of its words starts, ascending."""
        return word_starts(text)

    def expert_routes(self, query: str) -> ExpertRoutes:
        """Return no layers: none is known."""
        return ExpertRoutes((), ())

    @lazy
    def _term_numbers(self) -> dict[str, int]:
        return {term: number for number, term in enumerate(self.vocabulary)}

    def term_spans(self, text: str) -> list[TermSpan]:
        """Return the words of a text that the vocabulary has as they are, or in small letters."""
        found = []
        for word in WHOLE_WORD.finditer(text):
            term = self._term_numbers.get(word[0], self._term_numbers.get(word[0].lower()))
            if term is not None:
                found.append(TermSpan(term, word.start(), word.end()))
        return found
