"""What `import retriever` offers: its names, their documentation, records that travel."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import multiprocessing
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

import retriever
from retriever import (
    AddReport,
    ChunkHit,
    Document,
    Encoded,
    EncoderIdentity,
    Evaluation,
    FusionConfig,
    IndexingConfig,
    IndexReport,
    LegPart,
    Query,
    Retriever,
    RuntimeConfig,
    ScoredDoc,
    Span,
    TermMatch,
    UserError,
    build_index,
)
from retriever.encoder.load import NoEncoder
from retriever.experiments.experiment import ExperimentConfig
from retriever.index.stored import StoredDocument
from retriever.types import FrozenMapping

NAMES = """
    AddReport AsyncRetriever ChunkHit Dataset Document Encoded Encoder EncoderBase EncoderIdentity Evaluation
    ExperimentConfig FacetCount FusionConfig Hit IndexField IndexReport IndexWriter IndexingConfig LegPart Pipeline
    Query RemoteRetriever Retriever RuntimeConfig ScoredDoc Snippet Span StagePart TermMatch UserError __version__
    add_corpus build_index evaluate evaluate_run fuse load_dataset load_encoder snippet
"""
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def test_the_names_are_these_and_each_is_documented() -> None:
    assert sorted(retriever.__all__) == sorted(NAMES.split())
    for name in set(retriever.__all__) - {"__version__"}:
        public = getattr(retriever, name)
        assert (inspect.getdoc(public) or "").strip(), name
        assert name in dir(retriever)
    assert retriever.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="no attribute 'Retriver'"):
        _ = retriever.Retriver


@pytest.mark.parametrize("name", [name for name in NAMES.split() if name[0].islower()] + ["Retriever", "IndexWriter"])
def test_what_follows_two_parameters_is_given_by_name(name: str) -> None:
    public = getattr(retriever, name)
    functions = (
        [public]
        if inspect.isfunction(public)
        else [member for key, member in inspect.getmembers(public, callable) if not key.startswith("_")]
    )
    for function in functions:
        positional = [
            parameter.name
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.name != "self"
        ]
        assert len(positional) <= 2, (function, positional)


def test_who_raises_a_fault_of_the_user_says_so() -> None:
    for name in ("add_corpus", "build_index", "evaluate", "evaluate_run", "fuse", "load_encoder"):
        assert "Raises:" in (inspect.getdoc(getattr(retriever, name)) or ""), name
    for public in (retriever.Retriever, retriever.IndexWriter):
        for key in ("open", "search", "rank", "rank_modes", "reopen", "add", "compact"):
            member = getattr(public, key, None)
            assert member is None or "Raises:" in (inspect.getdoc(member) or ""), (public, key)
    for settings in (FusionConfig, IndexingConfig, RuntimeConfig, ExperimentConfig):
        assert "Raises:" in (inspect.getdoc(settings) or ""), settings


def test_documents_that_come_once_go_on_after_an_interruption(tmp_path: Path) -> None:
    everything = [Document(f"d{n}", f"the sea has water {n}") for n in range(40)]
    seen: list[int] = []

    class Broken(NoEncoder):
        def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
            seen.append(len(texts))
            if len(seen) == 3:
                raise KeyboardInterrupt
            return super().encode_documents(texts)

    config = IndexingConfig(batch=10, commit_every_documents=10)
    with pytest.raises(KeyboardInterrupt):
        build_index(iter(everything), tmp_path / "index", encoder=Broken(), config=config)
    assert [path.name for path in tmp_path.iterdir()] == ["index"], "nothing temporary stays"
    report = build_index(iter(everything), tmp_path / "index", encoder=Broken(), config=config, resume=True)
    assert report.documents == 40 and sum(seen[3:]) == 20, "what was committed is not encoded again"
    with pytest.raises(UserError, match="another corpus"):
        build_index(iter(everything[1:]), tmp_path / "index", encoder="none", config=config, resume=True)


def same(value: Any) -> None:
    """Check that a value survives pickling and copying, and can be printed."""
    for other in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value)):
        assert other == value
    assert type(value).__name__ in repr(value)


def test_every_record_travels_to_another_process() -> None:
    document = Document("d1", "text", metadata={"year": 2024, "tags": ["a"]})
    dense, sparse = np.eye(2, dtype=np.float32), csr_matrix(np.eye(2, 3, dtype=np.float32))
    records = [
        document,
        Document("d2", ""),
        StoredDocument(document, [Span(0, 2)]),
        Query("q1", "text"),
        ScoredDoc("d1", 0.5),
        TermMatch("sparse", "sea", 1.0, 2.0, 2.0),
        LegPart(1, 2.0, 1.0),
        ChunkHit(0, 2, "te", {"bm25": 1.0}),
        Encoded(dense, sparse, np.zeros(2, np.bool_), sparse),
        Encoded(None, None, np.zeros(2, np.bool_)),
        EncoderIdentity("none", "", 0, 0),
        Evaluation({"RR": 1.0}, {"q1": {"RR": 1.0}}, 1, 0, 0),
        IndexReport(1, 1, 0, 0, 0, 0, "", 1.0, {"lucene": 1}),
        AddReport(1, 0, 0, 0, "", 1, 0, 0.1),
        FusionConfig(weights={"bm25": 1.0}),
        IndexingConfig(chunk=True),
        IndexingConfig().settings(EncoderIdentity("none", "", 0, 0)),
        RuntimeConfig(),
        ExperimentConfig(fusion=FusionConfig()),
    ]
    for record in records:
        same(record)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(copy.copy, records) == records
        with pytest.raises(UserError, match="a fault"):
            pool.apply(fail, ("a fault",))


def fail(message: str) -> None:
    raise UserError(message)


def test_encoded_texts_are_equal_by_their_numbers() -> None:
    numbers = np.eye(2, dtype=np.float32)
    one = Encoded(numbers, csr_matrix(numbers), np.zeros(2, np.bool_))
    copied = copy.deepcopy(one)
    assert one == copied
    assert (one != copied) is False
    for other in (
        one._replace(dense=None),
        one._replace(dense=2 * numbers),
        one._replace(sparse=csr_matrix(2 * numbers)),
        one._replace(dense=numbers[:1]),
    ):
        assert one != other and other != one


@given(st.text(), st.text(), st.none() | st.dictionaries(st.text(max_size=5), json_values, max_size=3))
def test_documents_travel(doc_id: str, text: str, metadata: dict[str, Any] | None) -> None:
    same(Document(doc_id, text) if metadata is None else Document(doc_id, text, metadata=metadata))


def test_the_default_metadata_cannot_be_changed() -> None:
    document = Document("d1", "text")
    with pytest.raises(TypeError):
        document.metadata["year"] = 2024  # type: ignore[index]
    assert document.metadata == {} == Document("d2", "").metadata and repr(FrozenMapping({"a": 1})) == "{'a': 1}"


@pytest.mark.parametrize("settings", [FusionConfig(), IndexingConfig(), RuntimeConfig(), ExperimentConfig()])
def test_settings_travel_and_cannot_be_changed(settings: Any) -> None:
    same(settings)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(settings, dataclasses.fields(settings)[0].name, "other")


def test_an_index_of_documents_that_come_once_and_hits_that_travel(tmp_path: Path) -> None:
    documents = [Document(f"d{n}", f"the sea has water {n}", metadata={"n": n}) for n in range(30)]
    report = build_index((document for document in documents), tmp_path / "once", encoder="none")
    again = build_index(documents, tmp_path / "again", encoder="none")
    assert report.documents == again.documents == 30
    assert [path.name for path in tmp_path.iterdir()] == ["once", "again"] or len(list(tmp_path.iterdir())) == 2
    with Retriever.open(tmp_path / "once") as one, Retriever.open(tmp_path / "again") as two:
        hits = one.search("water", top_k=30, mode="bm25", explain=True)
        assert len(hits) == 30 and hits == two.search("water", top_k=30, mode="bm25", explain=True)
        assert {hit.doc_id: hit.metadata for hit in hits} == {d.doc_id: d.metadata for d in documents}
    for hit in hits:
        same(hit)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(repr, hits[:2]) == list(map(repr, hits[:2]))
