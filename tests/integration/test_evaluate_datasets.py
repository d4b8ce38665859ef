"""`retriever evaluate --dataset` on data sets that are no BEIR folders, and on judgements of what does not exist."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from retriever.cli import cli

pytestmark = pytest.mark.filterwarnings("ignore")  # of datasets, ir_datasets and their libraries
MEASURES = ("-m", "nDCG@10", "-m", "R@10")


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write an MS MARCO-like collection with a relevant document that is not in the corpus."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "collection.tsv").write_text("0\tcats eat mice\n1\tdogs eat bones\n2\tmice eat corn\n")
    (tmp_path / "queries.tsv").write_text("q1\twhat do dogs eat\nq2\twhat do cats eat\n")
    (tmp_path / "qrels.tsv").write_text("q1\t0\t1\t1\nq2\t0\t0\t1\nq2\t0\t99\t1\nq2\t0\t98\t0\n")
    (tmp_path / "pets.yaml").write_text("corpus: collection.tsv\nqueries: queries.tsv\nqrels: qrels.tsv\n")
    return tmp_path


def evaluate(spec: object) -> tuple[dict[str, float], str]:
    """Return the means of BM25 and what was said on the side."""
    options = ["--encoder", "none", "--modes", "bm25", "--quiet", "--json"]
    result = CliRunner().invoke(cli, ["evaluate", "--dataset", str(spec), *options, *MEASURES])
    assert result.exit_code == 0, (result.output, result.exception)
    mean: dict[str, float] = json.loads(result.stdout.splitlines()[-1])["mean"]
    return mean, result.stderr


def test_a_collection_of_files_and_a_relevant_document_that_is_not_there(collection: Path) -> None:
    mean, said = evaluate(collection / "pets.yaml")
    assert mean["R@10"] == pytest.approx((1 + 1 / 2) / 2), "what is not there counts as not found"
    assert "pets: 2 judged documents are not in the corpus, such as '98'; 1 judgements call them relevant" in said


def test_the_same_collection_by_ir_datasets(collection: Path) -> None:
    import ir_datasets

    lines = (collection / "qrels.tsv").read_text().replace("\t", " ")
    (collection / "qrels.txt").write_text(lines)
    parts = {"docs_tsv": collection / "collection.tsv", "queries_tsv": collection / "queries.tsv"}
    made = ir_datasets.create_dataset(
        **{name: str(path) for name, path in parts.items()}, qrels_trec=str(collection / "qrels.txt")
    )
    ir_datasets.registry.register("tests/pets", made)
    assert evaluate("ir:tests/pets")[0] == evaluate(collection / "pets.yaml")[0]
