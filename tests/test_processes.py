"""An index and an encoder in processes that fork, spawn and serve: each answers, or says at once why it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from retriever.cli.main import cli

TINY = Path(__file__).parent / "data" / "tiny"
HEAD = '''
import multiprocessing, os, sys, time
from torch.utils.data import DataLoader, Dataset
from retriever import Retriever
from retriever.encoder.load import load_encoder
from retriever.index.lucene.jvm import start_jvm

FOLDER, ENCODER = sys.argv[1:]
QUERY = "bread dough yeast"

def search(query=QUERY, mode="bm25"):
    with Retriever.open(FOLDER) as opened:
        return opened.search(query, 1, mode=mode)[0].doc_id

def filtered():
    with Retriever.open(FOLDER) as opened:
        return opened.search(QUERY, 1, mode="bm25", filter="id != nothing")[0].doc_id

def hybrid(query):
    return search(query, "hybrid")

class Answers(Dataset):
    """Opens the index in the worker, with the first question."""
    def __init__(self):
        self.opened = None
    def __len__(self):
        return 2
    def __getitem__(self, place):
        self.opened = self.opened or Retriever.open(FOLDER)
        return self.opened.search(QUERY, 1, mode="bm25")[0].doc_id

def loaded(context):
    answers = Answers()
    return [found for [found] in DataLoader(answers, num_workers=1, multiprocessing_context=context)]

def pooled(method, work):
    with multiprocessing.get_context(method).Pool(1) as pool:
        return pool.apply_async(work, (QUERY,)).get(100)

def show(name, work):
    started = time.perf_counter()
    try:
        found = work()
    except Exception as error:
        found = f"{type(error).__name__}: {str(error).splitlines()[-1][:70]}"
    slow = " slowly" if "Error" in str(found) and time.perf_counter() - started > 40 else ""
    print(f"{name}: {found}{slow}", flush=True)
'''
FORKS = (
    HEAD
    + '''
def forked(work):
    """Return what a process made by os.fork finds, which ends as processes do."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            found = str(work())
        except ValueError as error:
            found = f"{type(error).__name__}: {str(error)[:40]}"
        os.write(writer, found.encode())
        sys.exit(0)
    os.close(writer)
    found = os.read(reader, 1000).decode()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return found

show("before Java", lambda: pooled("fork", search))
show("loader before Java", lambda: loaded("fork"))
encoder = load_encoder(ENCODER)
home = encoder.encode_documents([QUERY] * 99)
show("after torch", lambda: pooled("fork", hybrid))
def same():
    return bool((encoder.encode_documents([QUERY] * 99).dense == home.dense).all())
show("encoder", lambda: forked(same))
opened = Retriever.open(FOLDER)
start_jvm()  # BM25 does without
show("parent", lambda: opened.search(QUERY, 1, mode="bm25")[0].doc_id)
def all_of_it():
    show("inherited", lambda: opened.search(QUERY, 1))
    show("ranking", lambda: list(opened.rank([])))
    show("reopening", opened.reopen)
    show("closing", opened.close)
    show("own", search)
    show("own with Java", filtered)
    return "done"
show("child", lambda: forked(all_of_it))
show("loader", lambda: loaded("fork"))
show("parent", lambda: opened.search(QUERY, 1, mode="bm25")[0].doc_id)
'''
)
FORKED = """before Java: d01
loader before Java: ['d01', 'd01']
after torch: d01
encoder: True
parent: d01
inherited: UserError: this process was forked after this index was opened
ranking: UserError: this process was forked after this index was opened
reopening: UserError: this process was forked after this index was opened
closing: None
own: d01
own with Java: UserError: this process was forked after Java had started
child: done
loader: ['d01', 'd01']
parent: d01
"""
SPAWNS = (
    HEAD
    + """
if __name__ == "__main__":
    with Retriever.open(FOLDER) as opened:
        show("parent", lambda: opened.search(QUERY, 1, mode="bm25")[0].doc_id)
        show("spawn", lambda: pooled("spawn", search))
        show("forkserver", lambda: pooled("forkserver", search))
        show("loader", lambda: loaded("spawn"))
        show("sent", lambda: pooled("spawn", opened.search))
"""
)
SPAWNED = """parent: d01
spawn: d01
forkserver: d01
loader: ['d01', 'd01']
sent: TypeError: {folder}: an open index cannot be
"""


@pytest.fixture(scope="module")
def folder(tiny_encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("p") / "i"
    made = CliRunner().invoke(cli, ["index", str(TINY), "--index", str(path), "-e", str(tiny_encoder_folder), "-q"])
    assert made.exit_code == 0
    return path


def run(script: str, folder: Path, encoder: Path) -> list[str]:
    path = folder.parent / "script.py"
    path.write_text(script)
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(path), str(folder), str(encoder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_forks(folder: Path, tiny_encoder_folder: Path) -> None:
    found = run(FORKS, folder, tiny_encoder_folder)
    for line, wanted in zip(found, FORKED.splitlines(), strict=True):
        assert line.startswith(wanted) and not line.endswith("slowly")


@pytest.mark.slow
def test_spawned_processes(folder: Path, tiny_encoder_folder: Path) -> None:
    found = run(SPAWNS, folder, tiny_encoder_folder)
    for line, wanted in zip(found, SPAWNED.splitlines(), strict=True):
        assert line.startswith(wanted.format(folder=folder)[:60])
