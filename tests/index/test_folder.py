"""The index folder against plain Python: every leg, every sequence of changes, every id."""

from __future__ import annotations

import datetime
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.index.exact import exact_dense, exact_sparse
from retriever.index.postings.quantise import quantise
from retriever.index.writing.batch import check_batch
from retriever.types import Document, Encoded, EncoderIdentity, MetadataValue, Ranking, ScoredDoc, UserError

os.environ.setdefault("OMP_NUM_THREADS", "1")
DIM, VOCAB = 8, 50
SETTINGS = IndexSettings(EncoderIdentity("stub", "0" * 64, DIM, VOCAB))
TEXT_ONLY = IndexSettings(EncoderIdentity("none", "", 0, 0))
WORDS = ["river", "stone", "bread", "winter", "engine", "garden", "letter", "music", "paper", "silver"]


def encode(texts: Sequence[str]) -> Encoded:
    """Give each text vectors and terms that depend on it alone; nothing for an empty text."""
    dense, sparse = np.zeros((len(texts), DIM), np.float32), np.zeros((len(texts), VOCAB), np.float32)
    for row, text in enumerate(texts):
        if text.strip():
            random = np.random.default_rng(list(text.encode("utf-8")))
            dense[row] = random.standard_normal(DIM)
            dense[row] /= np.linalg.norm(dense[row])
            sparse[row, random.choice(VOCAB, 9, replace=False)] = random.random(9) * 3 + 0.01
    return Encoded(dense, csr_matrix(sparse), np.array([len(text) > 100 for text in texts], dtype=bool))


def add(writer: FolderWriter, documents: Sequence[Document]) -> None:
    writer.add(documents, encode([document.contents for document in documents]))


def sample(count: int, seed: int = 0) -> list[Document]:
    random = np.random.default_rng(seed)
    return [
        Document(f"d{number}", " ".join(random.choice(WORDS, 6)), title=str(random.choice(WORDS)))
        for number in random.permutation(count).tolist()
    ]


def same(found: Ranking, wanted: Ranking, tolerance: float = 1e-4) -> None:
    assert [hit.doc_id for hit in found] == [hit.doc_id for hit in wanted]
    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in wanted], abs=tolerance)


def check(reader: FolderReader, model: dict[str, Document]) -> None:
    """Compare documents and all legs with search by definition over the model."""
    ids = [doc_id for doc_id, document in model.items() if document.contents.strip()]
    encoded = encode([model[doc_id].contents for doc_id in ids])
    query = encode(["what to look for"])
    assert encoded.dense is not None and encoded.sparse is not None
    assert query.dense is not None and query.sparse is not None
    assert reader.num_documents == len(model)
    assert reader.documents([*model, "not there"]) == model
    for top_k in (1, 3, 1_000):
        same(reader.dense(query.dense, top_k)[0], exact_dense(ids, encoded.dense, query.dense[0], top_k), 1e-6)
        stored = csr_matrix(quantise(encoded.sparse, SETTINGS.impact_scale) / SETTINGS.impact_scale)
        same(reader.sparse(query.sparse, top_k), exact_sparse(ids, stored, query.sparse, top_k), 1e-4)
    for word in WORDS[:3]:
        holding = {doc_id for doc_id in ids if word in model[doc_id].contents.split()}
        assert {hit.doc_id for hit in reader.bm25(word, 1_000)} == holding


def test_add_search_and_read_back(tmp_path: Path) -> None:
    documents = sample(300)
    model = {document.doc_id: document for document in documents}
    with FolderWriter.create(tmp_path / "new" / "index", SETTINGS) as writer:
        for start in range(0, 300, 70):
            add(writer, documents[start : start + 70])
        assert len(writer) == 300 and "d7" in writer and set(writer.doc_ids) == set(model)
        writer.commit({"line": "300", "ü": "ß\n😀"}, dense_type="auto")
    with FolderReader.open(tmp_path / "new" / "index") as reader:
        check(reader, model)
        assert reader.settings == SETTINGS and reader.has_dense and reader.has_sparse
        assert reader.sizes()["rows"] > 300 * 4 * DIM and reader.sizes()["lucene"] > 0
    with FolderWriter.open(tmp_path / "new" / "index") as writer:
        assert writer.committed.note == {"line": "300", "ü": "ß\n😀"}
        assert set(writer.doc_ids) == set(model)


VALID_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(str.strip)


@settings(max_examples=8, deadline=None)
@given(ids=st.lists(VALID_TEXT, min_size=1, max_size=20, unique=True))
def test_any_id_ordered_by_code_point(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    path = tmp_path_factory.mktemp("index")
    wanted = sorted([*ids, "x" * 5_000, "a\nb", "😀\t", "\uffff", "\x00"])
    documents = [Document(doc_id, "river", metadata={"key": doc_id}) for doc_id in dict.fromkeys(wanted)]
    with FolderWriter.create(path, SETTINGS) as writer:
        add(writer, documents)
        writer.commit()
    query = encode(["river"])
    assert query.dense is not None and query.sparse is not None
    wanted = [document.doc_id for document in documents]
    with FolderReader.open(path) as reader:
        for found in (reader.bm25("river", 100), reader.sparse(query.sparse, 100), reader.dense(query.dense, 100)[0]):
            assert [hit.doc_id for hit in found] == wanted
        assert reader.documents(wanted) == {document.doc_id: document for document in documents}
    with FolderWriter.open(path) as writer:
        assert set(writer.doc_ids) == set(wanted)
        assert writer.delete(wanted[1:]) == len(wanted) - 1
        writer.commit()
    with FolderReader.open(path) as reader:
        assert [hit.doc_id for hit in reader.bm25("river", 100)] == wanted[:1]


def test_ties_are_cut_by_id_in_every_leg(tmp_path: Path) -> None:
    ids = [f"d{number:04d}" for number in np.random.default_rng(1).permutation(1_500).tolist()]
    with FolderWriter.create(tmp_path / "i", SETTINGS) as writer:
        for start in (0, 500, 1_000):
            add(writer, [Document(doc_id, "river bread") for doc_id in ids[start : start + 500]])
            writer.commit()  # several Lucene segments
        add(writer, [Document(f"e{number}", f"river stone{number}") for number in range(50)])
        writer.commit()
    query = encode(["river bread"])
    assert query.dense is not None and query.sparse is not None
    with FolderReader.open(tmp_path / "i") as reader:
        for top_k in (1, 2, 10, 999, 1_500):
            wanted = sorted(ids)[:top_k]
            for found in (
                reader.bm25("bread", top_k),
                reader.sparse(query.sparse, top_k),
                reader.dense(query.dense, top_k)[0],
            ):
                assert [hit.doc_id for hit in found] == wanted


def test_explanations_add_up(tmp_path: Path) -> None:
    with FolderWriter.create(tmp_path / "i", SETTINGS) as writer:
        add(writer, sample(50))
        writer.commit()
    query = encode(["q"])
    assert query.sparse is not None
    with FolderReader.open(tmp_path / "i") as reader:
        text = "The rivers, river and stones of winter"
        for hit in reader.bm25(text, 5):
            matches = reader.explain_bm25(text, hit.doc_id)
            assert sum(match.contribution for match in matches) == pytest.approx(hit.score, abs=1e-5)
            assert {match.term for match in matches} <= {"river", "stone", "winter"}
            assert all(match.query_weight == (2 if match.term == "river" else 1) for match in matches)
        for hit in reader.sparse(query.sparse, 5):
            matches = reader.explain_sparse(query.sparse, hit.doc_id)
            assert sum(match.contribution for match in matches) == pytest.approx(hit.score, abs=1e-5)
        assert reader.explain_bm25(text, "unknown") == [] == reader.explain_sparse(query.sparse, "unknown")


def test_relative_paths_follow_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("first", "second"):  # Java, which is started once, stays where it was started
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        with FolderWriter.create(Path("index"), SETTINGS) as writer:
            add(writer, [Document(name, "river stone")])
            writer.commit()
        with FolderReader.open("index") as reader:
            assert [hit.doc_id for hit in reader.bm25("river", 5)] == [name]


def test_queries_without_terms(tmp_path: Path) -> None:
    with FolderWriter.create(tmp_path / "i", SETTINGS) as writer:
        add(writer, [*sample(5), Document("empty", ""), Document("blank", " \t\n", title=" ")])
        writer.commit(dense_type="auto")
        assert (writer.committed.documents, writer.committed.empty) == (7, 2)
    with FolderReader.open(tmp_path / "i") as reader:
        for text in ("", "   ", "the of", "?!", "\ud800"):
            assert reader.bm25(text, 5) == []
        assert reader.sparse(csr_matrix(np.zeros((1, VOCAB), np.float32)), 5) == []
        assert reader.dense(np.zeros((1, DIM), np.float32), 5) == [[]]
        assert reader.dense(np.ones((2, DIM), np.float32), 9)[0] == reader.dense(np.ones((1, DIM), np.float32), 9)[0]
        assert len(reader.dense(np.ones((1, DIM), np.float32), 9)[0]) == 5
        assert reader.documents(["empty"])["empty"].text == ""
        every_leg = (
            lambda k: reader.bm25("river", k),
            lambda k: reader.sparse(csr_matrix(np.zeros((1, VOCAB))), k),
            lambda k: reader.dense(np.ones((1, DIM), np.float32), k),
        )
        for leg in every_leg:
            with pytest.raises(UserError, match="top_k is 0"):
                leg(0)
        with pytest.raises(ValueError, match="finite"):
            reader.dense(np.full((1, DIM), np.nan, np.float32), 5)


def test_text_only_index(tmp_path: Path) -> None:
    metadata: dict[str, MetadataValue] = {
        "year": 2020,
        "tags": ["a", "b", 3, None],
        "deep": {"x": [1]},
        "ok": True,
        "none": None,
        "long": "x" * 40_000,
    }
    document = Document("d1", "river of stone", "T", metadata)
    with FolderWriter.create(tmp_path / "i", TEXT_ONLY) as writer:
        writer.add([document, Document("d2", "bread", metadata={"huge": 10**400, "year": 1.5})], None)
        writer.commit(dense_type="auto")
    with FolderReader.open(tmp_path / "i") as reader:
        assert not reader.has_dense and not reader.has_sparse
        assert [hit.doc_id for hit in reader.bm25("stones", 5)] == ["d1"]
        assert [hit.doc_id for hit in reader.bm25("stones", 2**31)] == ["d1"]
        assert reader.documents(["d1"]) == {"d1": document}
        with pytest.raises(UserError, match="no vectors"):
            reader.dense(np.ones((1, 4), np.float32), 1)
        with pytest.raises(UserError, match="no sparse terms"):
            reader.sparse(csr_matrix(np.zeros((1, 4))), 1)
    (tmp_path / "i" / "rows").rename(tmp_path / "i" / "rows-backup")
    with pytest.raises(UserError, match=r"rows/.*: damaged .missing.; restore"):
        FolderReader.open(tmp_path / "i")


def test_a_refused_batch_changes_nothing(tmp_path: Path) -> None:
    with FolderWriter.create(tmp_path / "i", SETTINGS) as writer:
        for doc_id, text in (("half \ud800", "x"), ("d", "half \udfff"), ("é" * 20_000, "x")):
            with pytest.raises(UserError, match="document '"):
                writer.add([Document("fine", "river"), Document(doc_id, text)], encode(["river", "x"]))
        wrong = encode(["river"])
        with pytest.raises(ValueError, match="shapes"):
            writer.add([Document("fine", "river")], wrong._replace(dense=None))
        with pytest.raises(ValueError, match="shapes"):
            writer.add([Document("fine", "river")], None)
        with pytest.raises(ValueError, match="not finite"):
            writer.add([Document("fine", "river")], wrong._replace(dense=np.full((1, DIM), np.inf, np.float32)))
        assert len(writer) == 0
        writer.commit()
    with FolderReader.open(tmp_path / "i") as reader:
        assert reader.num_documents == 0
        check(reader, {})


@pytest.mark.parametrize(
    "document",
    [
        Document("d", None),  # type: ignore[arg-type]
        Document("d", 5),  # type: ignore[arg-type]
        Document("d", "x", None),  # type: ignore[arg-type]
        Document(7, "x"),  # type: ignore[arg-type]
        Document("", "x"),
        Document(" \n", "x"),
        Document("d", "x", metadata={"day": datetime.date(2020, 1, 2)}),  # type: ignore[dict-item]
        Document("d", "x", metadata={"n": [float("nan")]}),
        Document("d", "x", metadata={"n": float("inf")}),
        Document("d", "x", metadata=[("n", 1)]),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_document_is_refused(document: Document) -> None:
    with pytest.raises(UserError, match=r"^document .*: its (text|id|title|metadata) is .*; \w+ ") as caught:
        check_batch([Document("fine", "river"), document], None, TEXT_ONLY)
    assert "\n" not in str(caught.value)


def test_readers_keep_their_view(tmp_path: Path) -> None:
    with FolderWriter.create(tmp_path / "i", SETTINGS) as writer:
        documents = sample(40)
        add(writer, documents)
        writer.commit(dense_type="hnsw")
        with FolderReader.open(tmp_path / "i") as before:
            writer.delete([document.doc_id for document in documents[:30]])
            add(writer, [Document("d39", "new text")])
            writer.commit(dense_type="ivf")
            check(before, {document.doc_id: document for document in documents})
        with FolderReader.open(tmp_path / "i") as after:
            model = {document.doc_id: document for document in documents[30:]}
            check(after, model | {"d39": Document("d39", "new text")})


def test_threads_see_the_same(tmp_path: Path) -> None:
    for name, seed in (("i", 1), ("j", 2)):
        with FolderWriter.create(tmp_path / name, SETTINGS) as writer:
            add(writer, sample(500, seed))
            writer.commit()
    queries = [encode([word]) for word in WORDS * 10]
    with FolderReader.open(tmp_path / "i") as one, FolderReader.open(tmp_path / "j") as other:

        def bm25(number: int) -> Ranking:
            return (one, other)[number % 2].bm25(" ".join(WORDS[number % 7 : number % 7 + 3]), 10)

        def sparse(number: int) -> Ranking:
            query = queries[number].sparse
            assert query is not None
            return (one, other)[number % 2].sparse(query, 10)

        def dense(number: int) -> Ranking:
            query = queries[number].dense
            assert query is not None
            return (one, other)[number % 2].dense(query, 10)[0]

        def explain(number: int) -> Ranking:
            matches = one.explain_bm25("river stone bread", f"d{number}")
            return [ScoredDoc(match.term, match.contribution) for match in matches]

        jobs = [(leg, number) for number in range(len(queries)) for leg in (bm25, sparse, dense, explain)]
        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(lambda job: job[0](job[1]), jobs)) == [leg(number) for leg, number in jobs]
        from retriever.index.lucene import jvm

        threads = jvm.java("java.lang.Thread").activeCount
        before = threads()
        for _ in range(40):  # threads that end leave the JVM; others may have come to it meanwhile
            thread = threading.Thread(target=sparse, args=(0,))
            thread.start()
            thread.join()
        assert threads() < before + 20


def test_reading_while_writing(tmp_path: Path) -> None:
    """A reader opened at any moment sees one commit: either all of a batch or nothing of it, in every leg."""
    path, done = tmp_path / "i", threading.Event()
    with FolderWriter.create(path, SETTINGS) as writer:

        def read() -> int:
            seen = 0
            while not (seen and done.is_set()):  # once at least: the writer may be the first to end
                with FolderReader.open(path) as reader:
                    count = reader.num_documents
                    assert count % 10 == 0
                    assert (
                        len(reader.bm25("river", 1_000))
                        == count
                        == len(reader.dense(np.ones((1, DIM), "f4"), 1_000)[0])
                    )
                    seen += 1
            return seen

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            try:
                for batch in range(30):
                    add(writer, [Document(f"d{batch}-{number}", f"river {number}") for number in range(10)])
                    writer.commit(dense_type="hnsw" if batch % 3 else "flat")
            finally:
                done.set()
            assert all(reader.result() > 0 for reader in readers)
