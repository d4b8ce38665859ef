"""What users of other systems complained of most lately, by its number in the list of complaints: wrong rankings."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.index.info import describe
from retriever.indexing.writer import IndexWriter
from retriever.search.legs.backends import make_sparse_backend
from retriever.search.retriever import MODES, Retriever
from retriever.testing import SeededEncoder
from retriever.types import Document, Encoded, EncoderIdentity, Query, Ranking
from tests.helpers.complaints import PAIRS, backends, call, document, make

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss


def rankings(folder: Path) -> dict[tuple[str, str], Ranking]:
    queries = [Query(text, text) for text in ("river", "bread stone winter", "garden garden paper")]
    with Retriever.open(folder, SeededEncoder()) as retriever:
        found = retriever.rank_modes(queries, 100, modes=(*MODES, *PAIRS))
        return {(query_id, mode): ranking for query_id, by_mode in found for mode, ranking in by_mode.items()}


@settings(max_examples=8, deadline=None)
@given(
    history=st.lists(
        st.tuples(st.sampled_from(["add", "delete", "commit", "compact"]), st.sets(st.integers(0, 15), min_size=1)),
        max_size=6,
    )
)
def test_26_the_same_documents_after_different_histories_rank_alike(
    history: list[tuple[str, set[int]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("26")
    live = {number: document(number) for number in range(12)}
    changed = make(folder / "changed", list(live.values()))
    with IndexWriter.open(changed, SeededEncoder()) as writer:
        for version, (kind, numbers) in enumerate(history, 1):
            if kind == "add":
                new = {number: document(number, version) for number in numbers}
                writer.add(new.values())
                live |= new
            elif kind == "delete":
                writer.delete([f"d{number:02}" for number in numbers])
                live = {number: kept for number, kept in live.items() if number not in numbers}
            elif kind == "commit":
                writer.commit()
            else:
                writer.compact()
        writer.commit()
    fresh = rankings(make(folder / "fresh", list(live.values())))
    for key, ranking in rankings(changed).items():
        assert [hit.doc_id for hit in ranking] == [hit.doc_id for hit in fresh[key]], key
        assert [hit.score for hit in ranking] == pytest.approx([hit.score for hit in fresh[key]], rel=1e-5, abs=1e-6), (
            key
        )


@pytest.mark.parametrize("backend", backends())
@pytest.mark.parametrize("where", ["n < 7", "n = 59", "n > 100"])
def test_27_a_filter_with_fewer_matches_than_asked_for_lets_nothing_else_in(
    seeded: Path, where: str, backend: str
) -> None:
    inside = {f"d{n:02}" for n in range(60) if {"n < 7": n < 7, "n = 59": n == 59, "n > 100": n > 100}[where]}
    with Retriever.open(seeded, SeededEncoder(), sparse_backend=backend) as retriever:
        for mode in (*MODES, *PAIRS):
            hits = retriever.search("river stone", 50, mode=mode, filter=where)
            [(_, ranked)] = retriever.rank([Query("q", "river stone")], 50, mode=mode, filter=where)
            assert {hit.doc_id for hit in hits} <= inside, mode
            assert [hit.doc_id for hit in hits] == [hit.doc_id for hit in ranked]
            if "dense" in mode or mode == "hybrid":  # a vector is near to every other, more or less
                assert {hit.doc_id for hit in hits} == inside, mode


def test_27_on_the_command_line(real: Path) -> None:
    for mode in MODES:
        called = call("search", real, "river moon", "-m", mode, "-k", 100, "--filter", "n <= 3", "--json")
        assert called.exit_code == 0, called.output
        found = [json.loads(line)["metadata"]["n"] for line in called.stdout.splitlines()]
        assert set(found) <= {0, 1, 2, 3} and len(set(found)) == len(found) > 0


@pytest.mark.parametrize("explain", [False, True])
def test_28_a_document_that_all_legs_find_appears_once_with_finite_scores(seeded: Path, explain: bool) -> None:
    text = document(17).text  # the document itself: every leg has it
    with Retriever.open(seeded, SeededEncoder()) as retriever:
        for mode in (*MODES, *PAIRS):
            hits = retriever.search(text, 60, mode=mode, explain=explain)
            assert len({hit.doc_id for hit in hits}) == len(hits)
            own = [hit for hit in hits if hit.doc_id == "d17"]
            assert len(own) == 1 and bool(own[0].terms) == (explain and mode != "dense")
            assert set(own[0].parts) == (set(retriever.legs) if mode == "hybrid" else set(mode.split("+")))
            scores = [hit.score for hit in hits]
            scores += [number for hit in hits for part in hit.parts.values() for number in part[1:]]
            assert all(map(math.isfinite, scores)), mode


class WithUnmatched(SeededEncoder):
    """Has one term more, which queries that begin with "zz" have alone and no document has."""

    def __init__(self) -> None:
        super().__init__()
        self.identity = EncoderIdentity("seeded", "6" * 64, 8, 51)
        self._inner = SeededEncoder()
        self.vocabulary = [*self._inner.vocabulary, "unmatched"]

    def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        found = self._inner.encode_documents(texts, dense=dense, sparse=sparse)
        if found.sparse is None:
            return found
        terms = np.zeros((len(texts), 51), np.float32)
        terms[:, :50] = found.sparse.toarray()
        for row, text in enumerate(texts):
            if text.startswith("zz"):
                terms[row] = [0] * 50 + [1]
        return found._replace(sparse=csr_matrix(terms))

    encode_queries = encode_documents


@pytest.mark.parametrize("backend", backends())
def test_31_a_batch_of_empty_unmatched_and_normal_queries_keeps_its_places(backend: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "index", [document(number) for number in range(40)], WithUnmatched())
    texts = ["", "river", "zzz", "   ", "stone paper", "zzz", "river", "\n", "!!!"]
    queries = [Query(f"q{number}", text) for number, text in enumerate(texts)]
    with Retriever.open(folder, WithUnmatched(), sparse_backend=backend) as retriever:
        for mode in (*MODES, *PAIRS):
            together = list(retriever.rank(queries, 10, mode=mode))
            assert [query_id for query_id, _ in together] == [query.query_id for query in queries]
            for (_, ranking), query in zip(together, queries, strict=True):
                [(_, alone)] = retriever.rank([query], 10, mode=mode)
                assert [hit.doc_id for hit in ranking] == [hit.doc_id for hit in alone], (mode, query)
                assert bool(ranking) == finds(query.text, mode), (mode, query)


def finds(text: str, mode: str) -> bool:
    """Say whether a mode finds something for a text: without a known word, only the dense leg; blank, none."""
    if not text.strip() or (text.startswith("zz") and not reads_vectors(mode)):
        return False
    return mode != "bm25" or text != "!!!"


def reads_vectors(mode: str) -> bool:
    return "dense" in mode or mode == "hybrid"


@pytest.mark.parametrize("backend", backends())
@pytest.mark.parametrize("vocabulary", [32_769, 250_002])
def test_34_large_vocabularies_score_right(vocabulary: int, backend: str, tmp_path: Path) -> None:
    """Terms on both sides of 2^15, 2^16 and the end: numbers kept in too few bits would meet in one term."""
    random = np.random.default_rng(vocabulary)
    edges = [0, 1, 32_767, 32_768, 65_535, 65_536, 131_072, vocabulary - 2, vocabulary - 1]
    terms = np.array(sorted({term for term in edges if term < vocabulary}))
    impacts = random.integers(0, 300, (80, len(terms))) * (random.random((80, len(terms))) < 0.5)
    weights = (impacts / 100).astype(np.float32)
    folder = tmp_path / "index"
    with FolderWriter.create(folder, IndexSettings(EncoderIdentity("stub", "0" * 64, 0, vocabulary))) as writer:
        documents = [Document(f"d{row:02}", "text") for row in range(len(weights))]
        writer.add(documents, Encoded(None, spread(weights, terms, vocabulary), np.zeros(len(weights), np.bool_)))
        writer.commit()
    with FolderReader.open(folder) as reader:
        searched = make_sparse_backend(backend, reader)
        for asked in np.concatenate([np.eye(len(terms), dtype=np.float32), random.random((1, len(terms)), np.float32)]):
            found = dict(searched.search(spread(asked[None], terms, vocabulary), len(weights)))
            exact = weights @ asked
            expected = {f"d{row:02}": float(exact[row]) for row in np.flatnonzero(exact > 0)}
            assert found == pytest.approx(expected, rel=1e-5)


def spread(weights: NDArray[np.float32], terms: NDArray[np.int64], vocabulary: int) -> csr_matrix:
    """Return (n, terms) weights as (n, vocabulary)."""
    rows, places = np.nonzero(weights)
    return csr_matrix((weights[rows, places], (rows, terms[places])), shape=(len(weights), vocabulary))


def test_35_hits_are_sorted_and_more_than_there_are_can_be_asked_for(seeded: Path) -> None:
    with Retriever.open(seeded, SeededEncoder()) as retriever:
        for mode in (*MODES, *PAIRS):
            for top_k in (1, 60, 61, 100_000):
                hits = retriever.search("river stone bread", top_k, mode=mode)
                assert 0 < len(hits) <= min(top_k, 60) and [hit.rank for hit in hits] == [*range(1, len(hits) + 1)]
                assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.doc_id))
            if reads_vectors(mode):
                assert len(hits) == 60


def test_35_counts_are_right_after_deleting_and_opening_again(tmp_path: Path) -> None:
    folder = make(tmp_path / "index", [document(number) for number in range(20)])
    for gone, left in ((["d03", "d04", "absent"], 18), (["d03"], 18), ([f"d{n:02}" for n in range(20)], 0)):
        with IndexWriter.open(folder, SeededEncoder()) as writer:
            writer.delete(gone)
            writer.commit()
        with Retriever.open(folder, SeededEncoder()) as retriever:
            assert retriever.reader.num_documents == left
            assert len(retriever.search("river", 100, mode="dense")) == left
        assert describe(folder).documents == left
        told = call("info", folder, "--json")
        assert json.loads(told.stdout)["documents"] == left, told.output
