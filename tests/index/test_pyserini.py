"""pyserini as the oracle: its searchers open our Lucene index, and an index of its own gives the same scores."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.index.lucene.jvm import start_jvm
from retriever.types import Document, Encoded, EncoderIdentity, Ranking

pytestmark = pytest.mark.filterwarnings("ignore")  # importing pyserini brings torch, sklearn and their warnings

VOCAB, COUNT = 300, 400
WORDS = [
    "vaccine",
    "immune",
    "protein",
    "cell",
    "blood",
    "heart",
    "river",
    "stone",
    "winter",
    "garden",
    "music",
    "paper",
    "silver",
    "running",
    "studies",
    "children's",
    "U.S.",
    "e-mail",
    "naïve",
    "2020",
    "the",
    "of",
    "and",
    "in",
    "with",
    "Effects",
    "of",
    "EFFECTS",
    "treated",
    "treating",
    "treatment",
]
RANDOM = np.random.default_rng(5)
DOCUMENTS = [
    Document(f"doc {n}", " ".join(RANDOM.choice(WORDS, RANDOM.integers(1, 60))), title=str(RANDOM.choice(WORDS)))
    for n in range(COUNT)
]
IMPACTS = np.where(RANDOM.random((COUNT, VOCAB)) < 0.1, RANDOM.integers(1, 300, (COUNT, VOCAB)), 0)
QUERIES = [" ".join(RANDOM.choice(WORDS, RANDOM.integers(1, 9))) for _ in range(60)] + ["what is the immune-protein?"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("index")
    settings = IndexSettings(EncoderIdentity("stub", "", 0, VOCAB))
    with FolderWriter.create(path, settings) as writer:
        for start in range(0, COUNT, 150):
            weights = csr_matrix(IMPACTS[start : start + 150].astype(np.float32) / 100)
            part = DOCUMENTS[start : start + 150]
            writer.add(part, Encoded(None, weights, np.zeros(len(part), bool)))
            writer.commit()
    return path


@pytest.fixture(scope="module")
def lucene() -> Any:
    start_jvm()
    os.environ.setdefault("OPENAI_API_KEY", "unused")  # pyserini makes an OpenAI client when it is imported
    from pyserini.search import lucene

    return lucene


def same(ours: Ranking, theirs: list[Any], scale: float) -> None:
    wanted = sorted((-hit.score / scale, hit.docid) for hit in theirs)
    assert [hit.doc_id for hit in ours] == [doc_id for _, doc_id in wanted]
    assert [hit.score for hit in ours] == pytest.approx([-score for score, _ in wanted], abs=1e-4)


def test_bm25_is_that_of_lucene_searcher(folder: Path, lucene: Any) -> None:
    searcher = lucene.LuceneSearcher(str(folder / "lucene"))
    searcher.set_bm25(0.9, 0.4)
    assert searcher.num_docs == COUNT
    assert json.loads(searcher.doc("doc 7").raw())["text"] == DOCUMENTS[7].text
    with FolderReader.open(folder) as reader:
        for query in QUERIES:
            theirs = searcher.search(query, k=100)
            assert [hit.docid for hit in theirs] == [hit.doc_id for hit in reader.bm25(query, 100)]
            same(reader.bm25(query, 100), theirs, 1.0)


def test_impacts_are_those_of_an_index_by_pyserini(folder: Path, lucene: Any, tmp_path: Path) -> None:
    from jnius import autoclass

    (tmp_path / "in").mkdir()
    lines = [
        {"id": doc.doc_id, "contents": "", "vector": {str(term): int(row[term]) for term in np.flatnonzero(row)}}
        for doc, row in zip(DOCUMENTS, IMPACTS, strict=True)
    ]
    (tmp_path / "in" / "docs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    arguments = f"-collection JsonVectorCollection -input {tmp_path / 'in'} -index {tmp_path / 'out'} -threads 1"
    arguments += " -generator DefaultLuceneDocumentGenerator -impact -pretokenized"
    autoclass("io.anserini.index.IndexCollection").main(arguments.split())

    class Given:
        def encode(self, query: dict[str, int], **_: Any) -> dict[str, int]:
            return query

    searcher = lucene.LuceneImpactSearcher(str(tmp_path / "out"), Given(), min_idf=-1e9)
    with FolderReader.open(folder) as reader:
        for _ in range(30):
            terms = np.sort(RANDOM.choice(VOCAB, RANDOM.integers(1, 40), replace=False))
            weights = RANDOM.integers(1, 200, len(terms))
            query = csr_matrix((weights.astype(np.float32), terms, [0, len(terms)]), shape=(1, VOCAB))
            theirs = searcher.search(dict(zip(map(str, terms.tolist()), weights.tolist(), strict=True)), k=100)
            same(reader.sparse(query, 100), theirs, 100.0)
