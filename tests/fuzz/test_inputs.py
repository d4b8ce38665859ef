"""Random bytes for everything that reads files: each is read, or refused in one line, within seconds.

`make fuzz` tries many more. `by_coverage.py` lets atheris choose the inputs by what code they reach.
"""

from __future__ import annotations

import csv
import faulthandler
import gzip
import io
import json
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retriever.config import resolve
from retriever.corpus.corpus import documents, open_corpus, survey
from retriever.corpus.queries import load_queries
from retriever.eval.data.datasets import load_dataset
from retriever.eval.data.qrels import read_qrels
from retriever.eval.data.run_reader import read_run
from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.index.filters import parse_filter
from retriever.index.verify import verify_folder
from retriever.indexing.build import IndexingConfig
from retriever.indexing.writer import IndexWriter
from retriever.search.fusion.fusion import FusionConfig
from retriever.testing import SeededEncoder
from retriever.train.data.pairs import read_pairs
from retriever.train.settings import load_train_config
from retriever.types import Document, UserError

pytestmark = pytest.mark.filterwarnings("default")  # those of torch, faiss and readers are not what is tested
COUNT = int(os.environ.get("RETRIEVER_FUZZ", "25"))
TRIED: Counter[str] = Counter()
"""How many inputs were read, for the summary."""
SECONDS = 10
"""No input may take longer."""
STRANGE = [
    *(
        b"\x00",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\n",
        b"\r",
        b"\t",
        b",",
        b'"',
        b"'",
        b"\\",
        b" ",
        b"\xe2\x80\xa8",
    ),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b"null",
        b"true",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"-0",
        b"0.1",
        b"[]",
        b"{}",
        b'""',
    ),
    *(b"9" * 30, b"9" * 5000, b"1_000", b"0x10", "٣".encode(), b"2025-02-30", b"\\ud800", b"[" * 3000, b"(" * 3000),
    *(b"a" * 70_000, b"&a [*a]", b"!!python/name:os.system", b"? ", b"<<: 1", b"- ", b"#", b"|", b"\x1f\x8b\x08\x00"),
    *(b"not ", b" and ", b" in ", b"<=", b"!=", b"<top>", b"<num>", b"<title>", b"</top>", b"_id", b"text", b"docno"),
]
CORPUS = [{"_id": f"d{n}", "title": "t", "text": "river stone", "year": 2000 + n, "tags": ["a", "b"]} for n in range(4)]
JSONL = "".join(json.dumps(line) + "\n" for line in CORPUS).encode()
PAIRS = {"query": "q", "positive": "p", "negatives": ["n", "m"], "scores": [3.0, 1.0, 0.5]}


class Kind(NamedTuple):
    """Something that is read: the name of its file, contents to begin with, and what reads it."""

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[Path], object]


def read_corpus(path: Path) -> None:
    """Read a corpus as strictly and as leniently as there is; strictness finds less, never more."""
    corpus = open_corpus(path)
    lenient = survey(corpus, "skip", "skip")
    kept = [document for _, document in documents(corpus, lenient)]
    assert len(kept) == lenient.documents > 0
    assert all(isinstance(document.doc_id, str) and isinstance(document.text, str) for document in kept)
    strict = survey(corpus)
    assert strict.documents == lenient.documents and not lenient.bad


def read_filter(path: Path) -> None:
    try:
        parse_filter(path.read_bytes().decode())
    except UnicodeDecodeError:
        return


def parquet() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(CORPUS), file)
    return file.getvalue()


def table(delimiter: str) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerows([["id", "text", "year"], ["a", "river, stone", "1"], ["b", 'a "b"', ""]])
    return file.getvalue().encode()


TOPICS = b"<top>\n<num> Number: 301\n<title> river stone\n<desc> d\n</top>\n<top>\n<num> 2\n<title> b\n</top>\n"
TREC = b"q1 0 d1 1\nq1 0 d2 0\nq2 0 d1 2\n"
BEIR = b"query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t0\n"
RUN = b"q1 Q0 d1 1 3.5 t\nq1 Q0 d2 2 1e-3 t\nq2 Q0 d1 1 -2 t\n"
RUN_JSONL = b'{"query_id": "q1", "hits": [{"doc_id": "d1", "score": 3.5}]}\n'
FILTERS = (b"year >= 2020 and lang = en", b'not (a in (1, "b", 2.5) or "two words" != true)', b"at < 2025-02-03T12:00Z")
INDEXING = b"batch: 10\nchunk: true\nimpact_scale: 100\ndense_type: hnsw\n"
FUSION = b"method: weighted-sum\nweights: {bm25: 0.5, dense: 0.5}\nnormalisation: min-max\n"
TRAINING = b"base: b\noutput: o\nsources: [{path: a.jsonl, weight: 1.5}]\nsteps: 10\nlearning_rate: 1.0e-4\n"
KINDS = [
    Kind("corpus.jsonl", (JSONL,), read_corpus),
    Kind("corpus.jsonl.gz", (gzip.compress(JSONL, mtime=0),), read_corpus),
    Kind("corpus.tsv", (table("\t"),), read_corpus),
    Kind("corpus.csv", (table(","),), read_corpus),
    Kind("corpus.parquet", (parquet(),), read_corpus),
    Kind("text.txt", (b"river\n\nstone", b""), lambda path: read_corpus(path.parent)),
    Kind("queries.jsonl", (b'{"_id": "q1", "text": "river"}\n',), lambda path: list(load_queries(path))),
    Kind("queries.tsv", (b"id\ttext\nq1\triver\nq2\tstone\n", TOPICS), lambda path: list(load_queries(path))),
    Kind("queries.txt", (b"river\nstone\n", TOPICS), lambda path: list(load_queries(path, allow_empty=True))),
    Kind("qrels.tsv", (BEIR, TREC), read_qrels),
    Kind("qrels.txt", (TREC, BEIR), read_qrels),
    Kind("run.trec", (RUN,), read_run),
    Kind("run.jsonl", (RUN_JSONL,), read_run),
    Kind("filter", FILTERS, read_filter),
    Kind("indexing.yaml", (INDEXING,), lambda path: resolve(IndexingConfig, path)),
    Kind("fusion.yaml", (FUSION,), lambda path: resolve(FusionConfig, path)),
    Kind("train.yaml", (TRAINING,), load_train_config),
    Kind("collection.yaml", (b"corpus: c.jsonl\nqueries: {test: q.tsv}\nqrels: {test: r}\n",), load_dataset),
    Kind("pairs.jsonl", (json.dumps(PAIRS).encode() + b"\n",), lambda path: list(read_pairs(path))),
]


def changed(seed: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Return `seed` with each edit done in turn: at a place, so many bytes replaced by others."""
    content = bytearray(seed)
    for place, gone, new in edits:
        start = place % (len(content) + 1)
        content[start : start + gone] = new
    return bytes(content)


def contents(seeds: tuple[bytes, ...], *, odd: bool = True) -> st.SearchStrategy[bytes]:
    """Draw one of the seeds with changes, and now and then bytes from nowhere."""
    new = st.one_of(*([st.sampled_from(STRANGE)] if odd else []), st.sampled_from(seeds), st.binary(max_size=3))
    edits = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 9), new), max_size=4)
    near = st.builds(changed, st.sampled_from(seeds), edits)
    cut = st.builds(
        lambda seed, place: seed[: place % (len(seed) + 1)], st.sampled_from(seeds), st.integers(0, 1 << 16)
    )
    return st.one_of(near, near, near, cut, st.binary(max_size=200))


class HangError(Exception):
    """An input took too long."""


@contextmanager
def limit(seconds: int = SECONDS) -> Iterator[None]:
    """Raise after so long; print where, and end the process, if nothing can be raised there."""

    def stop(_signal: int, _frame: object) -> None:
        raise HangError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(seconds * 6, exit=True)
    try:
        yield
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def read_or_refused(read: Callable[[], object]) -> None:
    """Read something: what is wrong with it is a UserError of one line."""
    TRIED["inputs"] += 1
    with limit():
        try:
            read()
        except UserError as error:
            assert str(error) and len(str(error).splitlines()) == 1, str(error)


def try_kind(kind: Kind, content: bytes) -> None:
    """Read a file of this content, which must stay as it is and alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / kind.name
        path.write_bytes(content)
        read_or_refused(lambda: kind.read(path))
        assert [found.name for found in Path(folder).iterdir()] == [kind.name] and path.read_bytes() == content


def fuzzed(count: int) -> settings:
    return settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_any_content_is_read_or_refused(kind: Kind) -> None:
    @fuzzed(COUNT)
    @given(content=contents(kind.seeds))
    def tried(content: bytes) -> None:
        try_kind(kind, content)

    tried()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "index"
    FolderWriter.create(folder, IndexSettings(SeededEncoder().identity)).close()
    with IndexWriter.open(folder, SeededEncoder()) as writer:
        writer.add([Document(f"d{n}", f"river stone {n}", "t", {"n": n, "lang": "en"}) for n in range(30)])
        writer.commit()
    return folder


def test_any_filter_selects_or_is_refused(index: Path) -> None:
    words = ["n", "lang", "absent", "=", "!=", "<=", ">", "in", "not", "and", "or", "(", ")", ",", "en", '"a b"', "1.5"]
    words += ["true", "9" * 25, "-1", "1e400", "2025-02-03", "é", "2025-02-03T10:00:00+25:00", '"', "0" * 400, "1e-400"]

    with FolderReader.open(index) as reader:

        @fuzzed(COUNT * 4)
        @given(text=st.lists(st.sampled_from(words), max_size=9).map(" ".join))
        def tried(text: str) -> None:
            read_or_refused(lambda: reader.select(text))

        tried()


def test_a_damaged_index_is_told_in_one_line(index: Path, tmp_path: Path) -> None:
    """`tests/index/test_damage.py` changes single bits; here whole pieces are exchanged, and it is only verified."""
    files = sorted(path for path in index.rglob("*") if path.is_file() and path.stat().st_size)

    @fuzzed(COUNT)
    @given(data=st.data())
    def tried(data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(files))
        content = chosen.read_bytes()
        new = data.draw(contents((content,)))
        copy = tmp_path / "copy"
        shutil.copytree(index, copy)
        (copy / chosen.relative_to(index)).write_bytes(new)
        try:
            read_or_refused(lambda: verify_folder(copy))
        finally:
            shutil.rmtree(copy)

    tried()


def test_a_damaged_checkpoint_is_refused_or_works(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    from retriever.encoder.load import load_encoder

    files = sorted(path for path in tiny_encoder_folder.iterdir() if path.is_file())
    copy = tmp_path / "encoder"

    def load() -> None:
        encoder = load_encoder(str(copy))
        encoder.encode_queries(["a b"])

    @fuzzed(COUNT // 3 + 1)  # each loads a network
    @given(data=st.data())
    def tried(data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(files))
        content = chosen.read_bytes()
        if chosen.suffix == ".json" and data.draw(st.booleans()):
            new = json.dumps(another_value(data, json.loads(content))).encode()
        else:
            new = data.draw(contents((content[:4000],), odd=False)) + content[4000:]
        shutil.copytree(tiny_encoder_folder, copy)
        (copy / chosen.name).write_bytes(new)
        try:
            read_or_refused(load)
        finally:
            shutil.rmtree(copy)

    tried()


def another_value(data: st.DataObject, values: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON object with one of its values changed or gone."""
    key = data.draw(st.sampled_from(sorted(values)))
    strange = st.sampled_from([None, 0, -1, 3, 1.5, 10**30, "", "x", [], {}, [1], {"a": 1}, True, False])
    if data.draw(st.booleans()):
        return {name: value for name, value in values.items() if name != key}
    return values | {key: data.draw(strange)}
