"""Faults of a user who builds an index: exit code 1, one line that names the place, and nothing half-written."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest

from tests.helpers.faults import GOOD, TINY, fault, found, index, names, snapshot


@pytest.mark.parametrize(
    ("third", "says"),
    [
        (b'{"_id": "c", "text": "moon"', ["JSON"]),
        (b"moon", ["JSON"]),
        (b'["c", "moon"]', ["object"]),
        (b'{"_id": "c", "text": "m\xffoon"}', ["UTF-8"]),
        (b'{"_id": "c", "title": "moon"}', ["text"]),
        (b'{"text": "moon"}', ["_id"]),
        (b'{"_id": "c", "text": 5}', ["text", "5", "string"]),
        (b'{"_id": 7.5, "text": "moon"}', ["7.5", "string"]),
        (b'{"_id": null, "text": "moon"}', ["None", "string"]),
        (b'{"_id": " ", "text": "moon"}', ["empty"]),
        (b'{"_id": "a", "text": "moon"}', ["'a'", "bad.jsonl:1", "--on-duplicate"]),
    ],
)
def test_bad_record(tmp_path: Path, third: bytes, says: list[str]) -> None:
    corpus = tmp_path / "bad.jsonl"
    corpus.write_bytes(GOOD.encode() + third + b"\n")
    line = fault(*index(corpus, tmp_path / "index"))
    assert f"{corpus}:3" in line
    assert all(word in line for word in says)
    assert names(tmp_path) == ["bad.jsonl"]


def test_bad_record_of_a_compressed_corpus_and_of_a_table(tmp_path: Path) -> None:
    packed = tmp_path / "bad.jsonl.gz"
    packed.write_bytes(gzip.compress(GOOD.encode() + b"{\n"))
    assert f"{packed}:3" in fault(*index(packed, tmp_path / "index"))
    packed.write_bytes(gzip.compress(GOOD.encode() * 1000)[:-20])
    assert str(packed) in fault(*index(packed, tmp_path / "index"))
    table = tmp_path / "bad.tsv"
    table.write_text("id\ttext\na\tbread\nb\n")
    assert f"{table}:3" in fault(*index(table, tmp_path / "index"))
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_empty_corpus(tmp_path: Path, content: str) -> None:
    corpus = tmp_path / "empty.jsonl"
    corpus.write_text(content)
    assert str(corpus) in fault(*index(corpus, tmp_path / "index"))
    assert not (tmp_path / "index").exists()


def test_no_such_corpus(tmp_path: Path) -> None:
    (tmp_path / "notes.docx").write_text("")
    (tmp_path / "empty").mkdir()
    for name in ("missing.jsonl", "notes.docx", "empty"):
        assert str(tmp_path / name) in fault(*index(tmp_path / name, tmp_path / "index"))
    assert not (tmp_path / "index").exists()


def test_an_empty_encoder_name_is_not_the_default(tmp_path: Path, tiny_index: Path) -> None:
    for command in (["index", TINY, "--index", tmp_path / "i"], ["add", tiny_index, TINY]):
        assert "the encoder's name is empty" in fault(*command, "--encoder", "")


def test_output_folder_not_empty(tmp_path: Path, tiny_index: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    assert str(full) in fault(*index(TINY, full))
    assert snapshot(full) == {"notes.txt": b"mine"}
    for options in ([], ["--resume"]):
        assert "notes.txt: a file, need a new or empty folder" in fault(*index(TINY, full / "notes.txt"), *options)
    before = snapshot(tiny_index)
    assert str(tiny_index) in fault(*index(TINY, tiny_index))
    assert snapshot(tiny_index) == before


def test_output_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert str(tmp_path / "file") in fault(*index(TINY, tmp_path / "file" / "index"))
    assert snapshot(tmp_path) == {"file": b"mine"}


def test_resume_with_another_corpus_or_without_an_index(tmp_path: Path, tiny_index: Path) -> None:
    corpus = tmp_path / "other.jsonl"
    corpus.write_text(GOOD)
    copy = tmp_path / "copy"
    shutil.copytree(tiny_index, copy)
    assert "another corpus" in fault(*index(corpus, copy, "--resume"))
    corpus.write_text(GOOD + "{\n")
    assert f"{corpus}:3" in fault(*index(corpus, copy, "--resume"))
    assert found(copy, "sourdough") == found(tiny_index, "sourdough") != []


@pytest.mark.parametrize("text", ["no_such_setting: 1\n", "batch: many\n", "batch: 0\n", "- 1\n", "a: [\n", "k1: -1\n"])
def test_bad_settings(tmp_path: Path, text: str) -> None:
    settings = tmp_path / "settings.yaml"
    assert str(settings) in fault(*index(TINY, tmp_path / "index", "--config", settings))
    settings.write_text(text)
    fault(*index(TINY, tmp_path / "index", "--config", settings))
    assert names(tmp_path) == ["settings.yaml"]


def test_encoder_missing_or_of_another_kind(tmp_path: Path, encoders: Path) -> None:
    (tmp_path / "empty").mkdir()
    bert = tmp_path / "bert"
    bert.mkdir()
    (bert / "config.json").write_text('{"model_type": "bert"}')
    for encoder in (tmp_path / "missing", tmp_path / "empty", bert, encoders / "mixed"):
        line = fault("index", TINY, "--index", tmp_path / "index", "--quiet", "--encoder", encoder)
        assert str(encoder) in line
    assert "vocabulary" in line
    assert str(bert) in fault("index", TINY, "--index", tmp_path / "index", "--quiet", "--encoder", f"st:{bert}")
    assert not (tmp_path / "index").exists()


def test_a_line_end_in_a_name_does_not_part_the_error(tmp_path: Path) -> None:
    corpus = tmp_path / "a\nb.jsonl"
    corpus.write_text("{")
    assert "a\\nb.jsonl:1: not JSON" in fault(*index(corpus, tmp_path / "index"))
    assert "no such" in fault("search", tmp_path / "c\r\nd", "bread")
