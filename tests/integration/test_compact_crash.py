"""A writer killed while it adds, deletes and compacts: the last commit stays whole."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.index.verify import verify_folder
from retriever.types import EncoderIdentity

ROOT = Path(__file__).parents[2]
DIM, VOCAB = 8, 20
SETTINGS = IndexSettings(EncoderIdentity("stub", "", DIM, VOCAB))
KILLS = 12

SCRIPT = """
import sys
import numpy as np
from scipy.sparse import csr_matrix
from retriever.index import FolderWriter
from retriever.types import Document, Encoded
with FolderWriter.open(sys.argv[1]) as writer:
    print("open", flush=True)
    while True:
        step = int(writer.committed_note.get("step", 0)) + 1
        random = np.random.default_rng(step)
        ids = [f"{(step * 7 + i) % 300}" for i in range(40)]
        views = random.random((40, 8), np.float32), csr_matrix(random.random((40, 20), np.float32) + 0.1)
        writer.add([Document(i, f"step{step} word") for i in ids], Encoded(*views, np.zeros(40, bool)))
        writer.delete(ids[:5])
        writer.commit({"step": str(step)}, ["flat", "hnsw", None][step % 3])
        writer.compact(["hnsw", None, "flat"][step % 3])
        print("compacted", flush=True)
"""


def expected(steps: int) -> dict[str, str]:
    model: dict[str, str] = {}
    for step in range(1, steps + 1):
        ids = [f"{(step * 7 + i) % 300}" for i in range(40)]
        model |= dict.fromkeys(ids, f"step{step} word")
        for doc_id in ids[:5]:
            del model[doc_id]
    return model


def check(folder: Path) -> int:
    """Compare the folder with what its last commit must hold; return its step."""
    assert verify_folder(folder).damages == ()
    with FolderReader.open(folder) as reader:
        step = int(reader.commit_data.note.get("step", 0))
        model = expected(step)
        assert reader.num_documents == len(model)
        assert {i: document.text for i, document in reader.documents(map(str, range(300))).items()} == model
        assert {hit.doc_id for hit in reader.bm25("word", 500)} == set(model)
        query = np.ones((1, DIM), np.float32)
        assert {hit.doc_id for hit in reader.dense(query, 500)[0]} == set(model)
        if model:  # what Lucene says of the rows fits the rows
            some = list(model)[:9]
            selection = reader.select(f"id in ({', '.join(some)})")
            assert {hit.doc_id for hit in reader.dense(query, 500, selection)[0]} == set(some)
    return step


def test_killed_while_compacting(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    FolderWriter.create(folder, SETTINGS).close()
    random, before = np.random.default_rng(0), 0
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            while not process.stdout.readline().startswith("compacted"):
                assert process.poll() is None
            time.sleep(float(random.random()) * 0.4)
            process.kill()
        after = check(folder)
        assert after > before
        before = after
    FolderWriter.open(folder).close()
    assert len(list(folder.glob("rows*"))) == 1, "what the kills left behind is removed"
