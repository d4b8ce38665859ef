"""Search: encode the query once, run the legs side by side, fuse, fetch the text of what is shown."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING

from retriever.index.lucene.values import counted_values
from retriever.ranking import Showing, check_top_k, without_self
from retriever.search.leg import LEGS, LegQuery
from retriever.search.likeness import query_like
from retriever.search.modes import CANDIDATES, HYBRID, MODES
from retriever.search.opened.open_index import OpenIndex
from retriever.search.query_language import language_code, words_in
from retriever.search.showing.hits import show
from retriever.search.steps import SearchAt
from retriever.types import (
    Document,
    Encoded,
    FacetCount,
    Hit,
    IndexField,
    PipelineRanking,
    Query,
    QueryRanking,
    QueryRankings,
    UserError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from retriever.search.fusion.fusion import FusionConfig
    from retriever.search.modes import Plan
    from retriever.search.opened.commit_view import CommitView
    from retriever.search.steps import Stages

__all__ = ["MODES", "Retriever"]

QUERIES_PER_BATCH = 256
log = logging.getLogger(__name__)


class Retriever(OpenIndex):
    """Searches an index folder. Thread-safe; a context manager that frees the index when it is left.

    Examples:
        ```python
        hits = Retriever.open("my-index").search("how do vaccines work", top_k=10, mode="hybrid")
        hits[0].doc_id, hits[0].score, hits[0].text, hits[0].parts
        ```
    """

    def search(
        self,
        query: str,
        top_k: int = 10,
        *,
        mode: str = "hybrid",
        explain: bool = False,
        filter: str | None = None,
        offset: int = 0,
        min_score: float | None = None,
        fields: Sequence[str] | None = None,
        highlight: bool = False,
        fusion: FusionConfig | None = None,
        pipeline: Stages | None = None,
        language: str | None = None,
    ) -> list[Hit]:
        """Return the best `top_k` documents for `query`, with their texts.

        mode: "hybrid", a leg ("bm25", "sparse", "dense", ...), or several as in "dense+sparse", fused by their weights.
        pipeline: a `Pipeline`, which names the mode and what follows the fusion.
        explain: also say which terms matched.
        filter: search only among the documents whose metadata satisfy it, e.g. "year >= 2020 and lang = en".
        offset: how many hits to pass over. Pages put together are the ranking as a whole, where a leg that is searched
        alone is exact.
        min_score: leave out hits below this score, which is the fused one in a mode of several legs.
        fields: the metadata that hits have, all by default; a document without one of them has it not.
        highlight: say which words of the text were found (`Hit.highlights`), for `retriever.snippet`.
        fusion: how to fuse the legs of this query, if not as the index is opened to.
        language: of the query, by code or English name, where it is known; else it is looked at: an index made with
        language "auto" reads words by it, and views of a language that the encoder does not read are left out.

        Raises:
            UserError: the query is empty, top_k below 1, the language unknown, the index cannot answer in this mode, or
                has not the field.
        """
        if not isinstance(query, str):
            raise UserError(f"the query is {query!r}; need a text, with at least one word")
        if not query.strip():
            raise UserError("the query is empty; give at least one word")
        showing = Showing(top_k, offset, min_score, fields, explain, highlight)
        if pipeline is not None and mode != HYBRID:
            raise UserError(f"mode {mode!r} beside a pipeline, which names its own ({pipeline.mode}); give one of them")
        plan = self.plan(mode if pipeline is None else pipeline.mode, fusion)
        self._check_filter(filter)
        code = language_code(language)
        with self._view(filter) as view:
            asked, depth = LegQuery(query, words=words_in(query, code, view.reader)), plan.depth(showing.end)
            if pipeline is not None:
                asked = self._with_views(asked, plan, code)
                at = self._search_at(view, plan, max(showing.end, pipeline.reads))
                ranked = pipeline.run(at.search(asked), at, explain=showing.end if explain else 0)
                asked, rankings = ranked.found.query, ranked.found.rankings
                return show(view, plan, asked, rankings, showing, encoder=at.encoder, ranked=ranked)
            with view.begun(plan.legs, asked, depth, self._pool) as begun:
                asked = self._with_views(asked, plan, code)
                rankings = view.run_side_by_side(plan.legs, asked, depth, self._pool, begun)
            return show(view, plan, asked, rankings, showing, encoder=lambda: self.encoder)

    def _with_views(self, asked: LegQuery, plan: Plan, language: str | None) -> LegQuery:
        encoded = self._encode([asked.text], plan.legs, language)
        _say_unread(_unread(encoded), 1)
        return asked._replace(encoded=encoded)

    def _search_at(self, view: CommitView, plan: Plan, top_k: int) -> SearchAt:
        return SearchAt(view, plan, lambda: self.encoder, self._pool, plan.depth(top_k))

    def rank_pipeline(
        self,
        queries: Iterable[Query],
        top_k: int = 1000,
        *,
        pipeline: Stages,
        filter: str | None = None,
        exclude_self: bool = False,
        language: str | None = None,
    ) -> Iterator[PipelineRanking]:
        """Return each query's ranking as `rank` does, behind the stages of a pipeline, which run query by query.

        exclude_self: leave out the document that has the query's id, before the fusion and in every further search.
        """
        check_top_k(top_k)
        plan = self.plan(pipeline.mode)
        self._check_filter(filter)
        return self._rank_pipeline(iter(queries), top_k, pipeline, plan, filter, exclude_self, language_code(language))

    def _rank_pipeline(
        self,
        stream: Iterator[Query],
        top_k: int,
        pipeline: Stages,
        plan: Plan,
        filter: str | None,
        exclude_self: bool,
        language: str | None,
    ) -> Iterator[PipelineRanking]:
        with self._view(filter) as view:
            here = self._search_at(view, plan, max(top_k, pipeline.reads) + exclude_self)
            while batch := list(islice(stream, QUERIES_PER_BATCH)):
                asked = self._batch_asked(batch, plan.legs, view, language)
                columns = {leg: view.run_batch(leg, asked, here.depth, self._pool) for leg in plan.legs}
                for i, query in enumerate(batch):
                    at = replace(here, without=query.query_id) if exclude_self else here
                    known = {leg: column[i] for leg, column in columns.items()}
                    found, parts = pipeline.run(at.search(asked[i], known), at)
                    said = next(iter(parts.values()), ())
                    times = [part.milliseconds for part in said]
                    yield PipelineRanking(query.query_id, found.ranking[:top_k], times, found.lists)

    def more_like_this(
        self,
        doc_id: str,
        top_k: int = 10,
        *,
        mode: str = "hybrid",
        explain: bool = False,
        filter: str | None = None,
        offset: int = 0,
        min_score: float | None = None,
        fields: Sequence[str] | None = None,
        highlight: bool = False,
    ) -> list[Hit]:
        """Return the documents that are most like one of the index, which is left out; no text is encoded.

        The dense leg asks with the stored vector, the sparse leg with the stored impacts, BM25 with the strongest terms
        of the text; they are fused as those of a search, whose parameters these are.

        Raises:
            UserError: as `search`, or the index has not this document.
        """
        showing = Showing(top_k, offset, min_score, fields, explain, highlight)
        plan = self.plan(mode)
        with self._view(filter) as view:
            asked = query_like(view.reader, doc_id)
            found = view.run_side_by_side(plan.legs, asked, plan.depth(showing.end) + 1, self._pool)
            rankings = {leg: without_self(ranking, doc_id) for leg, ranking in found.items()}
            return show(view, plan, asked, rankings, showing, encoder=lambda: self.encoder)

    def documents(self, ids: Iterable[str]) -> dict[str, Document]:
        """Return the stored documents with these ids, in their order; unknown ids are left out.

        Raises:
            UserError: ids is a text, or one of them is none.
        """
        wanted = dict.fromkeys([ids] if isinstance(ids, str) else ids)
        if isinstance(ids, str) or not all(isinstance(doc_id, str) for doc_id in wanted):
            raise UserError(f"ids is {ids!r}; give a list of texts, such as ['d1']")
        with self._view() as view:
            return view.reader.documents(wanted)

    def fields(self) -> list[IndexField]:
        """Return the metadata fields, sorted by name, with their kinds and in how many documents they are."""
        with self._view() as view:
            return view.reader.index_fields

    def facets(
        self, field: str, query: str | None = None, *, top_k: int = 10, mode: str = "hybrid", filter: str | None = None
    ) -> list[FacetCount]:
        """Return the `top_k` values of a metadata field that most documents have, with their exact counts.

        query: count among the first CANDIDATES (200) hits of this query in this mode, instead of among all documents.
        filter: count only documents that satisfy it. A document of several values counts for each; dates are counted
        as the texts that they are.

        Raises:
            UserError: as `search`; the index has not the field, or more different values than can be counted.
        """
        check_top_k(top_k)
        with self._view(filter) as view:
            view.reader.check_field(field)
            if query is None:
                return view.facets(field, top_k)
        hits = self.search(query, CANDIDATES, mode=mode, filter=filter, fields=[field])
        return counted_values((Document(hit.doc_id, "", metadata=hit.metadata) for hit in hits), field, top_k)

    def rank(
        self,
        queries: Iterable[Query],
        top_k: int = 1000,
        *,
        mode: str = "hybrid",
        filter: str | None = None,
        fusion: FusionConfig | None = None,
        language: str | None = None,
    ) -> Iterator[QueryRanking]:
        """Return each query's ranking without texts, in order, as a stream: for run files and evaluation.

        Queries are encoded and searched in batches; a query without any word has no hits. fusion: as `search` takes it.
        language: of all these queries, where it is known; else each one is looked at.

        Raises:
            UserError: top_k below 1, the index cannot answer in this mode, or has not a field of the filter.
        """
        found = self.rank_modes(queries, top_k, modes=(mode,), filter=filter, fusion=fusion, language=language)
        return (QueryRanking(query_id, rankings[mode]) for query_id, rankings in found)

    def rank_modes(
        self,
        queries: Iterable[Query],
        top_k: int,
        *,
        modes: Sequence[str],
        filter: str | None = None,
        fusion: FusionConfig | None = None,
        language: str | None = None,
    ) -> Iterator[QueryRankings]:
        """Return each query's ranking in each mode, as `rank` does; queries are encoded once and each leg runs once.

        Raises:
            UserError: as `rank`, for any of the modes.
        """
        check_top_k(top_k)
        if not modes:
            raise UserError("no mode to search in; give at least one")
        plans = {mode: self.plan(mode, fusion) for mode in modes}
        legs = tuple(leg for leg in LEGS if any(leg in plan.legs for plan in plans.values()))
        depth = max(plan.depth(top_k) for plan in plans.values())
        found = self.rank_legs(queries, depth, legs=legs, filter=filter, language=language)
        return (
            QueryRankings(query_id, {mode: list(plan.fuse(rankings).ranking[:top_k]) for mode, plan in plans.items()})
            for query_id, rankings in found
        )

    def rank_legs(
        self,
        queries: Iterable[Query],
        depth: int,
        *,
        legs: Sequence[str],
        filter: str | None = None,
        observe: Callable[[Encoded], object] | None = None,
        language: str | None = None,
    ) -> Iterator[QueryRankings]:
        """Return the first `depth` hits of each leg for each query: what the modes are fused from.

        observe: is shown each batch of encoded queries.
        """
        check_top_k(depth)
        self._check_filter(filter)
        return self._rank_legs(iter(queries), depth, legs, filter, observe, language_code(language))

    def _rank_legs(
        self,
        stream: Iterator[Query],
        depth: int,
        legs: Sequence[str],
        filter: str | None,
        observe: Callable[[Encoded], object] | None,
        language: str | None,
    ) -> Iterator[QueryRankings]:
        unread = total = 0
        with self._view(filter) as view:
            while batch := list(islice(stream, QUERIES_PER_BATCH)):
                asked = self._batch_asked(batch, legs, view, language)
                encoded = asked[0].encoded
                unread, total = unread + _unread(encoded), total + len(batch)
                if observe is not None and encoded is not None:
                    observe(encoded)
                columns = {leg: view.run_batch(leg, asked, depth, self._pool) for leg in legs}
                for i, query in enumerate(batch):
                    yield QueryRankings(query.query_id, {leg: column[i] for leg, column in columns.items()})
        _say_unread(unread, total)

    def _batch_asked(
        self, batch: Sequence[Query], legs: Sequence[str], view: CommitView, language: str | None
    ) -> list[LegQuery]:
        """Return queries as the legs read them, encoded together. language: of all of them, where it is known."""
        encoded = self._encode([query.text for query in batch], legs, language)
        return [
            LegQuery(query.text, encoded, row, words_in(query.text, language, view.reader))
            for row, query in enumerate(batch)
        ]

    def time(self, text: str, depth: int, *, legs: Sequence[str]) -> dict[str, float]:
        """Return the milliseconds that the parts of one search take: "encoding", if needed, and each leg by itself."""
        started = perf_counter()
        encoded = self._encode([text], legs)
        found = {} if encoded is None else {"encoding": (perf_counter() - started) * 1000}
        with self._view() as view:
            for leg in legs:
                started = perf_counter()
                view.run(leg, LegQuery(text, encoded), depth)
                found[leg] = (perf_counter() - started) * 1000
        return found


def _unread(encoded: Encoded | None) -> int:
    return 0 if encoded is None or encoded.unread is None else int(encoded.unread.sum())


def _say_unread(unread: int, total: int) -> None:
    """Log which queries the legs that read the encoder's views are silent for."""
    if unread:
        what = "the query is" if total == 1 else f"{unread} of {total} queries are"
        log.warning("%s in a language or script that the encoder does not read: BM25 alone searches for it", what)
