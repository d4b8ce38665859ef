from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from haystack import Document, Pipeline
from haystack.components.joiners import DocumentJoiner
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy, FilterPolicy
from haystack.errors import FilterError
from haystack.testing.document_store import CountDocumentsByFilterTest, DocumentStoreBaseExtendedTests
from haystack.utils.filters import document_matches_filter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retriever import Retriever, UserError
from retriever.integrations.haystack import HybridDocumentStore, HybridRetriever

pytestmark = pytest.mark.lucene


class TestStandardStore(DocumentStoreBaseExtendedTests, CountDocumentsByFilterTest):
    @pytest.fixture
    def document_store(self, new_index: Callable[[], Path]) -> Iterator[HybridDocumentStore]:
        store = HybridDocumentStore(new_index())
        yield store
        store.store.close()

    @staticmethod
    def assert_documents_are_equal(received: list[Document], expected: list[Document]) -> None:
        """Compare all but the embeddings, which the index does not keep."""
        bare = [Document(id=d.id, content=d.content, meta=d.meta) for d in expected]
        assert received == bare

    def test_write_documents(self, document_store: HybridDocumentStore) -> None:  # type: ignore[override]
        document = Document(content="test doc")
        assert document_store.write_documents([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([document])
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([Document(id="a", content="x"), Document(id="a", content="y")])
        with pytest.raises(ValueError, match="has no text"):
            document_store.write_documents([Document(meta={"a": 1})])
        assert document_store.count_documents() == 1


META: list[dict[str, Any]] = [
    {},
    {"n": 1, "name": "a"},
    {"n": 2.5, "name": "b", "flag": True},
    {"n": -3, "flag": False, "day": "2024-05-06"},
    {"name": 'quoted "x" \\ y', "day": "2024-05-06T12:00:00+02:00"},
    {"name": "1", "n": 10**20},
    {"mixed": 1},
    {"mixed": "1"},
    {"mixed": True, "name": "true"},
]
equals = st.sampled_from([None, 1, 2.5, -3, 10**20, "a", "1", 'quoted "x" \\ y', "true", True, False, "2024-05-06"])
DAYS = ["2024-05-06", "2024-05-06T10:00:00+00:00", datetime(2024, 5, 6, 10, tzinfo=UTC)]
fields = st.sampled_from(["meta.n", "meta.name", "meta.flag", "meta.mixed", "meta.absent", "name"])
comparisons = st.one_of(
    st.fixed_dictionaries({"field": fields, "operator": st.sampled_from(["==", "!="]), "value": equals}),
    st.fixed_dictionaries(
        {"field": fields, "operator": st.sampled_from(["in", "not in"]), "value": st.lists(equals, max_size=3)}
    ),
    st.fixed_dictionaries({"field": st.just("meta.day"), "operator": st.just("=="), "value": st.sampled_from(DAYS)}),
    st.fixed_dictionaries(
        {
            "field": st.just("meta.n"),
            "operator": st.sampled_from(["<", "<=", ">", ">="]),
            "value": st.sampled_from([None, 0, 1, 2.5, 10**20]),
        }
    ),
    st.fixed_dictionaries(
        {
            "field": st.just("meta.day"),
            "operator": st.sampled_from(["<", "<=", ">", ">="]),
            "value": st.sampled_from([None, *DAYS]),
        }
    ),
)
filters = st.recursive(
    comparisons,
    lambda inner: st.fixed_dictionaries(
        {"operator": st.sampled_from(["AND", "OR", "NOT"]), "conditions": st.lists(inner, min_size=1, max_size=3)}
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def filtered(empty_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HybridDocumentStore]:
    import shutil

    folder = shutil.copytree(empty_index, tmp_path_factory.mktemp("filters") / "index")
    store = HybridDocumentStore(folder)
    store.write_documents([Document(id=str(n), content=f"text {n}", meta=meta) for n, meta in enumerate(META)])
    yield store
    store.store.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filters)
def test_filters_mean_what_haystack_means(filtered: HybridDocumentStore, filter: dict[str, Any]) -> None:
    every = [Document(id=str(n), content=f"text {n}", meta=meta) for n, meta in enumerate(META)]
    expected = [document.id for document in every if document_matches_filter(filter, document)]
    assert [document.id for document in filtered.filter_documents(filter)] == expected


@pytest.mark.parametrize("field", ["content", "embedding", "meta.id", "meta.person.name"])
def test_what_the_index_cannot_tell_is_refused(filtered: HybridDocumentStore, field: str) -> None:
    with pytest.raises(FilterError, match="cannot filter by"):
        filtered.filter_documents({"field": field, "operator": "==", "value": "x"})
    assert filtered.filter_documents({"field": "id", "operator": "in", "value": ["3", "x"]})[0].id == "3"


def test_a_pipeline_survives_being_written_down(small_index: Path, small_retriever: Retriever) -> None:
    only = {"field": "id", "operator": "not in", "value": ["d01"]}
    pipeline = Pipeline()
    store = HybridDocumentStore(small_index)
    pipeline.add_component("words", HybridRetriever(store, mode="bm25", filters=only))
    pipeline.add_component("all", HybridRetriever(store, top_k=22, filter_policy=FilterPolicy.MERGE))
    pipeline.add_component("join", DocumentJoiner(join_mode="reciprocal_rank_fusion"))
    pipeline.connect("words", "join.documents")
    pipeline.connect("all", "join.documents")
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["retriever.integrations.haystack"])
    question = {name: {"query": "twins look alike"} for name in ("words", "all")}
    found = again.run(question, include_outputs_from={"words", "all"})
    assert found == pipeline.run(question, include_outputs_from={"words", "all"})
    assert {"one", "two"} < {document.id for document in found["join"]["documents"]}
    hits = small_retriever.search("twins look alike", 22)
    assert [(d.id, d.score, d.content) for d in found["all"]["documents"]] == [
        (hit.doc_id, hit.score, hit.text) for hit in hits
    ]
    for document, hit in zip(found["all"]["documents"], hits, strict=True):
        assert document.meta["_parts"] == {leg: part._asdict() for leg, part in hit.parts.items()}
        assert {key: document.meta[key] for key in hit.metadata} == dict(hit.metadata)


def test_what_is_found_can_be_written_back(new_index: Callable[[], Path]) -> None:
    store = HybridDocumentStore(new_index())
    store.write_documents([Document(id="a", content="the text", meta={"title": "A title", "n": 1})])
    (found,) = store.search("title", 1, None)
    store.write_documents([found], DuplicatePolicy.OVERWRITE)
    assert store.filter_documents({"field": "meta.title", "operator": "==", "value": "A title"}) == [
        Document(id="a", content="the text", meta={"title": "A title", "n": 1})
    ]
    store.store.close()


def test_faults(tmp_path: Path, small_index: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        HybridDocumentStore(tmp_path / "file")
    from retriever.encoder.load import NoEncoder

    store = HybridDocumentStore(tmp_path / "new", NoEncoder())
    with pytest.raises(ValueError, match="cannot be written down"):
        store.to_dict()
