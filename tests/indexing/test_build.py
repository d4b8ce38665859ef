"""Building an index: counts, interruption and resumption, memory."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from retriever.corpus.corpus import Corpus
from retriever.corpus.formats import Row
from retriever.encoder.base import EncoderBase
from retriever.encoder.load import load_encoder
from retriever.index import FolderReader
from retriever.indexing.build import IndexingConfig, build_index, interrupted
from retriever.indexing.writer import add_corpus
from retriever.types import Document, Encoded, EncoderIdentity, UserError

os.environ.setdefault("OMP_NUM_THREADS", "1")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
DIM, VOCAB = 4, 20
SMALL = IndexingConfig(batch=20, commit_every_documents=50)
"""Commits fall after 60, 120, ... documents."""


class Stub(EncoderBase):
    """Encodes a text by its own bytes, notes it, and raises `error` instead of the batch after `limit` texts."""

    def __init__(self, limit: int | None = None, error: type[BaseException] = RuntimeError, sha: str = "a") -> None:
        self.identity = EncoderIdentity(f"stub-{sha}", sha * 64, DIM, VOCAB)
        self.vocabulary: Sequence[str] = [str(i) for i in range(VOCAB)]
        self.seen: list[str] = []
        self._limit, self._error = limit, error

    def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        if self._limit is not None and len(self.seen) + len(texts) > self._limit:
            raise self._error("stopped")
        self.seen += texts
        seeds = np.array([sum(text.encode()) for text in texts])
        vectors = np.cos(seeds[:, None] * np.arange(1, DIM + 1)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        terms = np.zeros((len(texts), VOCAB), np.float32)
        terms[np.arange(len(texts)), seeds % VOCAB] = 1.5
        return Encoded(
            vectors if dense else None,
            csr_matrix(terms) if sparse else None,
            np.array([len(text) > 60 for text in texts]),
        )

    encode_queries = encode_documents


def write(path: Path, records: Sequence[object]) -> Path:
    path.write_text("".join(f"{record if isinstance(record, str) else json.dumps(record)}\n" for record in records))
    return path


def numbered(count: int) -> list[object]:
    return [{"_id": f"d{n}", "text": f"number{n} of all", "n": n} for n in range(count)]


def content(folder: Path, ids: Sequence[str]) -> object:
    """Return all that an index answers: documents and every leg."""
    query = Stub().encode_queries(["number7 of all"])
    assert query.dense is not None and query.sparse is not None
    with FolderReader.open(folder) as reader:
        return (
            reader.documents(ids),
            reader.bm25("number7 all", 1_000),
            reader.sparse(query.sparse, 1_000),
            reader.dense(query.dense, 1_000),
            (reader.commit_data.documents, reader.commit_data.empty, reader.commit_data.truncated),
        )


def test_the_report_counts(tmp_path: Path) -> None:
    records = [
        {"_id": "a", "title": "first", "text": "river"},
        {"_id": "b", "text": ""},
        {"_id": "c", "text": "long " * 20},
        "not json",
        {"_id": "a", "text": "river again"},
        {"_id": "d", "text": None, "title": " "},
        {"_id": 7.5, "text": "number"},
    ]
    corpus = write(tmp_path / "corpus.jsonl", records)
    config = IndexingConfig(on_duplicate="skip", on_bad="skip")
    report = build_index(corpus, tmp_path / "index", encoder=Stub(), config=config)
    assert (report.documents, report.empty, report.truncated, report.bad, report.duplicates) == (4, 2, 1, 2, 1)
    assert report.first_bad.startswith(f"{corpus}:4: ")
    assert report.sizes["lucene"] > 0 and report.sizes["rows"] >= 4 * 4 * DIM
    assert report.seconds > 0
    with FolderReader.open(tmp_path / "index") as reader:
        assert reader.documents(["a"]) == {"a": Document("a", "river", "first")}
        assert reader.num_documents == 4


def test_fields_of_other_names(tmp_path: Path) -> None:
    config = IndexingConfig(id_field="n", text_field="body", title_field="head")
    corpus = write(tmp_path / "c.jsonl", [{"n": "a", "body": "river", "head": "first"}])
    build_index(corpus, tmp_path / "index", encoder=Stub(), config=config)
    add_corpus(
        tmp_path / "index", write(tmp_path / "d.jsonl", [{"n": "b", "body": "lake"}]), encoder=Stub(), config=config
    )
    with FolderReader.open(tmp_path / "index") as reader:
        assert reader.documents("ab") == {"a": Document("a", "river", "first"), "b": Document("b", "lake")}
    with pytest.raises(UserError, match="documents have names of their own"):
        build_index([Document("a", "x")], tmp_path / "other", encoder=Stub(), config=config)


def test_replace_keeps_the_last(tmp_path: Path) -> None:
    corpus = write(tmp_path / "c.jsonl", [{"_id": "a", "text": f"version{n}"} for n in range(45)])
    stub = Stub()
    report = build_index(
        corpus, tmp_path / "index", encoder=stub, config=IndexingConfig(on_duplicate="replace", batch=10)
    )
    assert (report.documents, report.duplicates, stub.seen) == (1, 44, ["version44"])
    with FolderReader.open(tmp_path / "index") as reader:
        assert [hit.doc_id for hit in reader.bm25("version44", 5)] == ["a"]
        assert reader.bm25("version0", 5) == []


@pytest.mark.parametrize(
    "config",
    [
        {"on_duplicate": "sometimes"},
        {"on_bad": "never"},
        {"dense_type": "tree"},
        {"batch": 0},
        {"commit_every_documents": 0},
        {"commit_every_seconds": 0.0},
    ],
)
def test_bad_settings_leave_no_folder(tmp_path: Path, config: dict[str, object]) -> None:
    corpus = write(tmp_path / "c.jsonl", numbered(3))
    with pytest.raises(UserError):
        build_index(corpus, tmp_path / "index", encoder=Stub(), config=IndexingConfig(**config))  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["c.jsonl"]


@pytest.mark.parametrize("record", ["{", {"_id": "d0", "text": "twice"}, {"text": "no id"}])
def test_bad_input_leaves_no_folder_and_encodes_nothing(tmp_path: Path, record: object) -> None:
    corpus, stub = write(tmp_path / "c.jsonl", [*numbered(50), record]), Stub()
    with pytest.raises(UserError, match=f"{corpus}:51"):
        build_index(corpus, tmp_path / "index", encoder=stub, config=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["c.jsonl"]
    assert stub.seen == []


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    corpus = write(tmp_path / "c.jsonl", numbered(3))
    with pytest.raises(UserError, match="--resume"):
        build_index(corpus, tmp_path, encoder=Stub())
    with pytest.raises(UserError, match="a file, need a new or empty folder"):
        build_index(corpus, corpus, encoder=Stub())
    assert [path.name for path in tmp_path.iterdir()] == ["c.jsonl"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize(("limit", "committed"), [(0, 0), (59, 0), (60, 60), (139, 120), (150, 120), (199, 180)])
def test_resuming_is_not_interrupting(tmp_path: Path, error: type[BaseException], limit: int, committed: int) -> None:
    corpus, ids = write(tmp_path / "c.jsonl", numbered(200)), [f"d{n}" for n in range(200)]
    whole = Stub()
    build_index(corpus, tmp_path / "whole", encoder=whole, config=SMALL)
    assert not interrupted(tmp_path / "whole")
    first, second = Stub(limit, error), Stub()
    with pytest.raises(error):
        build_index(corpus, tmp_path / "index", encoder=first, config=SMALL)
    assert interrupted(tmp_path / "index")
    with FolderReader.open(tmp_path / "index") as reader:
        assert reader.num_documents == committed
        assert reader.documents(ids).keys() == set(ids[:committed])
    report = build_index(corpus, tmp_path / "index", encoder=second, config=SMALL, resume=True)
    assert report.documents == 200
    assert second.seen == whole.seen[committed:], "what was committed is not encoded again"
    assert not interrupted(tmp_path / "index")
    assert content(tmp_path / "index", ids) == content(tmp_path / "whole", ids)
    third = Stub()
    assert build_index(corpus, tmp_path / "index", encoder=third, config=SMALL, resume=True).documents == 200
    assert third.seen == []
    assert content(tmp_path / "index", ids) == content(tmp_path / "whole", ids)


def test_resuming_with_bad_records_and_duplicates(tmp_path: Path) -> None:
    records = [record for n in range(60) for record in ({"_id": f"d{n % 40}", "text": f"number{n} of all"}, "bad")]
    corpus, ids = write(tmp_path / "c.jsonl", records), [f"d{n}" for n in range(40)]
    for policy in ("skip", "replace"):
        config = IndexingConfig(policy, "skip", batch=7, commit_every_documents=10)
        build_index(corpus, tmp_path / f"{policy}-whole", encoder=(whole := Stub()), config=config)
        with pytest.raises(RuntimeError):
            build_index(corpus, tmp_path / policy, encoder=Stub(29), config=config)
        build_index(corpus, tmp_path / policy, encoder=(last := Stub()), config=config, resume=True)
        assert last.seen == whole.seen[28:]
        assert max(Counter(whole.seen).values()) == 1
        assert content(tmp_path / policy, ids) == content(tmp_path / f"{policy}-whole", ids)


def test_a_new_index_may_be_asked_to_resume(tmp_path: Path) -> None:
    corpus = write(tmp_path / "c.jsonl", numbered(3))
    assert build_index(corpus, tmp_path / "index", encoder=Stub(), resume=True).documents == 3


def test_resuming_something_else(tmp_path: Path) -> None:
    corpus, other = write(tmp_path / "c.jsonl", numbered(200)), write(tmp_path / "o.jsonl", numbered(201))
    folder = tmp_path / "index"
    with pytest.raises(RuntimeError):
        build_index(corpus, folder, encoder=Stub(150), config=SMALL)
    with pytest.raises(UserError, match="another corpus"):
        build_index(other, folder, encoder=Stub(), config=SMALL, resume=True)
    with pytest.raises(UserError, match="stub-a, cannot continue with stub-b"):
        build_index(corpus, folder, encoder=Stub(sha="b"), config=SMALL, resume=True)
    with pytest.raises(UserError, match=r"stub-a, cannot continue with none"):
        build_index(corpus, folder, encoder=load_encoder("none"), config=SMALL, resume=True)
    others = {"k1": 1.2, "b": 0.75, "impact_scale": 1_000, "rows": "float16", "max_terms": 9, "min_weight": 0.5}
    for name, value in others.items():
        config = IndexingConfig(batch=20, **{name: value})  # type: ignore[arg-type]
        with pytest.raises(UserError, match=f"{name} .* cannot continue with {value}"):
            build_index(corpus, folder, encoder=Stub(), config=config, resume=True)
    with pytest.raises(UserError, match="not empty"):
        build_index(corpus, folder, encoder=Stub(), config=SMALL)
    with FolderReader.open(folder) as reader:
        assert reader.num_documents == 120
    assert build_index(corpus, folder, encoder=Stub(), config=SMALL, resume=True).documents == 200


def test_settings_reach_the_index(tmp_path: Path) -> None:
    corpus = write(tmp_path / "c.jsonl", numbered(30))
    terms = {"impact_scale": 10, "max_terms": 3, "min_weight": 0.5}
    config = IndexingConfig(k1=1.2, b=0.75, dense_type="hnsw", rows="float16", **terms)  # type: ignore[arg-type]
    build_index(corpus, tmp_path / "i", encoder=Stub(), config=config)
    with FolderReader.open(tmp_path / "i") as reader:
        settings = reader.settings
        assert (settings.k1, settings.b, settings.impact_scale) == (1.2, 0.75, 10)
        assert (settings.row_dtype, settings.max_terms, settings.min_weight) == ("float16", 3, 0.5)
        assert reader.commit_data.dense_type == "hnsw"


def generated(count: int) -> Corpus:
    def rows() -> Iterator[Row]:
        for n in range(count):
            yield Row(f"row {n}", {"_id": f"document-{n}", "text": f"number{n} " + "salt " * 400}, None)

    return Corpus("generated", rows)


class Forgetful(Stub):
    def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        self.seen.clear()
        return super().encode_documents(texts, dense=dense, sparse=sparse)


def test_memory_holds_ids_and_no_texts(tmp_path: Path) -> None:
    """A text has 2,000 characters; an id with its entry in two tables takes a tenth of that."""
    build_index(generated(200), tmp_path / "warm", encoder=Forgetful(), config=IndexingConfig(batch=50))
    peaks = {}
    for count in (1_000, 7_000):
        tracemalloc.start()
        build_index(generated(count), tmp_path / str(count), encoder=Forgetful(), config=IndexingConfig(batch=50))
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (peaks[7_000] - peaks[1_000]) / 6_000 < 400


def test_commits_every_so_many_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = write(tmp_path / "c.jsonl", [{"_id": f"d{n}", "text": f"river {n}"} for n in range(100)])
    clock = iter(range(0, 10_000, 10))  # ten seconds pass at each look at the clock
    # The module's own name of it: servers of other tests look at the real clock meanwhile.
    monkeypatch.setattr("retriever.indexing.build.time", SimpleNamespace(monotonic=lambda: next(clock)))
    with pytest.raises(RuntimeError, match="stopped"):
        build_index(
            corpus, tmp_path / "i", encoder=Stub(limit=70), config=IndexingConfig(batch=10, commit_every_seconds=25.0)
        )
    with FolderReader.open(tmp_path / "i") as reader:
        assert (reader.num_documents, reader.commit_data.number) == (60, 2)
