"""The learned model against scikit-learn's and LightGBM's own scores, and what it does in a search."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from retriever.cli.main import cli
from retriever.eval.data.dataset import Dataset
from retriever.experiments.experiment import ExperimentConfig, evaluate
from retriever.experiments.learning import (
    KINDS,
    _lambdamart,
    fit,
    judged_lists,
    learn,
    ndcg_values,
    rescored,
    store_model,
)
from retriever.experiments.pipeline_tuning import candidates, cross_fitted, tune_pipeline
from retriever.indexing.build import build_index
from retriever.rank import Feedback, Mmr, Pipeline, Rescore
from retriever.rank.learned import ListModel, features
from retriever.search.retriever import Retriever
from retriever.testing import SeededEncoder
from retriever.types import Document, Query, ScoredDoc, UserError

pytestmark = pytest.mark.filterwarnings("ignore")
LINE = "bm25+dense+sparse > feedback"


@pytest.fixture(scope="module")
def data(documents: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Judge for each query the text that it begins, and those that share its first word, less: BM25 knows best."""
    folder = tmp_path_factory.mktemp("judged")
    texts = list(documents.items())
    lines = [json.dumps({"_id": doc_id, "text": text}) for doc_id, text in texts]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    queries = {f"q{n}": " ".join(text.split()[:3]) for n, (_, text) in enumerate(texts[:60])}
    (folder / "queries.jsonl").write_text("\n".join(json.dumps({"_id": i, "text": t}) for i, t in queries.items()))
    rows = ["query-id\tcorpus-id\tscore"]
    for query_id, text in queries.items():
        rows += [
            f"{query_id}\t{doc_id}\t{2 if other.startswith(text) else 1}"
            for doc_id, other in texts
            if text.split()[2] in other.split()[:6]
        ]
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("\n".join(rows))
    from retriever.eval.data.datasets import load_dataset

    return load_dataset(folder)


@given(st.lists(st.floats(0, 5), min_size=1, max_size=8), st.lists(st.sampled_from("abcdefghij"), unique=True))
def test_features_are_score_and_rank(scores: list[float], ids: list[str]) -> None:
    ranking = [ScoredDoc(name, score) for name, score in zip("abcdefgh", sorted(scores, reverse=True), strict=False)]
    found = features({"one": ranking, "none": []}, ["one", "none"], ids)
    assert found.shape == (len(ids), 4) and not found[:, 2:].any()
    places = {hit.doc_id: place for place, hit in enumerate(ranking)}
    low, high = ranking[-1].score, ranking[0].score
    for row, doc_id in zip(found, ids, strict=True):
        if doc_id in places:
            score = ranking[places[doc_id]].score
            assert row[0] == (pytest.approx((score - low) / (high - low)) if high > low else 1.0)
            assert row[1] == pytest.approx(6 / (6 + places[doc_id]))
        else:
            assert not row.any()


def test_trees_are_lightgbms(retriever: Retriever, data: Dataset) -> None:
    from lightgbm import LGBMRanker

    from retriever.experiments.learning import BOOSTING

    names, judged = judged_lists(retriever, data, Pipeline.parse(LINE))
    assert names == ("bm25", "sparse", "dense", "fusion", "feedback.sparse", "feedback.dense", "feedback")
    trees = _lambdamart(judged)
    grades = np.concatenate([one.grades for one in judged])
    ranker = LGBMRanker(**BOOSTING, random_state=0, label_gain=list(range(int(grades.max()) + 1)))
    ranker.fit(np.concatenate([one.rows for one in judged]), grades, group=[len(one.grades) for one in judged])
    rows = np.random.default_rng(2).random((200, 2 * len(names)))
    own = ListModel(LINE, names, trees=trees).score(rows)
    assert own == pytest.approx(np.asarray(ranker.predict(rows)), abs=1e-9)
    assert len(set(own.round(6))) > 20


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_which_list_is_right(
    kind: str, retriever: Retriever, data: Dataset, documents: dict[str, str]
) -> None:
    found = learn(retriever, data, Pipeline.parse(LINE), kind=kind)
    assert found.queries == 60 and found.cross_validated > found.before + 0.05
    assert found.gain == pytest.approx(found.cross_validated - found.before, abs=1e-9)
    assert found.interval.low < found.gain < found.interval.high
    assert ListModel.from_json(found.model.to_json()) == found.model
    if kind != "auto":
        assert bool(found.model.weights) == (kind != "lambdamart") and bool(found.model.trees) == (kind != "logistic")


def test_the_stored_model_is_used(data: Dataset, documents: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "index"
    build_index([Document(*pair) for pair in documents.items()], folder, encoder=SeededEncoder())
    query, pipeline = data.queries[3].text, Pipeline.parse(f"{LINE} > rescore(depth=50)")
    with Retriever.open(folder, SeededEncoder()) as retriever:
        with pytest.raises(UserError, match="no learned model"):
            retriever.search(query, pipeline=pipeline)
        model = learn(retriever, data, Pipeline.parse(LINE), kind="logistic").model
        [given_] = retriever.rank_pipeline(
            [Query("q", query)], 60, pipeline=Pipeline("bm25+dense+sparse", (Feedback(), Rescore(50, model)))
        )
        [plain] = retriever.rank_pipeline([Query("q", query)], 60, pipeline=Pipeline.parse(LINE))
    ids = [hit.doc_id for hit in plain.ranking[:50]]
    scores = dict(zip(ids, model.score(features(plain.lists, model.lists, ids)).tolist(), strict=True))
    assert {hit.doc_id: hit.score for hit in given_.ranking[:50]} == pytest.approx(scores)
    assert [hit.doc_id for hit in given_.ranking[50:]] == [hit.doc_id for hit in plain.ranking[50:60]]
    store_model(folder, model)
    with Retriever.open(folder, SeededEncoder()) as retriever:
        hits = retriever.search(query, 60, pipeline=pipeline)
        assert [hit.doc_id for hit in hits] == [hit.doc_id for hit in given_.ranking]
        assert hits[0].stages[-1].stage == "rescore"
        with pytest.raises(
            UserError, match=r"the model reads feedback.sparse, there are bm25, .* 'bm25\+dense\+sparse > f"
        ):
            retriever.search(query, pipeline=Pipeline.parse("rescore"))


def test_nothing_that_ranks_a_query_has_seen_it(retriever: Retriever, data: Dataset) -> None:
    """Against a loop: the choice between two pipelines is nested in the folds, the learning within the choice."""
    line = "bm25+dense+sparse > feedback(weight=0.5|8, keep=2)"
    plain, asked = candidates(line), candidates(f"{line} > rescore")
    data = data._replace(
        queries=data.queries[:25], qrels={one.query_id: data.qrels[one.query_id] for one in data.queries[:25]}
    )
    fold = np.random.default_rng(0).permutation(25) % 5
    lists = [judged_lists(retriever, data, pipeline) for pipeline in plain]

    @cache
    def values(place: int, *left_out: int) -> np.ndarray:
        names, judged = lists[place]
        model = fit([one for one, own in zip(judged, fold, strict=True) if own not in left_out], names, "", "logistic")
        return np.array(list(ndcg_values(data, {one.query_id: rescored(one, model) for one in judged}).values()))

    hybrid = np.array(list(ndcg_values(data, dict(retriever.rank(data.queries, 200))).values()))
    wanted, single = np.zeros(25), np.zeros((2, 25))
    for query, own in enumerate(fold.tolist()):
        single[:, query] = [values(place, own)[query] for place in (0, 1)]
        others = [other for other in range(25) if fold[other] != own]
        known = [np.mean([values(place, own, int(fold[other]))[other] for other in others]) for place in (0, 1)]
        known.insert(0, np.mean(hybrid[others]))
        best = int(np.argmax(np.round(known, 12)))
        wanted[query] = [hybrid[query], *single[:, query]][best]
    found = tune_pipeline(retriever, data, pipelines=asked, kind="logistic")
    assert found.cross_validated == pytest.approx(wanted.mean()) and found.before == pytest.approx(hybrid.mean())
    assert list(found.values.values()) == pytest.approx([hybrid.mean(), *single.mean(1)])
    assert found.fitted == max(found.values.values()) > found.before + 0.05
    assert found.model is not None and str(asked[single.mean(1).argmax()]) == found.pipeline
    assert f"{found.model.pipeline} > rescore" == found.pipeline
    fitted = cross_fitted(retriever, data, [*asked, Pipeline("bm25+dense+sparse", (Rescore(),))], kind="logistic")
    assert [list(one.values.values()) for one in fitted[:2]] == [pytest.approx(row.tolist()) for row in single]
    models = [stage.model for one in fitted for stage in one.pipeline.stages if isinstance(stage, Rescore)]
    assert [model and len(model.lists) for model in models] == [7, 7, 4]
    with pytest.raises(UserError, match="rescore has to be the last stage"):
        tune_pipeline(retriever, data, pipelines=[asked[0].then(Mmr())])
    with pytest.raises(UserError, match="found 41 pipelines with rescore, at most 40"):
        tune_pipeline(retriever, data, pipelines=[Pipeline("bm25", (Rescore(depth),)) for depth in range(1, 42)])


def test_too_few_judgements(retriever: Retriever, data: Dataset) -> None:
    with pytest.raises(UserError, match="found 4 judged queries, need 5"):
        learn(retriever, data._replace(qrels=dict(list(data.qrels.items())[:4])), Pipeline.parse(LINE))
    with pytest.raises(UserError, match="model 'svm' is unknown"):
        learn(retriever, data, Pipeline.parse(LINE), kind="svm")


def test_the_command_learns_and_stores(
    data: Dataset, tmp_path: Path, tiny_encoder_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "index"
    run = CliRunner().invoke
    made = run(cli, ["index", str(data.corpus), "--index", str(folder), "-e", str(tiny_encoder_folder), "-q"])
    assert made.exit_code == 0, made.output
    dataset = str(Path(data.corpus).parent)
    options = ["--dataset", dataset, "--split", "test", "--model", "logistic", "--write", "--json"]
    found = run(cli, ["tune", str(folder), *options])
    assert found.exit_code == 0, found.output
    values = json.loads(found.stdout)
    assert (
        values["queries"] == 60 and values["model"]["pipeline"] == "hybrid > feedback" and not values["model"]["trees"]
    )
    line = "hybrid > feedback > rescore"
    hits = run(cli, ["search", str(folder), data.queries[0].text, "--pipeline", line, "--explain", "-k", "3"])
    assert hits.exit_code == 0 and hits.stdout.count("rescore #") == 3, hits.output
    tuned = run(cli, ["tune", str(folder), *options, "--pipeline", "hybrid > feedback(documents=2|3) > rescore"])
    assert tuned.exit_code == 0, tuned.output
    chosen = json.loads(tuned.stdout)
    assert chosen["pipeline"] == f"{chosen['model']['pipeline']} > rescore" and len(chosen["values"]) == 3
    with Retriever.open(folder) as opened:
        config = ExperimentConfig(modes=("hybrid", chosen["pipeline"]), measures=("nDCG@10",))
        caplog.clear()
        evaluate(data, opened, config=config)
        assert "rescore was learnt from 60 of these 60 queries" in caplog.text
    refused = run(cli, ["tune", str(folder), *options[:4], "--pipeline", "hybrid > feedback", "--write"])
    assert refused.exit_code == 2 and "ends in rescore" in refused.output
    measure = ["bench", "rank", "--on", str(folder), dataset, "test", "--model", "logistic", "--timed", "2", "--json"]
    measured = run(cli, [*measure, "--pipeline", chosen["pipeline"]])
    assert measured.exit_code == 0, measured.output
    before, after = map(json.loads, measured.stdout.splitlines())
    # The stored model has seen these queries, so that others are learnt: the figure is that of cross-validation.
    assert after["mean"] == pytest.approx(chosen["values"][f"{chosen['pipeline']} (logistic)"])
    assert before["mean"] == pytest.approx(chosen["before"]) and before["whole_ms"] >= before["stage_ms"] > 0
    assert (
        after["difference"] == pytest.approx(after["mean"] - before["mean"]) and after["whole_ms"] > after["stage_ms"]
    )
