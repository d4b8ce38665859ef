"""Late interaction against its definition, and token vectors through the life of an index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever.encoder.load import load_encoder
from retriever.encoder.tokens import load_token_encoder
from retriever.index import FolderWriter
from retriever.index.vectors.row_formats import RowFormat
from retriever.index.verify import verify_folder
from retriever.indexing.build import IndexingConfig, build_index
from retriever.indexing.writer import IndexWriter
from retriever.rank import LateInteraction, Pipeline
from retriever.rank.kernels import best_matches
from retriever.search.retriever import Retriever
from retriever.testing import SeededEncoder
from retriever.types import Document, Query, Ranking, TokenVectors, UserError

from ..conftest import Parent

pytestmark = pytest.mark.filterwarnings("ignore")
QUERY = "how do vaccines work"
PURE = Pipeline("hybrid", (LateInteraction(depth=20, weight=1.0, idf=False),))


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 40), st.lists(st.integers(0, 6), min_size=1, max_size=6), st.integers(0, 99))
def test_the_kernel_is_a_loop(tokens: int, dim: int, counts: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    query = random.standard_normal((tokens, dim)).astype(np.float32)
    codes = random.integers(-127, 128, (sum(counts), dim)).astype(np.int8)
    scales = random.random(sum(counts)).astype(np.float32)
    ends = np.cumsum(counts)
    found = best_matches(query, codes, scales, ends)
    assert found.shape == (len(counts), tokens)
    for row, (end, count) in enumerate(zip(ends.tolist(), counts, strict=True)):
        for q in range(tokens):
            products = [
                float(scales[t]) * float(query[q] @ codes[t].astype(np.float32)) for t in range(end - count, end)
            ]
            assert found[row, q] == pytest.approx(max(products, default=0.0), rel=1e-4, abs=1e-3)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 5), st.integers(0, 99))
def test_two_bits_are_the_nearest_of_four_levels(dim: int, count: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    if count:
        vectors[0] = 0
    form = RowFormat("int8", 0, dim, 2)
    records = form.store_tokens(vectors)
    codes = form.token_codes(records)
    assert records.itemsize == 4 + -(-dim // 4) and codes.shape == vectors.shape and codes.dtype == np.int8
    for vector, code, scale in zip(vectors, codes.tolist(), records["scale"], strict=True):
        half = 0.9957 * np.sqrt(np.mean(vector.astype(np.float64) ** 2)) / 2
        for value, found in zip(vector.tolist(), code, strict=True):
            distances = {level: abs(value - level * half) for level in (-3, -1, 1, 3)}
            assert found in distances and distances[found] <= min(distances.values()) + 1e-5
        assert float(scale) * float(np.array(code) @ vector) == pytest.approx(
            float(vector @ vector), rel=1e-4, abs=1e-6
        )


@pytest.fixture(scope="module")
def texts(tiny_texts: list[str]) -> dict[str, str]:
    return {f"d{n:02}": text for n, text in enumerate(tiny_texts)}


@pytest.fixture(scope="module")
def index(texts: dict[str, str], tiny_encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "index"
    documents = [Document(*pair) for pair in texts.items()]
    build_index(documents, path, encoder=str(tiny_encoder_folder), config=IndexingConfig(tokens="own"))
    return path


def split(found: TokenVectors) -> list[np.ndarray]:
    return np.split(found.vectors, np.cumsum(found.counts)[:-1])


def mean_of_best(query: np.ndarray, document: np.ndarray, weights: np.ndarray | None = None) -> float:
    best = [max(float(one @ other) for other in document) for one in query]
    return float(np.average(best, weights=weights))


def test_it_is_max_sim(index: Path, texts: dict[str, str], tiny_encoder_folder: Path) -> None:
    encoder = load_token_encoder("own", load_encoder(str(tiny_encoder_folder)))
    documents = dict(zip(texts, split(encoder.documents(list(texts.values()))), strict=True))
    found = encoder.queries([QUERY])
    with Retriever.open(index) as retriever:
        hits = retriever.search(QUERY, 20, pipeline=PURE)
        wanted = {hit.doc_id: mean_of_best(found.vectors, documents[hit.doc_id]) for hit in hits}
        assert {hit.doc_id: pytest.approx(hit.score, abs=0.01) for hit in hits} == wanted  # stored in 8 bits
        assert len({round(hit.score, 3) for hit in hits}) > 10
        statistics = retriever.reader.token_statistics
        assert found.ids is not None
        held = statistics.document_frequency(found.ids)
        rarity = np.log1p((statistics.documents - held + 0.5) / (held + 0.5))
        hits = retriever.search(QUERY, 20, pipeline=Pipeline(stages=(LateInteraction(20, 1.0),)), explain=True)
        for hit in hits:
            wanted_score = mean_of_best(found.vectors, documents[hit.doc_id], rarity)
            assert hit.score == pytest.approx(wanted_score, abs=0.01)
            matches = hit.stages[0].matches
            assert len(matches) == min(8, len(found.vectors))
            if len(found.vectors) <= 8:
                assert sum(match.contribution for match in matches) == pytest.approx(hit.score, abs=1e-4)
            assert all(" ~ " in match.term for match in matches)


def test_a_token_meets_itself(index: Path, texts: dict[str, str]) -> None:
    """A text as a query is most like itself, token by token."""
    text = texts["d03"]
    with Retriever.open(index) as retriever:
        hits = retriever.search(text, 20, pipeline=PURE, explain=True)
    assert hits[0].doc_id == "d03" and hits[0].score == pytest.approx(1, abs=0.02)
    assert all(match.term.split(" ~ ")[0] == match.term.split(" ~ ")[1] for match in hits[0].stages[0].matches)


def ranking(path: Path) -> Ranking:
    with Retriever.open(path) as retriever:
        return next(iter(retriever.rank_pipeline([Query("q", QUERY)], 20, pipeline=PURE))).ranking


def test_tokens_follow_their_documents(texts: dict[str, str], tiny_encoder_folder: Path, tmp_path: Path) -> None:
    spec, config = str(tiny_encoder_folder), IndexingConfig(tokens="own")
    documents = [Document(*pair) for pair in texts.items()]
    build_index(documents[:15], tmp_path / "one", encoder=spec, config=config)
    with IndexWriter.open(tmp_path / "one") as writer:
        writer.add([documents[3]._replace(text="Something else."), *documents[15:]])
        writer.delete(["d05"])
        writer.commit()
        writer.add([documents[3]])
        writer.commit()
    kept = [document for document in documents if document.doc_id != "d05"]
    build_index(kept, tmp_path / "other", encoder=spec, config=config)
    assert ranking(tmp_path / "one") == ranking(tmp_path / "other")
    with FolderWriter.open(tmp_path / "one") as writer:
        assert writer.compact() == 3
    assert ranking(tmp_path / "one") == ranking(tmp_path / "other")
    assert not verify_folder(tmp_path / "one").damages
    [file] = (tmp_path / "one").glob("rows*/tokens.i8")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert [Path(damage.file).name for damage in verify_folder(tmp_path / "one").damages] == ["tokens.i8"]


def test_two_bits_take_a_quarter_and_rank_alike(
    index: Path, texts: dict[str, str], tiny_encoder_folder: Path, tmp_path: Path
) -> None:
    config = IndexingConfig(tokens="own", token_bits=2)
    documents = [Document(*pair) for pair in texts.items()]
    build_index(documents, tmp_path / "small", encoder=str(tiny_encoder_folder), config=config)
    with IndexWriter.open(tmp_path / "small") as writer:
        writer.add([documents[2]])
        writer.commit()
        assert writer.compact() == 1
    assert not verify_folder(tmp_path / "small").damages
    large, small = (next(iter(path.glob("rows*/tokens.i*"))) for path in (index, tmp_path / "small"))
    assert (large.name, small.name) == ("tokens.i8", "tokens.i2")
    assert small.stat().st_size < 0.35 * large.stat().st_size
    ours, theirs = dict(ranking(tmp_path / "small")), dict(ranking(index))
    assert ours == {doc_id: pytest.approx(score, abs=0.15) for doc_id, score in theirs.items()}
    # In the few dimensions of a tiny network errors do not average out: 0.77.
    assert np.corrcoef(list(ours.values()), [theirs[doc_id] for doc_id in ours])[0, 1] > 0.6
    with Retriever.open(tmp_path / "small") as retriever:
        [hit, *_] = retriever.search(texts["d03"], 20, pipeline=PURE, explain=True)
        assert hit.doc_id == "d03" and hit.stages[0].matches
    with pytest.raises(UserError, match="token_bits is 4; need one of 8, 2"):
        IndexingConfig(token_bits=4)


def test_a_split_document_counts_by_its_best_chunk(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    long = "Rain falls on the hills. " * 8 + "Vaccines train the immune system. " + "Bread is made of flour. " * 8
    config = IndexingConfig(tokens="own", chunk=True, chunk_tokens=20, chunk_overlap=0)
    build_index([Document("long", long)], tmp_path / "index", encoder=str(tiny_encoder_folder), config=config)
    with Retriever.open(tmp_path / "index") as retriever:
        [hit] = retriever.search("vaccines", pipeline=PURE)
        encoder = load_token_encoder("own", retriever.encoder)
        query = encoder.queries(["vaccines"]).vectors
        chunks = split(encoder.documents(retriever.reader.chunk_texts("long")))
        assert len(chunks) > 3
        assert hit.score == pytest.approx(max(mean_of_best(query, chunk) for chunk in chunks), abs=0.01)


def test_where_there_are_no_token_vectors(retriever: Retriever, tiny_encoder_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no token vectors; build the index with --tokens"):
        retriever.search("x", pipeline=PURE)
    with pytest.raises(UserError, match="seeded: has no token vectors of its own"):
        build_index(
            [Document("a", "b")], tmp_path / "index", encoder=SeededEncoder(), config=IndexingConfig(tokens="own")
        )


@pytest.fixture(scope="module")
def multi_vector(tiny_parent: Parent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a small MultiVectorEncoder of sentence-transformers with random weights."""
    from sentence_transformers import MultiVectorEncoder

    base = tmp_path_factory.mktemp("base")
    tiny_parent.model.save_pretrained(base)
    tiny_parent.tokenizer.save_pretrained(base)
    folder = tmp_path_factory.mktemp("multi-vector")
    MultiVectorEncoder(str(base), device="cpu").save_pretrained(str(folder))
    return folder


def test_a_multi_vector_encoder_scores_as_its_own_similarity(
    multi_vector: Path, texts: dict[str, str], tiny_encoder_folder: Path, tmp_path: Path
) -> None:
    from sentence_transformers import MultiVectorEncoder

    documents = [Document(*pair) for pair in texts.items()]
    config = IndexingConfig(tokens=str(multi_vector))
    build_index(documents, tmp_path / "index", encoder=str(tiny_encoder_folder), config=config)
    model: Any = MultiVectorEncoder(str(multi_vector), device="cpu")
    query = model.encode_query([QUERY])
    theirs = model.similarity(query, model.encode_document(list(texts.values())))[0].tolist()
    wanted = dict(zip(texts, theirs, strict=True))
    with Retriever.open(tmp_path / "index") as retriever:
        hits = retriever.search(QUERY, 20, pipeline=Pipeline("hybrid", (LateInteraction(20, 1.0),)), explain=True)
    tokens = len(query[0])
    found = {hit.doc_id: hit.score * tokens for hit in hits}
    assert found == {doc_id: pytest.approx(wanted[doc_id], rel=0.01, abs=0.02) for doc_id in found}
    assert hits[0].stages[0].matches[0].term.startswith("token ")
