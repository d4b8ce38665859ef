"""`retriever evaluate --dataset` on data sets that are no BEIR folders, and on judgements of what does not exist."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from retriever.cli.main import cli

pytestmark = pytest.mark.filterwarnings("ignore")  # of datasets, ir_datasets and their libraries
MEASURES = ("-m", "nDCG@10", "-m", "R@10")


@pytest.fixture
def collection(tmp_path: Path, own_cache: Path) -> Path:
    """Write an MS MARCO-like collection with a relevant document that is not in the corpus."""
    (tmp_path / "collection.tsv").write_text("0\tcats eat mice\n1\tdogs eat bones\n2\tmice eat corn\n")
    (tmp_path / "queries.tsv").write_text("q1\twhat do dogs eat\nq2\twhat do cats eat\n")
    (tmp_path / "qrels.tsv").write_text("q1\t0\t1\t1\nq2\t0\t0\t1\nq2\t0\t99\t1\nq2\t0\t98\t0\n")
    (tmp_path / "pets.yaml").write_text("corpus: collection.tsv\nqueries: queries.tsv\nqrels: qrels.tsv\n")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("run", "q1 Q0 0 2 nan tag", "score nan of document '0' is not a finite number; remove the line"),
        ("run", "q1 Q0 1 2 0.5 tag", "document '1' stands a second time under query 'q1'; keep one line"),
        ("run", "q1 Q0 2 0.5 tag", "found 5 columns, need six (query Q0 document rank score tag)"),
        ("run", "q1 Q0 2 2 high tag", "score 'high' is not a number; column five holds the score"),
        ("qrels", "q1 0 2 0.5", "grade '0.5' is not an integer; grades are whole numbers such as 0, 1, 2"),
        ("qrels", "q1 0 1 2", "query 'q1' and document '1' have grade 2 here and 1 before; keep one of the two lines"),
        ("qrels", "q1 0 2 1 tag", "found 5 columns, need TREC's four (query 0 document grade)"),
    ],
)
def test_a_bad_line_is_named_in_one_line(tmp_path: Path, file: str, line: str, message: str) -> None:
    files = {"run": "q1 Q0 1 1 1.0 tag\n", "qrels": "q1 0 1 1\n"}
    files[file] += f"{line}\n"
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    result = CliRunner().invoke(cli, ["evaluate", str(tmp_path / "run"), str(tmp_path / "qrels")])
    assert result.exit_code == 1 and result.stdout == ""
    [said] = result.stderr.splitlines()
    assert said.startswith(f"Error: {tmp_path / file}:2: {message}")


def test_queries_that_only_one_file_knows_are_counted(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("q1 Q0 d 1 1.0 tag\nq3 Q0 d 1 1.0 tag\n")
    (tmp_path / "qrels").write_text("q1 0 d 1\nq2 0 d 1\n")
    result = CliRunner().invoke(cli, ["evaluate", str(tmp_path / "run"), str(tmp_path / "qrels"), "--json"])
    assert json.loads(result.stdout)["mean"]["nDCG@10"] == 0.5
    assert "run: 1 judged queries have no hits and count as 0" in result.stderr
    assert "run: 1 queries without judgements are left out" in result.stderr


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
