"""Agents get what the library gives, bounded; by real clients, over standard input and output and over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from fastmcp import Client

from retriever import Document, Pipeline, Retriever, build_index
from retriever.cli.main import cli
from retriever.serve.agents.answers import LONGEST_VALUE
from retriever.serve.agents.tools import create_mcp
from retriever.serve.app import create_app
from retriever.serve.indexes.opened import Indexes
from retriever.serve.indexes.pipelines import Pipelines
from retriever.serve.security.keys import read_keys
from retriever.serve.settings import ServeSettings
from tests.docs.test_examples import PAGES, blocks
from tests.remote.conftest import KEY, served

pytestmark = pytest.mark.lucene
LONG = " ".join(f"Sentence {n} tells of the moon and the sea." for n in range(2000))


@pytest.fixture(scope="module")
def folders(served_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    other = tmp_path_factory.mktemp("mcp") / "other"
    documents = [
        Document("long", LONG, "A long one", {"note": "x" * 1000, "list": list(range(500)), "n": 1}),
        Document("short", "The moon."),
        Document("a/b ü", "The sea."),
    ]
    build_index(documents, other, encoder="none")
    return {"tiny": served_folder, "other": other}


@pytest.fixture(scope="module")
def indexes(folders: dict[str, Path]) -> Iterator[Indexes]:
    opened = Indexes(ServeSettings(folders))
    yield opened
    opened.close()


@pytest.fixture
async def agent(indexes: Indexes) -> AsyncIterator[Client[Any]]:
    pipelines = Pipelines({"varied": "bm25 > mmr(0.5)"})
    async with Client(create_mcp(lambda: indexes, asyncio.to_thread, pipelines=pipelines)) as client:
        yield client


async def call(agent: Client[Any], tool: str, **arguments: Any) -> Any:
    result = await agent.call_tool(tool, arguments)
    assert json.loads(result.content[0].text) == result.structured_content  # type: ignore[union-attr]
    return result.structured_content


async def fault(agent: Client[Any], tool: str, **arguments: Any) -> str:
    result = await agent.call_tool(tool, arguments, raise_on_error=False)
    assert result.is_error and len(result.content) == 1
    message: str = result.content[0].text  # type: ignore[union-attr]
    assert "\n" not in message and "/" not in message.replace("a/b", "")
    return message


async def test_tools_say_how_they_are_used(agent: Client[Any]) -> None:
    tools = {tool.name: tool for tool in await agent.list_tools()}
    assert set(tools) == {"search", "fetch_document", "list_indexes"}
    for tool in tools.values():
        assert tool.description and tool.annotations and tool.annotations.read_only_hint
        assert tool.output_schema and tool.output_schema["type"] == "object"
        for name, parameter in tool.input_schema["properties"].items():
            assert parameter["description"], (tool.name, name)
    assert tools["search"].input_schema["required"] == ["query"]
    assert tools["search"].input_schema["properties"]["top_k"]["maximum"] == 50


async def test_hits_are_those_of_the_library(agent: Client[Any], folders: dict[str, Path]) -> None:
    asked: dict[str, Any] = {"query": "how bread rises", "top_k": 3, "offset": 1, "filter": "year >= 2010"}
    found = await call(agent, "search", index="tiny", **asked)
    with Retriever.open(folders["tiny"]) as retriever:
        hits = retriever.search(**asked)
        texts = retriever.documents(hit.doc_id for hit in hits)
    assert [(hit["rank"], hit["id"], hit["title"], hit["metadata"]) for hit in found["hits"]] == [
        (hit.rank, hit.doc_id, hit.title, dict(hit.metadata)) for hit in hits
    ]
    for hit in found["hits"]:
        start, text = hit["snippet_start"], texts[hit["id"]].text
        assert hit["snippet"] and text[start : start + len(hit["snippet"])] == hit["snippet"]
        assert hit["characters"] == len(text)
    assert found["index"] == "tiny" and found["next_offset"] == 4
    assert (await call(agent, "search", index="tiny", query="zzzz", mode="bm25")) == {
        "index": "tiny",
        "hits": [],
        "next_offset": None,
    }


async def test_pipelines_that_an_index_offers_can_be_asked_for(agent: Client[Any], folders: dict[str, Path]) -> None:
    [tiny] = [index for index in (await call(agent, "list_indexes"))["indexes"] if index["name"] == "tiny"]
    assert tiny["pipelines"] == ["varied", "hybrid > feedback"]
    with Retriever.open(folders["tiny"]) as retriever:
        for name, line in zip(tiny["pipelines"], ("bm25 > mmr(0.5)", "hybrid > feedback"), strict=True):
            hits = retriever.search("how bread rises", 3, pipeline=Pipeline.parse(line))
            found = await call(agent, "search", index="tiny", query="how bread rises", top_k=3, pipeline=name)
            assert [hit["id"] for hit in found["hits"]] == [hit.doc_id for hit in hits]
    refused = await fault(agent, "search", index="tiny", query="x", pipeline="bm25 > rerank(cross-encoder:big)")
    assert "its own pipelines: varied" in refused


async def test_answers_are_bounded_and_documents_come_in_portions(agent: Client[Any]) -> None:
    found = await call(agent, "search", index="other", query="sentence 1234 moon")
    (hit,) = [hit for hit in found["hits"] if hit["id"] == "long"]
    assert len(json.dumps(hit)) < 2000 and hit["characters"] == len(LONG)
    assert (
        len(hit["metadata"]["note"]) == len(hit["metadata"]["list"]) == LONGEST_VALUE + 3 and hit["metadata"]["n"] == 1
    )
    passage = await call(
        agent, "fetch_document", index="other", id="long", start=hit["snippet_start"], max_characters=50
    )
    assert passage["text"][:40] == hit["snippet"][:40]
    read, start = "", 0
    while start is not None:
        portion = await call(agent, "fetch_document", index="other", id="long", start=start, max_characters=20_000)
        assert portion["start"] == len(read) and portion["characters"] == len(LONG)
        read, start = read + portion["text"], portion["next_start"]
    assert read == LONG and portion["metadata"]["list"] == list(range(500))
    assert (await call(agent, "fetch_document", index="other", id="a/b ü"))["text"] == "The sea."


async def test_indexes_are_listed(agent: Client[Any]) -> None:
    tiny, other = (await call(agent, "list_indexes"))["indexes"]
    assert tiny["name"] == "tiny" and tiny["modes"] == ["hybrid", "bm25", "sparse", "dense"]
    assert {"name": "year", "kinds": ["number"], "documents": 20} in tiny["fields"]
    assert other["documents"] == 3 and other["modes"] == ["bm25"]


async def test_faults_are_one_line_that_says_what_to_do(agent: Client[Any]) -> None:
    assert "give index, one of tiny, other" in await fault(agent, "search", query="x")
    assert "allowed: tiny, other" in await fault(agent, "search", query="x", index="tnyi")
    assert "the query is empty" in await fault(agent, "search", query=" ", index="tiny")
    assert "top_k: found 51; input should be less than or equal to 50" in await fault(
        agent, "search", query="x", index="tiny", top_k=51
    )
    assert "its fields are id, topic, year" in await fault(agent, "search", query="x", index="tiny", filter="yaer > 3")
    assert "choose one of hybrid" in await fault(agent, "search", query="x", index="tiny", mode="bm52")
    assert "has no dense leg" in await fault(agent, "search", query="x", index="other", mode="dense")
    assert await fault(agent, "search", index="tiny") == "query: is missing; give it"
    assert "colour" in await fault(agent, "search", query="x", colour="red")
    assert "has no document 'nothing'; give the id of a hit" in await fault(
        agent, "fetch_document", index="tiny", id="nothing"
    )
    assert "max_characters" in await fault(agent, "fetch_document", index="tiny", id="d01", max_characters=0)


async def test_a_new_commit_is_seen(tmp_path: Path) -> None:
    from retriever import IndexWriter

    build_index([Document("d1", "the sea")], tmp_path / "new", encoder="none")
    opened = Indexes(ServeSettings({"new": tmp_path / "new"}))
    async with Client(create_mcp(lambda: opened, asyncio.to_thread, pipelines=Pipelines({}))) as agent:
        with IndexWriter.open(tmp_path / "new") as writer:
            writer.add([Document("d2", "the moon")])
            writer.commit()
        for _ in range(600):
            if (await call(agent, "search", query="moon"))["hits"]:
                break
            await asyncio.sleep(0.1)
        assert (await call(agent, "search", query="moon"))["hits"][0]["id"] == "d2"
    opened.close()


COMMAND = [sys.executable, "-m", "retriever", "mcp"]


def test_the_example_of_the_page(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (example,) = [block for block in blocks(PAGES["docs/how-to/agents.md"]) if block.kind == "python"]
    (tmp_path / "my-index").symlink_to(folders["tiny"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    exec(compile(example.text, "agents.md", "exec"), {})
    shown = capfd.readouterr().out
    assert "['list_indexes', 'search', 'fetch_document']" in shown and "\n2 d" in shown


def test_standard_output_holds_the_protocol_alone(folders: dict[str, Path]) -> None:
    messages: list[dict[str, Any]] = [
        {
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "t", "version": "1"},
            },
        },
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": {"name": "search", "arguments": {"query": "日本 moon"}}},
        {"id": 3, "method": "tools/call", "params": {"name": "search", "arguments": {"query": ""}}},
    ]
    with subprocess.Popen(
        [*COMMAND, str(folders["tiny"])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        answers = {}
        for message in messages:
            process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
            process.stdin.flush()
            if "id" in message:
                line = json.loads(process.stdout.readline())
                answers[line["id"]] = line["result"]
        process.stdin.close()
        assert process.stdout.read() == ""
        assert process.wait(100) == 0
    assert answers[1]["serverInfo"]["name"] == "retriever"
    assert answers[2]["structuredContent"]["hits"] and answers[3]["isError"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["mcp", str(tmp_path / "x")])
    assert (result.exit_code, result.stdout) == (1, "") and "no such index folder" in result.stderr
    assert result.stderr.count("\n") == 1


async def test_http_with_a_key(folders: dict[str, Path]) -> None:
    keys = read_keys(None, {"RETRIEVER_READ_KEYS": KEY})
    with served(create_app(ServeSettings(folders, keys=keys, mcp=True))) as url:
        async with Client(f"{url}/mcp", auth=KEY) as agent:
            found = await call(agent, "search", query="the sea", index="other")
            assert {hit["id"] for hit in found["hits"]} == {"long", "a/b ü"}
            assert "no index is called" in await fault(agent, "search", query="x", index="y")
        for headers in ({}, {"authorization": "Bearer another-key-than-that"}, {"origin": "http://elsewhere"}):
            assert httpx.post(f"{url}/mcp", json={}, headers=headers).status_code in (401, 403)
