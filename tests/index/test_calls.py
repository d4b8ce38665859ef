"""The calls of Java that answer queries: they find what Lucene's own calls find, and the class is its source's."""

from __future__ import annotations

import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.index.lucene import calls
from retriever.index.lucene.jvm import anserini_jar, as_type, java, lucene, one_at_a_time
from retriever.types import Document, Encoded, EncoderIdentity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

DOCUMENTS = [
    Document(f"d, doc={i}\n😀", "word " * (1 + i % 3) + ("other " * (i % 5)) + f"n{i % 7}", metadata={"n": i})
    for i in range(120)
]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FolderReader]:
    path = tmp_path_factory.mktemp("calls") / "index"
    with FolderWriter.create(path, IndexSettings(EncoderIdentity("none", "", 0, 0))) as writer:
        for start in range(0, len(DOCUMENTS), 50):  # three segments
            part = DOCUMENTS[start : start + 50]
            writer.add(part, Encoded(None, None, np.zeros(len(part), bool)))
            writer.commit()
    with FolderReader.open(path) as opened:
        yield opened


@one_at_a_time()
def by_lucene(reader: FolderReader, text: str) -> list[tuple[str, float]]:
    """Search through Lucene's and Anserini's own objects, hit by hit; order by (score, id)."""
    searcher: Any = reader._lucene._bm25
    query = java("io.anserini.search.query.BagOfWordsQueryGenerator")().buildQuery(
        "contents", reader._lucene._analysis.java, text
    )
    hits = searcher.search(as_type("search.Query", query), len(DOCUMENTS)).scoreDocs
    fields = searcher.storedFields()
    found = [(str(fields.document(hit.doc).get("id")), float(hit.score)) for hit in hits]
    return sorted(found, key=lambda pair: (-pair[1], pair[0]))


@pytest.mark.parametrize("text", ["word", "word other", "other n3 n3", "n6 word word word", "nothing", ""])
def test_hits_are_those_of_lucene_s_own_calls(reader: FolderReader, text: str) -> None:
    expected = by_lucene(reader, text)
    for top_k in (1, 3, 50, 87, 88, 200):
        assert [tuple(hit) for hit in reader.bm25(text, top_k)] == expected[:top_k]
    everything = reader.select("n >= 0")
    assert [tuple(hit) for hit in reader.bm25(text, 200, everything)] == expected


def test_threads_search_at_once(reader: FolderReader) -> None:
    texts = ["word", "word other", "other n3", "n6"] * 25
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda text: reader.bm25(text, 9), texts)) == [reader.bm25(text, 9) for text in texts]


def test_stored_documents_come_in_one_call(reader: FolderReader) -> None:
    ids = [DOCUMENTS[n].doc_id for n in (119, 0, 60)]
    raws = calls.stored(reader._lucene._index, [ids[0], "unknown", *ids[1:]])
    assert raws[1] is None
    assert [json.loads(raw)["id"] for raw in raws if raw is not None] == ids
    assert calls.stored(reader._lucene._index, []) == []
    assert [document.text for document in reader.documents(ids).values()] == [DOCUMENTS[n].text for n in (119, 0, 60)]


def test_matching_documents_and_rows(reader: FolderReader) -> None:
    selected = reader.select("n in (3, 4, 100)")
    assert np.flatnonzero(selected.rows).tolist() == [3, 4, 100]
    assert calls.first_rows(reader._lucene._index).tolist() == list(range(len(DOCUMENTS)))


def test_two_steps_add_the_second_score(reader: FolderReader) -> None:
    searcher: Any = reader._lucene._bm25
    with one_at_a_time():
        first, rest = (
            as_type("search.Query", lucene("search.TermQuery")(lucene("index.Term")("contents", word)))
            for word in ("word", "n3")
        )
    both = calls.in_two_steps(searcher, first, rest, 120)
    one, other = (calls.documents(searcher, query, 120) for query in (first, rest))
    expected = dict(zip(one.rows.tolist(), one.scores.astype(np.float32), strict=True))
    for row, score in zip(other.rows.tolist(), other.scores.astype(np.float32), strict=True):
        expected[row] += score
    assert dict(zip(both.rows.tolist(), both.scores.astype(np.float32), strict=True)) == expected


def test_the_class_is_made_of_its_source(tmp_path: Path) -> None:
    compiler = shutil.which("javac")
    if (
        compiler is None
        or "javac 17." not in subprocess.run([compiler, "-version"], capture_output=True, text=True).stdout
    ):
        pytest.skip("no javac 17; another one may write the same class in other bytes")
    source = calls.COMPILED.with_suffix(".java")
    command = [compiler, "--release", "17", "-g:none", "-cp", anserini_jar(), "-d", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    [made] = tmp_path.rglob("*.class")
    assert made.read_bytes() == calls.COMPILED.read_bytes()
