"""Feedback against Anserini's, and against the formulas written out."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retriever.eval.data.datasets import load_dataset
from retriever.indexing.build import IndexingConfig, build_index
from retriever.rank import Feedback, Pipeline
from retriever.rank.feedback import METHODS
from retriever.search.retriever import Retriever
from retriever.testing import SeededEncoder
from retriever.types import Document, Query, Ranking, UserError

SCALE = IndexingConfig().impact_scale
pytestmark = pytest.mark.filterwarnings("ignore")  # importing pyserini brings torch, sklearn and their warnings


def anserini(documents: dict[str, str], folder: Path) -> Any:
    """Return pyserini's searcher of an index that Anserini made, with the document vectors that its feedback needs."""
    os.environ.setdefault("OPENAI_API_KEY", "unused")  # pyserini makes an OpenAI client when it is imported
    from jnius import autoclass
    from pyserini.search import lucene

    (folder / "in").mkdir()
    lines = [json.dumps({"id": doc_id, "contents": text}) for doc_id, text in documents.items()]
    (folder / "in" / "docs.jsonl").write_text("\n".join(lines))
    arguments = f"-collection JsonCollection -input {folder / 'in'} -index {folder / 'out'} -threads 1 -storeDocvectors"
    autoclass("io.anserini.index.IndexCollection").main(
        f"{arguments} -generator DefaultLuceneDocumentGenerator -optimize".split()
    )
    return lucene.LuceneSearcher(str(folder / "out"))


def compare(retriever: Retriever, searcher: Any, queries: list[str]) -> None:
    asked = [Query(str(n), text) for n, text in enumerate(queries)]
    for line, setup, settings in (
        ("bm25 > feedback(rm3)", searcher.set_rm3, {}),
        (
            "bm25 > feedback(rm3, documents=3, weight=0.8, terms=5)",
            searcher.set_rm3,
            {"fb_terms": 5, "fb_docs": 3, "original_query_weight": 0.2},
        ),
        ("bm25 > feedback(rocchio)", searcher.set_rocchio, {}),
        (
            "bm25 > feedback(rocchio, documents=4, weight=0.4, terms=7)",
            searcher.set_rocchio,
            {"top_fb_terms": 7, "top_fb_docs": 4, "beta": 0.4},
        ),
    ):
        searcher.unset_rm3()
        searcher.unset_rocchio()
        setup(**settings)
        for query, found in zip(
            queries, retriever.rank_pipeline(asked, 100, pipeline=Pipeline.parse(line)), strict=True
        ):
            same(found.ranking, [(hit.docid, hit.score) for hit in searcher.search(query, 100)])


def same(ours: Ranking, theirs: list[tuple[str, float]]) -> None:
    """Compare rankings; their scores are rounded to four places, and what is equal then is ordered by id."""
    assert [hit.score for hit in ours] == pytest.approx([score for _, score in theirs], rel=1e-4, abs=1e-4)
    for place, (hit, (doc_id, _)) in enumerate(zip(ours, theirs, strict=True)):
        near = {hit.doc_id for hit in ours if abs(hit.score - ours[place].score) < 2e-4}
        assert hit.doc_id == doc_id or doc_id in near or place == len(ours) - 1


def test_rm3_and_rocchio_are_anserinis(
    retriever: Retriever, documents: dict[str, str], queries: list[str], tmp_path: Path
) -> None:
    compare(retriever, anserini(documents, tmp_path), queries)


@pytest.mark.slow
def test_rm3_and_rocchio_are_anserinis_on_nfcorpus(tmp_path: Path) -> None:
    if "RETRIEVER_DATA" not in os.environ:
        pytest.skip("RETRIEVER_DATA does not name the folder of real data")
    from retriever.corpus.corpus import open_corpus
    from retriever.encoder.load import load_encoder

    data = load_dataset(Path(os.environ["RETRIEVER_DATA"]) / "eval" / "nfcorpus")
    build_index(data.corpus, tmp_path / "index", encoder=load_encoder("none"))
    documents = {
        record.document.doc_id: record.document.contents for record in open_corpus(data.corpus) if record.document
    }
    with Retriever.open(tmp_path / "index") as retriever:
        compare(retriever, anserini(documents, tmp_path), [query.text for query in data.queries[:30]])


def test_feedback_after_deletions_is_that_of_an_index_without_them(
    documents: dict[str, str], queries: list[str], tmp_path: Path
) -> None:
    from retriever.index import FolderWriter

    kept = dict(list(documents.items())[50:])
    for name, texts in (("all", documents), ("kept", kept)):
        build_index([Document(*pair) for pair in texts.items()], tmp_path / name, encoder=SeededEncoder())
    with FolderWriter.open(tmp_path / "all") as writer:
        writer.delete(list(documents)[:50])
        writer.commit(writer.committed.note)
    asked = [Query(str(n), text) for n, text in enumerate(queries)]
    with (
        Retriever.open(tmp_path / "all", SeededEncoder()) as one,
        Retriever.open(tmp_path / "kept", SeededEncoder()) as other,
    ):
        for method in METHODS:
            pipeline = Pipeline("bm25+dense+sparse", (Feedback(method),))
            for first, second in zip(
                one.rank_pipeline(asked, 50, pipeline=pipeline),
                other.rank_pipeline(asked, 50, pipeline=pipeline),
                strict=True,
            ):
                assert [hit.doc_id for hit in first.ranking] == [hit.doc_id for hit in second.ranking]


def stored(documents: dict[str, str], ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors of documents, and their terms as they are stored."""
    encoded = SeededEncoder().encode_documents([documents[doc_id] for doc_id in ids])
    assert encoded.dense is not None and encoded.sparse is not None
    return encoded.dense, np.round(encoded.sparse.toarray() * SCALE) / SCALE


def scores(documents: dict[str, str], vector: np.ndarray | None, terms: np.ndarray | None) -> dict[str, float]:
    dense, sparse = stored(documents, list(documents))
    found = dense @ vector if vector is not None else sparse @ terms
    return dict(zip(documents, found.tolist(), strict=True))


@pytest.mark.parametrize("leg", ["dense", "sparse"])
@pytest.mark.parametrize("method", ["joint", "rm3", "rocchio", "average"])
def test_feedback_on_views_is_its_formula(
    method: str, leg: str, retriever: Retriever, documents: dict[str, str], queries: list[str]
) -> None:
    if leg not in METHODS[method].change:
        with pytest.raises(UserError, match="add one of these"):
            retriever.search("x", pipeline=Pipeline(leg, (Feedback(method),)))
        return
    for text in queries[:6]:
        head = retriever.search(text, 4, mode=leg)
        vectors, terms = stored(documents, [hit.doc_id for hit in head])
        weights = np.array([max(hit.score, 0) for hit in head])
        weights /= weights.sum()
        query = SeededEncoder().encode_queries([text])
        assert query.dense is not None and query.sparse is not None
        q, s = query.dense[0], query.sparse.toarray()[0]
        moved, expanded = None, None
        if leg == "dense":
            moved = (q + vectors.sum(0)) / 5 if method == "average" else q + 0.5 * (weights @ vectors)
            moved /= np.linalg.norm(moved)
        elif method == "rm3":
            mean = strongest(weights @ (terms / terms.sum(1, keepdims=True)))
            expanded = 0.5 * s + 0.5 * s.sum() * mean / mean.sum()
        elif method == "rocchio":
            mean = strongest((terms / np.linalg.norm(terms, axis=1, keepdims=True)).mean(0))
            expanded = s + 0.5 * np.linalg.norm(s) * mean / np.linalg.norm(mean)
        else:
            held = (stored(documents, list(documents))[1] > 0).sum(0)
            mean = strongest((weights @ terms) * np.log1p((len(documents) - held + 0.5) / (held + 0.5)))
            expanded = s + 0.5 * s.sum() * mean / mean.sum()
        wanted = scores(documents, moved, expanded)
        pipeline = Pipeline(leg, (Feedback(method, documents=4, weight=0.5, terms=6, keep=2),))
        hits = retriever.search(text, 20, pipeline=pipeline)
        assert [hit.score for hit in hits] == pytest.approx([wanted[hit.doc_id] for hit in hits], abs=0.02)
        best = sorted(wanted, key=lambda doc_id: -wanted[doc_id])
        assert len({hit.doc_id for hit in hits} & set(best[:22])) >= 18  # stored vectors are rounded


def strongest(weights: np.ndarray) -> np.ndarray:
    kept = np.argsort(-weights, kind="stable")[:6]
    found = np.zeros_like(weights)
    found[kept] = weights[kept]
    return found


@pytest.mark.parametrize("method", ["joint", "rocchio"])
def test_hits_that_were_sure_stay_on_top(method: str, retriever: Retriever, queries: list[str]) -> None:
    moved = 0
    for text in queries:
        before = retriever.search(text, 100)
        low, high = before[-1].score, before[0].score
        sure = [hit.doc_id for hit in before if (hit.score - low) / (high - low) >= 0.7]
        free = Pipeline(stages=(Feedback(method, keep=1.01),))
        after = [hit.doc_id for hit in retriever.search(text, 100, pipeline=free)]
        hits = retriever.search(text, 50, pipeline=Pipeline(stages=(Feedback(method, keep=0.7),)))
        assert [hit.doc_id for hit in hits] == [*sure, *(one for one in after if one not in sure)][:50]
        assert all(one.score > other.score for one, other in itertools.pairwise(hits))
        moved += after[: len(sure)] != sure
    assert moved > 5


def test_it_says_which_terms_it_added(retriever: Retriever, queries: list[str]) -> None:
    hits = retriever.search(queries[0], 5, pipeline=Pipeline(stages=(Feedback("rocchio"),)), explain=True)
    plain = {(match.leg, match.term) for hit in retriever.search(queries[0], 300, explain=True) for match in hit.terms}
    added = [match for hit in hits for match in hit.stages[0].matches]
    assert added and not {(match.leg, match.term) for match in added} & plain
    assert all(match in hit.terms for hit in hits for match in hit.stages[0].matches)


def test_legs_that_are_not_named_stay(retriever: Retriever, queries: list[str]) -> None:
    asked = [Query("q", queries[3])]
    [plain, one, every] = [
        next(iter(retriever.rank_pipeline(asked, 50, pipeline=Pipeline.parse(f"bm25+dense+sparse > {stage}")))).lists
        for stage in ("mmr", "feedback(rocchio, legs=sparse)", "feedback(rocchio)")
    ]
    assert {name for name in one if name.startswith("feedback.")} == {"feedback.sparse"}
    assert one["feedback.sparse"] == every["feedback.sparse"] != plain["sparse"] and "feedback.bm25" in every
    with pytest.raises(UserError, match=r"legs is 'dense'; need some of bm25\+sparse, which rm3 changes"):
        Pipeline.parse("hybrid > feedback(rm3, legs=dense)")
