"""What is written as JSON is read back the same, number by number."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from retriever import wire
from retriever.testing import SeededEncoder
from retriever.types import ChunkHit, Document, Hit, LegPart, ScoredDoc, Span, StagePart, TermMatch, UserError

numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(max_size=5)
metadata = st.dictionaries(texts, st.one_of(texts, numbers, st.integers(), st.none(), st.lists(texts, max_size=2)))
documents = st.builds(Document, doc_id=texts, text=texts, title=texts, metadata=metadata)
ranks = st.integers(1, 1000)
terms = st.lists(
    st.builds(TermMatch, leg=texts, term=texts, query_weight=numbers, doc_weight=numbers, contribution=numbers),
    max_size=2,
).map(tuple)
hits = st.builds(
    Hit,
    rank=ranks,
    doc_id=texts,
    score=numbers,
    title=texts,
    text=texts,
    metadata=metadata,
    parts=st.dictionaries(texts, st.builds(LegPart, rank=ranks, score=numbers, normalised=numbers), max_size=2),
    terms=terms,
    chunks=st.lists(
        st.builds(ChunkHit, start=ranks, end=ranks, text=texts, scores=st.dictionaries(texts, numbers)), max_size=2
    ).map(tuple),
    highlights=st.lists(st.builds(Span, ranks, ranks), max_size=2).map(tuple),
    stages=st.lists(
        st.builds(StagePart, stage=texts, rank=ranks, score=numbers, milliseconds=numbers, matches=terms), max_size=2
    ).map(tuple),
)


def sent(values: Any) -> Any:
    return json.loads(json.dumps(values))


@given(hits)
def test_hits(hit: Hit) -> None:
    assert wire.hit_from_wire(sent(wire.hit_to_wire(hit))) == hit


@given(documents)
def test_documents(document: Document) -> None:
    assert wire.document_from_wire(sent(wire.document_to_wire(document))) == document


@given(st.lists(st.builds(ScoredDoc, texts, numbers), max_size=3))
def test_rankings(ranking: list[ScoredDoc]) -> None:
    assert wire.ranking_from_wire(sent(wire.ranking_to_wire(ranking))) == ranking


@given(st.lists(st.text(max_size=3), max_size=3), st.booleans(), st.booleans())
def test_views(given: list[str], dense: bool, sparse: bool) -> None:
    encoder = SeededEncoder()
    encoded = encoder.encode_documents(given, dense=dense, sparse=sparse)
    values = sent(wire.encoded_to_wire(encoded, encoder.vocabulary))
    assert wire.encoded_from_wire(values) == encoded
    for row in values["sparse"]["rows"] if sparse else ():
        assert row["terms"] == [f"term{index}" for index in row["indices"]]


def test_errors() -> None:
    values = sent(wire.problem(400, "Bad Request", "user-error", "the query is empty"))
    assert str(wire.error_from_wire(values)) == "the query is empty"
    assert isinstance(wire.error_from_wire({"title": "Bad Gateway"}), UserError)
