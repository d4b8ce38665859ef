"""Faults of a user who searches: exit code 1, and one line that names the place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.helpers.faults import TINY, fault, found, index, names, run, snapshot


def test_search_with_another_encoder_than_the_index_has(tmp_path: Path, encoders: Path) -> None:
    folder, encoder = tmp_path / "index", tmp_path / "encoder"
    shutil.copytree(encoders / "good", encoder)
    result = run("index", TINY, "--index", folder, "--quiet", "--encoder", encoder)
    assert result.exit_code == 0, result.output
    line = fault("search", folder, "bread", "--mode", "dense", "--encoder", encoders / "other")
    assert str(folder) in line and str(encoders / "other") in line
    shutil.rmtree(encoder)
    assert str(encoder) in fault("search", folder, "bread")
    assert found(folder, "sourdough"), "BM25 needs no encoder"
    result = run("search", folder, "bread", "--encoder", encoders / "good")
    assert result.exit_code == 0, "the same encoder may have moved"


@pytest.mark.parametrize("mode", ["dense", "sparse"])
def test_mode_that_the_index_has_not(tiny_index: Path, mode: str) -> None:
    line = fault("search", tiny_index, "bread", "--mode", mode)
    assert str(tiny_index) in line and "bm25" in line


def test_index_folder_missing_or_foreign(tmp_path: Path, tiny_index: Path) -> None:
    assert "retriever index" in fault("search", tmp_path / "missing", "bread")
    assert str(TINY) in fault("search", TINY, "bread")
    assert str(tiny_index / "lucene") in fault("search", tiny_index / "lucene", "bread")
    assert str(TINY / "corpus.jsonl") in fault("search", TINY / "corpus.jsonl", "bread")
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("content", ['{"format": "other", "version": 1}', '{"format": "retriever-index"}', "[]", "{"])
def test_index_of_another_format(tmp_path: Path, content: str) -> None:
    (tmp_path / "index.json").write_text(content)
    assert str(tmp_path / "index.json") in fault("search", tmp_path, "bread")
    assert str(tmp_path / "index.json") in fault(*index(TINY, tmp_path, "--resume"))
    assert snapshot(tmp_path) == {"index.json": content.encode()}


def test_index_of_a_later_version(tmp_path: Path, tiny_index: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_index, copy)
    settings = json.loads((copy / "index.json").read_text())
    (copy / "index.json").write_text(json.dumps(settings | {"version": 99}))
    assert "99" in fault("search", copy, "bread")


@pytest.mark.parametrize("damage", ["lucene", "rows"])
def test_damaged_index(tmp_path: Path, encoders: Path, damage: str) -> None:
    folder = tmp_path / "index"
    result = run("index", TINY, "--index", folder, "--quiet", "--encoder", encoders / "good")
    assert result.exit_code == 0, result.output
    shutil.rmtree(folder / damage)
    assert str(folder) in fault("search", folder, "bread")


@pytest.mark.parametrize("query", ["", "  \t"])
def test_empty_query(tiny_index: Path, query: str) -> None:
    assert "empty" in fault("search", tiny_index, query)


@pytest.mark.parametrize("top_k", ["0", "-3"])
def test_top_k_below_one(tmp_path: Path, tiny_index: Path, top_k: str) -> None:
    assert top_k in fault("search", tiny_index, "bread", "--top-k", top_k)
    output = tmp_path / "run.trec"
    queries = TINY / "queries.jsonl"
    assert top_k in fault("search", tiny_index, "--queries", queries, "--top-k", top_k, "--output", output)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ('{"_id": "1", "text": "bread"}\n{"_id": "2", "text": " "}\n', ":2"),
        ('{"_id": "1", "text": "bread"}\n{"_id": "1", "text": "water"}\n', ":2"),
        ('{"_id": "1", "text": "bread"}\n{"_id": 2.5, "text": "water"}\n', ":2"),
        ("bread\n", ":1"),
        ('{"_id": "1"}\n', ":1"),
        ("", ""),
    ],
)
def test_bad_query_file(tmp_path: Path, tiny_index: Path, content: str, place: str) -> None:
    queries, output = tmp_path / "queries.jsonl", tmp_path / "run.trec"
    assert str(queries) in fault("search", tiny_index, "--queries", queries, "--output", output)
    queries.write_text(content)
    assert f"{queries}{place}" in fault("search", tiny_index, "--queries", queries, "--output", output)
    assert names(tmp_path) == ["queries.jsonl"]


def test_run_file_that_cannot_be_written(tmp_path: Path, tiny_index: Path) -> None:
    queries = TINY / "queries.jsonl"
    (tmp_path / "folder.trec").mkdir()
    for output in (tmp_path / "missing" / "run.trec", tmp_path / "folder.trec"):
        assert str(output) in fault("search", tiny_index, "--queries", queries, "--output", output)
    assert names(tmp_path) == ["folder.trec"] and not names(tmp_path / "folder.trec")


@pytest.mark.parametrize("options", [["--weights", "bm25"], ["--weights", "bm52=1"], ["--weights", "bm25=-1"]])
def test_bad_fusion(tiny_index: Path, options: list[str]) -> None:
    assert options[1].split("=")[0] in fault("search", tiny_index, "bread", *options)
