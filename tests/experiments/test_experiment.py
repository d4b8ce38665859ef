"""A data set through the whole system, measured as its run files measure."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from retriever.cli.main import cli
from retriever.encoder.load import load_encoder
from retriever.eval.data.datasets import load_dataset
from retriever.eval.data.runs import read_run
from retriever.eval.evaluator import evaluate_run
from retriever.eval.report.results import read_per_query, read_results
from retriever.eval.significance import holm, paired_differences, randomisation_test
from retriever.experiments.experiment import ExperimentConfig, evaluate, run_experiment
from retriever.indexing.build import build_index
from retriever.ranking import separate_ties
from retriever.search.fusion.fusion import FusionConfig, fuse
from retriever.search.retriever import Retriever
from retriever.types import Query, UserError
from tests.helpers.letters import MODES, TINY, Letters, evaluate_dataset

pytestmark = [
    pytest.mark.usefixtures("cache"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # importing torch and faiss
]


class TwoWays(Letters):
    """Has a second way of making sparse terms of queries, with weights of 1."""

    query_modes = ("encoder", "lexical")

    def with_query_mode(self, mode: str) -> TwoWays:
        other = TwoWays()
        other.query_mode = mode
        return other


def test_runs_measure_the_same(tmp_path: Path) -> None:
    measures = ("nDCG@10", "R@100", "AP")
    results = evaluate_dataset(TINY, Letters(), output=tmp_path / "runs", measures=measures, top_k=15)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        *(f"tiny-test-{mode}.trec" for mode in results),
        "results.json",
        "per-query.parquet",
    }
    for mode, result in results.items():
        path = tmp_path / "runs" / f"tiny-test-{mode}.trec"
        options = [option for measure in measures for option in ("-m", measure)]
        called = CliRunner().invoke(
            cli, ["evaluate", str(path), str(TINY / "qrels" / "test.tsv"), *options, "--json", "--per-query"]
        )
        *queries, mean = map(json.loads, called.stdout.splitlines())
        assert mean["mean"] == result.mean
        assert {line["query_id"]: {name: line[name] for name in measures} for line in queries} == result.per_query
        lines = [line.split() for line in path.read_text().splitlines()]
        assert all(line[5] == f"retriever-{mode}" and int(line[3]) <= 15 for line in lines)
        assert max(int(line[3]) for line in lines) == 15 or mode == "bm25"


def test_faults(tmp_path: Path) -> None:
    for modes in (["bm52"], ["bm25", "bm52"], []):
        with pytest.raises(UserError, match="hybrid, bm25, sparse, dense"):
            evaluate_dataset(TINY, Letters(), modes=modes)
    with pytest.raises(UserError, match="no sparse leg"):
        evaluate_dataset(TINY, load_encoder("none"), modes=["sparse"])
    with pytest.raises(UserError, match="no split"):
        evaluate_dataset(TINY, Letters(), split="train")
    encoder, folder = Letters(), tmp_path / "index"
    with pytest.raises(UserError, match="nDGC@10"):
        evaluate_dataset(TINY, encoder, folder=folder, measures=["nDGC@10"])
    assert encoder.texts == 0 and not folder.exists(), "refused before the work"
    evaluate_dataset(TINY, Letters("a"), folder=folder, modes=["bm25"])
    with pytest.raises(UserError, match="--encoder"):
        evaluate_dataset(TINY, Letters("b"), folder=folder, modes=["dense"])


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """Return a data set of another name, of which half of the documents and all queries are the tiny one's."""
    folder = tmp_path / "second"
    shutil.copytree(TINY, folder)
    lines = (folder / "corpus.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "corpus.jsonl").write_text("".join(lines[:12]), encoding="utf-8")
    return folder


def test_several_sets_and_encoders(second: Path, tmp_path: Path) -> None:
    encoders = [Letters("a"), load_encoder("none"), Letters("b")]
    encoders[2].identity = encoders[2].identity._replace(name="models/other")  # type: ignore[misc]
    found = run_experiment([TINY, second], encoders, config=ExperimentConfig(modes=MODES), output=tmp_path / "out")
    own = [f"{label}/{mode}" for label in ("letters", "other") for mode in MODES[1:]]
    assert found.results.system_names == ["bm25", *own], "BM25 once, with the index that holds nothing else"
    assert [list(systems) for systems in found.evaluations.values()] == [["bm25", *own]] * 2
    assert [index.encoder for index in found.results.datasets[0].indexes] == ["none", "letters", "other"]
    for dataset, data in zip(found.results.datasets, (TINY, second), strict=True):
        qrels = load_dataset(data).qrels
        for system in dataset.systems:
            run = read_run(tmp_path / "out" / f"{dataset.name}-test-{system.name.replace('/', '-')}.trec")
            assert evaluate_run(run, qrels).mean == system.mean == found.evaluations[dataset.name][system.name].mean
            assert system.precision == [
                evaluate_run(run, qrels, measures=[f"IPrec@{place / 10}"]).mean[f"IPrec@{place / 10}"]
                for place in range(11)
            ]
            legs = {"bm25"} if system.mode == "bm25" else {"encoding", *system.mode.split("+")}
            legs = {"encoding", "bm25", "sparse", "dense"} if system.mode == "hybrid" else legs
            fused = {"fusion"} if len(legs - {"encoding"}) > 1 else set()
            assert system.latency.keys() == {"total"} | legs | fused
            assert all(0 < part.p50 <= part.p95 <= part.p99 for part in system.latency.values())
    assert set(found.results.notes) >= {
        "none has no sparse leg: sparse, dense+sparse left out",
        "none has no dense leg: dense left out",
        "none: hybrid is left out, it would be bm25 again",
    }
    assert read_results(tmp_path / "out").system_names == found.results.system_names
    values = read_per_query(tmp_path / "out", "R@100")
    assert values["second"]["other/dense"] == {
        query_id: of_query["R@100"]
        for query_id, of_query in found.evaluations["second"]["other/dense"].per_query.items()
    }


def test_the_hybrid_of_no_encoder_does_not_pass_for_that_of_another() -> None:
    alone = evaluate_dataset(TINY, Letters(), modes=["hybrid", "dense"])
    bm25 = evaluate_dataset(TINY, load_encoder("none"), modes=["bm25"])["bm25"]
    config = ExperimentConfig(modes=("hybrid", "dense", "hybrid"))
    found = run_experiment([TINY], [load_encoder("none"), Letters()], config=config).evaluations["tiny"]
    assert found == {"none/hybrid": bm25, **alone} and alone["hybrid"] != bm25


def test_query_modes_differ_in_the_sparse_leg_alone() -> None:
    both = ExperimentConfig(modes=MODES, query_modes=("encoder", "lexical", "encoder"))
    found = run_experiment([TINY], [TwoWays()], config=both)
    assert found.results.system_names == [
        "bm25",
        "sparse@encoder",
        "sparse@lexical",
        "dense",
        "dense+sparse@encoder",
        "dense+sparse@lexical",
        "hybrid@encoder",
        "hybrid@lexical",
    ]
    one = run_experiment([TINY], [TwoWays()], config=ExperimentConfig(modes=("sparse",), query_modes=("lexical",)))
    assert one.evaluations["tiny"]["sparse"] == found.evaluations["tiny"]["sparse@lexical"]
    encoder, lexical = found.results.datasets[0].costs
    assert (encoder.query_mode, lexical.query_mode) == ("encoder", "lexical")
    assert encoder.flops == lexical.flops, "the same terms with other weights"
    found = run_experiment([TINY], [Letters()], config=both)
    assert found.results.notes == ["letters has no query mode lexical"]
    assert found.results.system_names[:2] == ["bm25", "sparse@encoder"]


def test_the_query_itself_is_dropped_before_the_fusion(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_dataset(TINY)
    renamed = data._replace(
        queries=[query._replace(query_id=f"d{n:02d}") for n, query in enumerate(data.queries, 1)],
        qrels={f"d{n:02d}": data.qrels[query.query_id] for n, query in enumerate(data.queries, 1)},
        exclude_self=True,
    )
    monkeypatch.setattr("retriever.experiments.experiment.load_dataset", lambda *_: renamed)
    found = run_experiment([TINY], [Letters()], config=ExperimentConfig(modes=MODES, top_k=5))
    assert found.results.datasets[0].exclude_self
    legs = ("bm25", "sparse", "dense")
    with Retriever.open(found.results.datasets[0].indexes[0].folder, Letters()) as retriever:
        run = {}
        for query in renamed.queries:
            alone = {leg: dict(retriever.rank([query], 1001, mode=leg))[query.query_id] for leg in legs}
            others = {leg: [hit for hit in hits if hit.doc_id != query.query_id] for leg, hits in alone.items()}
            run[query.query_id] = separate_ties(fuse(others).ranking[:5])
    assert found.evaluations["tiny"]["hybrid"] == evaluate_run(run, renamed.qrels)


def test_systems_are_compared_with_the_baseline() -> None:
    found = run_experiment([TINY], [Letters()], config=ExperimentConfig(modes=MODES, baseline="dense"))
    [dataset] = found.results.datasets
    assert dataset.baseline == "dense"
    values = found.evaluations["tiny"]
    for one in dataset.systems:
        assert one.differences.keys() == (set() if one.name == "dense" else {"nDCG@10", "R@100"})
        for measure, difference in one.differences.items():
            assert difference.difference == pytest.approx(one.mean[measure] - values["dense"].mean[measure])
            assert difference.wins + difference.ties + difference.losses == dataset.queries_judged
    others = [one for one in dataset.systems if one.name != "dense"]
    for measure in ("nDCG@10", "R@100"):
        before, *columns = (
            [of_query[measure] for of_query in values[name].per_query.values()]
            for name in ("dense", *(one.name for one in others))
        )
        alone = [randomisation_test(paired_differences(column, before)) for column in columns]
        corrected = [one.differences[measure].p for one in others]
        assert corrected == holm(alone), "over the systems of one measure"
    best = max(dataset.systems, key=lambda one: (one.name != "dense", one.mean["nDCG@10"]))
    assert values[dataset.examples_of].mean["nDCG@10"] == best.mean["nDCG@10"]
    for example in dataset.examples:
        after = values[dataset.examples_of].per_query[example.query_id]["nDCG@10"]
        assert (example.value, example.baseline_value) == (
            after,
            values["dense"].per_query[example.query_id]["nDCG@10"],
        )
        grades = load_dataset(TINY).qrels[example.query_id]
        assert [hit.grade for hit in example.hits] == [grades.get(hit.doc_id) for hit in example.hits]
        assert all(hit.title for hit in example.baseline_hits if hit.doc_id != "d20")
    found = run_experiment([TINY], [Letters()], config=ExperimentConfig(modes=("dense", "sparse"), baseline="bm25"))
    assert found.results.datasets[0].baseline == "dense"
    assert found.results.notes == ["tiny: there is no system bm25, so the baseline is dense"]


def test_experiments_that_cannot_be_made(second: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="several data sets or encoders"):
        run_experiment([TINY, second], [Letters()], folder=tmp_path / "index")
    copy = tmp_path / "copy" / "tiny"
    shutil.copytree(TINY, copy)
    with pytest.raises(UserError, match="second data set called tiny"):
        run_experiment([TINY, copy], [load_encoder("none")], config=ExperimentConfig(modes=("bm25",)))
    with pytest.raises(UserError, match="given twice"):
        run_experiment([TINY], [Letters(), Letters()])
    for setting in ({"modes": ("dense+dense",)}, {"query_modes": ("words",)}, {"top_k": 0}, {"measures": ("x",)}):
        with pytest.raises(UserError):
            ExperimentConfig(**setting)


def test_ids_with_spaces_are_written_as_json_lines(tmp_path: Path) -> None:
    folder = tmp_path / "spaces"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "a b", "text": "bread"}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "bread"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\ta b\t1\n")
    evaluate_dataset(folder, load_encoder("none"), modes=["bm25"], output=tmp_path / "out")
    assert read_run(tmp_path / "out" / "spaces-test-bm25.jsonl")["q"][0].doc_id == "a b"


def test_an_open_index_is_worth_what_its_encoder_is(tmp_path: Path) -> None:
    config = ExperimentConfig(modes=MODES, top_k=15, measures=("nDCG@10", "RR"))
    data = load_dataset(TINY)
    # A judged query that is a document, in a data set that leaves such a document out, before the legs are fused.
    asked = [Query("d01", "bread rises"), *data.queries]
    data = data._replace(queries=asked, qrels={**data.qrels, "d01": {"d02": 1}}, exclude_self=True)
    for dataset in (TINY, data):
        expected = evaluate(dataset, Letters(), config=config, folder=tmp_path / "index")
        with Retriever.open(tmp_path / "index", Letters()) as retriever:
            assert evaluate(dataset, retriever, config=config) == expected


def test_what_an_open_index_cannot_be_given(tmp_path: Path) -> None:
    build_index(TINY, tmp_path / "index", encoder="none")
    with Retriever.open(tmp_path / "index") as retriever:
        for settings, says in (
            ({"folder": tmp_path}, "folder"),
            ({"config": ExperimentConfig(query_modes=("lexical",))}, "query_modes"),
            ({"config": ExperimentConfig(fusion=FusionConfig())}, "Retriever.open"),
            ({"config": ExperimentConfig(modes=("dense",))}, "no dense leg"),
        ):
            with pytest.raises(UserError, match=says):
                evaluate(TINY, retriever, **settings)
