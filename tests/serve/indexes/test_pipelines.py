"""Pipelines over HTTP: the library's hits with their stages, and nothing that strangers should not choose."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from starlette.testclient import TestClient

from retriever.rank import Pipeline
from retriever.rank.scorers import registered_scorer
from retriever.search.retriever import Retriever
from retriever.serve.app import create_app
from retriever.serve.indexes.pipelines import Pipelines, named_pipelines
from retriever.serve.settings import Limits, ServeSettings
from retriever.types import Query, UserError
from retriever.wire import hit_from_wire, ranking_from_wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from retriever.types import Hit

URL = "/indexes/tiny/search"
SHORT = "hybrid > rerank(shortest-of-page, depth=5)"


@pytest.fixture(scope="module")
def named(served_folder: Path) -> Iterator[TestClient]:
    settings = ServeSettings({"tiny": served_folder}, pipelines={"short": SHORT}, limits=Limits(top_k=50, reads=100))
    with (
        registered_scorer("shortest-of-page", lambda query, texts: [-len(text) for text in texts]),
        TestClient(create_app(settings), base_url="http://127.0.0.1") as client,
    ):
        yield client


def timeless(hits: list[Hit]) -> list[Hit]:
    return [hit._replace(stages=tuple(stage._replace(milliseconds=0.0) for stage in hit.stages)) for hit in hits]


@pytest.mark.parametrize("asked", ["short", "hybrid > feedback > mmr(0.7)", "bm25 > feedback(rm3)", "feedback"])
def test_hits_and_stages_are_those_of_the_library(named: TestClient, served_folder: Path, asked: str) -> None:
    pipeline = Pipeline.parse(SHORT if asked == "short" else asked)
    question: dict[str, Any] = {"query": "how bread rises", "pipeline": asked, "explain": True, "top_k": 5}
    with Retriever.open(served_folder) as library:
        expected = timeless(library.search("how bread rises", 5, pipeline=pipeline, explain=True))
    for answer in (named.post(URL, json=question), named.get(URL, params=question)):
        hits = [hit_from_wire(hit) for hit in answer.json()["hits"]]
        assert timeless(hits) == expected
        assert [stage.stage for stage in hits[0].stages] == [stage.name for stage in pipeline.stages]
        assert all(stage.milliseconds > 0 for hit in hits for stage in hit.stages)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("bm25 > rerank(cross-encoder:/etc/passwd)", "rerank: which models are loaded is for the server to say"),
        ("bm25 > duo(shortest-of-page)", "duo: which models are loaded"),
        ("bm25 > rerank(antigravity:fly)", "rerank: which models are loaded"),
        ("bm25 > expand(antigravity:fly)", "expand: which models are loaded"),
        ("short > mmr", "'short'"),
        ("bm25 > mmr(depth=101)", "pipeline: the depth of a stage: found 101; this server allows at most 100"),
        ("bm25 > nothing", "no stage is called 'nothing'"),
        ("bm25 > mmr(" + "7" * 20_000 + ")", "pipeline: found 20012 characters"),
        ("hybrid > late-interaction", "tiny: has no token vectors"),
        ("", "nothing is there"),
    ],
    ids=lambda value: value[:30],
)
def test_what_is_refused(named: TestClient, asked: str, said: str) -> None:
    answer = named.post(URL, json={"query": "bread", "pipeline": asked})
    assert answer.status_code == 400
    assert said in answer.json()["detail"]
    assert "antigravity" not in sys.modules, "no request has anything imported"


def test_a_batch_behind_a_pipeline(named: TestClient, served_folder: Path) -> None:
    queries = [Query("d01", "how bread rises"), Query("q2", "")]
    asked: dict[str, Any] = {"queries": [query._asdict() for query in queries], "top_k": 3, "pipeline": "short"}
    with Retriever.open(served_folder) as library:
        expected = list(library.rank_pipeline(queries, 3, pipeline=Pipeline.parse(SHORT), exclude_self=True))
    results = named.post(f"{URL}/batch", json={**asked, "exclude_self": True}).json()["results"]
    for result, one in zip(results, expected, strict=True):
        assert {name: ranking_from_wire(hits) for name, hits in result["rankings"].items()} == {"short": one.ranking}
        assert len(result["milliseconds"]) == len(one.milliseconds) and result["lists"] == {}


@pytest.mark.parametrize(
    ("also", "said"),
    [
        ({"pipeline": "bm25", "modes": ["bm25"]}, "modes or fusion beside a pipeline, whose mode is bm25"),
        ({"pipeline": "bm25", "fusion": {}}, "modes or fusion beside a pipeline"),
        ({"lists": True}, "lists and exclude_self go with a pipeline"),
        ({"pipeline": "bm25 > rerank(antigravity:fly)"}, "rerank: which models are loaded is for the server to say"),
        ({"pipeline": "hybrid > mmr", "lists": True, "top_k": 2000}, "queries x lists x their depth: found 2500000"),
    ],
    ids=str,
)
def test_batches_that_are_refused(named: TestClient, also: dict[str, Any], said: str) -> None:
    queries = [{"query_id": str(n), "text": "bread"} for n in range(50)]
    answer = named.post(f"{URL}/batch", json={"queries": queries, **also})
    assert answer.status_code == 400 and said in answer.json()["detail"]


def test_an_index_says_what_may_be_asked(named: TestClient) -> None:
    offered = named.get("/indexes/tiny").json()["pipelines"]
    assert offered == ["short", "hybrid > feedback"]
    for line in offered:
        assert named.get(URL, params={"query": "bread", "pipeline": line}).status_code == 200


def test_names_and_files(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("mode: bm25\nstages:\n  - mmr: {balance: 0.5}\n")
    assert named_pipelines([f"a={file}", "b=hybrid > mmr(depth=5)"]) == {
        "a": "bm25 > mmr(0.5)",
        "b": "hybrid > mmr(depth=5)",
    }
    for given in (["hybrid > mmr(depth=5)"], ["a=bm25", "a=dense"], ["mmr=bm25 > mmr"], ["hybrid=bm25"], ["a=bm25 >"]):
        with pytest.raises(UserError, match="pipeline"):
            named_pipelines(given)
    with pytest.raises(UserError, match="nothing"):
        Pipelines({"a": "bm25 > nothing"})
