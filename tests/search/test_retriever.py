"""Search against definitions: exact dot products, BM25's formula, fusion of legs that were searched one by one."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from retriever.encoder.load import load_encoder
from retriever.index import FolderWriter, IndexSettings
from retriever.indexing.build import IndexingConfig, build_index
from retriever.search.fusion.fusion import FusionConfig, fuse
from retriever.search.modes import CANDIDATES
from retriever.search.retriever import MODES, Retriever
from retriever.testing import SeededEncoder
from retriever.types import Document, Encoded, Encoder, Hit, Query, Ranking, ScoredDoc, UserError

os.environ.setdefault("OMP_NUM_THREADS", "1")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
COUNT = 1_100
K1, B = 0.9, 0.4
WORDS = [
    "river",
    "stone",
    "bread",
    "winter",
    "garden",
    "letter",
    "music",
    "paper",
    "silver",
    "moon",
    "salt",
    "wind",
    "glass",
    "iron",
    "wool",
]
QUERIES = ["river", "salt bread", "the moon of winter and the river", "glass glass iron", "wool in wind"]


class Stub(SeededEncoder):
    """Notes which views of queries it is asked for; a query and a document of the same words say different things."""

    def __init__(self) -> None:
        super().__init__()
        self.views = list[tuple[bool, bool]]()

    def encode_queries(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        self.views.append((dense, sparse))
        asked = [f"query: {text}" if text.strip() else "" for text in texts]
        return self.encode_documents(asked, dense=dense, sparse=sparse)


def build(folder: Path, documents: Sequence[Document], encoder: Encoder) -> Path:
    with FolderWriter.create(folder, IndexSettings(encoder.identity)) as writer:
        for start in range(0, len(documents), 300):
            part = documents[start : start + 300]
            writer.add(part, encoder.encode_documents([document.contents for document in part]))
        writer.commit(dense_type="flat")
    return folder


@pytest.fixture(scope="module")
def documents() -> dict[str, Document]:
    random = np.random.default_rng(3)
    found = [
        Document(f"d{n}", " ".join(random.choice(WORDS, random.integers(2, 12))), str(random.choice(WORDS)), {"n": n})
        for n in random.permutation(COUNT).tolist()
    ]
    return {document.doc_id: document for document in [*found, Document("empty", "")]}


@pytest.fixture(scope="module")
def folder(documents: dict[str, Document], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("search") / "index", list(documents.values()), Stub())


@pytest.fixture(scope="module")
def retriever(folder: Path) -> Iterator[Retriever]:
    with Retriever.open(folder, Stub()) as opened:
        yield opened


def ranked(scores: dict[str, float], top_k: int) -> Ranking:
    return sorted((ScoredDoc(*pair) for pair in scores.items()), key=lambda hit: (-hit.score, hit.doc_id))[:top_k]


def bm25_by_formula(documents: dict[str, Document], query: str) -> dict[str, float]:
    """Robertson's formula as Lucene has it; texts below 40 words keep their exact length in Lucene's norms."""
    words = {doc_id: document.contents.split() for doc_id, document in documents.items() if document.contents}
    mean = sum(map(len, words.values())) / len(words)
    scores: dict[str, float] = {}
    for term, count in Counter(word for word in query.split() if word in WORDS).items():
        holding = [doc_id for doc_id in words if term in words[doc_id]]
        idf = math.log(1 + (len(words) - len(holding) + 0.5) / (len(holding) + 0.5))
        for doc_id in holding:
            tf = words[doc_id].count(term)
            weight = tf / (tf + K1 * (1 - B + B * len(words[doc_id]) / mean))
            scores[doc_id] = scores.get(doc_id, 0.0) + count * idf * weight
    return scores


def by_definition(documents: dict[str, Document], query: str, leg: str) -> dict[str, float]:
    if leg == "bm25":
        return bm25_by_formula(documents, query)
    ids = [doc_id for doc_id in documents if documents[doc_id].contents]
    texts = Stub().encode_documents([documents[doc_id].contents for doc_id in ids])
    asked = Stub().encode_queries([query])
    assert texts.dense is not None and texts.sparse is not None and asked.dense is not None and asked.sparse is not None
    if leg == "dense":
        return dict(zip(ids, (texts.dense.astype(float) @ asked.dense[0]).tolist(), strict=True))
    impacts = np.rint(texts.sparse.toarray().astype(float) * 100) / 100
    scores = (impacts @ asked.sparse.toarray()[0].astype(float)).tolist()
    return {doc_id: score for doc_id, score in zip(ids, scores, strict=True) if score > 0}


def ranking_of(hits: Sequence[Hit]) -> Ranking:
    return [ScoredDoc(hit.doc_id, hit.score) for hit in hits]


def legs_of(retriever: Retriever, query: str, depth: int) -> dict[str, Ranking]:
    asked = [Query("q", query)]
    return {leg: next(retriever.rank(asked, depth, mode=leg)).ranking for leg in ("bm25", "sparse", "dense")}


def same(found: Ranking, wanted: Ranking, tolerance: float = 1e-4) -> None:
    """Compare scores by place, and ids where the neighbours' scores are further away than the tolerance."""
    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in wanted], abs=tolerance)
    exact = {hit.doc_id: hit.score for hit in wanted}
    for hit, other in zip(found, wanted, strict=True):
        assert hit.doc_id == other.doc_id or exact.get(hit.doc_id, other.score) == pytest.approx(other.score, abs=1e-5)


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("leg", ["bm25", "sparse", "dense"])
def test_a_leg_is_its_definition(retriever: Retriever, documents: dict[str, Document], query: str, leg: str) -> None:
    wanted = by_definition(documents, query, leg)
    for top_k in (1, 10, 2_000):
        hits = retriever.search(query, top_k, mode=leg)
        same(ranking_of(hits), ranked(wanted, top_k))
        assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
        for hit in hits[:20]:
            document = documents[hit.doc_id]
            assert (hit.title, hit.text, hit.metadata) == (document.title, document.text, document.metadata)
            assert hit.parts == {leg: (hit.rank, hit.score, hit.score)}
            assert hit.terms == ()


@pytest.mark.parametrize("query", QUERIES)
def test_hybrid_by_hand(folder: Path, documents: dict[str, Document], query: str) -> None:
    """0.3 bm25 + 0.3 sparse + 0.4 dense, each leg's best thousand scaled to 0..1, what a leg did not find counts 0."""
    wanted: dict[str, float] = {}
    for leg, weight in {"bm25": 0.3, "sparse": 0.3, "dense": 0.4}.items():
        ranking = ranked(by_definition(documents, query, leg), CANDIDATES)
        high, low = ranking[0].score, ranking[-1].score
        for doc_id, score in ranking:
            wanted[doc_id] = wanted.get(doc_id, 0.0) + weight * (score - low) / (high - low)
    fusion = FusionConfig("weighted-sum", {"bm25": 0.3, "sparse": 0.3, "dense": 0.4}, "min-max", "zero")
    with Retriever.open(folder, Stub(), fusion=fusion) as retriever:
        same(ranking_of(retriever.search(query, 50)), ranked(wanted, 50), 1e-3)


@pytest.mark.parametrize(
    "fusion",
    [
        FusionConfig(),
        FusionConfig("rrf", {"bm25": 1, "sparse": 1, "dense": 1}),
        FusionConfig("product", {"bm25": 0.5, "sparse": 1, "dense": 2}),
        FusionConfig(weights={"bm25": 0.5, "dense": 0.5}, normalisation="z-score", missing="min"),
    ],
    ids=["default", "rrf", "product", "two-legs"],
)
def test_hybrid_is_the_fusion_of_its_legs(folder: Path, fusion: FusionConfig) -> None:
    with Retriever.open(folder, Stub(), fusion=fusion) as retriever:
        for query in QUERIES:
            legs = {leg: hits for leg, hits in legs_of(retriever, query, CANDIDATES).items() if fusion.weights.get(leg)}
            fused = fuse(legs, fusion)
            hits = retriever.search(query, 20)
            assert ranking_of(hits) == fused.ranking[:20]
            for hit in hits:
                wanted = {}
                for leg, ranking in legs.items():
                    for rank, (doc_id, score) in enumerate(ranking, start=1):
                        if doc_id == hit.doc_id:
                            wanted[leg] = (rank, score, fused.normalised[leg][doc_id])
                assert hit.parts == wanted


@pytest.mark.parametrize("mode", MODES)
def test_fewer_hits_are_the_first_of_more(retriever: Retriever, mode: str) -> None:
    for query in QUERIES:
        many = retriever.search(query, 300, mode=mode)
        for top_k in (1, 3, 10, 299):
            assert retriever.search(query, top_k, mode=mode) == many[:top_k]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("top_k", [7])
def test_rank_is_search(folder: Path, mode: str, top_k: int) -> None:
    texts = [*QUERIES, "", " \n", "?!", *(f"{WORDS[n % 15]} {n}" for n in range(250))]  # more than one batch
    stub = Stub()
    with Retriever.open(folder, stub) as retriever:
        rankings = list(retriever.rank((Query(f"q{i}", text) for i, text in enumerate(texts)), top_k, mode=mode))
        assert [ranking.query_id for ranking in rankings] == [f"q{i}" for i in range(len(texts))]
        assert len(stub.views) == (0 if mode == "bm25" else 2), "one call for 256 queries"
        assert rankings[5].ranking == rankings[6].ranking == []
        for text, (_, ranking) in list(zip(texts, rankings, strict=True))[:16]:
            if text.strip():
                assert ranking == ranking_of(retriever.search(text, top_k, mode=mode))


@pytest.mark.parametrize("query", QUERIES)
def test_terms_add_up_to_the_score_of_their_leg(retriever: Retriever, query: str) -> None:
    for hit in retriever.search(query, 20, explain=True):
        for leg in ("bm25", "sparse"):
            terms = [match for match in hit.terms if match.leg == leg]
            if leg in hit.parts:  # else it is none of the candidates of this leg
                total = sum(match.contribution for match in terms)
                assert total == pytest.approx(hit.parts[leg].score, abs=1e-4)
            assert all(m.contribution == pytest.approx(m.query_weight * m.doc_weight) for m in terms)
            assert {match.term for match in terms} <= set(WORDS if leg == "bm25" else Stub().vocabulary)
    [hit] = retriever.search(query, 1, mode="dense", explain=True)
    assert hit.terms == (), "a vector has no terms"


def test_ties_stand_in_the_order_of_their_ids(tmp_path: Path) -> None:
    ids = [f"d{n:03d}" for n in np.random.default_rng(1).permutation(60).tolist()]
    folder = build(tmp_path / "index", [*(Document(i, "salt river") for i in ids), Document("x", "moon")], Stub())
    for fusion in (FusionConfig(), FusionConfig("rrf", {"bm25": 1, "sparse": 1, "dense": 1}), FusionConfig("product")):
        with Retriever.open(folder, Stub(), fusion=fusion) as retriever:
            for mode in MODES:
                hits = retriever.search("river", 61, mode=mode)
                assert [hit.doc_id for hit in hits if hit.doc_id != "x"] == sorted(ids)
                assert retriever.search("river", 5, mode=mode) == hits[:5]


@pytest.mark.parametrize("query", ["", "  ", "\n\t"])
def test_empty_query(retriever: Retriever, query: str) -> None:
    with pytest.raises(UserError, match="query is empty"):
        retriever.search(query)


@pytest.mark.parametrize("top_k", [0, -1])
@pytest.mark.parametrize("mode", MODES)
def test_top_k_below_one(folder: Path, mode: str, top_k: int) -> None:
    stub = Stub()
    with Retriever.open(folder, stub) as retriever:
        with pytest.raises(UserError, match="top_k"):
            retriever.search("river", top_k, mode=mode)
        with pytest.raises(UserError, match="top_k"):
            retriever.rank([Query("q", "river")], top_k, mode=mode)
    assert len(stub.views) == 0, "refused before the work"


def test_unknown_mode(retriever: Retriever) -> None:
    with pytest.raises(UserError, match="'fuzzy' is unknown; choose one of hybrid, bm25, sparse, dense"):
        retriever.search("river", mode="fuzzy")


def test_another_encoder_than_the_index_has(folder: Path) -> None:
    with Retriever.open(folder, SeededEncoder(sha256="6" * 64)) as retriever:
        assert retriever.search("river", mode="bm25"), "BM25 needs none"
        for mode in ("hybrid", "sparse", "dense"):
            with pytest.raises(UserError, match=r"555555555555.*666666666666.*--encoder"):
                retriever.search("river", mode=mode)


def test_an_index_without_encoder(documents: dict[str, Document], tmp_path: Path) -> None:
    folder = build(tmp_path / "index", list(documents.values())[:50], load_encoder("none"))
    with Retriever.open(folder) as retriever:
        assert retriever.legs == ("bm25",)
        assert retriever.search("river salt") == retriever.search("river salt", mode="bm25") != []
        for mode in ("sparse", "dense"):
            with pytest.raises(UserError, match=f"no {mode} leg.*none.*bm25"):
                retriever.search("river", mode=mode)
            with pytest.raises(UserError, match=f"no {mode} leg"):
                retriever.rank([Query("q", "river")], mode=mode)


@pytest.mark.parametrize(
    ("mode", "views"), [("dense", (True, False)), ("bm25+sparse", (False, True)), ("hybrid", (True, True))]
)
def test_only_the_views_of_the_legs_are_encoded(folder: Path, mode: str, views: tuple[bool, bool]) -> None:
    stub = Stub()
    with Retriever.open(folder, stub) as retriever:
        alone = retriever.search("salt bread", 5, mode=mode, explain=True)
        batch = next(retriever.rank([Query("q", "salt bread")], 5, mode=mode)).ranking
        assert [hit.doc_id for hit in alone] == [hit.doc_id for hit in batch]
    assert stub.views == [views, views]


def test_a_search_is_quick_by_words_that_need_no_java(retriever: Retriever) -> None:
    assert retriever.quick("salt “bread”") and not retriever.quick("東京")


def test_an_encoder_without_query_modes(folder: Path) -> None:
    with Retriever.open(folder, Stub(), query_mode="encoder") as retriever:
        assert retriever.search("salt", mode="sparse")
    with Retriever.open(folder, Stub(), query_mode="lexical") as retriever:
        assert retriever.search("salt", mode="bm25"), "this needs no encoder"
        with pytest.raises(UserError, match="the encoder seeded has no query mode 'lexical', only 'encoder'; leave"):
            retriever.search("salt", mode="sparse")


def test_query_modes(tiny_corpus: Path, tiny_encoder_folder: Path, tmp_path: Path) -> None:
    build_index(str(tiny_corpus), tmp_path / "index", encoder=load_encoder(str(tiny_encoder_folder)))
    found = {}
    for mode in (None, "encoder", "lexical"):
        with Retriever.open(tmp_path / "index", query_mode=mode) as retriever:
            found[mode] = [(hit.doc_id, hit.score) for hit in retriever.search("moon and bread", 20, mode="sparse")]
            networks = {"batched", "few"} & vars(retriever.encoder._networks).keys()  # type: ignore[attr-defined]
            assert bool(networks) == (mode != "lexical"), "no network is loaded for words alone"
            dense = retriever.search("moon and bread", 20, mode="dense")
            assert dense == retriever.search("moon and bread", 20, mode="dense") and len(dense) > 10
    assert found[None] == found["encoder"] != found["lexical"] and found["lexical"]
    unknown = pytest.raises(UserError, match="query mode 'magic' is unknown; choose one of encoder, lexical")
    with Retriever.open(tmp_path / "index", query_mode="magic") as retriever, unknown:
        retriever.search("moon", mode="sparse")


def test_threads_find_the_same(retriever: Retriever) -> None:
    tasks = [(query, mode) for query in QUERIES[:4] for mode in MODES] * 2
    wanted = {task: retriever.search(task[0], 10, mode=task[1], explain=True) for task in tasks}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda task: retriever.search(task[0], 10, mode=task[1], explain=True), tasks))
    assert found == [wanted[task] for task in tasks]


def test_closing(folder: Path) -> None:
    with Retriever.open(folder, Stub()) as retriever:
        assert retriever.search("river")
    retriever.close()
    with pytest.raises(UserError, match="is closed"):
        retriever.search("river")


def test_the_tiny_encoder(tiny_corpus: Path, tiny_encoder_folder: Path, tmp_path: Path) -> None:
    encoder = load_encoder(str(tiny_encoder_folder))
    build_index(tiny_corpus, tmp_path / "index", encoder=encoder, config=IndexingConfig(rows="float32"))
    with Retriever.open(tmp_path / "index") as retriever:
        documents = retriever.reader.documents(hit.doc_id for hit in retriever.search("water", 20, mode="dense"))
        assert len(documents) == 18, "one of the twenty has no text, one is in scripts that the encoder cannot read"
        texts = encoder.encode_documents([document.contents for document in documents.values()])
        asked = encoder.encode_queries(["how do vaccines work"])
        assert texts.dense is not None and asked.dense is not None
        scores = dict(zip(documents, (texts.dense.astype(float) @ asked.dense[0]).tolist(), strict=True))
        same(ranking_of(retriever.search("how do vaccines work", 20, mode="dense")), ranked(scores, 20), 1e-5)
        [hit] = retriever.search("how do vaccines work", 1, mode="sparse", explain=True)
        assert hit.terms and {match.term for match in hit.terms} <= set(encoder.vocabulary)
        assert sum(match.contribution for match in hit.terms) == pytest.approx(hit.score, rel=1e-4)
        assert retriever.search("how do vaccines work", 1)[0].parts.keys() == {"bm25", "sparse", "dense"}


def test_joined_legs_are_fused_with_their_share_of_the_weights(retriever: Retriever) -> None:
    weights = retriever.fusion.weights
    for legs in (("dense", "sparse"), ("bm25", "dense"), ("bm25", "sparse")):
        total = sum(weights[leg] for leg in legs)
        shares = FusionConfig(weights={leg: weights[leg] / total for leg in legs})
        for query in QUERIES:
            alone = {leg: ranking_of(retriever.search(query, COUNT, mode=leg)) for leg in legs}
            hits = retriever.search(query, 20, mode="+".join(legs))
            cut = {leg: ranking[:CANDIDATES] for leg, ranking in alone.items()}
            assert ranking_of(hits) == fuse(cut, shares).ranking[:20]
            assert hits == retriever.search(query, 20, mode=" + ".join(reversed(legs)))
            assert all(hit.parts.keys() <= set(legs) and hit.score <= 1 for hit in hits)


def test_all_legs_joined_are_hybrid(retriever: Retriever) -> None:
    assert retriever.search("salt bread", mode="dense+bm25+sparse") == retriever.search("salt bread", mode="hybrid")


@pytest.mark.parametrize("mode", ["dense+fuzzy", "dense+dense", "dense+", "hybrid+dense", ""])
def test_legs_that_cannot_be_joined(retriever: Retriever, mode: str) -> None:
    with pytest.raises(UserError, match=r"is unknown; choose one of hybrid, .* dense\+sparse"):
        retriever.search("river", mode=mode)


def test_a_joined_leg_needs_a_weight(folder: Path) -> None:
    with Retriever.open(folder, Stub(), fusion=FusionConfig(weights={"bm25": 1, "dense": 0})) as opened:
        for mode in ("dense+bm25", "bm25+sparse"):
            with pytest.raises(UserError, match="no weight"):
                opened.search("river", mode=mode)


def test_several_modes_from_one_encoding_are_the_same_as_one_by_one(folder: Path) -> None:
    queries = [Query(str(n), text) for n, text in enumerate([*QUERIES, ""])]
    modes = ("bm25", "sparse", "dense", "dense+sparse", "hybrid")
    stub = Stub()
    with Retriever.open(folder, stub) as opened:
        found = dict(opened.rank_modes(queries, 30, modes=modes))
        assert len(stub.views) == 1
        assert list(found) == [query.query_id for query in queries]
        for mode in modes:
            assert {query_id: rankings[mode] for query_id, rankings in found.items()} == dict(
                opened.rank(queries, 30, mode=mode)
            )
        assert dict(opened.rank_modes(queries, 30, modes=["bm25"])) and len(stub.views) == 1 + 4, (
            "BM25 alone encodes nothing"
        )
