"""Fusing run files, facets, and the options of `search` that say what is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever import Retriever, snippet
from retriever.cli.main import cli
from retriever.eval.data.runs import read_run, write_run
from retriever.ranking import order
from retriever.search.fusion.fusion import METHODS, NORMALISATIONS, FusionConfig
from retriever.search.fusion.fusion import fuse as fuse_legs
from retriever.search.fusion.runs import RUN_FUSIONS, fuse_runs
from retriever.types import Run
from retriever.wire import hit_from_wire

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
TINY = Path(__file__).parents[2] / "data" / "tiny"
QUERY = "how do water, bacteria and cells keep the body warm in a year"
runs = st.dictionaries(
    st.sampled_from(["q1", "q2", "q3"]),
    st.dictionaries(st.sampled_from("abcdefg"), st.floats(-10, 10).map(lambda score: round(score, 3)), min_size=1).map(
        lambda scores: order(scores.items())
    ),
)


def call(*args: object, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, [str(arg) for arg in args])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "index"
    call("index", TINY, "--index", path, "--encoder", "none", "--quiet")
    return path


def test_runs_are_fused_by_every_method() -> None:
    assert set(RUN_FUSIONS) == set(METHODS)


@settings(max_examples=60, deadline=None)
@given(
    one=runs,
    other=runs,
    weights=st.tuples(*[st.sampled_from([0.2, 0.5, 1.0])] * 2),
    method=st.sampled_from(sorted(METHODS)),
    normalisation=st.sampled_from(sorted(NORMALISATIONS)),
    missing=st.sampled_from(["zero", "min"]),
    top_k=st.sampled_from([None, 2]),
)
def test_each_query_is_fused_as_legs_are(
    one: Run,
    other: Run,
    weights: tuple[float, float],
    method: str,
    normalisation: str,
    missing: str,
    top_k: int | None,
) -> None:
    asked = {"normalisation": normalisation, "missing": missing}
    chosen = {name: asked[name] for name in RUN_FUSIONS[method][1] if name in asked}
    fused = fuse_runs([one, other], weights, method=method, top_k=top_k, settings=chosen)
    config = FusionConfig(method, dict(zip(("bm25", "dense"), weights, strict=True)), normalisation, missing)
    assert set(fused) == set(one) | set(other)
    for query_id, ranking in fused.items():
        legs = {"bm25": one.get(query_id, []), "dense": other.get(query_id, [])}
        assert ranking == fuse_legs(legs, config).ranking[:top_k]


def test_fuse_writes_a_run(tmp_path: Path) -> None:
    first: Run = {"q1": order([("a", 3.0), ("b", 1.0)]), "q2": order([("c", 1.0)])}
    second: Run = {"q1": order([("b", 0.9), ("c", 0.1)])}
    write_run(tmp_path / "first.trec", first)
    write_run(tmp_path / "second.jsonl", second)
    paths = tmp_path / "first.trec", tmp_path / "second.jsonl"
    call("fuse", *paths, "-o", tmp_path / "fused.trec", "--weights", "0.25,0.75", "--tag", "both")
    assert {query: dict(hits) for query, hits in read_run(tmp_path / "fused.trec").items()} == {
        "q1": {"b": 0.75, "a": 0.25, "c": 0.0},
        "q2": {"c": 0.25},
    }
    assert (tmp_path / "fused.trec").read_text().splitlines()[0] == "q1 Q0 b 1 0.75 both"
    call("fuse", *paths, "-o", tmp_path / "rrf.jsonl", "--fusion", "rrf", "--k", 1, "--rank-base", 0, "--top-k", 1)
    assert read_run(tmp_path / "rrf.jsonl")["q1"] == order([("b", 1 / 2 + 1)])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["R", "-o", "O"], "found 1 run, need two or more"),
        (["R", "R", "-o", "O", "--weights", "1"], "found 1 weights for 2 runs; give one for each"),
        (["R", "R", "-o", "O", "--weights", "a=1,b=2"], "write one for each run, as in 0.3,0.7"),
        (["R", "R", "-o", "O", "--fusion", "rrf", "--missing", "min"], "rrf does not read missing, only k and rank"),
        (["R", "R", "-o", "O", "--weights", "0,0"], "need one above 0"),
    ],
)
def test_runs_that_cannot_be_fused(args: list[str], said: str, tmp_path: Path) -> None:
    write_run(tmp_path / "R", {"q1": order([("a", 3.0)])})
    result = call("fuse", *(tmp_path / arg if arg in "RO" else arg for arg in args), code=1)
    assert said in result.stderr and result.stderr.count("\n") == 1


def test_facets(folder: Path) -> None:
    documents = [json.loads(line) for line in (TINY / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]
    topics = [document["topic"] for document in documents if "topic" in document]
    listed = [json.loads(line) for line in call("facets", folder, "--json").stdout.splitlines()]
    assert {"field": "topic", "kinds": ["text"], "documents": len(topics)} in listed
    counted = [json.loads(line) for line in call("facets", folder, "topic", "--json", "-k", 99).stdout.splitlines()]
    assert {facet["value"]: facet["documents"] for facet in counted} == {t: topics.count(t) for t in topics}
    assert call("facets", folder, "topic").stdout.splitlines()[0].split()[0] == str(counted[0]["documents"])
    few = call("facets", folder, "topic", "--query", "bread", "--mode", "bm25", "--filter", "year > 2000", "--json")
    hits = call("search", folder, "bread", "--mode", "bm25", "--filter", "year > 2000", "--json", "-k", 99)
    found = [json.loads(line)["metadata"]["topic"] for line in hits.stdout.splitlines()]
    assert sum(json.loads(line)["documents"] for line in few.stdout.splitlines()) == len(found)
    assert "no field 'tpoic'; its fields are" in call("facets", folder, "tpoic", code=1).stderr
    call("facets", folder, "--query", "bread", code=2)


def test_search_shows_what_was_asked_for(folder: Path) -> None:
    with Retriever.open(folder) as retriever:
        whole = retriever.search(QUERY, 6, mode="bm25", highlight=True)
        like = retriever.more_like_this("d01", 3, mode="bm25")
    asked = (
        "search",
        folder,
        QUERY,
        "--mode",
        "bm25",
        "--json",
    )
    hits = [json.loads(line) for line in call(*asked, "-k", 2, "--offset", 2, "--highlight").stdout.splitlines()]
    assert [hit_from_wire(hit) for hit in hits] == whole[2:4]
    for hit, expected in zip(hits, whole[2:4], strict=True):
        shown = snippet(expected)
        spans = [span._asdict() for span in shown.highlights]
        assert hit["snippet"] == shown._asdict() | {"highlights": spans}
    assert len(hits) == 2
    found = call(*asked, "--min-score", whole[1].score, "--fields", "year").stdout.splitlines()
    few = [json.loads(line) for line in found]
    assert [hit["doc_id"] for hit in few] == [hit.doc_id for hit in whole if hit.score >= whole[1].score]
    assert all(set(hit["metadata"]) <= {"year"} and "snippet" not in hit for hit in few)
    assert all(json.loads(line)["metadata"] == {} for line in call(*asked, "--fields", "").stdout.splitlines())
    found = call("search", folder, "--like", "d01", "--mode", "bm25", "-k", 3, "--json").stdout.splitlines()
    assert [hit_from_wire(json.loads(line)) for line in found] == like
    assert "document 'd99' is not in the index" in call("search", folder, "--like", "d99", code=1).stderr
    for wrong in (["bread", "--like", "d01"], ["--queries", TINY / "queries.jsonl", "-o", "r.trec", "--offset", 3]):
        call("search", folder, *wrong, code=2)
