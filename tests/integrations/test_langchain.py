from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests

from retriever import Retriever, UserError
from retriever.integrations.langchain import HybridRetriever, HybridVectorStore

pytestmark = pytest.mark.lucene


class TestStandardRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _index(self, small_retriever: Retriever) -> None:
        self.searched = small_retriever

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return HybridRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"index": self.searched}

    @property
    def retriever_query_example(self) -> str:
        return "why does bread rise"


class TestStandardVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, new_index: Callable[[], Path]) -> Iterator[VectorStore]:
        store = HybridVectorStore(new_index())
        yield store
        store.store.close()


def test_documents_say_what_the_hits_say(small_retriever: Retriever) -> None:
    chain = HybridRetriever(index=small_retriever, k=22, search={"explain": True})
    found = chain.invoke("twins and bread", filter="not id in (d01)")
    hits = small_retriever.search("twins and bread", 22, explain=True, filter="not id in (d01)")
    assert [document.id for document in found] == [hit.doc_id for hit in hits]
    assert {"one", "two"} < {document.id for document in found}, "equal texts are two documents"
    for document, hit in zip(found, hits, strict=True):
        assert document.page_content == hit.text
        own = {key: value for key, value in document.metadata.items() if not key.startswith("_")}
        assert own == {**({"title": hit.title} if hit.title else {}), **hit.metadata}
        assert (document.metadata["_score"], document.metadata["_rank"]) == (hit.score, hit.rank)
        assert document.metadata["_parts"] == {leg: part._asdict() for leg, part in hit.parts.items()}
        assert document.metadata.get("_terms", []) == [match._asdict() for match in hit.terms]


def test_a_chain_with_a_folder(small_index: Path, small_retriever: Retriever) -> None:
    chain = HybridRetriever(index=small_index, k=3, search={"mode": "bm25"}) | (lambda found: [d.id for d in found])
    expected = [[hit.doc_id for hit in small_retriever.search(q, 3, mode="bm25")] for q in ("bread", "the sea")]
    assert chain.batch(["bread", "the sea"]) == expected


def test_a_store_keeps_titles_filters_and_scores(new_index: Callable[[], Path]) -> None:
    path = new_index()
    store = HybridVectorStore.from_texts(
        ["same text", "same text", "other"],
        metadatas=[{"title": "First", "n": 1}, {"title": "Second", "n": 2}, {"n": 3}],
        path=path,
    )
    scored = store.similarity_search_with_score("First", k=3, mode="bm25")
    assert [(document.metadata, score > 0) for document, score in scored] == [({"title": "First", "n": 1}, True)]
    assert [d.metadata["n"] for d in store.similarity_search("text", k=9, filter="n >= 2", mode="bm25")] == [2]
    assert len(store.similarity_search("same text", filter="title in (First, Second)")) == 2
    found = store.as_retriever(search_kwargs={"k": 2, "mode": "bm25"}).invoke("same")
    assert sorted(document.metadata["n"] for document in found) == [1, 2]
    store.store.close()
    again = HybridVectorStore(path)
    assert len(again.store) == 3
    again.add_documents([Document("renamed", id=found[0].id, metadata=found[0].metadata | {"_score": 0.5})])
    assert [d.metadata for d in again.get_by_ids([str(found[0].id)])] == [found[0].metadata]
    assert again.delete() is True and len(again.store) == 0
    again.store.close()


def test_faults_are_one_line(new_index: Callable[[], Path], tmp_path: Path) -> None:
    from langchain_core.embeddings import DeterministicFakeEmbedding

    with pytest.raises(UserError, match="give path="):
        HybridVectorStore.from_texts(["a"])
    with pytest.raises(UserError, match="encodes by itself"):
        HybridVectorStore.from_texts(["a"], DeterministicFakeEmbedding(size=3), path=tmp_path / "x")
    with pytest.raises(UserError, match="missing"):
        HybridRetriever(index=tmp_path / "missing")
    with pytest.raises(ValueError, match="zip"):
        HybridVectorStore(new_index()).add_documents([Document("a")], ids=["1", "2"])
