"""What an evaluation keeps: indexes and rankings are made once, and never taken for another's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from retriever.encoder.load import load_encoder
from retriever.eval.data.datasets import load_dataset
from retriever.eval.evaluator import evaluate_run
from retriever.experiments.experiment import ExperimentConfig, cache_folder, run_experiment
from retriever.index import FolderReader
from retriever.indexing.build import IndexingConfig, build_index, interrupted
from retriever.indexing.writer import IndexWriter
from retriever.ranking import separate_ties
from retriever.search.fusion.fusion import FusionConfig
from retriever.search.retriever import Retriever
from retriever.types import Document, UserError
from tests.helpers.letters import MODES, TINY, Letters, evaluate_dataset

pytestmark = [
    pytest.mark.usefixtures("cache"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # importing torch and faiss
]


def test_nothing_is_encoded_twice(cache: Path, tmp_path: Path) -> None:
    encoder = Letters()
    first = evaluate_dataset(TINY, encoder)
    assert encoder.texts == 20
    assert list(first) == ["bm25", "sparse", "dense", "hybrid"]
    judged = {line.split("\t")[0] for line in (TINY / "qrels" / "test.tsv").read_text().splitlines()[1:]}
    for result in first.values():
        assert result.queries_judged == len(judged) and list(result.mean) == ["nDCG@10", "R@100"]
    assert evaluate_dataset(TINY, encoder) == first
    evaluate_dataset(TINY, encoder, split="dev", modes=["dense"])
    assert (encoder.texts, len(list(cache.iterdir()))) == (20, 1)
    evaluate_dataset(TINY, Letters("b"), modes=["dense"])
    assert len(list(cache.iterdir())) == 2, "another encoder has an index of its own"
    copy = tmp_path / "tiny"
    shutil.copytree(TINY, copy)
    evaluate_dataset(copy, encoder, modes=["dense"])
    assert (encoder.texts, len(list(cache.iterdir()))) == (20, 2), "the same documents in another place are the same"
    with (copy / "corpus.jsonl").open("a") as corpus:
        corpus.write('{"_id": "d99", "text": "one more"}\n')
    evaluate_dataset(copy, encoder, modes=["dense"])
    assert (encoder.texts, len(list(cache.iterdir()))) == (41, 3), "another corpus has one, too"


def test_a_folder_of_the_users_own(cache: Path, tmp_path: Path) -> None:
    encoder, folder = Letters(), tmp_path / "deep" / "index"
    assert evaluate_dataset(TINY, encoder, folder=folder) == evaluate_dataset(TINY, Letters())
    evaluate_dataset(TINY, encoder, folder=folder)
    assert encoder.texts == 20 and len(list(cache.iterdir())) == 1
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        evaluate_dataset(TINY, encoder, folder=tmp_path / "full")


@pytest.mark.parametrize("committed", [0, 8])
def test_an_interrupted_index_is_finished_before_it_is_measured(tmp_path: Path, committed: int) -> None:
    folder = tmp_path / "index"
    with pytest.raises(RuntimeError):
        build_index(
            TINY, folder, encoder=Letters(limit=committed + 2), config=IndexingConfig(batch=4, commit_every_documents=8)
        )
    assert interrupted(folder)
    encoder = Letters()
    assert evaluate_dataset(TINY, encoder, folder=folder) == evaluate_dataset(TINY, Letters())
    assert encoder.texts == 20 - committed
    with FolderReader.open(folder) as reader:
        assert reader.num_documents == 20


def test_the_index_of_another_corpus_is_not_measured(tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "changed")
    corpus = tmp_path / "changed" / "corpus.jsonl"
    encoder = load_encoder("none")
    evaluate_dataset(tmp_path / "changed", encoder, folder=tmp_path / "index", modes=["bm25"])
    corpus.write_text(corpus.read_text(encoding="utf-8").replace("bread", "cake"), encoding="utf-8")
    with pytest.raises(UserError, match="not the index of"):
        evaluate_dataset(tmp_path / "changed", encoder, folder=tmp_path / "index", modes=["bm25"])


def test_an_index_that_was_changed_is_not_measured(tmp_path: Path) -> None:
    encoder = load_encoder("none")
    evaluate_dataset(TINY, encoder, folder=tmp_path / "index", modes=["bm25"])
    with IndexWriter.open(tmp_path / "index", encoder) as writer:
        writer.add([Document("d01", "The same id, another text.")])
        writer.commit()
    with pytest.raises(UserError, match=r"not the index of .*changed since"):
        evaluate_dataset(TINY, encoder, folder=tmp_path / "index", modes=["bm25"])


def test_another_fusion_encodes_and_searches_nothing() -> None:
    encoder = Letters()
    run_experiment([TINY], [encoder], config=ExperimentConfig(modes=MODES))
    before = (encoder.texts, encoder.queries)
    weights = FusionConfig(weights={"bm25": 0.2, "sparse": 0.1, "dense": 0.7})
    found = run_experiment([TINY], [encoder], config=ExperimentConfig(modes=MODES, fusion=weights))
    assert (encoder.texts, encoder.queries) == before
    data = load_dataset(TINY)
    folder = Path(found.results.datasets[0].indexes[0].folder)
    with Retriever.open(folder, encoder, fusion=weights) as retriever:
        for mode in MODES:
            run = {query_id: separate_ties(hits) for query_id, hits in retriever.rank(data.queries, 1000, mode=mode)}
            assert evaluate_run(run, data.qrels).mean == found.evaluations["tiny"][mode].mean
    searched = encoder.queries
    run_experiment([TINY], [encoder], config=ExperimentConfig(modes=MODES, fresh=True))
    assert encoder.queries > searched, "asked to search again"


def test_other_numbers_are_not_taken_from_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Half(Letters):
        precision = "float16"

    config = ExperimentConfig(modes=("bm25", "dense"))
    rankings = cache.parent / "rankings"
    for number, encoder in enumerate((Letters(), Half(), Letters(), Half())):
        if number == 2:
            assert run_experiment([TINY], [again := Letters()], config=config) and again.texts == again.queries == 0
            monkeypatch.setattr("retriever.encoder.runtime.NUMERICS_VERSION", 0)
        run_experiment([TINY], [encoder], config=config)
        assert encoder.texts == 20 and encoder.queries > 0
        assert len([*cache.iterdir()]) == len([*rankings.glob("dense-*")]) == number + 1


def test_a_kept_ranking_that_is_damaged_is_searched_again() -> None:
    config = ExperimentConfig(modes=("bm25", "dense"))
    before = run_experiment([TINY], [Letters()], config=config).evaluations
    kept = [*(cache_folder().parent / "rankings").iterdir()]
    assert kept
    for path in kept:
        path.write_bytes(b"torn")
    assert run_experiment([TINY], [Letters()], config=config).evaluations == before
