"""The commands that change an index or look after it, and what they say to bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from retriever.cli.main import cli

TINY = Path(__file__).parents[2] / "data" / "tiny"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss


def run(*args: object) -> Any:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def good(*args: object) -> str:
    result = run(*args)
    assert result.exit_code == 0, (result.output, result.exception)
    return str(result.stdout)


def fault(*args: object) -> str:
    """Run a command that must fail; return the one line that it says."""
    result = run(*args)
    assert result.exit_code == 1, (result.exit_code, result.output, result.exception)
    assert isinstance(result.exception, SystemExit), "the exception was not handled"
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return str(line)


def found(folder: Path, query: str, *options: object) -> list[str]:
    lines = good("search", folder, query, "--mode", "bm25", "--json", *options).splitlines()
    return [json.loads(line)["doc_id"] for line in lines]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    good("index", TINY, "--index", tmp_path / "index", "--quiet", "--encoder", "none")
    return tmp_path / "index"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "more.jsonl"
    path.write_text('{"_id": "d01", "text": "zebra"}\n{"_id": "new", "text": "zebra finch"}\n')
    return path


def test_add_delete_info(folder: Path, corpus: Path, tmp_path: Path) -> None:
    assert "1 added, 1 updated" in good("add", folder, corpus, "--quiet")
    assert found(folder, "zebra") == ["d01", "new"]
    report = json.loads(good("add", folder, corpus, "--quiet", "--json"))
    assert (report["added"], report["updated"], report["documents"]) == (0, 2, 21)
    assert "1 deleted, 1 not there" in good("delete", folder, "new", "nobody")
    (tmp_path / "ids.txt").write_text("d01\nd02\n\n")
    report = json.loads(good("delete", folder, "d02", "d03", "--ids-from", tmp_path / "ids.txt", "--json"))
    assert report == {"deleted": 3, "unknown": 0, "documents": 17}
    assert found(folder, "zebra") == []
    info = json.loads(good("info", folder, "--json"))
    assert (info["documents"], info["rows"], info["dead_rows"], info["commit"]) == (17, 24, 7, 5)
    assert info["encoder"]["name"] == "none" and info["dense_type"] == "none"
    assert info["bytes_per_document"] == sum(info["sizes"].values()) / 17
    assert "17 (1 without text" in good("info", folder)
    before = info["commit"]
    good("delete", folder, "nobody")
    assert json.loads(good("info", folder, "--json"))["commit"] == before, "nothing to commit"


def test_the_encoder_of_the_index(tiny_encoder_folder: Path, corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    good("index", TINY, "--index", folder, "--quiet", "--encoder", tiny_encoder_folder)
    good("add", folder, corpus, "--quiet")
    lines = good("search", folder, "zebra finch", "--mode", "dense", "--top-k", 30, "--json").splitlines()
    assert "new" in [json.loads(line)["doc_id"] for line in lines]
    assert str(tiny_encoder_folder) in good("info", folder) and "flat" in good("info", folder)
    assert "none" in fault("add", folder, corpus, "--quiet", "--encoder", "none")


def test_faults(folder: Path, corpus: Path, tmp_path: Path) -> None:
    before = good("info", folder)
    missing = tmp_path / "missing"
    for command in (("add", missing, corpus), ("delete", missing, "a"), ("info", missing)):
        assert "no such index folder" in fault(*command)
    assert str(missing) in fault("add", folder, missing)
    assert str(missing) in fault("delete", folder, "--ids-from", missing)
    corpus.write_text('{"_id": "a", "text": "bread"}\n{"_id": "a", "text": "water"}\n')
    assert f"{corpus}:2" in fault("add", folder, corpus, "--quiet")
    corpus.write_text('{"_id": "a", "text": "bread"}\n{\n')
    assert f"{corpus}:2" in fault("add", folder, corpus, "--quiet")
    assert good("info", folder) == before
    assert run("delete", folder).exit_code == 2, "wrong usage"
    assert "1 added" in good("add", folder, corpus, "--quiet", "--on-bad", "skip")


def test_filter(folder: Path, tmp_path: Path) -> None:
    tiny = [json.loads(line) for line in (TINY / "corpus.jsonl").read_text().splitlines()]
    wanted = {d["_id"] for d in tiny if d["year"] >= 2020 and d["topic"] in ("food", "health")}
    options = ("--filter", "year >= 2020 and topic in (food, 'health')")
    hits = found(folder, "the body bread water immune dough vaccine flour", "--top-k", 20, *options)
    assert hits and set(hits) <= wanted
    run_file = tmp_path / "run.jsonl"
    good("search", folder, "--queries", TINY / "queries.jsonl", "--output", run_file, *options)
    assert {doc_id for doc_id in wanted if doc_id in run_file.read_text()}
    assert not [d["_id"] for d in tiny if d["_id"] not in wanted and f'"{d["_id"]}"' in run_file.read_text()]
    assert found(folder, "bread", "--filter", "year > 3000") == []
    for text in ("year >", "lang = en", "topic > 3", ""):
        assert "filter" in fault("search", folder, "bread", "--filter", text)
        file = ("--queries", TINY / "queries.jsonl", "-o", run_file)
        assert "filter" in fault("search", folder, *file, "--filter", text)


def test_compact_and_verify(folder: Path, corpus: Path) -> None:
    good("add", folder, corpus, "--quiet")
    before = found(folder, "zebra bread")
    assert "1 dead rows dropped" in good("compact", folder)
    assert found(folder, "zebra bread") == before
    assert "(commit 3)" in good("verify", folder)
    assert json.loads(good("verify", folder, "--json"))["damages"] == []
    [ids] = folder.glob("rows*/ids.utf8")
    ids.write_bytes(ids.read_bytes().replace(b"d05", b"d06"))
    line = fault("verify", folder)
    assert str(ids.relative_to(folder)) in line and "1 of " in line and "copy" in line
    result = run("verify", folder, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["damages"] == [{"file": str(ids.relative_to(folder)), "problem": "wrong checksum"}]


def test_changing_the_faiss_type_and_repairing_it(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    good("index", TINY, "--index", folder, "--quiet", "--encoder", tiny_encoder_folder)
    assert "faiss hnsw" in good("compact", folder, "--dense-type", "hnsw")
    [file] = (folder / "dense").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    line = fault("verify", folder)
    assert f"dense/{file.name}" in line and "retriever compact" in line
    good("compact", folder)
    good("verify", folder)


def test_faults_of_compact_and_verify(folder: Path, tmp_path: Path) -> None:
    for command in ("compact", "verify"):
        assert "no such index folder" in fault(command, tmp_path / "missing")
        assert "not an index folder" in fault(command, TINY)
    assert run("compact", folder, "--dense-type", "annoy").exit_code == 2
    (folder / "index.json").unlink()
    assert "index.json" in fault("verify", folder)
