from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import MetadataMode

from retriever import Retriever, UserError
from retriever.integrations.llama_index import HybridRetriever

pytestmark = pytest.mark.lucene


def test_nodes_say_what_the_hits_say(small_retriever: Retriever) -> None:
    nodes = HybridRetriever(small_retriever, top_k=22, explain=True).retrieve("twins and bread")
    hits = small_retriever.search("twins and bread", 22, explain=True)
    assert [(node.node_id, node.score, node.text) for node in nodes] == [
        (hit.doc_id, hit.score, hit.text) for hit in hits
    ]
    assert {"one", "two"} < {node.node_id for node in nodes}, "equal texts are two documents"
    for node, hit in zip(nodes, hits, strict=True):
        assert {key: node.metadata[key] for key in hit.metadata} == dict(hit.metadata)
        assert node.metadata["_parts"] == {leg: part._asdict() for leg, part in hit.parts.items()}
        assert "_parts" not in node.node.get_content(MetadataMode.LLM)
        copied = type(node.node).from_dict(node.node.to_dict())
        assert copied == node.node and copied.hash == node.node.hash


def test_fusion_keeps_equal_texts_and_joins_the_same_document(small_index: Path, small_retriever: Retriever) -> None:
    legs: list[BaseRetriever] = [
        HybridRetriever(small_index, mode="bm25"),
        HybridRetriever(small_retriever, mode="dense", top_k=22),
    ]
    fused = QueryFusionRetriever(legs, llm=MockLLM(), num_queries=1, similarity_top_k=30, use_async=False)
    found = [node.node_id for node in fused.retrieve("twins look alike")]
    assert len(found) == len(set(found)) and {"one", "two"} < set(found)
    assert set(found) == {hit.doc_id for hit in small_retriever.search("twins look alike", 22, mode="dense")}


def test_a_query_engine_and_async(small_retriever: Retriever) -> None:
    searched = HybridRetriever(small_retriever, top_k=2)
    engine = RetrieverQueryEngine(searched, get_response_synthesizer(llm=MockLLM()))
    answer = engine.query("why does bread rise")
    expected = [hit.doc_id for hit in small_retriever.search("why does bread rise", 2)]
    assert [node.node_id for node in answer.source_nodes] == expected
    assert [node.node_id for node in asyncio.run(searched.aretrieve("why does bread rise"))] == expected


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such index folder"):
        HybridRetriever(tmp_path / "missing")
