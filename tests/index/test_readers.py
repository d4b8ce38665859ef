"""Threads and processes that search while a writer works: each search sees one commit, whole, in every leg.

RETRIEVER_CONCURRENT=10000 adds as many documents as the folder's guarantees were proven with.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from retriever.encoder.base import EncoderBase
from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.indexing.writer import IndexWriter
from retriever.search.leg import LEGS
from retriever.search.retriever import Retriever
from retriever.types import Document, Encoded, EncoderIdentity, Query

if TYPE_CHECKING:
    from tests.helpers.warm import WarmPython

os.environ.setdefault("OMP_NUM_THREADS", "1")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
DOCUMENTS = int(os.environ.get("RETRIEVER_CONCURRENT", "600"))
DIM, VOCAB, BLOCK = 32, 200, 50
THREADS, PROCESSES = 6, 2
TYPES = [None, "hnsw", "flat", "ivf"]


class Stub(EncoderBase):
    """Gives "u7" and what begins with it a vector and a set of terms that no other number has."""

    identity = EncoderIdentity("stub", "1" * 64, DIM, VOCAB)
    vocabulary: Sequence[str] = [str(term) for term in range(VOCAB)]

    def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        random = [np.random.default_rng(int(text.split()[0].removeprefix("u"))) for text in texts]
        vectors = np.array([r.standard_normal(DIM) for r in random], np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        terms = np.zeros((len(texts), VOCAB), np.float32)
        for row, r in enumerate(random):
            terms[row, r.choice(VOCAB, 5, replace=False)] = 1.0
        return Encoded(vectors, csr_matrix(terms), np.zeros(len(texts), bool))

    encode_queries = encode_documents


def block(number: int) -> list[Document]:
    numbers = range(number * BLOCK, (number + 1) * BLOCK)
    return [Document(f"d{n}", f"u{n} river", metadata={"block": number}) for n in numbers]


def deleted_by(number: int) -> int:
    """Return the commit that deletes a block, which its own number + 1 adds; one in ten stays."""
    return number + 7 if number % 10 else sys.maxsize


def live(number: int, commit: int) -> bool:
    return number < commit < deleted_by(number)


def newest_commit(retriever: Retriever) -> int:
    """Return which commit of `write` is seen: each adds one block. FAISS may have been built in others."""
    reader = retriever.reader
    assert isinstance(reader, FolderReader)
    return max(int(doc_id.removeprefix("d")) for doc_id in reader.selected_ids(None)) // BLOCK + 1


def look(retriever: Retriever, random: np.random.Generator, commit: int | None) -> None:
    """Search for documents of one block: every leg finds all of them or none, as in `commit` where that is known."""
    newest = newest_commit(retriever)
    number = int(random.integers(max(0, newest - 12), newest + 2))
    chosen = random.choice(BLOCK, 3, replace=False) + number * BLOCK
    queries = [Query(f"d{n}", f"u{n}") for n in chosen.tolist()]
    where = str(random.choice(["", f"block = {number}", f"block >= {number}", f"not block = {number}"])) or None
    seen = {
        (leg, bool(found) and found[0].doc_id == query_id)
        for query_id, rankings in retriever.rank_legs(queries, 1, legs=tuple(LEGS), filter=where)
        for leg, found in rankings.items()
    }
    there = {visible for _, visible in seen}
    assert len(there) == 1, (number, where, commit, seen)
    if where == f"not block = {number}":
        assert there == {False}
    elif commit is not None:
        assert there == {live(number, commit)}, (number, where, commit)
        assert retriever.reader.num_documents == BLOCK * sum(live(other, commit) for other in range(commit))
    for hit in retriever.search(f"u{chosen[0]}", 2):
        assert hit.text == f"u{hit.doc_id.removeprefix('d')} river"
        assert hit.doc_id != f"d{chosen[0]}" or set(hit.parts) == set(LEGS)


def read(retriever: Retriever, seed: int, done: Callable[[], bool], alone: bool) -> int:
    """Search until `done`, and reopen in between; return how often. `alone`: nobody else reopens this retriever."""
    random, count = np.random.default_rng(seed), 0
    while count == 0 or not done():  # once at least: on a busy machine the writer may be the first to end
        if random.random() < 0.5:
            retriever.reopen()
        look(retriever, random, newest_commit(retriever) if alone else None)
        count += 1
    return count


def write(folder: Path) -> None:
    with IndexWriter.open(folder, Stub()) as writer:
        for number in range(1, DOCUMENTS // BLOCK):
            writer.add(block(number))
            for gone in range(number):
                if deleted_by(gone) == number + 1:
                    assert writer.delete(document.doc_id for document in block(gone)) == BLOCK
            if number % 5 == 4:
                writer.compact(TYPES[number // 5 % len(TYPES)])
            else:
                writer.commit()


PROGRAM = """
import sys
from pathlib import Path
from tests.index.test_readers import main
main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
"""


def test_many_readers_and_a_writer(tmp_path: Path, warm: WarmPython) -> None:
    folder = tmp_path / "index"
    FolderWriter.create(folder, IndexSettings(Stub.identity)).close()
    with IndexWriter.open(folder, Stub()) as writer:
        writer.add(block(0))
        writer.commit()
    done = threading.Event()
    processes = [warm.start("-c", PROGRAM, folder, tmp_path / "done", seed) for seed in range(PROCESSES)]
    shared = Retriever.open(folder, Stub())
    own = [Retriever.open(folder, Stub()) for _ in range(THREADS // 2)]
    retrievers = [*own, *[shared] * (THREADS - len(own))]
    with ThreadPoolExecutor(THREADS) as pool:
        counts = [
            pool.submit(read, retriever, seed, done.is_set, retriever is not shared)
            for seed, retriever in enumerate(retrievers)
        ]
        try:
            write(folder)
        finally:
            done.set()
            (tmp_path / "done").touch()
            ended = [process.wait() for process in processes]
        assert all(count.result() > 0 for count in counts)
    for process in ended:
        assert (process.returncode, process.stderr) == (0, "")
        sys.stdout.write(process.stdout)
    for retriever in (*own, shared):
        retriever.reopen()
        assert newest_commit(retriever) == DOCUMENTS // BLOCK
        look(retriever, np.random.default_rng(0), DOCUMENTS // BLOCK)
        retriever.close()
    sys.stdout.write(f"{sum(count.result() for count in counts)} rounds of searches in {THREADS} threads\n")


def main(folder: Path, done: Path, seed: int) -> None:
    """Read in a process of its own until there is a file `done`."""
    with Retriever.open(folder, Stub()) as retriever:
        count = read(retriever, 100 + seed, done.exists, alone=True)
    sys.stdout.write(f"{count} rounds of searches in process {seed}\n")
