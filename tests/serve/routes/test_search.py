"""A search over HTTP gives what the library gives."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from starlette.testclient import TestClient

from retriever.rank.scorers import registered_scorer
from retriever.search.fusion.fusion import FusionConfig
from retriever.search.retriever import Retriever
from retriever.serve.app import create_app
from retriever.serve.settings import Limits, ServeSettings
from retriever.types import FacetCount, Query, UserError
from retriever.wire import encoded_from_wire, hit_from_wire, ranking_from_wire
from tests.helpers.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

URL = "/indexes/tiny/search"
SLOW = " > ".join(["bm25", *["rerank(slow)"] * 5])


@pytest.fixture(scope="module")
def library(served_folder: Path) -> Iterator[Retriever]:
    with Retriever.open(served_folder) as retriever:
        yield retriever


@pytest.mark.parametrize(
    "asked",
    [
        {"query": "how bread rises"},
        {"query": "why leaves turn red", "mode": "bm25", "top_k": 3},
        {"query": "sourdough", "mode": "sparse+dense", "explain": True},
        {"query": "bread", "filter": "topic = food and year >= 2020"},
        {"query": "wild yeast", "offset": 2, "min_score": 0.01, "fields": ["year"], "highlight": True},
    ],
    ids=lambda asked: asked["query"],
)
def test_hits_are_those_of_the_library(client: TestClient, library: Retriever, asked: dict[str, Any]) -> None:
    hits = library.search(**asked)
    assert hits
    by_body, by_address = client.post(URL, json=asked), client.get(URL, params=asked)
    # So FastAPI's own route is taken, and not the shortcut to it.
    by_route = client.post(URL, content=by_body.request.content, headers={"content-type": "application/json; a=b"})
    for response in (by_body, by_address, by_route):
        assert response.status_code == 200
        written = response.json()["hits"]
        assert [hit_from_wire(hit) for hit in written] == hits
        assert all(("snippet" in hit) == asked.get("highlight", False) for hit in written)


def test_fusion_of_one_query(client: TestClient, library: Retriever) -> None:
    fusion = {"method": "rrf", "weights": {"bm25": 1.0, "dense": 0.5}}
    hits = client.post(URL, json={"query": "wild yeast", "fusion": fusion}).json()["hits"]
    expected = library.search("wild yeast", fusion=FusionConfig(method="rrf", weights={"bm25": 1.0, "dense": 0.5}))
    assert [hit_from_wire(hit) for hit in hits] == expected != library.search("wild yeast")
    refused = client.post(URL, json={"query": "x", "fusion": {"weights": {"bm25": -1.0}}})
    assert refused.json()["detail"] == "weight of bm25: found -1.0, need a number of 0 or more; change it"


def test_documents_like_one(client: TestClient, library: Retriever) -> None:
    hits = client.get("/indexes/tiny/like", params={"id": "d01", "top_k": 4}).json()["hits"]
    assert [hit_from_wire(hit) for hit in hits] == library.more_like_this("d01", 4)


def test_facets_and_fields(client: TestClient, library: Retriever) -> None:
    counts: list[dict[str, Any]] = [{"field": "topic"}, {"field": "year", "query": "bread", "top_k": 3}]
    for asked in counts:
        found = client.get("/indexes/tiny/facets", params=asked).json()["facets"]
        assert [FacetCount(**count) for count in found] == library.facets(**asked)
    index = client.get("/indexes/tiny").json()
    assert [field["name"] for field in index["fields"]] == [field.name for field in library.fields()]
    assert (index["documents"], index["legs"]) == (20, ["bm25", "sparse", "dense"])


def test_rankings_of_a_batch(client: TestClient, library: Retriever) -> None:
    queries = [Query("q1", "how bread rises"), Query("q2", "")]
    asked = {"queries": [query._asdict() for query in queries], "modes": ["bm25", "hybrid"], "top_k": 7}
    results = client.post(f"{URL}/batch", json=asked).json()["results"]
    for result, expected in zip(results, library.rank_modes(queries, 7, modes=["bm25", "hybrid"]), strict=True):
        assert result["query_id"] == expected.query_id
        assert {mode: ranking_from_wire(r) for mode, r in result["rankings"].items()} == expected.rankings


def test_views(client: TestClient, library: Retriever) -> None:
    texts = ["how bread rises", ""]
    answer = client.post("/indexes/tiny/encode", json={"texts": texts}).json()
    assert encoded_from_wire(answer) == library.encode(texts)
    answer = client.post("/indexes/tiny/encode", json={"texts": texts, "kind": "document", "sparse": False}).json()
    assert encoded_from_wire(answer) == library.encoder.encode_documents(texts, sparse=False)


@pytest.mark.parametrize(
    "asked",
    [
        {"query": " "},
        {"query": "x", "mode": "bm26"},
        {"query": "x", "filter": "year >>> 3"},
        {"query": "x", "filter": "colour = red"},
    ],
    ids=str,
)
def test_errors_have_the_words_of_the_library(client: TestClient, library: Retriever, asked: dict[str, Any]) -> None:
    with pytest.raises(UserError) as error:
        library.search(**asked)
    for response in (client.post(URL, json=asked), client.get(URL, params=asked)):
        assert response.status_code == 400
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json() == {
            "type": "urn:retriever:problem:user-error",
            "title": "Bad Request",
            "status": 400,
            "detail": str(error.value).replace(str(library.reader.path), "tiny"),
        }


def test_a_search_that_nobody_waits_for_gives_its_place_back(served_folder: Path) -> None:
    seen: list[int] = []

    def slow(query: str, texts: Sequence[str]) -> list[float]:
        seen.append(len(texts))
        time.sleep(0.6)
        return [1.0] * len(texts)

    limits = Limits(seconds=1.0, waiting=2)
    settings = ServeSettings({"tiny": served_folder}, threads=1, limits=limits, pipelines={"slow": SLOW})
    with (
        registered_scorer("slow", slow),
        TestClient(create_app(settings), base_url="http://127.0.0.1") as client,
    ):
        work = client.app.state.server.searches  # type: ignore[attr-defined]
        for _ in range(2):
            seen.clear()
            answer = client.post(URL, json={"query": "bread", "pipeline": "slow"})
            assert answer.status_code == 503
            assert answer.json()["detail"] == "it took longer than 1 s; ask for less, or again later"
            wait_until(lambda: work.at_work == 0)  # what has begun ends
            assert len(seen) <= 2
        wait_until(lambda: client.get(URL, params={"query": "bread", "mode": "bm25"}).status_code == 200)
