"""One commit of an index, within a filter, as one search sees it: its legs, run side by side."""

from __future__ import annotations

from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import singledispatch
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from retriever.search.leg import LEGS, BatchLeg, LegOptions, LegQuery, views_of
from retriever.search.showing.highlights import joined
from retriever.search.time_limit import current_limit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from concurrent.futures import Executor

    from retriever.index.chunks import ScoredChunk
    from retriever.index.contract import IndexReader, LegReader
    from retriever.index.stored import StoredDocument
    from retriever.search.leg import Leg, OpenLeg
    from retriever.types import Encoder, FacetCount, Ranking, Span, TermMatch

__all__ = ["QUICK_CHUNKS", "CommitView", "open_legs", "own_legs"]


QUICK_CHUNKS = 200_000
"""An index of no more is searched leg by leg. At 60,000 a search takes a tenth less processor time so, a lexical one a
sixth, and other searches have the other processors."""

TOGETHER = 16
"""Queries of a batch that one thread searches one after the other: to hand one over takes as long as some searches."""


@singledispatch
def open_legs(reader: Any, options: LegOptions | None = None) -> dict[str, OpenLeg]:
    """Return the legs of an index, in their order: its kind of reader may have some registered for it.

    Raises:
        UserError: the options name what is unknown or not installed.
    """
    return {**own_legs(reader, options)}


def own_legs(reader: LegReader, options: LegOptions | None = None) -> dict[str, Leg]:
    """Return the legs of an index that they search themselves."""
    opened = {name: leg(reader, options or LegOptions()) for name, leg in LEGS.items()}
    return {name: leg for name, leg in opened.items() if leg.available(reader.settings.encoder)}


class CommitView:
    """Runs the legs of one reader, all within one filter, for queries that are encoded already.

    Each step looks at the time limit of the search, which is that of the thread that makes the view.

    Raises:
        OverdueError: from any step that would begin too late.
    """

    def __init__(self, reader: IndexReader, legs: Mapping[str, OpenLeg], filter: str | None = None) -> None:
        self.reader, self._legs, self._limit = reader, legs, current_limit()
        self._limit.check()
        self._selection = None if filter is None else reader.select(filter)

    @property
    def lost(self) -> tuple[str, ...]:
        """Return the names of shards that answers are without; of an index on a cluster alone."""
        return getattr(self.reader, "lost", ())

    @property
    def _quick(self) -> bool:
        """Say whether legs side by side would mostly wait for each other's interpreter lock."""
        return self.reader.num_chunks <= QUICK_CHUNKS

    def run(self, leg: str, query: LegQuery, depth: int) -> Ranking:
        """Return the best `depth` hits of one leg."""
        self._limit.check()
        return self._legs[leg].run(query, depth, self._selection)

    @contextmanager
    def begun(
        self, legs: Sequence[str], query: LegQuery, depth: int, pool: Executor
    ) -> Iterator[dict[str, Future[Ranking]]]:
        """Begin the legs that read the query's text alone, while others wait for its views; none where none waits."""
        waits = bool(views_of(legs)) and self.reader.legs_together is None and not self._quick
        alone = [leg for leg in legs if waits and not LEGS[leg].views]
        with _all_done() as futures:
            submitted = {leg: pool.submit(self.run, leg, query, depth) for leg in alone}
            futures += submitted.values()
            yield submitted

    def run_side_by_side(
        self,
        legs: Sequence[str],
        query: LegQuery,
        depth: int,
        pool: Executor,
        begun: Mapping[str, Future[Ranking]] = MappingProxyType({}),
    ) -> dict[str, Ranking]:
        """Return the best `depth` hits of several legs, or of none; begun: what `begun` gave."""
        known = {leg: rankings[0] for leg, rankings in self._together(legs, [query], depth).items()}
        # The slowest leg first: with fewer cores than legs it is what the others run beside.
        left = sorted((leg for leg in legs if leg not in {*known, *begun}), key=lambda leg: -self._legs[leg].cost)
        if self._quick:
            known |= {leg: self.run(leg, query, depth) for leg in left}
            left = []
        with _all_done() as futures:
            submitted = {leg: pool.submit(self.run, leg, query, depth) for leg in left[:-1]}
            futures += submitted.values()
            # The last one here: handing it to another thread takes as long as some searches.
            known |= {leg: self.run(leg, query, depth) for leg in left[-1:]}
            waited = {**begun, **submitted}
            return {leg: known[leg] if leg in known else waited[leg].result() for leg in legs}

    def _together(self, legs: Sequence[str], queries: Sequence[LegQuery], depth: int) -> dict[str, list[Ranking]]:
        """Return what the reader finds in one round for all queries, by the legs that it can search so."""
        self._limit.check()
        asked = self.reader.legs_together
        return {} if asked is None else asked(legs, queries, depth, self._selection)

    def run_batch(self, leg: str, queries: Sequence[LegQuery], depth: int, pool: Executor) -> list[Ranking]:
        """Search one leg for each query of a batch, several at a time."""
        opened = self._legs[leg]
        if isinstance(opened, BatchLeg):
            self._limit.check()
            return opened.run_several(queries, depth, self._selection)
        if leg in (known := self._together([leg], queries, depth)):
            return known[leg]
        with _all_done() as futures:
            for start in range(0, len(queries), TOGETHER):
                futures.append(pool.submit(self._run_in_turn, leg, queries[start : start + TOGETHER], depth))
            return [ranking for future in futures for ranking in future.result()]

    def _run_in_turn(self, leg: str, queries: Sequence[LegQuery], depth: int) -> list[Ranking]:
        return [self.run(leg, query, depth) for query in queries]

    def facets(self, field: str, top_k: int) -> list[FacetCount]:
        """Return the values of a metadata field that most documents have."""
        self._limit.check()
        return self.reader.facets(field, top_k, self._selection)

    def chunks(
        self, legs: Sequence[str], query: LegQuery, documents: Mapping[str, StoredDocument]
    ) -> dict[str, list[ScoredChunk]]:
        """Return for each leg the scores of the chunks of these documents."""
        self._limit.check()
        return {leg: self._legs[leg].chunks(query, documents) for leg in legs}

    def explain(
        self, legs: Sequence[str], query: LegQuery, doc_id: str, encoder: Encoder | None, best: Mapping[str, int]
    ) -> tuple[TermMatch, ...]:
        """Return the terms that the query shares with a document, leg by leg.

        encoder: of the index; None where no leg reads a view. best: for each leg the number of the chunk that counts,
        the first one if it is not named.
        """
        self._limit.check()
        vocabulary = () if encoder is None else encoder.vocabulary
        found = (self._legs[leg].explain(query, doc_id, best.get(leg, 0), vocabulary) for leg in legs)
        return tuple(match for matches in found for match in matches)

    def highlights(self, legs: Sequence[str], query: LegQuery, text: str, encoder: Encoder | None) -> tuple[Span, ...]:
        """Return the characters of a text that the legs find by the query's terms, ascending, none twice."""
        self._limit.check()
        return joined((span for leg in legs for span in self._legs[leg].highlight(query, text, encoder)), text)


@contextmanager
def _all_done() -> Iterator[list[Future[Any]]]:
    """Give a list for what is begun in other threads; leave nothing of it behind, which may read a closed index."""
    futures: list[Future[Any]] = []
    try:
        yield futures
    except BaseException:
        for future in futures:
            future.cancel()
        wait(futures)
        raise
