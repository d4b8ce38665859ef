"""What a client of a server gives is what the library gives: hits, rankings, documents, views and errors."""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retriever import AsyncRetriever, FusionConfig, Pipeline, Query, RemoteRetriever, Retriever, UserError
from retriever.rank import Feedback, LateInteraction, Mmr, Rerank
from retriever.types import PipelineRanking
from tests.remote.conftest import AGAIN, KEY, Ask, listed

pytestmark = pytest.mark.lucene
RRF = FusionConfig(method="rrf", k=7.5, rank_base=0, weights={"bm25": 1.0, "dense": 0.25})
PRODUCT = FusionConfig(method="product", missing="min", weights={"bm25": 1.0, "sparse": 2.0})
QUERIES = [
    Query(f"q{n}", text) for n, text in enumerate(["twins alike", "why does bread rise", "", "zzzz", "日本"] * 9)
]

CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("search", ("twins look alike",), {}),
    ("search", ("how bread rises", 3), {"mode": "bm25", "explain": True, "highlight": True}),
    ("search", ("wild yeast",), {"mode": "sparse+dense", "explain": True}),
    ("search", ("the sea", 5), {"offset": 2, "min_score": 0.01, "fields": ["year", "n"], "highlight": True}),
    ("search", ("the sea",), {"fields": []}),
    ("search", ("bread",), {"filter": 'year >= 2015 and topic in (food, "city life")'}),
    ("search", ("twins",), {"fusion": RRF}),
    ("search", ("twins",), {"fusion": PRODUCT, "mode": "bm25+sparse"}),
    ("search", ("twins look alike",), {"pipeline": Pipeline.parse("hybrid > feedback > late-interaction(5)")}),
    (
        "search",
        ("how bread rises", 4),
        {"pipeline": Pipeline("dense+bm25").then(Feedback("rocchio", weight=0.1234567), Mmr(0.5)), "explain": True},
    ),
    ("search", ("bread",), {"pipeline": Pipeline.parse("bm25 > feedback(rm3)"), "filter": "year >= 2015", "offset": 1}),
    ("search", ("twins",), {"pipeline": Pipeline(stages=(LateInteraction(idf=False),)), "fusion": RRF}),
    ("search", ("\U0001f600 ü\n'\"\\ %20&=",), {}),
    ("more_like_this", ("a/b?c=d&e#ü 😀", 4), {"explain": True}),
    ("more_like_this", ("d02",), {"mode": "dense", "filter": "topic = food", "fields": ["year"], "offset": 1}),
    ("rank", (QUERIES, 7), {}),
    ("rank", (QUERIES, 7), {"mode": "bm25", "filter": "year >= 2015"}),
    ("rank", (iter(QUERIES[:40]), 1000), {"fusion": RRF}),
    ("rank", ([],), {}),
    ("rank_modes", (QUERIES, 3), {"modes": ("bm25", "hybrid", "dense+sparse")}),
    ("rank", (QUERIES, 7), {"language": "de"}),
    ("rank_pipeline", (QUERIES, 5), {"pipeline": Pipeline.parse("hybrid > feedback > mmr(0.7)")}),
    ("rank_pipeline", ([Query("d01", "twins alike")], 5), {"pipeline": Pipeline("bm25"), "exclude_self": True}),
    (
        "rank_pipeline",
        (QUERIES, 3),
        {"pipeline": Pipeline.parse("sparse > mmr"), "filter": "year > 2015", "language": "en"},
    ),
    ("documents", (["twin", "nothing", "a/b?c=d&e#ü 😀", "d01", "twin"],), {}),
    ("documents", ([],), {}),
    ("fields", (), {}),
    ("facets", ("topic",), {}),
    ("facets", ("year", "bread"), {"top_k": 2, "mode": "bm25", "filter": "topic = food"}),
    ("encode", (["twins", "", "日本"],), {}),
]
FAULTS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("search", ("  ",), {}),
    ("search", ("x", 0), {}),
    ("search", ("x",), {"offset": -1}),
    ("search", ("x",), {"min_score": float("nan")}),
    ("search", ("x",), {"fields": "year"}),
    ("search", ("x",), {"mode": "bm52"}),
    ("search", ("x",), {"filter": "yaer > 3"}),
    ("search", ("x",), {"filter": "year >"}),
    ("search", ("x",), {"fusion": FusionConfig(weights={"bm25": 0.0, "dense": 1.0}), "mode": "bm25+sparse"}),
    ("search", ("x",), {"pipeline": Pipeline.parse("bm25 > feedback(joint)")}),
    ("search", ("x",), {"pipeline": Pipeline("sparse"), "mode": "dense"}),
    ("search", ("twins",), {"mode": "a > b"}),
    ("more_like_this", ("nothing",), {}),
    ("rank", (QUERIES, 0), {}),
    ("rank", (QUERIES,), {"mode": "nothing"}),
    ("rank_modes", (QUERIES, 3), {"modes": ("bm25", "nothing")}),
    ("rank", (QUERIES,), {"language": "tlh"}),
    ("rank_pipeline", (QUERIES, 0), {"pipeline": Pipeline("bm25")}),
    ("rank_pipeline", (QUERIES, 3), {"pipeline": Pipeline.parse("bm25 > feedback(joint)")}),
    ("rank_pipeline", (QUERIES, 3), {"pipeline": Pipeline("bm25"), "filter": "yaer > 3"}),
    ("facets", ("nothing",), {}),
    ("facets", ("topic",), {"top_k": 0}),
]


def name(call: Any) -> str:
    shown = re.sub(" at 0x[0-9a-f]+", "", str(call))  # a test has the same name in every process
    return shown[:60] if isinstance(call, (tuple, dict)) else shown


def again(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return arguments that can be iterated over once more."""
    return tuple(list(QUERIES[:40]) if hasattr(arg, "__next__") else arg for arg in args)


def timeless(found: list[Any]) -> list[Any]:
    """Return hits or rankings without the time that each stage took, which is never the same."""
    if found and isinstance(found[0], PipelineRanking):
        return [one._replace(milliseconds=len(one.milliseconds)) for one in found]
    return [hit._replace(stages=tuple(stage._replace(milliseconds=0.0) for stage in hit.stages)) for hit in found]


@pytest.mark.parametrize(("method", "args", "kwargs"), CALLS, ids=name)
def test_records_are_equal(
    ask: Ask, library: Retriever, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    expected = listed(getattr(library, method)(*again(args), **kwargs))
    found = ask(method, *again(args), **kwargs)
    if method in ("search", "rank_pipeline"):
        found, expected = timeless(found), timeless(expected)
    assert found == expected
    if method == "search":
        assert [type(hit) for hit in found] == [type(hit) for hit in expected]
    if isinstance(expected, dict):
        assert list(found) == list(expected)


@pytest.mark.parametrize(("method", "args", "kwargs"), FAULTS, ids=name)
def test_errors_are_equal(
    ask: Ask, library: Retriever, folder: Path, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    with pytest.raises(UserError) as expected:
        listed(getattr(library, method)(*args, **kwargs))
    with pytest.raises(UserError) as found:
        ask(method, *args, **kwargs)
    assert str(found.value) == str(expected.value).replace(str(folder), "tiny") and "\n" not in str(found.value)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30), st.integers(1, 30))
def test_any_query(ask: Ask, library: Retriever, query: str, top_k: int) -> None:
    def answer(search: Any) -> Any:
        try:
            return search(query, top_k, explain=True)
        except UserError as error:
            return str(error)

    assert answer(lambda *a, **k: ask("search", *a, **k)) == answer(library.search)


def test_signatures_are_equal() -> None:
    methods = "search more_like_this rank rank_modes rank_pipeline documents fields facets encode"
    for method in methods.split():
        local = dict(inspect.signature(getattr(Retriever, method)).parameters)
        local.pop("pipeline", None)  # which may be a line, or a name of the server's, where it runs there
        for client in (RemoteRetriever, AsyncRetriever):
            remote = dict(inspect.signature(getattr(client, method)).parameters)
            assert (remote.pop("pipeline", None) is not None) == (method in ("search", "rank_pipeline"))
            assert remote == local, (client, method)


def test_pipelines_as_lines_and_by_the_servers_names(ask: Ask, library: Retriever) -> None:
    assert timeless(ask("search", "twins", pipeline="hybrid > mmr(0.5)")) == timeless(
        library.search("twins", pipeline=Pipeline.parse("hybrid > mmr(0.5)"))
    )
    assert timeless(ask("search", "twins", pipeline="again")) == timeless(
        library.search("twins", pipeline=Pipeline.parse(AGAIN))
    )
    ranked = ask("rank_pipeline", QUERIES[:2], 5, pipeline="again")
    assert timeless(ranked) == timeless(list(library.rank_pipeline(QUERIES[:2], 5, pipeline=Pipeline.parse(AGAIN))))
    with pytest.raises(UserError, match="agian"):
        ask("search", "twins", pipeline="agian")


@pytest.mark.parametrize("stage", [Rerank(len), Rerank("cross-encoder:/etc/model")], ids=["function", "model"])
def test_models_are_not_for_clients_to_choose(ask: Ask, stage: Rerank) -> None:
    with pytest.raises(UserError, match=r"^rerank: .*--pipeline NAME=LINE"):
        ask("search", "twins", pipeline=Pipeline("bm25", (stage,)))


def test_legs_and_the_index_of_an_address(url: str, library: Retriever) -> None:
    with RemoteRetriever(f"{url}/indexes/tiny", key=KEY) as remote:
        assert remote.legs == library.legs
        assert remote.describe()["documents"] == library.reader.num_documents

    async def legs() -> tuple[str, ...]:
        async with AsyncRetriever(f"{url}/indexes/words/", key=KEY) as retriever:
            with pytest.raises(UserError, match=r"^words: has BM25 alone"):
                await retriever.encode(["the sea"])
            return await retriever.legs()

    assert asyncio.run(legs()) == ("bm25",)


def test_asyncio_searches_side_by_side(url: str, library: Retriever) -> None:
    async def together() -> list[list[str]]:
        async with AsyncRetriever(url, index="tiny", key=KEY) as retriever:
            found = await asyncio.gather(*(retriever.search(query.text or "x") for query in QUERIES[:20]))
        return [[hit.doc_id for hit in hits] for hits in found]

    expected = [[hit.doc_id for hit in library.search(query.text or "x")] for query in QUERIES[:20]]
    assert asyncio.run(together()) == expected
