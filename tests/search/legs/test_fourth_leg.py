"""A leg defined in this file alone: searched, fused, explained, evaluated and tuned as the others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner

from retriever.cli.main import cli
from retriever.corpus.corpus import open_corpus
from retriever.encoder.load import load_encoder
from retriever.eval.data.datasets import load_dataset
from retriever.eval.report.results import read_results
from retriever.eval.report.write import write_report
from retriever.experiments.diagnose import plans_of
from retriever.experiments.experiment import ExperimentConfig, run_experiment
from retriever.experiments.tuning import leg_runs, tune
from retriever.index.exact import exact_bm25
from retriever.indexing.build import build_index
from retriever.search.fusion.fusion import FusionConfig, fuse
from retriever.search.leg import LEGS, Leg, LegOptions, LegQuery, registered
from retriever.search.retriever import Retriever
from retriever.testing import SeededEncoder
from retriever.types import ScoredDoc, TermMatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from retriever.index.reader import FolderReader
    from retriever.index.reading.selection import Selection
    from retriever.types import Ranking

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing faiss
QUERY = "How vaccines train the body"


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


class TitleLeg(Leg):
    """BM25 on titles alone, by its definition."""

    name = "title"
    colour = "#cc79a7"

    def __init__(self, reader: FolderReader, options: LegOptions) -> None:
        super().__init__(reader, options)
        self._rows = reader.rows.doc_ids(np.arange(reader.commit_data.mark.rows))
        found = reader.documents(self._rows)
        self._titles = {doc_id: words(document.title) for doc_id, document in found.items()}

    def run(self, query: LegQuery, depth: int, selection: Selection | None = None) -> Ranking:
        ids, titles = list(self._titles), list(self._titles.values())
        ranking = exact_bm25(ids, titles, words(query.text), 0.9, 0.4, len(ids))
        if selection is not None:
            inside = {doc_id for doc_id, chosen in zip(self._rows, selection.rows, strict=True) if chosen}
            ranking = [hit for hit in ranking if hit.doc_id in inside]
        return ranking[:depth]

    def explain(self, query: LegQuery, doc_id: str, chunk: int, vocabulary: Sequence[str]) -> list[TermMatch]:
        shared = sorted(set(words(query.text)) & set(self._titles[doc_id]))
        return [TermMatch(self.name, word, 1.0, 1.0, 1.0) for word in shared]


@pytest.fixture(autouse=True)
def title(own_cache: Path) -> Iterator[None]:
    with registered(TitleLeg):
        yield


@pytest.fixture(scope="module")
def index(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fourth") / "index"
    build_index(tiny_corpus, folder, encoder=SeededEncoder())
    return folder


@pytest.fixture(scope="module")
def titles(tiny_corpus: Path) -> dict[str, list[str]]:
    documents = [record.document for record in open_corpus(tiny_corpus)]
    return {document.doc_id: words(document.title) for document in documents if document is not None}


def by_definition(titles: dict[str, list[str]], query: str) -> Ranking:
    return exact_bm25(list(titles), list(titles.values()), words(query), 0.9, 0.4, len(titles))


def test_it_is_gone_with_its_registration() -> None:
    assert list(LEGS) == ["bm25", "sparse", "dense", "title"]
    del LEGS["title"]
    with registered(TitleLeg), pytest.raises(ValueError, match="cannot be called 'title'"), registered(TitleLeg):
        pass
    assert list(LEGS) == ["bm25", "sparse", "dense"]
    LEGS["title"] = TitleLeg  # for the fixture to take away


def test_it_searches_alone_and_within_a_filter(index: Path, titles: dict[str, list[str]]) -> None:
    expected = by_definition(titles, QUERY)
    with Retriever.open(index, SeededEncoder()) as retriever:
        assert retriever.legs == ("bm25", "sparse", "dense", "title")
        found = retriever.search(QUERY, mode="title", explain=True)
        assert [(hit.doc_id, hit.score) for hit in found] == expected[:10]
        assert [match.term for match in found[0].terms] == sorted(words(QUERY))
        others = retriever.search(QUERY, mode="title", filter=f"id != {found[0].doc_id}")
        assert [hit.doc_id for hit in others] == [hit.doc_id for hit in expected[1:10]]


def test_it_is_fused_only_where_it_has_a_weight(index: Path) -> None:
    assert FusionConfig().weights == {"bm25": 0.25, "sparse": 0.35, "dense": 0.4}
    weights = FusionConfig(weights={"bm25": 0.2, "sparse": 0.2, "dense": 0.2, "title": 0.4})
    with (
        Retriever.open(index, SeededEncoder()) as plain,
        Retriever.open(index, SeededEncoder(), fusion=weights) as weighted,
    ):
        assert plain.plan("hybrid").legs == ("bm25", "sparse", "dense")
        legs = {leg: [ScoredDoc(h.doc_id, h.score) for h in plain.search(QUERY, 200, mode=leg)] for leg in plain.legs}
        found = weighted.search(QUERY, explain=True)
        assert [(h.doc_id, h.score) for h in found] == fuse(legs, weights).ranking[:10]
        assert set(found[0].parts) == {"bm25", "sparse", "dense", "title"}
        assert {match.leg for match in found[0].terms} >= {"bm25", "title"}
        pair = {leg: legs[leg] for leg in ("bm25", "title")}
        expected = fuse(pair, FusionConfig(weights={"bm25": 1 / 3, "title": 2 / 3})).ranking[:10]
        joined = weighted.search(QUERY, mode="title+bm25")
        assert [hit.doc_id for hit in joined] == [hit.doc_id for hit in expected]


def test_it_is_evaluated_as_the_others(tiny_corpus: Path, titles: dict[str, list[str]], tmp_path: Path) -> None:
    fusion = FusionConfig(weights={"bm25": 0.5, "title": 0.5})
    config = ExperimentConfig(modes=("bm25", "title", "bm25+title", "dense"), fusion=fusion)
    encoders = [SeededEncoder(), SeededEncoder(sha256="6" * 64)]
    encoders[1].identity = encoders[1].identity._replace(name="other")
    found = run_experiment([tiny_corpus.parent], encoders, config=config, output=tmp_path / "out")
    [evaluations] = found.evaluations.values()
    # It reads texts alone, so it is measured once, not with every encoder.
    assert list(evaluations) == ["bm25", "title", "bm25+title", "seeded/dense", "other/dense"]
    data = load_dataset(tiny_corpus.parent, "test")
    hits = {query.query_id: by_definition(titles, query.text) for query in data.queries}
    for query_id, values in evaluations["title"].per_query.items():
        relevant = {doc_id for doc_id, grade in data.qrels[query_id].items() if grade > 0}
        share = len(relevant & {hit.doc_id for hit in hits[query_id][:100]}) / len(relevant)
        assert values["R@100"] == pytest.approx(share)
    systems = {system.name: system for system in read_results(tmp_path / "out").datasets[0].systems}
    assert systems["title"].encoder == "" and set(systems["title"].latency) == {"title", "total"}
    assert set(systems["bm25+title"].latency) == {"bm25", "title", "fusion", "total"}
    assert "<th>title</th>" in re.sub(r"<th [^>]*>", "<th>", write_report(tmp_path / "out").read_text())


def test_it_is_tuned_and_planned_as_the_others(index: Path, tiny_corpus: Path) -> None:
    data = load_dataset(tiny_corpus.parent, "test")
    with Retriever.open(index, SeededEncoder()) as retriever:
        runs = leg_runs(retriever, data.queries)
    found = tune({leg: runs[leg] for leg in ("bm25", "title")}, data.qrels)
    assert set(found.fusion.weights) == {"bm25", "title"} and found.fitted >= found.default
    assert "title" in plans_of(SeededEncoder())


def test_it_is_a_mode_of_the_command_line(tmp_path: Path, tiny_corpus: Path, titles: dict[str, list[str]]) -> None:
    folder = tmp_path / "plain"
    build_index(tiny_corpus, folder, encoder=load_encoder("none"))
    found = CliRunner().invoke(cli, ["search", str(folder), QUERY, "--mode", "title", "--json", "--top-k", "1"])
    assert found.exit_code == 0 and f'"{by_definition(titles, QUERY)[0].doc_id}"' in found.stdout
