from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyterrier as pt
import pytest

from retriever import Query, Retriever, UserError
from retriever.integrations.pyterrier import HybridIndexer, HybridRetriever

pytestmark = [
    pytest.mark.lucene,
    pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning:pyterrier"),
]


TOPICS = pd.DataFrame({"qid": ["1", "2", "3"], "query": ["twins look alike", "bread", "zzzz"], "kind": ["a", "b", "c"]})


def test_the_ranking_is_that_of_the_index(small_retriever: Retriever) -> None:
    for mode in ("bm25", "hybrid"):
        found = HybridRetriever(small_retriever, mode=mode, num_results=30).transform(TOPICS)
        queries = [Query(*row) for row in zip(TOPICS["qid"], TOPICS["query"], strict=True)]
        expected = [
            (query_id, doc_id, score, rank)
            for query_id, ranking in small_retriever.rank(queries, 30, mode=mode)
            for rank, (doc_id, score) in enumerate(ranking)
        ]
        assert list(found[["qid", "docno", "score", "rank"]].itertuples(index=False, name=None)) == expected
        assert set(found[found.qid == "1"].kind) == {"a"}, "columns of the queries stay"


def test_texts_for_a_reranker(small_retriever: Retriever) -> None:
    first = HybridRetriever(small_retriever, text=True, filter="not id in (d01)")
    longest = pt.apply.doc_score(lambda row: float(len(row["text"])))
    found = (first % 5 >> longest).transform(TOPICS)
    hits = small_retriever.search("bread", 5, filter="not id in (d01)")
    by_length = sorted(hits, key=lambda hit: -len(hit.text))
    ranked = found[found.qid == "2"].sort_values("rank")
    assert list(ranked.docno) == [hit.doc_id for hit in by_length]
    assert list(ranked.metadata) == [dict(hit.metadata) for hit in by_length]
    assert list(ranked.parts) == [{leg: p._asdict() for leg, p in hit.parts.items()} for hit in by_length]
    assert list((first % 5).compile().search("bread").docno) == [hit.doc_id for hit in hits]
    again = (first >> first).transform(TOPICS)
    pd.testing.assert_frame_equal(again, first.transform(TOPICS))


def test_no_queries_and_no_hits(small_retriever: Retriever) -> None:
    empty = HybridRetriever(small_retriever, mode="bm25").transform(
        pd.DataFrame({"qid": ["9", "8"], "query": ["zzzz", ""]})
    )
    assert len(empty) == 0 and list(empty.columns) == ["qid", "query", "docno", "score", "rank"]
    assert len(HybridRetriever(small_retriever, text=True).transform(TOPICS[:0])) == 0


def test_an_index_is_made_and_measured(tiny_corpus: Path, tmp_path: Path) -> None:
    records = [json.loads(line) for line in tiny_corpus.read_text(encoding="utf-8").splitlines()]
    documents = [{"docno": r.pop("_id"), **r} for r in records]
    pipeline = pt.Compose(pt.apply.text(lambda row: row["text"].upper()), HybridIndexer(tmp_path / "i", encoder="none"))
    made = pipeline.index(iter(documents))
    with Retriever.open(tmp_path / "i") as searched:
        stored = searched.reader.documents([documents[0]["docno"]])[documents[0]["docno"]]
    assert (stored.text, stored.title) == (documents[0]["text"].upper(), documents[0]["title"])
    assert stored.metadata["year"] == documents[0]["year"]
    relevant = pd.DataFrame({"qid": ["2"], "docno": [made.search("bread").docno[0]], "label": [1]})
    table = pt.Experiment([made, made % 1], TOPICS[1:2], relevant, ["recip_rank"], names=["all", "one"], plan="tree")
    assert list(table["recip_rank"]) == [1.0, 1.0]
    with pytest.raises(UserError, match="not empty"):
        HybridIndexer(tmp_path / "i").index(documents)


def test_terriers_java_is_never_started(small_index: Path) -> None:
    program = (
        f"from retriever.integrations.pyterrier import HybridRetriever, pt\n"
        f"found = HybridRetriever({str(small_index)!r}, mode='bm25').search('bread')\n"
        f"assert len(found) and not pt.java.started()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
