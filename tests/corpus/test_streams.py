"""What can be read only once is read once; what is left out is counted; one bad cell is one bad record."""

from __future__ import annotations

import datetime
import gzip
import json
import os
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner

from retriever.cli.main import cli
from retriever.corpus.corpus import load_queries, open_corpus, survey
from retriever.corpus.left_out import LeftOut
from retriever.eval.data.qrels import read_qrels
from retriever.eval.data.runs import read_run
from retriever.files import read_lines
from retriever.streams import spooled
from retriever.types import Query, UserError

LINES = b'{"_id": "oak", "text": "acorns"}\n{"_id": "ash", "text": "keys"}\n'


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams") / "index"
    done = CliRunner().invoke(cli, ["index", "-", "--index", str(folder), "-e", "none", "-q"], input=LINES)
    assert done.exit_code == 0, done.output
    assert list(folder.parent.iterdir()) == [folder]
    return folder


def pipe(path: Path, content: bytes) -> Path:
    """Return a named pipe into which a thread writes."""
    os.mkfifo(path)
    threading.Thread(target=path.write_bytes, args=(content,), daemon=True).start()
    return path


def parquet_bytes() -> bytes:
    sink = pyarrow.BufferOutputStream()
    table = pyarrow.table({"id": ["oak", "ash"], "text": ["acorns", "keys"]})
    pyarrow.parquet.write_table(table, sink)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.jsonl", LINES),
        ("c.jsonl.gz", gzip.compress(LINES, mtime=0)),
        ("c.tsv", b"id\ttext\noak\tacorns\nash\tkeys\n"),
        ("c.csv", b"id,text\noak,acorns\nash,keys\n"),
        ("c.parquet", parquet_bytes()),
        ("plain", LINES),
        ("packed", gzip.compress(LINES, mtime=0)),
        ("columns", parquet_bytes()),
    ],
)
def test_a_pipe_is_a_corpus_that_can_be_read_again(tmp_path: Path, name: str, content: bytes) -> None:
    corpus = open_corpus(pipe(tmp_path / name, content), spool=tmp_path)
    found = survey(corpus)
    assert [record.document.doc_id for record in corpus if record.document] == ["oak", "ash"]
    assert found.documents == 2 and survey(corpus) == found
    assert all(str(tmp_path / name) in record.source for record in corpus)
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_standard_input_is_read_once_in_a_process(tmp_path: Path) -> None:
    code = (
        "from retriever.corpus.corpus import open_corpus, survey\n"
        "print(survey(open_corpus('-')).documents)\n"
        "try: survey(open_corpus('-'))\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=LINES, capture_output=True, check=True)
    count, error = done.stdout.decode().splitlines()
    assert count == "2" and error.startswith("-: standard input is asked for a second time")


def test_the_rest_of_the_commands_take_streams(index: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    asked = b'{"id": 1, "text": "acorns"}\n'
    done = run(cli, ["search", str(index), "--queries", "-", "--output", "-", "-m", "bm25", "-q"], input=asked)
    assert done.exit_code == 0
    [line] = done.stdout.splitlines()
    assert line.split()[:4] == ["1", "Q0", "oak", "1"]
    (tmp_path / "qrels").write_text("1 0 oak 1\n")
    (tmp_path / "run").write_text(done.stdout)
    for given, read in ((("-", "qrels"), "run"), (("run", "-"), "qrels")):
        names = [name if name == "-" else str(tmp_path / name) for name in given]
        measured = run(cli, ["evaluate", *names, "-m", "RR", "--json"], input=(tmp_path / read).read_bytes())
        assert json.loads(measured.stdout)["mean"] == {"RR": 1.0}
    both = run(cli, ["evaluate", "-", "-"], input=b"1 0 oak 1\n")
    assert both.exit_code == 1 and "a second time" in both.stderr
    added = run(cli, ["add", str(index), "-", "-q"], input=b'{"docid": 7, "text": "elm"}\n')
    assert added.exit_code == 0 and "1 added" in added.stdout
    deleted = run(cli, ["delete", str(index), "--ids-from", "-"], input=b"7\n\nnone\n")
    assert deleted.stdout.startswith("1 deleted, 1 not there")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"_id": "a", "text": "one"}\n', [Query("a", "one")]),
        (b"a\tone\nb\ttwo\n", [Query("a", "one"), Query("b", "two")]),
        (b"one\ntwo\n", [Query("1", "one"), Query("2", "two")]),
        (b"<top>\n<num> 5\n<title> one\n</top>\n", [Query("5", "one")]),
    ],
)
def test_the_first_line_of_a_pipe_tells_what_queries_it_holds(
    tmp_path: Path, content: bytes, expected: list[Query]
) -> None:
    assert list(load_queries(pipe(tmp_path / "q", content))) == expected


def test_runs_and_judgements_come_through_pipes(tmp_path: Path) -> None:
    assert read_qrels(pipe(tmp_path / "j", b"q 0 d 1\n")) == {"q": {"d": 1}}
    assert list(read_run(pipe(tmp_path / "r.gz", gzip.compress(b"q Q0 d 1 2.5 x\n")))) == ["q"]


@pytest.mark.parametrize("command", [["mine", "--index", "i"], ["score", "--teacher", "bm25"]])
def test_pairs_are_refused_where_they_cannot_be_read_again(tmp_path: Path, command: list[str]) -> None:
    os.mkfifo(tmp_path / "pairs.jsonl")
    done = CliRunner().invoke(cli, [command[0], str(tmp_path / "pairs.jsonl"), *command[1:], "-o", str(tmp_path / "o")])
    assert done.exit_code == 1 and "can be read only once, and pairs are read several times" in done.stderr


def test_a_spooled_stream_is_read_from_two_places_at_once(tmp_path: Path) -> None:
    source = spooled(pipe(tmp_path / "lines", b"".join(b"%d\n" % number for number in range(50_000))))
    one, two = read_lines(source), read_lines(source)
    assert [next(one) for _ in range(9)] == [next(two) for _ in range(9)]
    assert len(list(one)) == len(list(two)) == 50_000 - 9


def test_linked_folders_are_followed_and_the_rest_is_counted(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    for name in ("docs/b/x.txt", "docs/b/deep/y.md", "other/z.rst", "docs/page.html", "docs/.git/t.txt", "docs/.h.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (docs / "a-link").symlink_to("b")  # to a folder that has its own place
    (docs / "b" / "up").symlink_to("..")  # round and round
    (docs / "out").symlink_to(tmp_path / "other")
    (docs / "again").symlink_to(tmp_path / "other")
    (docs / "gone.txt").symlink_to("nowhere")
    (docs / "file.txt").symlink_to("b/x.txt")
    os.mkfifo(docs / "pipe.txt")
    corpus = open_corpus(docs)
    names = [record.document.doc_id for record in corpus if record.document]
    assert names == ["again/z.rst", "b/deep/y.md", "b/x.txt", "file.txt"]
    assert {kind.what: (kind.number, kind.first) for kind in corpus.left_out} == {
        "files of another suffix (.html)": (1, "page.html"),
        "hidden files": (1, ".h.txt"),
        "hidden folders": (1, ".git"),
        "linked folders that were read already": (3, "a-link"),
        "links to nothing": (1, "gone.txt"),
        "pipes, sockets or devices": (1, "pipe.txt"),
    }


def test_what_is_left_out_stands_in_summary_and_report(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("a.txt", "b.pdf", "c.pdf"):
        (tmp_path / "docs" / name).write_text(name)
    command = ["index", str(tmp_path / "docs"), "--index", str(tmp_path / "i"), "-e", "none", "-q", "--json"]
    done = CliRunner().invoke(cli, command)
    assert done.stderr == "left out: 2 files of another suffix (.pdf) (the first: b.pdf)\n"
    assert json.loads(done.stdout)["left_out"] == [
        {"what": "files of another suffix (.pdf)", "number": 2, "first": "b.pdf"}
    ]


def test_files_beside_a_corpus_and_columns_without_a_name_are_counted(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_bytes(LINES)
    for name in ("queries.jsonl", "README.md", "corpus-2.jsonl", "notes.doc"):
        (tmp_path / name).write_bytes(LINES)
    assert open_corpus(tmp_path).left_out == [LeftOut("files beside corpus.jsonl", 1, "corpus-2.jsonl")]
    for name, gap in (("c.csv", ","), ("c.tsv", "\t")):
        (tmp_path / name).write_text(gap.join(["", "id", "text"]) + "\n" + gap.join("0ab") + "\n")
        assert open_corpus(tmp_path / name).left_out == [LeftOut("columns without a name", 1, str(tmp_path / name))]


def column(values: list[Any], kind: Any) -> Any:
    return pyarrow.array(values, kind)


HUGE = Decimal("9" * 38)
CELLS: dict[str, tuple[Any, str]] = {
    "day": (column([1, 5_000_000], pyarrow.date32()), "'day' holds a date32"),
    "time": (column([1, 3 * 10**17], pyarrow.timestamp("us")), "'time' holds a timestamp[us]"),
    "span": (column([1, 2**62], pyarrow.duration("s")), "'span' holds a duration[s]"),
    "ratio": (column([0.5, float("inf")], pyarrow.float64()), "'ratio' holds infinity"),
    "image": (column([None, b"\x00"], pyarrow.binary()), "'image' holds bytes"),
    "nested": (
        column([[1], [5_000_000]], pyarrow.list_(pyarrow.date32())),
        "'nested' holds a list<",
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_one_cell_that_cannot_be_read_costs_one_record(tmp_path: Path, name: str) -> None:
    cells, problem = CELLS[name]
    path = tmp_path / "c.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"id": ["oak", "ash"], "text": ["a", "b"], name: cells}), path)
    found = survey(open_corpus(path), on_bad="skip")
    assert (found.documents, found.bad) == (1, 1)
    assert found.first_bad.startswith(f"{path}:row 2: {problem}") and "\n" not in found.first_bad
    with pytest.raises(UserError, match="row 2"):
        survey(open_corpus(path))


def test_values_that_can_be_kept_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    moment = datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)
    table = {
        "docid": [2**60],
        "text": ["a"],
        "account": column([HUGE], pyarrow.decimal128(38, 0)),
        "price": column([Decimal("12.50")], pyarrow.decimal128(9, 2)),
        "at": column([moment], pyarrow.timestamp("us", tz="Asia/Tokyo")),
        "took": column([datetime.timedelta(seconds=90)], pyarrow.duration("ms")),
        "none": column([float("nan")], pyarrow.float32()),
    }
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    [record] = open_corpus(path)
    assert record.document is not None and record.document.doc_id == str(2**60)
    assert record.document.metadata == {
        "account": int(HUGE),
        "price": 12.5,
        "at": "2024-05-06T16:08:09+09:00",
        "took": 90.0,
        "none": None,
    }


def test_unknown_zones_and_structs_with_one_name_twice_are_bad_records(tmp_path: Path) -> None:
    twice = pyarrow.StructArray.from_arrays(
        [column([1], pyarrow.int8()), column([2], pyarrow.int8())], names=["x", "x"]
    )
    for cells in (twice, column([1], pyarrow.timestamp("us", tz="Moon/Crater"))):
        pyarrow.parquet.write_table(pyarrow.table({"id": ["a"], "text": ["b"], "odd": cells}), tmp_path / "c.parquet")
        [record] = open_corpus(tmp_path / "c.parquet")
        assert record.problem is not None and record.problem.startswith("'odd' holds a ")


def test_nothing_stands_twice(tmp_path: Path) -> None:
    table = pyarrow.table([["a"], ["b"], ["c"]], names=["id", "text", "text"])
    pyarrow.parquet.write_table(table, tmp_path / "c.parquet")
    with pytest.raises(UserError, match=r"c\.parquet: the column 'text' stands twice"):
        survey(open_corpus(tmp_path / "c.parquet"))
    lines = b'{"_id": "a", "text": "b", "text": "c"}\n{"_id": "b", "text": "b", "n": {"x": 1, "x": 2}}\n' + LINES
    (tmp_path / "c.jsonl").write_bytes(lines)
    problems = [record.problem for record in open_corpus(tmp_path / "c.jsonl")]
    assert problems[:2] == [f"the key {key!r} stands twice; keep one of them" for key in ("text", "x")]
    assert problems[2:] == [None, None]


@pytest.mark.parametrize(
    ("name", "one"),
    [("c.jsonl", '{{"_id": "{0}", "text": "x"}}\n'), ("c.tsv", "{0}\tx\n"), ("c.csv", "{0},x\n")],
)
def test_a_byte_order_mark_of_a_joined_file_is_named(tmp_path: Path, name: str, one: str) -> None:
    header = {"c.tsv": "id\ttext\n", "c.csv": "id,text\n"}.get(name, "")
    content = "\ufeff" + header + one.format("a") + "\ufeff" + one.format("b") + one.format("c")
    (tmp_path / name).write_text(content, encoding="utf-8")
    found = survey(open_corpus(tmp_path / name), on_bad="skip")
    assert (found.documents, found.bad) == (2, 1)
    assert "a byte order mark stands before this line, as where files were joined" in found.first_bad


def test_a_byte_order_mark_is_named_in_runs_judgements_and_queries(tmp_path: Path) -> None:
    readers: dict[str, tuple[Any, str]] = {
        "run": (read_run, "q{0} Q0 d 1 1.0 x\n"),
        "qrels": (read_qrels, "q{0} 0 d 1\n"),
        "queries.jsonl": (lambda path: list(load_queries(path)), '{{"id": "{0}", "text": "x"}}\n'),
        "queries.tsv": (lambda path: list(load_queries(path)), "{0}\tx\n"),
        "queries.txt": (lambda path: list(load_queries(path)), "words {0}\n"),
    }
    for name, (read, line) in readers.items():
        (tmp_path / name).write_text(line.format(1) + "\ufeff" + line.format(2), encoding="utf-8")
        with pytest.raises(UserError, match=rf"{name}:2: a byte order mark"):
            read(tmp_path / name)


def test_a_stream_that_finds_no_space_is_one_error(tmp_path: Path) -> None:
    code = f"""
import resource, signal
from pathlib import Path
from retriever.cli.main import cli
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
cli(["index", "-", "--index", {str(tmp_path / "index")!r}, "-e", "none", "-q"])
"""
    done = subprocess.run([sys.executable, "-c", code], input=LINES * 9, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"Error: -: cannot be copied to a temporary file (File too large); free some space")
    assert len(done.stderr.splitlines()) == 1 and list(tmp_path.iterdir()) == []


UNINTERRUPTED = """
import _thread, os, signal, sys, threading, time
from pathlib import Path
from retriever.files import read_lines
from retriever.streams import STANDARD, Spooled
signal.signal(signal.SIGINT, signal.default_int_handler)
"""


@pytest.mark.parametrize("where", ["before a writer comes", "before the first byte", "in a line", "standard input"])
def test_a_signal_that_ends_no_system_call_ends_the_wait_for_a_stream(tmp_path: Path, where: str) -> None:
    """`interrupt_main` sets Python's mark and no more, as a signal does that comes just before `read` or `open`."""
    os.mkfifo(tmp_path / "c.jsonl")
    writes = {"before a writer comes": "", "standard input": ""}.get(where, "writer = os.open(path, os.O_WRONLY); ")
    writes += "os.write(writer, b'a'); " if where == "in a line" else ""
    path = "STANDARD" if where == "standard input" else f"{str(tmp_path / 'c.jsonl')!r}"
    code = f"""
path = Path({path})
def interrupt():
    {writes}time.sleep(0.1); _thread.interrupt_main()
for read in (Spooled, lambda path: list(read_lines(path))):
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        read(path)
    except KeyboardInterrupt: print("interrupted")
    if path == Path(STANDARD): break
"""
    process = subprocess.Popen(
        [sys.executable, "-c", UNINTERRUPTED + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        process.wait(120)  # standard input stays open meanwhile
    finally:
        process.kill()
        out, _ = process.communicate()
    assert out.splitlines() == ["interrupted"] * (1 if where == "standard input" else 2)


def test_ctrl_c_at_the_instant_at_which_a_pipe_is_opened(tmp_path: Path) -> None:
    """A hundred signals, each within microseconds of the moment at which the reader wakes up."""
    os.mkfifo(tmp_path / "c.jsonl")
    code = f"""
path = Path({str(tmp_path / "c.jsonl")!r})
def interrupt(wait):
    writer = os.open(path, os.O_WRONLY)
    until = time.perf_counter() + wait
    while time.perf_counter() < until: pass
    os.kill(os.getpid(), signal.SIGINT)
    done.wait(); os.close(writer)
for number in range(100):
    done = threading.Event()
    thread = threading.Thread(target=interrupt, args=(number * 2e-6,))
    try:
        thread.start(); Spooled(path)
    except KeyboardInterrupt: print("interrupted")
    done.set(); thread.join()
"""
    done = subprocess.run([sys.executable, "-c", UNINTERRUPTED + code], capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines() == ["interrupted"] * 100, done.stderr
