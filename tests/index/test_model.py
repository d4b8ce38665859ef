"""An index against plain Python: random changes, and writers killed in the middle of them.

RETRIEVER_KILLS=200 kills as many writers as the folder's guarantees were proven with; about 3 seconds each.
This file is also the program that is killed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from scipy.sparse import csr_matrix

from retriever.index import FolderWriter, IndexSettings
from retriever.index.exact import exact_bm25, exact_dense, exact_sparse
from retriever.index.postings.quantise import quantise
from retriever.index.verify import verify_folder
from retriever.indexing.build import IndexingConfig, build_index
from retriever.indexing.chunking import chunking_for
from retriever.indexing.writer import IndexWriter, add_corpus
from retriever.search.fusion.fusion import fuse
from retriever.search.retriever import MODES, Retriever
from retriever.testing import SeededEncoder
from retriever.types import Document, Query, Ranking, ScoredDoc

if TYPE_CHECKING:
    from retriever.types import FloatArray

os.environ.setdefault("OMP_NUM_THREADS", "1")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
KILLS = int(os.environ.get("RETRIEVER_KILLS", "4"))
WORDS = ["river", "stone", "bread", "winter", "garden", "paper", "silver", "letter"]  # their own stems
TYPES = [None, "flat", "hnsw", "ivf"]
IDS = [f"d{number:02}" for number in range(60)]
SMALL = partial(IndexingConfig, batch=5, commit_every_documents=10, chunk_tokens=9, chunk_overlap=0)
KINDS = [
    SMALL(rows=rows, impact_scale=scale, chunk=chunk)
    for rows, scale, chunk in [("float32", 100, False), ("int8", 30, True), ("float16", 100, True), ("int8", 30, False)]
]
"""Small steps; a chunk has room for a sentence of seven words, its full stop and a title of one word."""
STEPS = 12
Model = dict[str, Document]


def chunks_of(document: Document, settings: IndexSettings) -> list[str]:
    """Return what stands in the chunks of a document: one sentence in each, after the title."""
    if settings.chunking is None or not document.text:
        return [document.contents]
    return [f"{document.title} {sentence}" for sentence in re.findall(r"[^. ][^.]*\.", document.text)]


def stored(vectors: FloatArray, settings: IndexSettings) -> FloatArray:
    """Return what is left of vectors in an index."""
    if settings.row_dtype == "float16":
        return vectors.astype(np.float16).astype(np.float32)
    if settings.row_dtype == "float32":
        return vectors
    scales = np.abs(vectors).max(axis=1, keepdims=True, initial=0) / np.float32(127)
    decoded: FloatArray = np.rint(vectors / scales) * scales
    return decoded


def words(text: str) -> list[str]:
    return re.findall("[a-z0-9]+", text.lower())


def rankings(model: Model, query: str, settings: IndexSettings) -> dict[str, Ranking]:
    """Return what every leg and their fusion find, from the definitions; a document counts by its best chunk."""
    chunks = [(doc_id, text) for doc_id, document in model.items() for text in chunks_of(document, settings)]
    ids, texts = [doc_id for doc_id, text in chunks if text.strip()], [text for _, text in chunks if text.strip()]
    encoded, asked = SeededEncoder().encode_documents(texts), SeededEncoder().encode_queries([query])
    assert encoded.dense is not None and encoded.sparse is not None
    assert asked.dense is not None and asked.sparse is not None
    impacts = csr_matrix(quantise(encoded.sparse, settings.impact_scale) / settings.impact_scale)
    legs = {
        "bm25": exact_bm25(ids, [*map(words, texts)], words(query), settings.k1, settings.b, 1_000),
        "sparse": exact_sparse(ids, impacts, asked.sparse, 1_000),
        "dense": exact_dense(ids, stored(encoded.dense, settings), asked.dense[0], 1_000),
    }
    for leg, ranking in legs.items():
        best: dict[str, float] = {}
        for doc_id, score in ranking:
            best.setdefault(doc_id, score)
        legs[leg] = [*map(ScoredDoc, best, best.values())]
    return legs | {"hybrid": fuse(legs).ranking}


def compare(retriever: Retriever, model: Model, query: str, filter: str | None = None) -> None:
    """Compare all modes with the model.

    The model knows the term statistics of what a filter finds, the index those of all documents: with a filter, the
    query has one term. All texts are equally long, so the statistics only scale its BM25 scores.
    """
    wanted = rankings(model, query, retriever.reader.settings)
    [(_, found)] = retriever.rank_modes([Query("q", query)], 1_000, modes=MODES, filter=filter)
    for mode in MODES:
        got, expected = found[mode], dict(wanted[mode])
        scale = wanted[mode][0].score / got[0].score if mode == "bm25" and got and filter is not None else 1.0
        assert got == sorted(got, key=lambda hit: (-hit.score, hit.doc_id))
        assert {doc_id: score * scale for doc_id, score in got} == pytest.approx(expected, abs=2e-4), mode
    for hit in retriever.search(query, 3, filter=filter) if wanted["hybrid"] else ():
        assert Document(hit.doc_id, hit.text, hit.title, hit.metadata) == model[hit.doc_id]


def check(retriever: Retriever, model: Model) -> None:
    """Compare texts and every mode with the model, filtered and not."""
    assert retriever.reader.num_documents == len(model)
    assert retriever.reader.documents([*IDS, "marker", "not there"]) == model
    for query in ("river", "river stone winter"):
        compare(retriever, model, query)
    if model:
        part = {doc_id: document for doc_id, document in model.items() if document.metadata["n"] < 30}  # type: ignore[operator]
        compare(retriever, part, "stone", "n < 30")


def document(number: int, random: np.random.Generator, config: IndexingConfig) -> Document:
    """Return a document of one sentence, or some if it will be split; one in ten has no text."""
    sentences = [
        " ".join(random.choice(WORDS, 7)).capitalize() + "."
        for _ in range(random.integers(1, 4 if config.chunk else 2))
    ]
    title = str(random.choice(WORDS))
    return Document(IDS[number], *((" ".join(sentences), title) if random.random() < 0.9 else ("", "")), {"n": number})


# Random changes


class Changes(RuleBasedStateMachine):
    """A writer that is closed, or dies, at any time, and readers that keep the commit that they opened."""

    folder: Path
    writer: IndexWriter

    @initialize(config=st.sampled_from(KINDS))
    def create(self, config: IndexingConfig) -> None:
        self.folder, self.config = Path(os.environ["RETRIEVER_TEST_FOLDER"]) / f"{time.time_ns()}", config
        chunking = chunking_for(SeededEncoder(), config.chunk_tokens, config.chunk_overlap) if config.chunk else None
        FolderWriter.create(self.folder, replace(config.settings(SeededEncoder().identity), chunking=chunking)).close()
        self.writer = IndexWriter.open(self.folder, SeededEncoder())
        self.current: Model = {}
        self.committed: Model = {}
        self.readers: list[tuple[Retriever, Model]] = []
        self.follower = Retriever.open(self.folder, SeededEncoder())

    @rule(numbers=st.lists(st.integers(0, 59), max_size=25), seed=st.integers(0, 9))
    def add(self, numbers: list[int], seed: int) -> None:
        random = np.random.default_rng(seed)
        documents = [document(number, random, self.config) for number in numbers]
        assert self.writer.add(documents) == len(documents)
        self.current |= {document.doc_id: document for document in documents}

    @rule(numbers=st.lists(st.integers(0, 59), max_size=20))
    def delete(self, numbers: list[int]) -> None:
        gone = {IDS[number] for number in numbers}
        assert self.writer.delete(gone) == len(gone & set(self.current))
        self.current = {doc_id: document for doc_id, document in self.current.items() if doc_id not in gone}

    @rule()
    def commit(self) -> None:
        self.writer.commit()
        self._committed()

    @rule(kind=st.sampled_from(TYPES))
    def compact(self, kind: str | None) -> None:
        self.writer.compact(kind)
        self._committed()

    @rule()
    def die(self) -> None:
        self.writer.close()
        self.writer, self.current = IndexWriter.open(self.folder, SeededEncoder()), dict(self.committed)

    @precondition(lambda self: len(self.readers) < 3)
    @rule()
    def read(self) -> None:
        self.readers.append((Retriever.open(self.folder, SeededEncoder()), self.committed))

    def _committed(self) -> None:
        self.committed = dict(self.current)
        assert isinstance(self.writer.folder, FolderWriter)
        assert set(self.writer.folder.doc_ids) == set(self.current)
        assert self.follower.reopen()
        check(self.follower, self.committed)
        for retriever, model in self.readers:
            check(retriever, model)
        with Retriever.open(self.folder, SeededEncoder(), verify=True) as retriever:
            check(retriever, self.committed)

    def teardown(self) -> None:
        for retriever, _ in self.readers:
            retriever.close()
        self.follower.close()
        self.writer.close()


def test_random_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVER_TEST_FOLDER", str(tmp_path))
    run_state_machine_as_test(
        Changes,
        settings=settings(
            max_examples=12, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


# Killed writers


def step_of(model: Model) -> int:
    """Return how many steps of a plan an index has behind it, 0 while it is built: what it says itself."""
    return int(model["marker"].title) if "marker" in model else 0


def marker(step: int) -> Document:
    return Document("marker", "Paper" + " paper" * 6 + ".", str(step), {"n": 0})


class Ended(NamedTuple):
    """How a worker ended: the last step that it reported as done, what it was doing, and its exit status."""

    step: int
    doing: str
    status: int


class Plan:
    """Builds an index and changes it in steps, the same for the same seed; commits are what a kill may leave."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed, self.config = folder, seed, KINDS[seed % len(KINDS)]

    def documents(self, step: int) -> list[Document]:
        """Return what a step adds; step 0 is the corpus."""
        random = np.random.default_rng([self.seed, step])
        numbers = random.permutation(len(IDS))[: 40 if step == 0 else 15].tolist()
        return [document(number, random, self.config) for number in numbers] + ([marker(step)] if step else [])

    def kind(self, step: int) -> str:
        return str(np.random.default_rng([self.seed, step, 1]).choice(["add", "corpus", "delete", "compact"]))

    def gone(self, step: int) -> list[str]:
        return [IDS[number] for number in np.random.default_rng([self.seed, step, 2]).permutation(len(IDS))[:20]]

    def dense_type(self, step: int) -> str | None:
        return TYPES[np.random.default_rng([self.seed, step, 3]).integers(len(TYPES))]

    def work(self) -> Iterator[int]:
        """Go on from the last commit to the end; yield the number of steps that are behind."""
        build_index(self._corpus(0), self.folder, encoder=SeededEncoder(), config=self.config, resume=True)
        with Retriever.open(self.folder, SeededEncoder()) as retriever:
            done = step_of(retriever.reader.documents(["marker"]))
        yield done
        for step in range(done + 1, STEPS + 1):
            say("begin", step)
            self._change(step)
            yield step

    def _change(self, step: int) -> None:
        kind = self.kind(step)
        if kind == "corpus":
            add_corpus(self.folder, self._corpus(step), encoder=SeededEncoder(), config=self.config)
            return
        with IndexWriter.open(self.folder, SeededEncoder()) as writer:
            if kind == "delete":
                writer.delete(self.gone(step))
            writer.add(self.documents(step) if kind == "add" else [marker(step)])
            writer.compact(self.dense_type(step)) if kind == "compact" else writer.commit()

    def _corpus(self, step: int) -> Path:
        path = self.folder.with_name(f"{self.folder.name}-{step}.jsonl")
        records = [{"_id": d.doc_id, "title": d.title, "text": d.text, **d.metadata} for d in self.documents(step)]
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return path

    def models(self, step: int) -> list[Model]:
        """Return what the index may hold after this step and before the next: what follows is committed in parts."""
        added = self.documents(0)
        parts = [added[:end] for end in range(len(added) + 1)]
        if step == 0:
            return [{document.doc_id: document for document in part} for part in parts]
        model = self.models(0)[-1]
        for number in range(1, step + 1):
            kind = self.kind(number)
            new = self.documents(number) if kind in ("add", "corpus") else [marker(number)]
            gone = self.gone(number) if kind == "delete" else []
            model = {doc_id: document for doc_id, document in model.items() if doc_id not in gone}
            model |= {document.doc_id: document for document in new}
        return [model]

    def check(self, least: int) -> int:
        """Compare the index with what it must hold at its last commit, at least `least` steps; return the step."""
        if not (self.folder / "index.json").exists():
            assert least == 0, "an index that was there is gone"
            return 0
        assert verify_folder(self.folder).damages == ()
        with Retriever.open(self.folder, SeededEncoder(), verify=True) as retriever:
            found = retriever.reader.documents([*IDS, "marker"])
            step = step_of(found)
            assert step >= least
            allowed = self.models(step)
            if step < STEPS and self.kind(step + 1) == "corpus":
                new, whole = self.documents(step + 1), allowed[-1]
                allowed += [whole | {d.doc_id: d for d in new[:end]} for end in range(len(new))]
            assert found in allowed
            check(retriever, found)
        return step


def say(word: str, value: int) -> None:
    sys.stdout.write(f"{word} {value}\n")
    sys.stdout.flush()


def nursery() -> None:
    """Fork a worker for each line of the input: what is imported once makes a kill cheap."""
    for line in sys.stdin:
        folder, seed = line.rstrip("\n").split("\t")
        pid = os.fork()
        if not pid:
            say("pid", os.getpid())
            for step in Plan(Path(folder), int(seed)).work():
                say("done", step)
            os._exit(0)
        say("ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def test_killed_writers(tmp_path: Path) -> None:
    """After each kill the index is as at its last commit; at last it is as if nobody had been killed."""
    random = np.random.default_rng(11)
    command = [sys.executable, __file__]
    killed, seed = Counter[str](), 0
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as workers:
        while killed.total() < KILLS:
            seed += 1
            plan, done = Plan(tmp_path / f"plan{seed}", seed), 0
            while done < STEPS:
                ended = run(workers, plan, random, kill=killed.total() < KILLS)
                assert ended.status in (0, -signal.SIGKILL)
                killed.update([ended.doing] if ended.status else [])
                done = plan.check(max(done, ended.step))
            finished = Plan(tmp_path / f"whole{seed}", seed)
            assert list(finished.work()) == list(range(STEPS + 1))
            same_answers(plan.folder, finished.folder, plan.models(STEPS)[0])
        assert workers.stdin is not None
        workers.stdin.close()
    sys.stdout.write(f"{killed.total()} writers killed in {seed} plans: {dict(killed)}\n")


def run(workers: subprocess.Popen[str], plan: Plan, random: np.random.Generator, kill: bool) -> Ended:
    """Let a worker go on with the plan; kill it some time after its start, or shortly after one of its next lines."""
    assert workers.stdin is not None and workers.stdout is not None
    workers.stdin.write(f"{plan.folder}\t{plan.seed}\n")
    workers.stdin.flush()
    pid = int(workers.stdout.readline().removeprefix("pid "))
    lines = int(random.integers(0, 8))
    pause = float(random.uniform(0, 0.15 if lines else 2.5))
    step, doing = 0, "index"
    while True:
        if kill and not lines:
            time.sleep(pause)
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGKILL)
        lines -= 1
        word, _, value = workers.stdout.readline().strip().partition(" ")
        if word == "ended":
            return Ended(step, doing, int(value))
        if word == "done":
            step = int(value)
        elif word == "begin":
            doing = plan.kind(int(value))


def same_answers(killed: Path, whole: Path, model: Model) -> None:
    """Compare two indexes, compacted so that nothing deleted is left in either, with each other and with the model."""
    found = []
    for folder in (killed, whole):
        with IndexWriter.open(folder) as writer:
            writer.compact("hnsw")
        assert [len(list(folder.glob(left))) for left in ("rows*", "rows*/live*", "dense/*")] == [1, 1, 1]
        with Retriever.open(folder, SeededEncoder(), verify=True) as retriever:
            check(retriever, model)
            queries = [Query(" ".join(pair), " ".join(pair)) for pair in pairwise(WORDS)]
            found.append(
                [list(retriever.rank_modes(queries, 100, modes=MODES, filter=where)) for where in (None, "n >= 20")]
            )
    assert found[0] == found[1]


if __name__ == "__main__":
    nursery()
