"""Documents in chunks against plain Python: every leg ranks documents by their best chunk, whatever changes."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.index.chunks import Chunking, ScoredChunk, best_documents
from retriever.index.exact import exact_bm25, exact_dense, exact_sparse
from retriever.index.info import describe
from retriever.index.lucene.filters import field_kinds
from retriever.index.postings.quantise import quantise
from retriever.index.settings import read_settings
from retriever.index.verify import verify_folder
from retriever.search.leg import LegQuery
from retriever.search.opened.commit_view import own_legs
from retriever.types import Document, Encoded, EncoderIdentity, Ranking, ScoredDoc, Span, UserError

os.environ.setdefault("OMP_NUM_THREADS", "1")
DIM, VOCAB = 8, 50
WHOLE = IndexSettings(EncoderIdentity("stub", "0" * 64, DIM, VOCAB), row_dtype="float32", impact_scale=100)
CHUNKED = replace(WHOLE, chunking=Chunking(10, 2))
WORDS = ["river", "stone", "bread", "winter", "garden", "letter", "music", "paper"]
"""None is a stop word, and no two have one stem."""


def parts(document: Document) -> list[Span]:
    return [Span(*found.span()) for found in re.finditer(r"[^ .][^.]*\.", document.text)] or [Span(0, 0)]


def encode(texts: Sequence[str]) -> Encoded:
    """Give each text vectors and terms that depend on it alone; nothing for an empty text."""
    dense, sparse = np.zeros((len(texts), DIM), np.float32), np.zeros((len(texts), VOCAB), np.float32)
    for row, text in enumerate(texts):
        if text.strip():
            random = np.random.default_rng(list(text.encode()))
            dense[row] = random.standard_normal(DIM)
            sparse[row, random.choice(VOCAB, 9, replace=False)] = random.random(9) * 3 + 0.01
    return Encoded(dense, csr_matrix(sparse), np.array([len(text) > 25 for text in texts], dtype=bool))


def add(writer: FolderWriter, documents: Sequence[Document]) -> None:
    chunks = [parts(document) for document in documents]
    texts = [part.contents for document, spans in zip(documents, chunks, strict=True) for part in document.split(spans)]
    writer.add(documents, encode(texts), chunks)


def maxp(chunks: Ranking, top_k: int) -> Ranking:
    best: dict[str, float] = {}
    for doc_id, score in chunks:
        best[doc_id] = max(score, best.get(doc_id, score))
    return [ScoredDoc(*pair) for pair in sorted(best.items(), key=lambda pair: (-pair[1], pair[0]))][:top_k]


def same(found: Ranking, wanted: Ranking, tolerance: float = 1e-4) -> None:
    assert [hit.doc_id for hit in found] == [hit.doc_id for hit in wanted]
    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in wanted], abs=tolerance)


def check(reader: FolderReader, model: dict[str, Document]) -> None:
    """Compare documents, chunks and all legs, filtered and not, with the definition."""
    every = {doc_id: parts(document) for doc_id, document in model.items()}
    assert (reader.num_documents, reader.num_chunks) == (len(model), sum(map(len, every.values())))
    stored = reader.stored([*model, "not there"])
    assert {doc_id: found.document for doc_id, found in stored.items()} == model
    assert {doc_id: found.chunks for doc_id, found in stored.items()} == every
    query = encode(["what to look for"])
    assert query.dense is not None and query.sparse is not None
    clean = reader.commit_data.mark.rows == reader.num_chunks  # Lucene counts what is dead until it is merged away
    late = {doc_id for doc_id, document in model.items() if int(str(document.metadata["n"])) >= 3}
    for filter, allowed in ((None, set(model)), ("n >= 3", late)):
        pairs = [(doc_id, part.contents) for doc_id in model for part in model[doc_id].split(every[doc_id])]
        pairs = [(doc_id, text) for doc_id, text in pairs if text.strip()]
        ids = [doc_id for doc_id, _ in pairs]
        views = encode([text for _, text in pairs])
        assert views.dense is not None and views.sparse is not None
        weights = csr_matrix(quantise(views.sparse, CHUNKED.impact_scale) / CHUNKED.impact_scale)
        wanted = {
            "dense": exact_dense(ids, views.dense, query.dense[0], len(ids)),
            "sparse": exact_sparse(ids, weights, query.sparse, len(ids)),
            "bm25": exact_bm25(
                ids, [re.findall(r"\w+", text.lower()) for _, text in pairs], ["river", "stone"], 0.9, 0.4, len(ids)
            ),
        }
        wanted = {leg: [hit for hit in chunks if hit.doc_id in allowed] for leg, chunks in wanted.items()}
        selection = None if filter is None else reader.select(filter)
        for top_k in (1, 2, 3, 1_000):
            same(reader.dense(query.dense, top_k, selection)[0], maxp(wanted["dense"], top_k), 1e-5)
            same(reader.sparse(query.sparse, top_k, selection), maxp(wanted["sparse"], top_k))
            found = reader.bm25("river stone", top_k, selection)
            if clean:
                same(found, maxp(wanted["bm25"], top_k))
            else:
                assert len(found) == len(maxp(wanted["bm25"], top_k))
    holding = maxp(wanted["bm25"], 1_000)
    scored = [ScoredDoc(doc_id, score) for doc_id, _, score in reader.bm25_chunks("river stone", list(model))]
    same(reader.bm25("river stone", 1_000, selection), maxp([hit for hit in scored if hit.doc_id in allowed], 1_000))
    assert {hit.doc_id for hit in scored if hit.doc_id in allowed} == {hit.doc_id for hit in holding}
    legs, asked = own_legs(reader), LegQuery("river stone", query)
    held = {doc_id: stored[doc_id] for doc_id in model}
    for leg, by_lucene in (
        ("bm25", reader.bm25_chunks("river stone", list(model))),
        ("sparse", reader.sparse_chunks(query.sparse, list(model))),
    ):
        own = sorted(legs[leg].chunks(asked, held))
        assert [chunk[:2] for chunk in own] == [chunk[:2] for chunk in sorted(by_lucene)]
        scores = [chunk.score for chunk in sorted(by_lucene)]
        assert [chunk.score for chunk in own] == (scores if clean else pytest.approx(scores, rel=1e-6))
    for doc_id, spans in every.items():
        texts = [part.contents for part in model[doc_id].split(spans)]
        views = encode(texts)
        assert views.dense is not None and views.sparse is not None
        by_leg = {
            "dense": (
                reader.dense_chunks(query.dense[0], {doc_id: stored[doc_id]}),
                (views.dense @ query.dense[0]).tolist(),
            ),
            "sparse": (
                reader.sparse_chunks(query.sparse, [doc_id]),
                (views.sparse @ query.sparse.T).toarray()[:, 0].tolist(),
            ),
        }
        for leg, (found_chunks, scores) in by_leg.items():
            given = {chunk.number: chunk.score for chunk in found_chunks}
            positive = {n: score for n, score in enumerate(scores) if leg == "dense" or score > 0.05}
            assert {n: given[n] for n in positive} == pytest.approx(positive, abs=0.05), leg
        for number, text in list(enumerate(texts))[-2:]:
            terms = {match.term for match in reader.explain_bm25("river stone", doc_id, number)}
            assert terms == {"river", "stone"} & set(re.findall(r"\w+", text))
            explained = legs["bm25"].explain(asked, doc_id, number, ())
            assert [match[:3] for match in explained] == [
                match[:3] for match in reader.explain_bm25("river stone", doc_id, number)
            ]


SENTENCES = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(lambda words: f"{' '.join(words)}."), max_size=6
)
DOCUMENTS = st.builds(
    lambda doc_id, sentences, title, n: Document(doc_id, " ".join(sentences), title, {"n": n}),
    st.sampled_from(["a", "b", "é", "zz", "Z", "10"]),
    SENTENCES,
    st.sampled_from(["", "winter"]),
    st.integers(0, 6),
)
KINDS = st.sampled_from([None, "flat", "hnsw", "ivf"])
CHANGES = st.one_of(
    st.tuples(st.just("add"), st.lists(DOCUMENTS, max_size=5)),
    st.tuples(st.just("delete"), st.lists(st.sampled_from(["a", "é", "Z"]), max_size=2)),
    st.tuples(st.just("commit"), KINDS),
    st.tuples(st.just("compact"), KINDS),
    st.tuples(st.just("reopen"), st.none()),
)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.lists(DOCUMENTS, min_size=3, max_size=6), changes=st.lists(CHANGES, min_size=2, max_size=8))
def test_sequences_of_changes(
    tmp_path_factory: pytest.TempPathFactory,
    first: list[Document],
    changes: list[tuple[str, Any]],
) -> None:
    path = tmp_path_factory.mktemp("index")
    model: dict[str, Document] = {}
    committed: dict[str, Document] = {}
    writer = FolderWriter.create(path, CHUNKED)
    plan: list[tuple[str, Any]] = [("add", first), ("commit", None), *changes, ("commit", None)]
    try:
        for what, value in plan:
            if what == "add":
                add(writer, value)
                model |= {document.doc_id: document for document in value}
            elif what == "delete":
                assert writer.delete(value) == len(set(value) & set(model))
                model = {doc_id: document for doc_id, document in model.items() if doc_id not in (value)}
            elif what == "reopen":
                writer.close()
                writer, model = FolderWriter.open(path), dict(committed)
            else:
                committed = dict(model)
                if what == "compact":
                    writer.compact(value)
                    assert writer.committed.mark.rows == sum(len(parts(document)) for document in model.values())
                else:
                    writer.commit(dense_type=value)
                counts = writer.committed
                assert counts.documents == len(model)
                assert counts.empty == sum(not document.contents.strip() for document in model.values())
                long = [
                    any(len(p.contents) > 25 for p in document.split(parts(document))) for document in model.values()
                ]
                assert counts.truncated == sum(long)
                with FolderReader.open(path) as reader:
                    check(reader, committed)
            assert set(writer.doc_ids) == set(model) and len(writer) == len(model)
    finally:
        writer.close()
    assert verify_folder(path).damages == ()
    info = describe(path)
    assert info.dead_rows == info.rows - sum(len(parts(document)) for document in model.values())


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_one_document_with_more_good_chunks_than_hits_are_asked_for(tmp_path: Path, kind: str) -> None:
    flood = Document("flood", " ".join(["river river."] * 400), metadata={"n": 0})
    others = [Document(f"d{n:02d}", f"river {WORDS[n % 8]}. music.", metadata={"n": n}) for n in range(40)]
    with FolderWriter.create(tmp_path / "i", CHUNKED) as writer:
        for n in range(0, 40, 7):
            add(writer, others[n : n + 7])
        add(writer, [flood])
        writer.commit(dense_type=kind)
        writer.delete(["d03"])
        add(writer, [others[5]._replace(text="river.")])
        writer.commit()
    others[5] = others[5]._replace(text="river.")
    model = {document.doc_id: document for document in [flood, *others] if document.doc_id != "d03"}
    query = encode(["river river."])
    assert query.dense is not None and query.sparse is not None
    with FolderReader.open(tmp_path / "i") as reader:
        check(reader, model)
        for ranking in (reader.bm25("river", 30), reader.dense(query.dense, 30)[0]):
            assert len({hit.doc_id for hit in ranking}) == len(ranking) == 30
        for ranking in (reader.dense(query.dense, 6)[0], reader.sparse(query.sparse, 6)):
            assert [hit.doc_id for hit in ranking] == ["d00", "d08", "d16", "d24", "d32", "flood"], "all tie"


@given(data=st.data())
def test_the_best_documents_of_any_ranking(data: st.DataObject) -> None:
    scored = data.draw(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 3)), max_size=40))
    chunks = sorted(
        (ScoredDoc(doc_id, float(score)) for doc_id, score in scored), key=lambda hit: (-hit.score, hit.doc_id)
    )
    several = len(chunks) > len({hit.doc_id for hit in chunks})
    top_k, expected = data.draw(st.integers(1, 8)), data.draw(st.integers(2 if several else 1, 5))
    assert best_documents(lambda count: chunks[:count], top_k, expected) == maxp(chunks, top_k)


def test_chunking_is_kept_and_what_does_not_fit_it_refused(tmp_path: Path) -> None:
    with FolderWriter.create(tmp_path / "i", CHUNKED) as writer:
        add(writer, [Document("a", "river. stone.", metadata={"n": 1})])
        writer.add([Document("b", "bread. music.", metadata={"n": 1})], encode(["bread. music."]))
        with pytest.raises(ValueError, match="chunks"):
            writer.add([Document("c", "x")], encode([]), [[]])
        with pytest.raises(ValueError, match="shapes"):
            writer.add([Document("c", "x. y.")], encode(["x."]), [[Span(0, 2), Span(3, 5)]])
        writer.commit()
    assert read_settings(tmp_path / "i") == CHUNKED and describe(tmp_path / "i").chunking == Chunking(10, 2)
    with FolderReader.open(tmp_path / "i") as reader:
        assert (reader.num_documents, reader.num_chunks) == (2, 3)
        assert reader.stored(["b"])["b"].chunks == [Span(0, 13)], "without spans a document is one chunk"
    with FolderWriter.create(tmp_path / "w", WHOLE) as writer:
        with pytest.raises(ValueError, match="chunks"):
            writer.add([Document("c", "x. y.")], encode(["x.", "y."]), [[Span(0, 2), Span(3, 5)]])
        writer.add([Document("c", "x. y.")], encode(["x. y."]), [[Span(0, 5)]])
        writer.commit()
    with FolderReader.open(tmp_path / "w") as reader:
        assert reader.stored(["c"])["c"].chunks == [] and reader.num_chunks == 1
    with pytest.raises(UserError, match=r"^an overlap of 5 tokens is out of range for chunks of 5; need 0 or more"):
        Chunking(5, 5)


def test_a_filter_and_the_scores_of_chunks_do_not_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FolderWriter.create(tmp_path / "index", IndexSettings(EncoderIdentity("none", "", 0, 0))) as writer:
        writer.add([Document("d1", "some words", metadata={"year": 1})], None)
        writer.commit()
    reader = FolderReader.open(tmp_path / "index")
    reading, scoring = threading.Event(), threading.Event()

    def read_fields(index: object) -> dict[str, set[str]]:
        reading.set()
        assert scoring.wait(60)
        time.sleep(0.2)  # so that the other thread comes as far as it can
        return field_kinds(index)

    def score() -> list[ScoredChunk]:
        scoring.set()
        return reader.bm25_chunks("words", ["d1"])

    monkeypatch.setattr("retriever.index.lucene.reader.field_kinds", read_fields)
    filtering = threading.Thread(target=reader.select, args=("year >= 1",), daemon=True)
    found: list[ScoredChunk] = []
    chunks = threading.Thread(target=lambda: found.extend(score()), daemon=True)
    filtering.start()
    assert reading.wait(60)
    chunks.start()
    for thread in (filtering, chunks):
        thread.join(60)
        assert not thread.is_alive()
    assert [chunk.doc_id for chunk in found] == ["d1"]
    reader.close()
