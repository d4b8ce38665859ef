"""Pipelines on judged queries, such that nothing that ranks a query has learnt from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from retriever.experiments.learning import KINDS, fit, judged_query, ndcg_values, rescored, single
from retriever.experiments.tuning import DEPTH, FOLDS
from retriever.rank.learned import LIST_HITS
from retriever.rank.pipeline import Alternatives, Pipeline
from retriever.rank.rescore import Rescore
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from retriever.eval.data.dataset import Dataset
    from retriever.experiments.learning import Judged
    from retriever.rank.learned import ListModel
    from retriever.search.retriever import Retriever
    from retriever.types import Ranking

    Values = NDArray[np.float64]

__all__ = ["Candidate", "candidates_on", "chosen_by_others", "held_out", "highest", "split_model"]

MOST_LEARNT = 40
"""Pipelines with a model at once: it is learnt from each part of the judgements anew."""


class Candidate(Protocol):
    """A pipeline to choose, with a kind of model if it learns one."""

    @property
    def name(self) -> str:
        """Return the line, and the kind of model."""
        ...

    @property
    def pipeline(self) -> Pipeline:
        """Return the pipeline as it was given."""
        ...

    def without(self, *folds: int) -> Values:
        """Return the values (queries,) of those in the folds, by a model that has seen none of them; others are 0."""
        ...

    def model(self) -> ListModel | None:
        """Return what all queries teach."""
        ...


def candidates_on(
    retriever: Retriever, data: Dataset, pipelines: Sequence[Pipeline], kind: str, fold: NDArray[np.int64]
) -> list[Candidate]:
    """Run pipelines of one mode; one that ends in `rescore` gives a candidate for each kind of model that "auto" means.

    fold: of each judged query, in the order of the data set.

    Raises:
        UserError: several modes, `rescore` before other stages, more than 40 that end in it, or an unknown kind.
    """
    if kind not in KINDS:
        raise UserError(f"model {kind!r} is unknown; choose one of {', '.join(KINDS)}")
    parts = [split_model(pipeline) for pipeline in pipelines]
    if (learnt := sum(model is not None for _, model in parts)) > MOST_LEARNT:
        raise UserError(f"found {learnt} pipelines with rescore, at most {MOST_LEARNT} are compared; try fewer")
    runs: list[dict[str, Ranking]] = [{} for _ in pipelines]
    judged: list[list[Judged]] = [[] for _ in pipelines]
    names: dict[int, tuple[str, ...]] = {}
    depth = LIST_HITS if learnt else DEPTH
    together = Alternatives(tuple(before for before, _ in parts))
    asked = [query for query in data.queries if data.qrels.get(query.query_id)]
    for query_id, _, _, lists in retriever.rank_pipeline(
        asked, depth, pipeline=together, exclude_self=data.exclude_self
    ):
        for place, (_, model) in enumerate(parts):
            ranking = lists[str(place)][:depth]
            if model is None:
                runs[place][query_id] = ranking
            else:
                own = _of(place, lists)
                names[place] = tuple(own)
                judged[place].append(judged_query(data, query_id, ranking, own, model.depth))
    found: list[Candidate] = []
    for place, (pipeline, (before, model)) in enumerate(zip(pipelines, parts, strict=True)):
        if model is None:
            values = ndcg_values(data, runs[place])
            found.append(_Plain(str(pipeline), pipeline, np.array([values[query.query_id] for query in asked])))
        else:
            kinds = KINDS[1:] if kind == "auto" else (kind,)
            shared = _Judgements(
                data, str(before), judged[place], names[place], "both" if len(kinds) > 1 else kind, fold
            )
            found += [_Learnt(f"{pipeline} ({one})", pipeline, shared, one) for one in kinds]
    return found


def split_model(pipeline: Pipeline) -> tuple[Pipeline, Rescore | None]:
    """Return what comes before a last stage `rescore` that has to learn its model, and that stage.

    Raises:
        UserError: other stages follow it.
    """
    places = [n for n, stage in enumerate(pipeline.stages) if isinstance(stage, Rescore) and stage.model is None]
    if not places:
        return pipeline, None
    if places != [len(pipeline.stages) - 1]:
        raise UserError(f"{str(pipeline)!r}: rescore has to be the last stage, to be learnt and compared; move it")
    last = pipeline.stages[-1]
    assert isinstance(last, Rescore)
    return Pipeline(pipeline.mode, pipeline.stages[:-1]), last


def held_out(candidate: Candidate, fold: NDArray[np.int64], also: int | None = None) -> Values:
    """Return each query's value by a model that has not seen its fold, nor a further one."""
    values = np.zeros(len(fold))
    for own in range(FOLDS):
        here = fold == own
        values[here] = candidate.without(own, own if also is None else also)[here]
    return values


def chosen_by_others(candidates: Sequence[Candidate], fold: NDArray[np.int64]) -> Values:
    """Return each query's value by the candidate that is best on the other folds, as models find that have not seen it.

    The choice is nested: for it, too, each query is ranked by models that have not seen its own fold.
    """
    if len(candidates) == 1:
        return held_out(candidates[0], fold)
    values = np.zeros(len(fold))
    for own in range(FOLDS):
        known = np.array([held_out(candidate, fold, own) for candidate in candidates]).T
        here = fold == own
        values[here] = candidates[highest(known[~here])].without(own)[here]
    return values


def highest(values: Values) -> int:
    """Return the column with the highest mean, the first among equals."""
    return int(np.argmax(np.round(values.mean(axis=0), 12)))


@dataclass(frozen=True)
class _Plain:
    """A pipeline that learns nothing."""

    name: str
    pipeline: Pipeline
    values: Values

    def without(self, *folds: int) -> Values:
        return self.values

    def model(self) -> None:
        return None


@dataclass(frozen=True)
class _Learnt:
    """A pipeline that ends in a model of one kind; those of other kinds share what is learnt."""

    name: str
    pipeline: Pipeline
    shared: _Judgements
    kind: str
    known: dict[frozenset[int], Values] = field(default_factory=dict)

    def without(self, *folds: int) -> Values:
        left_out = frozenset(folds)
        if left_out not in self.known:
            self.known[left_out] = self.shared.values(left_out, self.kind)
        return self.known[left_out]

    def model(self) -> ListModel:
        return self.shared.model(frozenset(), self.kind)


@dataclass(frozen=True)
class _Judgements:
    """What the lists of a pipeline say of all judged queries, and the models that parts of them teach.

    pipeline: the line without the model. learns: the kind that is learnt, of which others are parts.
    """

    data: Dataset
    pipeline: str
    judged: Sequence[Judged]
    names: tuple[str, ...]
    learns: str
    fold: NDArray[np.int64]
    models: dict[frozenset[int], ListModel] = field(default_factory=dict)

    def model(self, left_out: frozenset[int], kind: str) -> ListModel:
        if left_out not in self.models:
            seen = [one for one, fold in zip(self.judged, self.fold, strict=True) if fold not in left_out]
            self.models[left_out] = fit(seen, self.names, self.pipeline, self.learns)
        return single(self.models[left_out], kind)

    def values(self, left_out: frozenset[int], kind: str) -> Values:
        model = self.model(left_out, kind)
        held = [one for one, fold in zip(self.judged, self.fold, strict=True) if fold in left_out]
        found = ndcg_values(self.data, {one.query_id: rescored(one, model) for one in held})
        return np.array([found.get(one.query_id, 0.0) for one in self.judged])


def _of(place: int, lists: Mapping[str, Ranking]) -> dict[str, Ranking]:
    """Return the lists that led to the ranking of one of several pipelines."""
    start = f"{place}/"
    return {name.removeprefix(start): ranking for name, ranking in lists.items() if name.startswith(start)}
