"""What works on folders works on collections: evaluation, a server, adapters that keep documents."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from retriever import Document, ExperimentConfig, IndexWriter, Retriever, build_index, evaluate
from retriever.index import places
from retriever.qdrant.push import push
from retriever.serve.app import create_app
from retriever.serve.settings import ServeSettings, named_indexes
from tests.conftest import TINY

pytestmark = pytest.mark.lucene


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return an index of the tiny data set by words alone, and the collection that it was pushed to."""
    folder = tmp_path_factory.mktemp("on-top") / "tiny"
    build_index(TINY, folder, encoder="none")
    address = f"qdrant-edge:{folder}-edge"
    push(folder, address)
    return folder, address


def test_evaluation_by_address(pushed: tuple[Path, str]) -> None:
    config = ExperimentConfig(modes=("bm25",), measures=("nDCG@10", "R@5"))
    found = [evaluate(TINY, "none", config=config, folder=Path(place)) for place in pushed]
    assert found[0]["bm25"].mean == found[1]["bm25"].mean
    with Retriever.open(pushed[1]) as retriever:
        assert evaluate(TINY, retriever, config=config)["bm25"].per_query == found[0]["bm25"].per_query


def test_verification_and_description(pushed: tuple[Path, str]) -> None:
    found = places.verify(pushed[1])
    assert found.files == 20 and not found.damages
    assert places.describe(pushed[1]).documents == places.describe(pushed[0]).documents == 20


def test_a_server_of_a_collection_sees_what_is_added(tmp_path: Path) -> None:
    assert list(named_indexes(["papers=qdrant-edge:x/y", "qdrant://somewhere/books"])) == ["papers", "books"]
    words = tmp_path / "words"
    build_index([Document("a", "the sea")], words, encoder="none")
    push(words, f"qdrant-edge:{words}-edge")
    settings = ServeSettings(named_indexes([f"words=qdrant-edge:{words}-edge"]), write=True)
    settings.check()
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        found = client.get("/indexes/words/search", params={"query": "sea", "mode": "bm25"}).json()
        assert [hit["doc_id"] for hit in found["hits"]] == ["a"]
        added = client.post("/indexes/words/documents", json={"documents": [{"_id": "c", "text": "a calm sea"}]})
        assert added.status_code == 200, added.text
        found = client.get("/indexes/words/search", params={"query": "calm", "mode": "bm25"}).json()
        assert [hit["doc_id"] for hit in found["hits"]] == ["c"]
        wrong = client.get("/indexes/words/search", params={"query": "sea", "mode": "dense"}).json()
        assert str(words) not in wrong["detail"] and "words" in wrong["detail"]


def test_an_open_collection_sees_a_commit_when_it_is_reopened(tmp_path: Path) -> None:
    folder, address = tmp_path / "index", f"qdrant-edge:{tmp_path}/edge"
    build_index([Document("a", "the sea")], folder, encoder="none")
    push(folder, address)
    with Retriever.open(address) as retriever:
        assert not retriever.reopen()
        with IndexWriter.open(address) as writer:
            writer.add([Document("b", "the land", metadata={"year": 2024})])
            writer.commit()
        assert retriever.reopen() and retriever.reader.num_documents == 2
        assert [hit.doc_id for hit in retriever.search("land", filter="year = 2024")] == ["b"]
