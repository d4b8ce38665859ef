"""Worker processes: the same results as one process, and an end to them however the parent or a worker ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from retriever.cli.main import cli
from retriever.encoder.load import load_encoder
from retriever.encoder.moe.encoder import MoEEncoder
from retriever.encoder.runtime import RuntimeConfig
from retriever.encoder.workers import WorkerEncoder, core_shares
from retriever.types import Encoded, UserError
from tests.helpers.waiting import wait_until

TEXTS = ["yeast and flour", "", *("the sea has water " * n for n in range(30)), "  ", "trees and bread " * 99]
SCRIPT = """
import sys
from retriever.encoder.load import load_encoder
from retriever.encoder.runtime import RuntimeConfig
encoder = load_encoder(sys.argv[1], RuntimeConfig(workers=1))
encoder.encode_documents(["the sea", "the moon"])
print(*(worker.process.pid for worker in encoder._pool._workers), flush=True)
while len(sys.argv) > 2:
    encoder.encode_documents(["the sea has water"] * 5000)
"""


@pytest.fixture(scope="module")
def encoder(tiny_encoder_folder: Path) -> Iterator[WorkerEncoder]:
    """Return one with a worker for each of two devices, which are the same one."""
    made = load_encoder(str(tiny_encoder_folder), RuntimeConfig(device="cpu,cpu", window=7, tokens_per_batch=100))
    assert isinstance(made, WorkerEncoder)
    yield made
    made.close()


@pytest.fixture(scope="module")
def alone(tiny_encoder_folder: Path) -> MoEEncoder:
    return MoEEncoder(tiny_encoder_folder)


def pids(encoder: WorkerEncoder) -> list[int]:
    return [worker.process.pid for worker in encoder._pool._workers]


def ended(pid: int) -> bool:
    """Return whether a process is gone, or dead and only not yet asked for its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def await_end(ids: list[int]) -> None:
    wait_until(lambda: all(ended(pid) for pid in ids))


def assert_same(found: Encoded, expected: Encoded) -> None:
    for name in Encoded._fields:
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert (ours is None) == (theirs is None)
        if ours is None:
            continue
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        parts = ("data", "indices", "indptr") if name in ("sparse", "tokens") else ("data",)
        for part in parts:
            np.testing.assert_array_equal(getattr(ours, part), getattr(theirs, part))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("dense", "sparse"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1], []], ids=["many", "one", "none"])
def test_equals_one_process_to_the_bit(
    encoder: WorkerEncoder, alone: MoEEncoder, texts: list[str], dense: bool, sparse: bool
) -> None:
    expected = alone.encode_documents(texts, dense=dense, sparse=sparse)
    assert_same(encoder.encode_documents(texts, dense=dense, sparse=sparse), expected)
    assert_same(encoder.encode_queries(texts), alone.encode_queries(texts))
    assert encoder.identity == alone.identity and list(encoder.vocabulary) == list(alone.vocabulary)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1], [""], []], ids=["many", "one", "empty", "none"])
def test_token_vectors_of_the_same_pass_equal_one_process(
    encoder: WorkerEncoder, alone: MoEEncoder, texts: list[str]
) -> None:
    """The pass is one, for the views are those without token vectors to the bit."""
    found = encoder.token_encoder.with_views(texts, encoder)
    expected = alone.token_encoder.with_views(texts, alone)
    assert_same(found.encoded, expected.encoded)
    assert_same(found.encoded, alone.encode_documents(texts))
    assert found.tokens is not None and expected.tokens is not None
    assert found.tokens.counts.tolist() == [len(alone.token_ids_read(text, query=False)) for text in texts]
    np.testing.assert_array_equal(found.tokens.counts, expected.tokens.counts)
    np.testing.assert_allclose(found.tokens.vectors, expected.tokens.vectors, atol=1e-6)
    by_text = [alone.token_encoder.documents([text]).vectors for text in texts]
    np.testing.assert_allclose(found.tokens.vectors, np.concatenate([found.tokens.vectors[:0], *by_text]), atol=1e-6)


def test_each_worker_has_cores_of_its_own(encoder: WorkerEncoder) -> None:
    encoder.encode_documents(["the sea"])
    cores = sorted(os.sched_getaffinity(0))
    assert [sorted(os.sched_getaffinity(pid)) for pid in pids(encoder)] == core_shares(cores, 2)


def test_a_killed_worker_is_one_error_and_the_next_texts_start_anew(encoder: WorkerEncoder) -> None:
    before = encoder.encode_documents(TEXTS)
    first, second = pids(encoder)
    os.kill(second, signal.SIGKILL)
    with pytest.raises(UserError, match=r"^a worker process was killed by signal 9 .*Use fewer with --workers$"):
        encoder.encode_documents(TEXTS)
    assert not pids(encoder)
    await_end([first, second])
    assert_same(encoder.encode_documents(TEXTS), before)


def test_an_error_of_ours_comes_with_its_traceback(encoder: WorkerEncoder) -> None:
    unreadable: list[Any] = [["not", "a", "text"]]
    with pytest.raises(RuntimeError, match=r"(?s)a worker process failed:.*Traceback.*encode_by_token"):
        encoder.encode_documents(unreadable)
    wrong: list[Any] = [None, "text"]
    with pytest.raises(TypeError):
        encoder.encode_documents(wrong)
    assert not pids(encoder), "found here, before it is sent"


def test_weights_that_do_not_fit_are_the_users_fault(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    folder.mkdir()
    for file in tiny_encoder_folder.iterdir():
        text = file.read_bytes()
        if file.name == "config.json":
            text = text.replace(b'"num_hidden_layers": 2', b'"num_hidden_layers": 3')
        (folder / file.name).write_bytes(text)
    with pytest.raises(UserError) as expected:
        MoEEncoder(folder)
    with pytest.raises(UserError) as found:
        WorkerEncoder(folder, runtime=RuntimeConfig(workers=1)).encode_documents(["the sea"])
    assert str(found.value) == str(expected.value)


def test_a_script_without_a_guard_works_and_leaves_no_workers(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script, tiny_encoder_folder], capture_output=True, text=True, timeout=120, check=True
    )
    ids = [int(pid) for pid in done.stdout.split()]
    assert len(ids) == 1 and done.stderr == ""
    await_end(ids)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_when_the_parent_is_killed_or_interrupted(
    tiny_encoder_folder: Path, tmp_path: Path, number: int
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tiny_encoder_folder), "on and on"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None and parent.stderr is not None
        ids = [int(pid) for pid in parent.stdout.readline().split()]
        time.sleep(0.2)  # in the midst of something
        parent.send_signal(number)
        said = parent.stderr.read()
    assert len(ids) == 1 and parent.returncode == -number
    await_end(ids)
    assert said.count("Traceback") == (number == signal.SIGINT)  # the parent's own


def at_work() -> set[int]:
    """Return the workers of this process."""
    children = Path("/proc/self/task").glob("*/children")
    found = [int(pid) for child in children for pid in child.read_text().split()]
    return {pid for pid in found if not ended(pid) and b"encoder.workers" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def test_the_command_line_encodes_in_workers_till_it_is_done(
    tiny_encoder_folder: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    def index(name: str, *options: str) -> Any:
        command = ["index", str(tiny_corpus), "--index", str(tmp_path / name), "-q", *options]
        return CliRunner().invoke(cli, command)

    before = at_work()
    result = index("one", "-e", str(tiny_encoder_folder), "--workers", "1")
    assert result.exit_code == 0, result.output
    assert "20 documents" in result.stdout
    assert at_work() <= before
    for option in (["--workers", "2"], ["--device", "cuda:0"]):
        refused = index("none", "-e", "none", *option)
        assert refused.exit_code == 1
        assert "is for encoders of our own, not for none; leave it out" in refused.stderr


def test_settings_that_cannot_run() -> None:
    with pytest.raises(UserError, match="workers is -1, allowed are whole numbers from 0"):
        RuntimeConfig(workers=-1)
    with pytest.raises(UserError, match="'int8' runs on the device 'cpu' alone, not on 'cpu,cuda:0'"):
        RuntimeConfig(precision="int8", device="cpu,cuda:0")
