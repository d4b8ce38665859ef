"""Complaints of what a program needs: a network, and memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss


OFFLINE = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.bind", "socket.gethostbyname"):
        raise RuntimeError(f"{event} {arguments}")
sys.addaudithook(refuse)
import retriever
from retriever import Retriever
with Retriever.open(sys.argv[1]) as opened:
    for mode in ("bm25", "sparse", "dense", "hybrid"):
        print(mode, len(opened.search("river moon", 5, mode=mode)))
"""


@pytest.mark.processes
def test_29_import_and_search_without_network_key_or_variable(real: Path, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(real)],
        env={"PATH": os.environ["PATH"]},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["bm25 5", "sparse 5", "dense 5", "hybrid 5"]


FOUR_GIB = 4 << 20
"""In KiB, as the peak resident set is told."""


INDEX_AND_SEARCH = """
import sys
import numpy as np
import torch
import faiss
from retriever import Retriever
from retriever.encoder.load import load_encoder
from retriever.indexing.build import build_index

def in_turn():
    vectors = np.random.default_rng(0).standard_normal((500, 64), dtype=np.float32)
    index = faiss.IndexFlatIP(64)
    index.add(vectors)
    exact = torch.from_numpy(vectors) @ torch.from_numpy(vectors[:20]).T
    found = index.search(vectors[:20], 5)[1]
    assert (found == exact.T.topk(5).indices.numpy()).all()

in_turn()
build_index(sys.argv[1], sys.argv[2], encoder=load_encoder(sys.argv[3]))
in_turn()
with Retriever.open(sys.argv[2]) as opened:
    for mode in ("dense", "sparse", "dense", "hybrid"):
        assert len(opened.search("statins and breast cancer", 10, mode=mode)) == 10
        in_turn()
# Not getrusage: its maximum counts the process that started this one, too.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(opened.reader.num_documents, status["VmHWM"].split()[0])
"""


@pytest.mark.slow
def test_30_both_views_of_nfcorpus_in_four_gib_with_torch_and_faiss_in_turn(
    real_encoder_folder: Path, tmp_path: Path
) -> None:
    """RETRIEVER_NFCORPUS=3633 takes all its documents.

    The resident memory counts: Java and torch reserve more addresses than that without ever using them.
    """
    if "RETRIEVER_DATA" not in os.environ:
        pytest.skip("RETRIEVER_DATA does not name the folder of real data")
    count = int(os.environ.get("RETRIEVER_NFCORPUS", "60"))
    corpus = Path(os.environ["RETRIEVER_DATA"]) / "eval" / "nfcorpus" / "corpus.jsonl"
    lines = corpus.read_text(encoding="utf-8").splitlines(keepends=True)[:count]
    (tmp_path / "corpus.jsonl").write_text("".join(lines), encoding="utf-8")
    program = [sys.executable, "-W", "ignore", "-c", INDEX_AND_SEARCH]
    places = [tmp_path / "corpus.jsonl", tmp_path / "index", real_encoder_folder]
    ended = subprocess.run([*program, *map(str, places)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    documents, peak = map(int, ended.stdout.split()[-2:])
    sys.stdout.write(f"{documents} documents, at most {peak / 2**20:.2f} GiB\n")
    assert documents == len(lines) and peak < FOUR_GIB
