"""Complaints of options that change nothing: each option of `search` does."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import click
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from retriever.cli.main import cli
from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.search.legs.backends import make_sparse_backend
from retriever.types import Document, Encoded, EncoderIdentity
from tests.helpers.complaints import backends, call

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
QUERY = "river and moon water"
CASES: dict[str, tuple[list[str], list[str]]] = {
    "folder": (["INDEX", QUERY], ["OTHER", QUERY]),
    "query": (["INDEX", QUERY], ["INDEX", "paper"]),
    "queries": (["INDEX", "--queries", "QUERIES", "-o", "RUN"], ["INDEX", "--queries", "MORE", "-o", "RUN"]),
    "output": (["INDEX", "--queries", "QUERIES", "-o", "RUN"], ["INDEX", "--queries", "QUERIES", "-o", "RUN.jsonl"]),
    "tag": (
        ["INDEX", "--queries", "QUERIES", "-o", "RUN"],
        ["INDEX", "--queries", "QUERIES", "-o", "RUN", "--tag", "mine"],
    ),
    "quiet": (
        ["INDEX", "--queries", "QUERIES", "-o", "RUN"],
        ["INDEX", "--queries", "QUERIES", "-o", "RUN", "--quiet"],
    ),
    "mode": (["INDEX", QUERY], ["INDEX", QUERY, "--mode", "bm25"]),
    "top_k": (["INDEX", QUERY], ["INDEX", QUERY, "--top-k", "3"]),
    "filter": (["INDEX", QUERY], ["INDEX", QUERY, "--filter", "n < 4"]),
    "explain": (["INDEX", QUERY], ["INDEX", QUERY, "--explain"]),
    "verify": (["DAMAGED", QUERY, "-m", "bm25"], ["DAMAGED", QUERY, "-m", "bm25", "--verify"]),
    "fusion": (["INDEX", QUERY], ["INDEX", QUERY, "--fusion", "rrf"]),
    "weights": (["INDEX", QUERY], ["INDEX", QUERY, "--weights", "bm25=0.9,sparse=0.1"]),
    "normalisation": (["INDEX", QUERY], ["INDEX", QUERY, "--normalisation", "z-score"]),
    "encoder": (["INDEX", QUERY], ["INDEX", QUERY, "--encoder", "ANOTHER"]),
    "query_mode": (["INDEX", QUERY, "-m", "sparse"], ["INDEX", QUERY, "-m", "sparse", "--query-mode", "lexical"]),
    "quick": ([], []),
    "sparse_backend": (["WIDE", "--sparse-backend", "postings"], ["WIDE", "--sparse-backend", "two-step"]),
    "as_json": (["INDEX", QUERY], ["INDEX", QUERY, "--json"]),
    "like": (["INDEX", "--like", "d01"], ["INDEX", "--like", "d02"]),
    "pipeline": (["INDEX", QUERY], ["INDEX", QUERY, "--pipeline", "hybrid > mmr(0.1)"]),
    "feedback": (["INDEX", QUERY], ["INDEX", QUERY, "--feedback", "rm3"]),
    "rerank": ([], []),
    "cluster": ([], []),
    "replicas": ([], []),
    "hedge": ([], []),
    "partial": ([], []),
    "offset": (["INDEX", QUERY], ["INDEX", QUERY, "--offset", "2"]),
    "min_score": (["INDEX", QUERY], ["INDEX", QUERY, "--min-score", "0.85"]),
    "fields": (["INDEX", QUERY, "--json"], ["INDEX", QUERY, "--json", "--fields", ""]),
    "highlight": (["INDEX", QUERY], ["INDEX", QUERY, "--highlight"]),
}
"""For each argument and option of `search`: a call without it and one with it, which must not do the same."""


def parameters() -> list[str]:
    command = cli.commands["search"]
    return [str(parameter.name) for parameter in command.params if isinstance(parameter, click.Parameter)]


@pytest.mark.parametrize("name", parameters())
def test_35_every_option_of_search_changes_something(name: str, real: Path, tmp_path: Path) -> None:
    if name == "language":
        pytest.skip("it takes an index in several languages: tests/search/test_query_language.py")
    assert name in CASES, f"search has an option {name} that no case shows to change anything"
    if name == "quick":
        pytest.skip("it changes what is imported: tests/encoder/test_quick_queries.py")
    if name in ("cluster", "replicas", "hedge", "partial"):
        pytest.skip("it takes a sharded index and processes: tests/cluster/test_search.py")
    if name == "rerank":
        pytest.skip("it takes a cross-encoder: tests/rank/test_rerank.py")
    if name == "sparse_backend":
        differs_by_back_end(tmp_path)
        return
    places = {"INDEX": real, "QUERIES": tmp_path / "q.tsv", "MORE": tmp_path / "more.tsv", "RUN": tmp_path / "run.trec"}
    places |= {"RUN.jsonl": tmp_path / "run.jsonl", "ANOTHER": tmp_path / "none", "DAMAGED": tmp_path / "damaged"}
    places["OTHER"] = real.with_name("absent")
    places["QUERIES"].write_text("q1\triver\n")
    places["MORE"].write_text("q1\triver\nq2\tmoon\n")
    if name == "verify":
        damage(shutil.copytree(real, places["DAMAGED"]))

    def outcome(args: list[str]) -> tuple[int, str, str, str]:
        called = call("search", *(places.get(part, part) for part in args))
        assert called.exit_code in (0, 1), called.output
        runs = [path for path in (places["RUN"], places["RUN.jsonl"]) if path.exists()]
        written = "".join(path.name + path.read_text() for path in runs)
        for path in runs:
            path.unlink()
        said = re.sub(r"([^\r\n]*\|[^\r\n]*[\r\n]*)+", "a bar\n", called.stderr)  # with its speed
        return called.exit_code, called.stdout, said, written

    without, given = map(outcome, CASES[name])
    assert without[0] == 0, without
    assert without != given
    assert outcome(CASES[name][0]) == without, "it is the option that changes it"
    if name not in ("folder", "encoder", "verify"):
        assert given[0] == 0, given


def damage(folder: Path) -> None:
    """Change one byte of the vectors, which BM25 does not read."""
    [path] = (folder / "rows").glob("*vectors*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def differs_by_back_end(tmp_path: Path) -> None:
    """Two steps miss a document that has only the weakest of many query terms; the others are exact."""
    folder, vocabulary = tmp_path / "wide", 40
    terms = np.zeros((2, vocabulary), np.float32)
    terms[0, 0] = terms[1, vocabulary - 1] = 1
    query = csr_matrix(np.arange(vocabulary, 0, -1, dtype=np.float32)[None])
    with FolderWriter.create(folder, IndexSettings(EncoderIdentity("stub", "0" * 64, 0, vocabulary))) as writer:
        writer.add(
            [Document("strong", "a"), Document("weak", "b")], Encoded(None, csr_matrix(terms), np.zeros(2, bool))
        )
        writer.commit()
    with FolderReader.open(folder) as reader:
        found = {
            name: [hit.doc_id for hit in make_sparse_backend(name, reader).search(query, 2)] for name in backends()
        }
    assert found["postings"] == found["lucene"] == ["strong", "weak"] and found["two-step"] == ["strong"]
