"""One index served over a loopback socket, and in this process; whoever asks it takes the same questions."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from retriever import AsyncRetriever, Document, IndexingConfig, RemoteRetriever, Retriever, build_index
from retriever.rank.scorers import registered_scorer
from retriever.serve.app import create_app
from retriever.serve.security.keys import Keys, read_keys
from retriever.serve.settings import ServeSettings

AGAIN = "bm25 > feedback(rm3) > rerank(shortest-remote, depth=5)"
KEY = "a-key-for-the-tests-alone"
Ask = Callable[..., Any]


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an application on a free port of the loopback; give its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", ws="none", lifespan="on", timeout_graceful_shutdown=2)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started and thread.is_alive():
                thread.join(0.02)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def folder(tiny_corpus: Path, tiny_encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an index of the tiny corpus in chunks, and of what is hard to send."""
    records = [json.loads(line) for line in tiny_corpus.read_text(encoding="utf-8").splitlines()]
    own = ("_id", "text", "title")
    documents = [
        Document(r["_id"], r["text"], r["title"], {k: v for k, v in r.items() if k not in own}) for r in records
    ]
    documents += [
        Document("a/b?c=d&e#ü 😀", "twins look alike", metadata={"n": 10**20, "none": None, "tags": ["a", "ü"]}),
        Document("twin", "twins look alike", "", {"at": "2025-02-03T12:45:46Z", "nested": {"x": [1.5]}, "flag": True}),
    ]
    path = tmp_path_factory.mktemp("remote") / "tiny"
    config = IndexingConfig(chunk=True, chunk_tokens=30, chunk_overlap=0, tokens="own")
    build_index(documents, path, encoder=str(tiny_encoder_folder), config=config)
    return path


@pytest.fixture(scope="session")
def words_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an index that has BM25 alone."""
    path = tmp_path_factory.mktemp("remote") / "words"
    build_index([Document("d1", "the sea")], path, encoder="none")
    return path


@pytest.fixture(scope="session")
def settings(folder: Path, words_alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeSettings]:
    """Return what the server is told: two indexes, a key, a pipeline."""
    with registered_scorer("shortest-remote", lambda query, texts: [-len(text) for text in texts]):
        yield ServeSettings({"tiny": folder, "words": words_alone}, keys=keys(), pipelines={"again": AGAIN})


def keys() -> Keys:
    return read_keys(None, {"RETRIEVER_READ_KEYS": KEY})


@pytest.fixture(scope="session")
def url(settings: ServeSettings) -> Iterator[str]:
    """Return the address of a running server."""
    with served(create_app(settings)) as address:
        yield address


@pytest.fixture(scope="session")
def library(folder: Path) -> Iterator[Retriever]:
    """Return the index itself."""
    with Retriever.open(folder) as retriever:
        yield retriever


@pytest.fixture(scope="session", params=["remote", "async"])
def ask(request: pytest.FixtureRequest, url: str, settings: ServeSettings) -> Iterator[Ask]:
    """Return a function that calls a method of a client by its name, and gives what it gives, streams as lists."""
    if request.param == "remote":
        with RemoteRetriever(url, index="tiny", key=KEY) as remote:
            yield lambda name, *args, **kwargs: listed(getattr(remote, name)(*args, **kwargs))
        return
    app = create_app(settings)
    with asyncio.Runner() as runner:
        lifespan = app.router.lifespan_context(app)
        runner.run(lifespan.__aenter__())
        transport = httpx.ASGITransport(app)
        client = AsyncRetriever("http://127.0.0.1", index="tiny", key=KEY, transport=transport)
        yield lambda name, *args, **kwargs: runner.run(awaited(getattr(client, name)(*args, **kwargs)))
        runner.run(client.close())
        runner.run(lifespan.__aexit__(None, None, None))


def listed(value: Any) -> Any:
    return list(value) if hasattr(value, "__next__") else value


async def awaited(value: Any) -> Any:
    return [item async for item in value] if hasattr(value, "__anext__") else await value
