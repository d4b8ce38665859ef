"""Each command as a user calls it, from a corpus to figures; faults are in the files called faults."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner, Result

from retriever.cli.main import cli
from retriever.corpus.python_docs import DEMO_QUERIES
from retriever.eval.data.runs import read_run

if TYPE_CHECKING:
    from tests.helpers.warm import WarmPython

os.environ.setdefault("OMP_NUM_THREADS", "1")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
TINY = Path(__file__).parents[1] / "data" / "tiny"
JUDGED = {line.split("\t")[0] for line in (TINY / "qrels" / "test.tsv").read_text().splitlines()[1:]}
LEXICAL = ("--query-mode", "lexical")
KEYS = ["rank", "doc_id", "score", "title", "text", "metadata", "parts", "terms", "chunks", "highlights", "stages"]
KEYS.append("title_highlights")


def call(*args: object) -> Result:
    result = CliRunner().invoke(cli, [str(arg) for arg in args])
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def lines(result: Result) -> list[Any]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def folder(tiny_encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "index"
    call("index", TINY, "--index", path, "--encoder", tiny_encoder_folder, "--quiet")
    return path


def commands(group: click.Group, *names: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*names, name), command
        if isinstance(command, click.Group):
            yield from commands(command, *names, name)


@pytest.mark.parametrize("names", [(), *(names for names, _ in commands(cli))], ids=" ".join)
def test_help_shows_an_example(names: tuple[str, ...]) -> None:
    text = call(*names, "--help").stdout
    before, _, example = text.partition("  Example:\n")
    assert f"\n    retriever {' '.join(names)}".rstrip() in f"\n{example}"
    assert before.startswith("Usage: ") and text == call(*names, "-h").stdout


def test_version() -> None:
    assert call("--version").stdout.split()[-1].count(".") == 2


def test_index_reports(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"_id": "a", "text": "bread"}\n{"_id": "a", "text": "water"}\n{"_id": "b", "text": ""}\nbad\n')
    options = ("--encoder", "none", "--on-duplicate", "skip", "--on-bad", "skip")
    result = call("index", corpus, "--index", tmp_path / "one", *options, "--quiet")
    assert result.stdout.startswith("2 documents (1 without text, 1 duplicates left out) in ")
    assert "left out 1 bad records" in result.stderr and f"{corpus}:4" in result.stderr
    result = call("index", corpus, "--index", tmp_path / "two", *options, "--json")
    [report] = lines(result)
    names = ["documents", "chunks", "empty", "truncated", "bad", "duplicates", "first_bad", "seconds", "sizes"]
    assert list(report) == [*names, "left_out", "unread"]
    assert [report[name] for name in names[:6]] == [2, 2, 1, 0, 1, 1]
    assert "index" in result.stderr, "progress is shown, and not on stdout"


def test_index_settings(tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text("k1: 1.2\nb: 0.75\non_duplicate: skip\ncommit_every_documents: 7\n")
    index = tmp_path / "index"
    call("index", TINY, "--index", index, "-e", "none", "-q", "--config", config, "--commit-every-documents", 5)
    settings = json.loads((index / "index.json").read_text())
    assert (settings["k1"], settings["b"]) == (1.2, 0.75)


def test_search_text(folder: Path) -> None:
    result = call("search", folder, "bread dough yeast", "-k", 3, "--mode", "bm25")
    assert result.stderr == ""
    first = result.stdout.splitlines()[0].split()
    assert first[0] == "1." and first[2] == "d01" and first[3:] == ["Why", "bread", "rises"]
    assert "terms:" not in result.stdout
    explained = call("search", folder, "bread dough yeast", "-k", 3, "--mode", "bm25", "--explain").stdout
    assert "bm25 terms: " in explained and "yeast 1.00x" in explained
    result = call("search", folder, "xylophone", "--mode", "bm25")
    assert (result.stdout, result.stderr) == ("", "no hits\n")
    assert call("search", folder, "xylophone", "--mode", "bm25", "--json").output == ""


def test_search_in_a_query_mode(folder: Path, tmp_path: Path) -> None:
    options = ("search", folder, "bread dough", "--mode", "sparse", "--explain", "--json")
    own, network, words = (lines(call(*options, *more)) for more in ((), ("--query-mode", "encoder"), LEXICAL))
    assert own == network != words
    asked, expanded = ({match["term"] for hit in hits for match in hit["terms"]} for hits in (words, own))
    assert asked <= {"b", "##r", "##e", "##a", "##d", "dough"} and asked < expanded, "bread is no term of 200"
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "bread dough"}\n')
    more = ("--queries", tmp_path / "queries.jsonl", "--output", tmp_path / "run.trec")
    call("search", folder, "--mode", "sparse", *more, *LEXICAL)
    assert [hit.doc_id for hit in read_run(tmp_path / "run.trec")["q"]][:10] == [hit["doc_id"] for hit in words]


def test_lexical_search_imports_no_torch(folder: Path) -> None:
    args = ["search", str(folder), "bread dough", "--mode", "sparse", *LEXICAL]
    code = (
        "import sys\nfrom retriever.cli.main import cli\n"
        f"cli({args!r}, standalone_mode=False)\n"
        "assert not {'torch', 'transformers', 'faiss'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("mode", ["hybrid", "bm25", "sparse", "dense"])
@pytest.mark.parametrize("explain", [True, False])
def test_search_json(folder: Path, mode: str, explain: bool) -> None:
    result = call("search", folder, "bread dough", "--mode", mode, "--json", *(["--explain"] if explain else []))
    hits = lines(result)
    assert [hit["rank"] for hit in hits] == list(range(1, len(hits) + 1)) and 0 < len(hits) <= 10
    corpus = {line["_id"]: line for line in map(json.loads, (TINY / "corpus.jsonl").read_text().splitlines())}
    for hit in hits:
        assert list(hit) == KEYS
        document = corpus[hit["doc_id"]]
        assert (hit["title"], hit["text"]) == (document["title"], document["text"])
        assert hit["metadata"] == {key: document[key] for key in document if key not in ("_id", "title", "text")}
        assert set(hit["parts"]) <= {"bm25", "sparse", "dense"} if mode == "hybrid" else {mode}
        for part in hit["parts"].values():
            assert list(part) == ["rank", "score", "normalised"] and part["rank"] >= 1
        for term in hit["terms"]:
            assert list(term) == ["leg", "term", "query_weight", "doc_weight", "contribution"]
        assert explain or hit["terms"] == []
    if explain and mode != "dense":
        assert any(hit["terms"] for hit in hits)


def test_fusion_options(folder: Path) -> None:
    def scores(*options: str) -> list[float]:
        return [hit["score"] for hit in lines(call("search", folder, "bread dough", "--json", *options))]

    assert scores("--fusion", "rrf", "--weights", "bm25=1,sparse=1,dense=1")[0] <= 3 / 61
    assert scores("--weights", "bm25=1") == scores("--mode", "bm25")
    assert scores("--normalisation", "max") != scores()


@pytest.mark.parametrize("name", ["run.trec", "run.jsonl", "run.trec.gz"])
def test_a_file_of_queries_and_its_evaluation(folder: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    result = call("search", folder, "--queries", TINY / "queries.jsonl", "-k", 5, "--output", path, "--tag", "mine")
    assert result.stdout == "" and "10 queries" in result.stderr
    again = call("search", folder, "--queries", TINY / "queries.jsonl", "-k", 5, "--output", path, "--quiet")
    assert again.stderr == f"10 queries in {path}\n", "no bar"
    run = read_run(path)
    queries = {line["_id"]: line["text"] for line in map(json.loads, (TINY / "queries.jsonl").read_text().splitlines())}
    assert set(run) == set(queries)
    for query_id, ranking in run.items():
        hits = lines(call("search", folder, queries[query_id], "-k", 5, "--json"))
        assert [hit.doc_id for hit in ranking] == [hit["doc_id"] for hit in hits]
        assert [hit.score for hit in ranking] == pytest.approx([hit["score"] for hit in hits], abs=1e-4)
    measured = call(
        "evaluate", path, TINY / "qrels" / "test.tsv", "-m", "nDCG@10", "-m", "P@1", "--per-query", "--json"
    )
    *each, last = lines(measured)
    assert last["run"] == name and last["queries_judged"] == len(JUDGED) and last["queries_missing"] == 0
    assert {line["query_id"] for line in each} == JUDGED
    for measure in ("nDCG@10", "P@1"):
        assert last["mean"][measure] == pytest.approx(math.fsum(line[measure] for line in each) / len(JUDGED))
    text = call("evaluate", path, TINY / "qrels" / "test.tsv", "-m", "P@1").stdout.split()
    assert text == ["run", "P@1", name, f"{last['mean']['P@1']:.4f}"]


def test_a_query_without_hits_counts_as_zero(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    path.write_text("q01 Q0 d01 1 1.0 t\n")
    result = call("evaluate", path, TINY / "qrels" / "test.tsv", "-m", "P@1")
    assert f"{len(JUDGED) - 1} judged queries have no hits" in result.stderr
    assert f"{1 / len(JUDGED):.4f}" in result.stdout


def test_evaluate_a_data_set(folder: Path, tmp_path: Path, tiny_encoder_folder: Path) -> None:
    options = (
        "--dataset",
        TINY,
        "--index",
        folder,
        "--encoder",
        tiny_encoder_folder,
        "--output",
        tmp_path / "runs",
        "-q",
    )
    result = call("evaluate", *options, "--json", "--per-query")
    found = lines(result)
    assert [line["mode"] for line in found if "mean" in line] == ["bm25", "sparse", "dense", "hybrid"]
    for mode in ("bm25", "sparse", "dense", "hybrid"):
        of_mode = [line for line in found if line["mode"] == mode]
        assert [line for line in of_mode if "mean" in line] == of_mode[-1:]
        assert set(of_mode[-1]["mean"]) == {"nDCG@10", "R@100"}
        assert {line["query_id"] for line in of_mode[:-1]} == JUDGED
        [again] = lines(
            call("evaluate", tmp_path / "runs" / f"tiny-test-{mode}.trec", TINY / "qrels" / "test.tsv", "--json")
        )
        assert again["mean"] == of_mode[-1]["mean"]
    header, *rows = call("evaluate", *options, "--modes", "dense, bm25").stdout.splitlines()
    assert header.split() == ["mode", "nDCG@10", "R@100"]
    assert [row.split()[0] for row in rows] == ["dense", "bm25"]


@pytest.fixture(scope="module")
def base(tiny_parent: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("base")
    tiny_parent.model.save_pretrained(path)
    tiny_parent.tokenizer.save_pretrained(path)
    return path


def test_upcycle_with_options(base: Path, tmp_path: Path) -> None:
    sizes = ("--experts", 2, "--experts-per-token", 1, "--granularity", 2, "--shared-experts", 1)
    out = tmp_path / "encoder"
    result = call("upcycle", base, "--output", out, *sizes, "--moe-layers", "0,1", "--storage", "float32")
    assert result.stdout.startswith(f"{out}: ") and "MiB" in result.stdout
    config = json.loads((out / "config.json").read_text())
    assert config["moe_layers"] == [0, 1]
    call("index", TINY, "--index", tmp_path / "index", "--encoder", out, "-q")
    assert lines(call("search", tmp_path / "index", "bread", "--json"))


def test_upcycle_with_a_file_of_settings(base: Path, tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text("num_experts: 2\nmoe_layers: [0]\nseed: 3\n")
    configs = []
    for name, options in (("one", ()), ("two", ("--moe-layers", "1"))):
        call("upcycle", base, "--output", tmp_path / name, "--config", config, *options)
        configs.append(json.loads((tmp_path / name / "config.json").read_text()))
    assert [values["moe_layers"] for values in configs] == [[0], [1]], "an option overrides the file"
    assert configs[0]["num_experts"] == configs[1]["num_experts"]


def test_doctor() -> None:
    result = CliRunner().invoke(cli, ["doctor", "--json"])
    findings = lines(result)
    assert all(list(finding) == ["name", "status", "found", "needed", "fix"] for finding in findings)
    assert result.exit_code == any(finding["status"] == "problem" for finding in findings)
    text = CliRunner().invoke(cli, ["doctor"])
    assert text.exit_code == result.exit_code
    assert all(f" {finding['name']}: " in text.stdout for finding in findings)


def test_demo_without_encoder(tmp_path: Path, warm: WarmPython) -> None:
    command = ("-m", "retriever", "demo", "--encoder", "none", "--quiet")
    first, second = (warm(*command, cwd=tmp_path) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["python-docs-index"]
    assert "documents in python-docs-index" in first.stderr and "there already" in second.stderr
    for query in DEMO_QUERIES:
        block = first.stdout.split(f"\n{query}\n")[1].split("\n\n")[0].splitlines()
        assert block[0].split() == ["hybrid", "bm25"] and 1 < len(block) <= 4
    assert "heapq.merge" in first.stdout.split("\nheapq.merge\n")[1].splitlines()[1]
    assert first.stdout == second.stdout
    assert "retriever search python-docs-index" in first.stdout.split("Try next:")[1]
