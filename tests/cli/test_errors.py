"""Bad input on the command line: exit code 1, one line that names the place, and nothing half-written."""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from retriever.cli.main import cli
from tests.helpers.waiting import wait_until

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "data" / "tiny"
GOOD = '{"_id": "a", "text": "bread"}\n{"_id": "b", "text": "water"}\n'


def run(*args: object) -> Any:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def fault(*args: object) -> str:
    """Run a command that must fail; return the one line that it says."""
    result = run(*args)
    assert result.exit_code == 1, (result.exit_code, result.output, result.exception)
    assert isinstance(result.exception, SystemExit), "the exception was not handled"
    assert result.stdout == ""
    lines: list[str] = result.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    return lines[0]


def index(corpus: object, folder: object, *options: object) -> tuple[object, ...]:
    return ("index", corpus, "--index", folder, "--quiet", "--encoder", "none", *options)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def found(folder: Path, query: str) -> list[str]:
    result = run("search", folder, query, "--mode", "bm25", "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line)["doc_id"] for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def tiny_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "index"
    result = run(*index(TINY, folder))
    assert result.exit_code == 0, result.output
    return folder


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


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make tiny encoders: "good", "other" (other weights) and "mixed" (with the tokenizer of a larger vocabulary)."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    from retriever.network.folder import save_encoder
    from retriever.network.upcycle import UpcycleConfig, upcycle

    folder = tmp_path_factory.mktemp("encoders")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "bread", "water", "yeast"]
    for seed, name in enumerate(("good", "other")):
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=len(words),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=32,
        )
        tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)})
        model = upcycle(BertModel(config), tokenizer, UpcycleConfig(num_experts=2))
        save_encoder(model, tokenizer, folder / name, "float32")
    shutil.copytree(folder / "good", folder / "mixed")
    BertTokenizer(vocab={word: i for i, word in enumerate([*words, "moon"])}).save_pretrained(folder / "mixed")
    return folder


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


def test_evaluate_faults(tmp_path: Path) -> None:
    qrels, good = TINY / "qrels" / "test.tsv", tmp_path / "good.trec"
    good.write_text("q01 Q0 d01 1 3.5 t\n")
    bad = tmp_path / "bad.trec"
    assert str(bad) in fault("evaluate", bad, qrels)
    bad.write_text("q01 Q0 d01 1 3.5 t\nq01 Q0 d02 2 high t\n")
    assert f"{bad}:2" in fault("evaluate", bad, qrels)
    missing = tmp_path / "missing.tsv"
    assert str(missing) in fault("evaluate", good, missing)
    missing.write_text("query-id\tcorpus-id\tscore\nq01\td01\tmuch\n")
    assert f"{missing}:2" in fault("evaluate", good, missing)
    assert "nDGC@10" in fault("evaluate", good, qrels, "-m", "nDGC@10")


def test_evaluate_dataset_faults(tmp_path: Path) -> None:
    options = ("--modes", "bm25", "--encoder", "none", "--quiet")
    assert str(tmp_path / "missing") in fault("evaluate", "--dataset", tmp_path / "missing", *options)
    assert "train" in fault("evaluate", "--dataset", TINY, "--split", "train", *options)
    assert "bm52" in fault("evaluate", "--dataset", TINY, "--modes", "bm52", "--encoder", "none", "--quiet")
    copy = tmp_path / "copy"
    shutil.copytree(TINY, copy)
    (copy / "corpus.jsonl").unlink()
    assert str(copy) in fault("evaluate", "--dataset", copy, *options)
    assert names(tmp_path) == ["copy"]
    assert snapshot(copy).keys() < snapshot(TINY).keys()


def start(*args: object, limit: int = 0, program: Sequence[str] = ("-m", "retriever")) -> subprocess.Popen[str]:
    """Start a real process, in which no file may grow beyond `limit` bytes."""
    before: Callable[[], None] | None = None
    if limit:
        before = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # noqa: E731
    return subprocess.Popen(
        [sys.executable, *program, *map(str, args)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,
    )


def write_corpus(path: Path, documents: int, words: int = 40) -> Path:
    """Write documents that can be told apart; the last hundred are ten times as long."""
    with path.open("w") as file:
        for i in range(documents):
            count = words if i < documents - 100 else 10 * words
            text = " ".join(f"w{(i * 7919 + j * 104729) % 50_021}" for j in range(count))
            file.write(json.dumps({"_id": f"d{i}", "text": f"number{i} {text}"}) + "\n")
    return path


def test_a_fault_of_a_real_process(tmp_path: Path) -> None:
    process = start("search", tmp_path / "missing", "bread")
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out, len(err.splitlines())) == (1, "", 1)
    process = start("search", tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 2 and "QUERY" in err, "wrong usage is another exit code"


@pytest.mark.parametrize(
    ("documents", "limit", "commit"), [(1500, 300_000, 500), (5_000, 600_000, 250)], ids=["flush", "merge"]
)
def test_disk_full_while_indexing(tmp_path: Path, documents: int, limit: int, commit: int) -> None:
    corpus, folder = write_corpus(tmp_path / "corpus.jsonl", documents), tmp_path / "index"
    arguments = index(corpus, folder, "--commit-every-documents", commit)
    process = start(*arguments, limit=limit)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert str(folder) in err and "space" in err
    # What was committed is whole: it can be searched, and the run can go on.
    last = f"number{documents - 1}"
    assert (found(folder, "number0"), found(folder, last)) == (["d0"], [])
    result = run(*arguments, "--resume", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["documents"] == documents
    assert (found(folder, "number0"), found(folder, last)) == (["d0"], [f"d{documents - 1}"])


def test_disk_full_from_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    process = start(*index(TINY, folder), limit=100)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out, len(err.splitlines())) == (1, "", 1), err
    assert "space" in err
    assert not folder.exists()


WAITS = """
import time
from retriever.cli.main import cli
from retriever.index.writer import FolderWriter

def commit(writer, *arguments, **settings):
    committed(writer, *arguments, **settings)
    if writer.committed.number == 15:
        time.sleep(300)

committed, FolderWriter.commit = FolderWriter.commit, commit
cli(prog_name="retriever")
"""
"""The command line, which waits at the 15th commit: on a busy machine the signal may take its time."""


def test_ctrl_c_while_indexing(tmp_path: Path) -> None:
    corpus, folder = write_corpus(tmp_path / "corpus.jsonl", 5_000), tmp_path / "index"
    arguments = index(corpus, folder, "--commit-every-documents", 250)
    process = start(*arguments, program=("-c", WAITS))
    first = {"live-0.bin", "live-1.bin"}
    wait_until(lambda: process.poll() is not None or {file.name for file in folder.glob("rows/live-*.bin")} - first)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert out == ""
    [line] = err.splitlines()
    assert "--resume" in line
    assert found(folder, "number0") == ["d0"], "the first commit is there"
    assert found(folder, "number4999") == [], "it was interrupted on the way"
    result = run(*arguments, "--resume", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["documents"] == 5_000
    assert [found(folder, f"number{i}") for i in (0, 249, 2_500, 4_999)] == [["d0"], ["d249"], ["d2500"], ["d4999"]]


def test_ctrl_c_before_anything_is_written(tmp_path: Path) -> None:
    fifo, folder = tmp_path / "corpus.jsonl", tmp_path / "index"
    os.mkfifo(fifo)
    process = start(*index(fifo, folder))
    writer = os.open(fifo, os.O_WRONLY)  # waits until the survey has opened it
    os.write(writer, GOOD.encode())
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    os.close(writer)
    assert (process.returncode, out, len(err.splitlines())) == (130, "", 1), err
    assert not folder.exists()


def test_a_line_end_in_a_name_does_not_part_the_error(tmp_path: Path) -> None:
    corpus = tmp_path / "a\nb.jsonl"
    corpus.write_text("{")
    assert "a\\nb.jsonl:1: not JSON" in fault(*index(corpus, tmp_path / "index"))
    assert "no such" in fault("search", tmp_path / "c\r\nd", "bread")
