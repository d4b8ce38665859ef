"""Late interaction as a stage: the vectors of the query's tokens meet those of the first hits' tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from retriever.encoder.tokens import token_encoder_of
from retriever.rank.rerank import blended
from retriever.rank.stage import Stage
from retriever.ranking import order
from retriever.types import TermMatch, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retriever.encoder.tokens import TokenEncoder
    from retriever.index.vectors.row_formats import RowFormat
    from retriever.index.vectors.rows import TokenRecords
    from retriever.rank.stage import Budget
    from retriever.search.steps import Found, SearchAt
    from retriever.types import FloatArray, TokenVectors

__all__ = ["LateInteraction", "max_sim"]

SHOWN = 8
"""Tokens of the query that an explanation names."""


def max_sim(matches: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the weighted mean over the query's tokens of their best matches (n, q), (n,); weights (q,), above 0."""
    total = weights.sum()
    scores: FloatArray = matches @ (weights / total if total > 0 else weights)
    return scores


@dataclass(frozen=True)
class LateInteraction(Stage):
    """Scores the first `depth` hits by MaxSim over the stored vectors of their tokens: the list "tokens".

    weight: the share of this score, the rest is that of the ranking before, both from 0 to 1. idf: query tokens count
    by their rarity in the collection, where that is known, else all alike, as MaxSim is defined.
    """

    name: ClassVar[str] = "late-interaction"
    cost: ClassVar[str] = "one pass of the network for the query; depth x tokens inner products"

    depth: int = 100
    weight: float = 0.3
    idf: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.depth >= 1, "depth", "1 or more")
        self.check(0 <= self.weight <= 1, "weight", "a number from 0 to 1")

    @property
    def reads(self) -> int:
        """Return its depth."""
        return self.depth

    def run(self, found: Found, at: SearchAt, budget: Budget) -> Found:
        """Return the ranking, the first hits of it by their new scores."""
        encoder = _token_encoder(at)
        ids = [hit.doc_id for hit in found.ranking[: self.depth]]
        query = encoder.queries([found.query.text])
        if not ids or not len(query.vectors):
            return found
        budget.check()
        stored = at.view.reader.stored_tokens(ids)
        matches = _matches(query, stored, at.view.reader.settings.row_format)
        counts = np.cumsum([0, *(len(own.counts) for own in stored)])[:-1]
        scores = np.maximum.reduceat(max_sim(matches, self._weights(query, at)), counts)  # of chunks, the best
        by_id = dict(zip(ids, scores.tolist(), strict=True))
        lists = {**found.lists, "tokens": order(by_id.items())}
        return found._replace(ranking=blended(by_id, found.ranking, self.weight), lists=lists)

    def _weights(self, query: TokenVectors, at: SearchAt) -> FloatArray:
        if not self.idf or query.ids is None:
            return np.ones(len(query.vectors), np.float32)
        statistics = at.view.reader.token_statistics
        held = statistics.document_frequency(query.ids)
        rarity: FloatArray = np.log1p((statistics.documents - held + 0.5) / (held + 0.5)).astype(np.float32)
        return rarity

    def explain(self, before: Found, after: Found, at: SearchAt, doc_id: str) -> tuple[TermMatch, ...]:
        """Return for the strongest tokens of the query which token of the document each of them met."""
        if doc_id not in {hit.doc_id for hit in before.ranking[: self.depth]}:
            return ()
        encoder = _token_encoder(at)
        reader, text = at.view.reader, before.query.text
        query = encoder.queries([text])
        if not len(query.vectors):
            return ()
        weights, form = self._weights(query, at), reader.settings.row_format
        [stored] = reader.stored_tokens([doc_id])
        best = int(np.argmax(max_sim(_matches(query, [stored], form), weights)))
        own = np.split(stored.records, np.cumsum(stored.counts)[:-1])[best]
        if not len(own):  # of a text that the encoder cannot read
            return ()
        codes = form.token_codes(own).astype(np.float32)
        products = query.vectors @ (codes * own["scale"][:, None]).T  # (q, tokens)
        places = products.argmax(axis=1)
        asked = encoder.words(text, query=True)
        words = encoder.words(reader.chunk_texts(doc_id)[best], query=False)
        shares = weights / max(float(weights.sum()), 1e-9)
        matches = [
            TermMatch(self.name, f"{word} ~ {words[place]}", float(share), float(one[place]), float(share * one[place]))
            for word, place, share, one in zip(asked, places.tolist(), shares, products, strict=True)
        ]
        return tuple(sorted(matches, key=lambda match: -match.contribution)[:SHOWN])


def _token_encoder(at: SearchAt) -> TokenEncoder:
    """Return the token encoder of the index."""
    reader = at.view.reader
    settings = reader.settings.tokens
    if settings is None:
        raise UserError(f"{reader.path}: has no token vectors; build the index with --tokens")
    return token_encoder_of(settings.name, settings.sha256, at.encoder())


def _matches(query: TokenVectors, stored: Sequence[TokenRecords], form: RowFormat) -> FloatArray:
    """Return the best match of each token of the query in each chunk of these documents, (chunks, q)."""
    from retriever.rank.kernels import best_matches

    records, counts = (np.concatenate(parts) for parts in zip(*stored, strict=True))
    found: FloatArray = best_matches(
        np.ascontiguousarray(query.vectors),
        np.ascontiguousarray(form.token_codes(records)),
        np.ascontiguousarray(records["scale"]),
        np.cumsum(counts),
    )
    return found
