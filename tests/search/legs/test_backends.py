"""Every back end of the sparse leg against search by definition."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix, random_array

from retriever.bench.search.sparse import bench_sparse, stored_postings
from retriever.encoder.base import EncoderBase
from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.index.exact import exact_sparse
from retriever.index.postings.quantise import quantise
from retriever.names import SPARSE_BACKENDS as OFFERED
from retriever.search.legs.backends import SPARSE_BACKENDS, make_sparse_backend
from retriever.search.retriever import Retriever
from retriever.types import Document, Encoded, EncoderIdentity, Query, UserError

ROWS, VOCAB = 500, 60
SETTINGS = IndexSettings(EncoderIdentity("stub", "0" * 64, 0, VOCAB))


def drawn(rows: int, density: float, seed: int) -> csr_matrix:
    random = np.random.default_rng(seed)
    return csr_matrix(random_array((rows, VOCAB), density=density, rng=random, dtype=np.float32)) * np.float32(3)


@pytest.fixture(scope="module")
def weights() -> csr_matrix:
    weights = drawn(ROWS, 0.2, 3).toarray()
    weights[[20, 30, 40]] = weights[10]  # ties, which the id decides
    return csr_matrix(quantise(csr_matrix(weights), 100) / 100)


@pytest.fixture
def folder(weights: csr_matrix, tmp_path: Path, own_cache: Path) -> Path:
    path = tmp_path / "index"
    with FolderWriter.create(path, SETTINGS) as writer:
        for rows in (slice(0, 200), slice(200, ROWS)):  # two segments
            numbers = range(rows.start, rows.stop)
            documents = [Document(f"d{row}", "text", metadata={"odd": row % 2}) for row in numbers]
            writer.add(documents, Encoded(None, weights[rows], np.zeros(len(documents), np.bool_)))
            writer.commit()
        writer.delete(["d7", "d8"])
        writer.commit()
    return path


def wanted(weights: csr_matrix, terms: csr_matrix, top_k: int, without: tuple[int, ...] = (7, 8)) -> list[str]:
    kept = [row for row in range(ROWS) if row not in without]
    return [hit.doc_id for hit in exact_sparse([f"d{row}" for row in kept], weights[kept], terms, top_k)]


@pytest.mark.parametrize("name", ["lucene", "postings"])
@pytest.mark.parametrize("top_k", [1, 10, 100, 1000])
def test_exact_back_ends(folder: Path, weights: csr_matrix, name: str, top_k: int) -> None:
    queries = [weights[10], *(drawn(1, 0.3, seed) for seed in range(4, 8))]
    with FolderReader.open(folder) as reader:
        backend = make_sparse_backend(name, reader)
        for terms in queries:
            found = backend.search(terms, top_k)
            assert [hit.doc_id for hit in found] == wanted(weights, terms, top_k)
            exact = (weights @ terms.T).toarray()[:, 0]
            assert [hit.score for hit in found] == pytest.approx(
                [exact[int(hit.doc_id[1:])] for hit in found], rel=1e-5
            )


@pytest.mark.parametrize("name", SPARSE_BACKENDS)
def test_every_back_end_finds_most_obeys_filters_and_sees_its_commit(
    folder: Path, weights: csr_matrix, name: str
) -> None:
    if name == "seismic":
        pytest.importorskip("seismic", reason="the extra seismic is not installed")
    terms = csr_matrix(drawn(1, 0.3, 5))
    odd = tuple({7, 8, *range(0, ROWS, 2)})
    with FolderReader.open(folder) as reader:
        backend = make_sparse_backend(name, reader)
        found = [hit.doc_id for hit in backend.search(terms, 10)]
        assert len(set(found) & set(wanted(weights, terms, 10))) >= 8
        within = [hit.doc_id for hit in backend.search(terms, 10, reader.select("odd = 1"))]
        assert len(set(within) & set(wanted(weights, terms, 10, odd))) >= 8
        assert backend.search(csr_matrix(np.zeros((1, VOCAB), np.float32)), 10) == []
        with FolderWriter.open(folder) as writer:
            writer.delete(found[:1])
            writer.commit()
        assert [hit.doc_id for hit in backend.search(terms, 10)] == found
    with FolderReader.open(folder) as reader:
        assert found[0] not in [hit.doc_id for hit in make_sparse_backend(name, reader).search(terms, 10)]
    with FolderReader.open(folder) as reader:  # from what the one before has kept
        assert len(make_sparse_backend(name, reader).search(terms, 10)) == 10
    kept = list((folder.parent / "cache" / "retriever" / "impacts").glob("*/*"))
    assert len(kept) == (name == "seismic")  # earlier commits' files are gone


def test_unknown_and_missing_back_ends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="'solr' is not known; choose one of postings, lucene, two-step"):
        Retriever.open(folder, sparse_backend="solr")
    with pytest.raises(UserError, match="'memory' is gone; 'postings' replaces it"):
        Retriever.open(folder, sparse_backend="memory")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match="pip install 'hybrid-retriever"):
        Retriever.open(folder, sparse_backend="seismic")


def test_the_command_line_offers_every_back_end() -> None:
    assert tuple(SPARSE_BACKENDS) == OFFERED


class Known(EncoderBase):
    """Gives any texts the terms that were drawn for so many."""

    identity = SETTINGS.encoder
    vocabulary = tuple(map(str, range(VOCAB)))

    def encode_queries(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        return Encoded(None, drawn(len(texts), 0.3, 9), np.zeros(len(texts), np.bool_))

    encode_documents = encode_queries


def test_a_retriever_searches_by_its_back_end_and_sees_new_documents_after_reopening(folder: Path) -> None:
    query = Query("q", "any words")
    with (
        Retriever(FolderReader.open(folder), Known(), sparse_backend="postings") as ours,
        Retriever(FolderReader.open(folder), Known()) as plain,
    ):
        [(_, found)] = ours.rank([query], 20, mode="sparse")
        [(_, exact)] = plain.rank([query], 20, mode="sparse")
        assert [hit.doc_id for hit in found] == [hit.doc_id for hit in exact]
        assert ours.search("any words", 3, mode="sparse")[0].doc_id == exact[0].doc_id
        with FolderWriter.open(folder) as writer:
            best = Known().encode_queries(["any words"])  # a document that is all that is asked for
            writer.add([Document("new", "text")], best._replace(tokens=None))
            writer.commit()
        assert next(ours.rank([query], 1, mode="sparse")).ranking[0].doc_id == exact[0].doc_id
        assert ours.reopen()
        assert next(ours.rank([query], 1, mode="sparse")).ranking[0].doc_id == "new"


def test_the_bench_asks_every_back_end(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The encoder of a made-up index cannot be loaded; what is tested comes after the queries are encoded.
    monkeypatch.setattr("retriever.search.opened.open_index.load_index_encoder", lambda *_, **__: Known())
    queries = tmp_path / "queries.tsv"
    queries.write_text("".join(f"q{number}\tsome words\n" for number in range(4)))
    found = bench_sparse(folder, queries, ["two-step", "postings"], 3, (10, 200))
    assert [(one.backend, one.top_k) for one in found] == [
        (name, top_k) for top_k in (10, 200) for name in ("lucene", "two-step", "postings")
    ]
    assert all(one.recall_10 == 1 for one in found if one.backend != "two-step")
    assert all((one.recall_100 is None) == (one.top_k == 10) and one.recall_1000 is None for one in found)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "seismic" not in {one.backend for one in bench_sparse(folder, queries, count=1, top_k=(10,))}
    stored = stored_postings(folder)
    with FolderReader.open(folder) as reader:
        assert stored is not None and stored.postings >= reader.stored_terms("impact").nnz
        assert stored.bytes_a_posting * stored.postings == pytest.approx(reader.sizes()["sparse"])
