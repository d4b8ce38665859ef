"""What a system costs: the time of each part, and the work of sparse terms."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from retriever.eval.data.datasets import load_dataset
from retriever.experiments.experiment import ExperimentConfig, run_experiment
from retriever.types import Encoded
from tests.helpers.letters import TINY, Letters

pytestmark = [
    pytest.mark.usefixtures("cache"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # importing torch and faiss
]


def test_a_leg_alone_is_timed_with_its_view_alone() -> None:
    letters = Letters()
    run_experiment([TINY], [letters], config=ExperimentConfig(modes=("dense",)))
    assert set(letters.views) == {(True, False)}
    letters.views.clear()
    run_experiment([TINY], [letters], config=ExperimentConfig(modes=("bm25", "sparse")))
    assert set(letters.views) == {(False, True), (True, True)}, "the second is for the modes of both legs"


def test_encoding_both_views_is_timed_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system of both legs is not charged for the slower view alone; here nothing else takes time."""
    clock = [0.0]
    monkeypatch.setattr("retriever.search.retriever.perf_counter", lambda: clock[0])

    class Slow(Letters):
        def encode_queries(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
            clock[0] += 0.02 * dense + 0.04 * sparse
            return super().encode_queries(texts, dense=dense, sparse=sparse)

    found = run_experiment([TINY], [Slow()], config=ExperimentConfig(modes=("sparse", "dense", "dense+sparse")))
    took = {system.name: system.latency["encoding"].p50 for system in found.results.datasets[0].systems}
    assert took == pytest.approx({"sparse": 40, "dense": 20, "dense+sparse": 60})


def test_sparse_costs_are_counts() -> None:
    data, letters = load_dataset(TINY), Letters()
    found = run_experiment([TINY], [letters], config=ExperimentConfig(modes=("sparse",)))
    [costs] = found.results.datasets[0].costs
    records = [json.loads(line) for line in (TINY / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = [f"{record.get('title', '')} {record['text']}".strip() for record in records]
    documents = [{letter for letter in letters.vocabulary if letter in text.lower()} for text in texts]
    queries = [{letter for letter in letters.vocabulary if letter in query.text.lower()} for query in data.queries]
    assert costs.terms_per_query == pytest.approx(sum(map(len, queries)) / len(queries))
    assert costs.terms_per_document == pytest.approx(sum(map(len, documents)) / len(documents))
    shared = sum(len(query & document) for query in queries for document in documents)
    assert costs.flops == pytest.approx(shared / len(queries) / len(documents))
