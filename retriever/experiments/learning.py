"""A model of the lists of a pipeline, learnt from judgements, and what it is worth on queries not used to learn it."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever.eval.evaluator import evaluate_run
from retriever.eval.significance import Interval, bootstrap_interval, paired_differences
from retriever.experiments.tuning import FOLDS, MEASURE
from retriever.index.places import open_writer
from retriever.rank.learned import DEPTH, KEY, LIST_HITS, ListModel, Tree, features, find_model, query_marks
from retriever.rank.rescore import Rescore
from retriever.rank.stage import on_top
from retriever.ranking import separate_ties
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from retriever.eval.data.dataset import Dataset
    from retriever.rank.pipeline import Pipeline
    from retriever.search.retriever import Retriever
    from retriever.types import Ranking

__all__ = [
    "KINDS",
    "Judged",
    "Learning",
    "cross_validated",
    "fit",
    "judged_lists",
    "judged_query",
    "learn",
    "ndcg_values",
    "rescored",
    "single",
    "store_model",
    "warn_of_seen",
]

log = logging.getLogger(__name__)
KINDS = ("auto", "both", "lambdamart", "logistic")
MOST_RELEVANT, MOST_OTHERS = 20, 60
"""Of a query: pairs of so many relevant hits with so many others are learnt from."""
INNER_FOLDS = 4
REGULARISATION = 0.05
BOOSTING: dict[str, Any] = {
    "n_estimators": 60,
    "learning_rate": 0.06,
    "num_leaves": 7,
    "min_child_samples": 40,
    "subsample": 0.8,
    "subsample_freq": 1,
    "colsample_bytree": 0.7,
    "reg_lambda": 5,
    "n_jobs": 1,
    "verbose": -1,
    "deterministic": True,
    "force_col_wise": True,
}
"""Small trees and few of them: some hundred judged queries are all there is."""


class Judged(NamedTuple):
    """A query to learn from: its ranking and the lists that led to it, the features of its first hits, their grades."""

    query_id: str
    ranking: Ranking
    rows: NDArray[np.float64]
    grades: NDArray[np.int64]


class Learning(NamedTuple):
    """What learning found; every figure is a mean nDCG@10 over the judged queries.

    model: learnt from all queries. before: the value of hybrid search. pipeline: that of the pipeline without a model.
    cross_validated: with models that were learnt from the other folds. gain: cross_validated - before; interval: of the
    gain, at 95 %.
    """

    model: ListModel
    queries: int
    before: float
    pipeline: float
    cross_validated: float
    gain: float
    interval: Interval


def judged_lists(retriever: Retriever, data: Dataset, pipeline: Pipeline) -> tuple[tuple[str, ...], list[Judged]]:
    """Return the names of the lists that the pipeline gives, and what they say of each judged query's first hits."""
    names: tuple[str, ...] = ()
    found = []
    asked = [query for query in data.queries if data.qrels.get(query.query_id)]
    for query_id, ranking, _, lists in retriever.rank_pipeline(
        asked, LIST_HITS, pipeline=pipeline, exclude_self=data.exclude_self
    ):
        names = tuple(lists)
        found.append(judged_query(data, query_id, ranking, lists))
    return names, found


def judged_query(
    data: Dataset, query_id: str, ranking: Ranking, lists: Mapping[str, Ranking], depth: int = DEPTH
) -> Judged:
    """Return what the lists of a query say of the first `depth` hits of its ranking, and their grades."""
    ids = [hit.doc_id for hit in ranking[:depth]]
    grades = np.array([max(data.qrels[query_id].get(doc_id, 0), 0) for doc_id in ids], np.int64)
    return Judged(query_id, ranking, features(lists, tuple(lists), ids), grades)


def learn(retriever: Retriever, data: Dataset, pipeline: Pipeline, *, kind: str = "auto", seed: int = 0) -> Learning:
    """Learn a model of a pipeline's lists, and cross-validate it in 5 folds drawn by `seed`.

    kind: "logistic" weighs features by logistic regression on pairs of a relevant hit and another; "lambdamart" grows
    trees with LightGBM; "both" adds the two; "auto" takes the best of the three within the queries to learn from.

    Raises:
        UserError: less than 5 judged queries, none with a relevant hit, an unknown kind, or LightGBM is not installed.
    """
    if kind not in KINDS:
        raise UserError(f"model {kind!r} is unknown; choose one of {', '.join(KINDS)}")
    names, judged = judged_lists(retriever, data, pipeline)
    learnt = cross_validated(data, judged, names, pipeline, kind=kind, seed=seed)
    plain = ndcg_values(data, {one.query_id: one.ranking for one in judged})
    asked = [query for query in data.queries if query.query_id in learnt]
    hybrid = dict(retriever.rank(asked, LIST_HITS, mode=pipeline.mode))
    before = ndcg_values(data, hybrid)
    differences = paired_differences([learnt[name] for name in before], list(before.values()))
    return Learning(
        model=replace(_chosen(data, judged, names, pipeline, kind), seen=query_marks(asked)),
        queries=len(judged),
        before=float(np.mean(list(before.values()))),
        pipeline=float(np.mean(list(plain.values()))),
        cross_validated=float(np.mean(list(learnt.values()))),
        gain=float(differences.mean()),
        interval=bootstrap_interval(differences),
    )


def cross_validated(
    data: Dataset, judged: Sequence[Judged], names: tuple[str, ...], pipeline: Pipeline, *, kind: str, seed: int = 0
) -> dict[str, float]:
    """Return each query's nDCG@10, ranked by a model of a kind that was learnt from the other four fifths.

    Raises:
        UserError: as `learn`.
    """
    if len(judged) < FOLDS:
        raise UserError(f"found {len(judged)} judged queries, need {FOLDS} or more to cross-validate; judge more")
    fold = np.random.default_rng(seed).permutation(len(judged)) % FOLDS
    models = [
        _chosen(data, [one for one, own in zip(judged, fold, strict=True) if own != left_out], names, pipeline, kind)
        for left_out in range(FOLDS)
    ]
    return ndcg_values(data, {one.query_id: rescored(one, models[own]) for one, own in zip(judged, fold, strict=True)})


def _chosen(
    data: Dataset, judged: Sequence[Judged], names: tuple[str, ...], pipeline: Pipeline, kind: str
) -> ListModel:
    """Learn a model of a kind; for "auto", of the kind that is best on left out parts of these queries."""
    if kind != "auto":
        return fit(judged, names, str(pipeline), kind)
    fold = np.random.default_rng(1).permutation(len(judged)) % INNER_FOLDS
    runs: dict[str, dict[str, Ranking]] = {one: {} for one in KINDS[1:]}
    for left_out in range(INNER_FOLDS):
        own = [one for one, place in zip(judged, fold, strict=True) if place != left_out]
        both = fit(own, names, str(pipeline), "both")
        models = {name: single(both, name) for name in KINDS[1:]}
        for one, place in zip(judged, fold, strict=True):
            if place == left_out:
                for name, model in models.items():
                    runs[name][one.query_id] = rescored(one, model)
    means = {name: np.mean(list(ndcg_values(data, run).values())) for name, run in runs.items()}
    return fit(judged, names, str(pipeline), max(means, key=lambda name: means[name]))


def rescored(one: Judged, model: ListModel) -> Ranking:
    """Return a query's ranking with its first hits by a model's scores."""
    ids = [hit.doc_id for hit in one.ranking[: len(one.rows)]]
    return on_top(dict(zip(ids, model.score(one.rows).tolist(), strict=True)), one.ranking)


def ndcg_values(data: Dataset, run: Mapping[str, Ranking]) -> dict[str, float]:
    """Return the nDCG@10 of each query of a run."""
    qrels = {query_id: grades for query_id, grades in data.qrels.items() if query_id in run}
    separated = {query_id: separate_ties(ranking) for query_id, ranking in run.items()}
    found = evaluate_run(separated, qrels, measures=[MEASURE]).per_query
    return {query_id: values[MEASURE] for query_id, values in found.items()}


def single(both: ListModel, kind: str) -> ListModel:
    """Return that part of a model of kind "both" that a model of a kind is."""
    without_trees, without_weights = kind == "logistic", kind == "lambdamart"
    return replace(both, trees=() if without_trees else both.trees, weights=() if without_weights else both.weights)


def fit(judged: Sequence[Judged], names: tuple[str, ...], pipeline: str, kind: str) -> ListModel:
    """Learn one model; queries without a relevant hit say nothing."""
    useful = [one for one in judged if 0 < np.count_nonzero(one.grades) < len(one.grades)]
    if not useful:
        raise UserError("no judged query has both a relevant hit and another among its first; judge more")
    weights = () if kind == "lambdamart" else _logistic(useful)
    trees = () if kind == "logistic" else _lambdamart(useful)
    return ListModel(pipeline, names, weights, trees)


def _logistic(judged: Sequence[Judged]) -> tuple[float, ...]:
    """Return the weights that put relevant hits above others, each query counting the same."""
    from sklearn.linear_model import LogisticRegression

    differences, shares = [], []
    for one in judged:
        relevant, others = np.flatnonzero(one.grades)[:MOST_RELEVANT], np.flatnonzero(one.grades == 0)[:MOST_OTHERS]
        pairs = (one.rows[relevant][:, None] - one.rows[others][None]).reshape(-1, one.rows.shape[1])
        differences.append(pairs)
        shares.append(np.full(len(pairs), 1 / len(pairs)))
    rows, share = np.concatenate(differences), np.concatenate(shares)
    signs = np.where(np.arange(len(rows)) % 2, 1, -1)  # both classes, as the regression needs
    model: Any = LogisticRegression(C=REGULARISATION, fit_intercept=False, max_iter=500)
    model.fit(rows * signs[:, None], signs, sample_weight=share * len(share) / share.sum())
    return tuple(model.coef_[0].tolist())


def _lambdamart(judged: Sequence[Judged]) -> tuple[Tree, ...]:
    try:
        from lightgbm import LGBMRanker
    except ImportError:
        raise UserError(
            "LightGBM is not installed; install it with `pip install 'hybrid-retriever[rerank]'`, or choose logistic"
        ) from None
    grades = np.concatenate([one.grades for one in judged])
    _, levels = np.unique(grades, return_inverse=True)  # grades may have gaps
    ranker: Any = LGBMRanker(**BOOSTING, random_state=0, label_gain=list(range(int(levels.max()) + 1)))
    ranker.fit(np.concatenate([one.rows for one in judged]), levels, group=[len(one.grades) for one in judged])
    return tuple(_tree(info["tree_structure"]) for info in ranker.booster_.dump_model()["tree_info"])


def _tree(structure: Mapping[str, Any]) -> Tree:
    """Return LightGBM's tree; nodes are numbered from the root."""
    inner: list[list[float]] = []
    leaves: list[float] = []

    def add(node: Mapping[str, Any]) -> int:
        if "leaf_value" in node:
            leaves.append(node["leaf_value"])
            return ~(len(leaves) - 1)
        number = len(inner)
        inner.append([node["split_feature"], node["threshold"], 0, 0])
        inner[number][2:] = [add(node["left_child"]), add(node["right_child"])]
        return number

    add(structure)
    features_, thresholds, left, right = zip(*inner, strict=True) if inner else ((), (), (), ())
    return Tree(tuple(map(int, features_)), thresholds, tuple(map(int, left)), tuple(map(int, right)), tuple(leaves))


def warn_of_seen(retriever: Retriever, data: Dataset, pipeline: Pipeline) -> None:
    """Log a warning where a model of the pipeline was learnt from queries that it is measured on."""
    for stage in pipeline.stages:
        if isinstance(stage, Rescore):
            model = stage.model or find_model(retriever.reader.commit_data.note)
            marks = query_marks(data.queries)
            seen = len(set(marks) & set(() if model is None else model.seen))
            if seen:
                log.warning(
                    "rescore was learnt from %d of these %d queries, so that its figures flatter it; `retriever tune` "
                    "with the same pipeline cross-validates",
                    seen,
                    len(marks),
                )


def store_model(folder: str | Path, model: ListModel) -> None:
    """Store a model in an index: the stage `rescore` reads it from there.

    Raises:
        UserError: the index is open in another writer, or cannot be opened.
    """
    with open_writer(folder) as writer:
        writer.commit({**writer.committed.note, KEY: model.to_json()})
