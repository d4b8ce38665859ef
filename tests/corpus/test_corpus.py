"""Every form of a corpus, every fault in one, the survey's policies, and query files."""

from __future__ import annotations

import csv
import datetime
import errno
import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever.corpus.arrow import _plain
from retriever.corpus.corpus import LONGEST_ID, Corpus, Record, documents, load_queries, open_corpus, survey
from retriever.index.lucene.writer import LONGEST_TERM
from retriever.types import Document, Query, UserError

TINY = Path(__file__).parents[1] / "data" / "tiny"
ROWS = [
    {"_id": "a", "text": "First text.", "title": "One", "lang": "en"},
    {"_id": "b", "text": 'Ein "Zitat", naïve 東京', "title": "", "lang": "de"},
]
DOCUMENTS = [
    Document("a", "First text.", "One", {"lang": "en"}),
    Document("b", 'Ein "Zitat", naïve 東京', "", {"lang": "de"}),
]
ONE = '{"_id": "a", "text": "x"}\n'


def found(corpus: Corpus) -> list[Document]:
    return [record.document for record in corpus if record.document is not None]


def problems(corpus: Corpus) -> list[str]:
    return [f"{Path(record.source).name}: {record.problem}" for record in corpus if record.problem]


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def as_jsonl(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_csv(rows: list[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def as_tsv(rows: list[dict[str, Any]]) -> str:
    return "".join("\t".join(line) + "\n" for line in [list(rows[0]), *(list(row.values()) for row in rows)])


def write_parquet(path: Path, columns: dict[str, list[Any]]) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["no-bom", "bom"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".tsv", ".tsv.gz", ".csv", ".csv.gz", ".JSONL"])
def test_text_formats_give_the_same_documents(tmp_path: Path, suffix: str, line_end: str, bom: bytes) -> None:
    form = {"j": as_jsonl, "t": as_tsv, "c": as_csv}[suffix[1].lower()]
    content = form(ROWS).replace("\r\n", "\n").replace("\n", line_end).encode()
    corpus = open_corpus(write(tmp_path / f"corpus.v1{suffix}", bom + content))
    assert problems(corpus) == []
    assert found(corpus) == found(corpus) == DOCUMENTS  # twice: each iteration starts again


def test_parquet(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "c.parquet", {name: [row[name] for row in ROWS] for name in ROWS[0]})
    assert found(open_corpus(path)) == DOCUMENTS
    typed: dict[str, list[Any]] = {
        "id": [1, 2**40],
        "contents": ["x", None],
        "title": [None, "T"],
        "day": [datetime.date(2020, 1, 2), None],
        "score": [float("nan"), 0.5],
        "tags": [["a", "b"], []],
    }
    assert found(open_corpus(write_parquet(tmp_path / "typed.parquet", typed))) == [
        Document("1", "x", "", {"day": "2020-01-02", "score": None, "tags": ["a", "b"]}),
        Document(str(2**40), "", "T", {"day": None, "score": 0.5, "tags": []}),
    ]


def test_parquet_names_the_row_of_a_bad_record(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "c.parquet", {"id": ["a", None], "text": ["x", "y"]})
    assert problems(open_corpus(path)) == [
        "c.parquet:row 2: the id 'id' is None, need a string or a whole number; put it in double quotes"
    ]
    path = write_parquet(tmp_path / "b.parquet", {"id": ["a"], "text": ["x"], "image": [b"\x00"]})
    assert problems(open_corpus(path))[0].startswith("b.parquet:row 1: 'image' holds bytes, need text, numbers")
    write(tmp_path / "bad.parquet", "no parquet")
    with pytest.raises(UserError, match="not a whole Parquet file"):
        survey(open_corpus(tmp_path / "bad.parquet"))


def test_values_of_arrow_become_values_of_json() -> None:
    assert _plain({"t": (datetime.time(1, 2), float("nan"), True)}) == {"t": ["01:02:00", None, True]}


def test_folder_of_text_files(tmp_path: Path) -> None:
    for name in ("b.md", "a/z.txt", "a/B.TXT", "a.rst", "skip.pdf", ".git/x.txt", ".hidden.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, b"\xef\xbb\xbfline\r\nof " + name.encode())
    assert [document.doc_id for document in found(open_corpus(tmp_path))] == ["a.rst", "a/B.TXT", "a/z.txt", "b.md"]
    assert found(open_corpus(tmp_path))[0] == Document("a.rst", "line\nof a.rst", "", {})
    write(tmp_path / "a.rst", b"caf\xe9")
    assert problems(open_corpus(tmp_path)) == ["a.rst: byte 4 is not UTF-8; save the file as UTF-8"]


def test_datasets_of_a_local_folder(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", '{"id": 1, "text": "x"}\n{"id": 2, "text": null}\n')
    corpus = open_corpus(f"hf:{tmp_path}")
    assert found(corpus) == found(corpus) == [Document("1", "x", "", {}), Document("2", "", "", {})]
    assert [record.source for record in corpus] == [f"hf:{tmp_path}:row 1", f"hf:{tmp_path}:row 2"]
    assert found(open_corpus(f"hf:{tmp_path}:train")) == found(corpus)
    with pytest.raises(UserError, match=r"cannot be loaded \(Bad split: nope. Available splits: \['train'\]\)"):
        survey(open_corpus(f"hf:{tmp_path}:nope"))
    write(tmp_path / "test.jsonl", '{"id": 3, "text": "z"}\n')
    with pytest.raises(UserError, match=r"has the splits test, train; choose one with hf:.*:test"):
        survey(open_corpus(f"hf:{tmp_path}"))


def test_a_data_set_out_of_reach_is_one_line(tmp_path: Path) -> None:
    names = ["nobody/nothing", "/", "a/", "/b", "a/b/c", "a:", ".:x/y"]
    code = (
        "from retriever.corpus.corpus import open_corpus, survey\n"
        f"for name in {names}:\n"
        "    try: survey(open_corpus(f'hf:{name}'))\n"
        "    except ValueError as error: print(type(error).__name__, error)"
    )
    environment = {"HF_HUB_OFFLINE": "1", "PATH": "", "HOME": "/nonexistent"}
    # "." is the working directory, all files of which are looked at: not those of the checkout.
    program = [sys.executable, "-c", code]
    done = subprocess.run(program, capture_output=True, text=True, env=environment, cwd=tmp_path, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("UserError hf:nobody/nothing: cannot be loaded (Couldn't reach")
    for name, line in zip(names, lines, strict=True):
        assert (
            line.startswith(f"UserError hf:{name.partition(':')[0]}: cannot be loaded (") and "; give hf:NAME" in line
        )
    assert done.stderr == ""


def test_fields_have_an_order_of_preference(tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", '{"docno": "n", "id": "i", "contents": "c", "title": null, "x": {"y": [1]}}\n')
    assert found(open_corpus(path)) == [Document("i", "c", "", {"docno": "n", "x": {"y": [1]}})]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"_id": "b"', "not JSON (Expecting ',' delimiter: line 1 column 12 (char 11)); write one JSON object"),
        (b'{"_id": "b", "text": NaN}', "not JSON (NaN is no JSON value)"),
        (b"[" * 100_000, "lists or objects stand too deep"),
        (b'["b", "x"]', "found a JSON list, need one JSON object on each line"),
        (b'{"_id": "b", "text": "\xff"}', "byte 0xff at position 23 is not UTF-8; save the file as UTF-8"),
        (b'{"_id": "b", "text": "\\ud83d"}', "an escape \\uD800-\\uDFFF stands without its other half"),
        (b'{"_id": "b"}', "no text: found '_id', need a field named text, contents or abstract; add it"),
        (b'{"text": "x"}', "no id: found 'text', need a field named _id, id, doc_id, docid or docno; add it"),
        (b"{}", "no id: found 'no field'"),
        (b'{"_id": 7.0, "text": "x"}', "the id '_id' is 7.0, need a string or a whole number; put it in double quotes"),
        (b'{"_id": null, "text": "x"}', "the id '_id' is None, need a string"),
        (b'{"_id": " ", "text": "x"}', "the id '_id' is empty, need a string with at least one character"),
        (b'{"_id": "b", "text": 7}', "'text' is 7, need a string or null"),
        (b'{"_id": "b", "text": "x", "title": ["t"]}', "'title' is ['t'], need a string or null"),
    ],
)
def test_a_bad_line_is_named_and_can_be_skipped(tmp_path: Path, line: bytes, problem: str) -> None:
    path = write(tmp_path / "c.jsonl", ONE.encode() + b"\n" + line + b'\n{"_id": "c", "text": "z"}\n')
    records = list(open_corpus(path))
    assert [record.document.doc_id if record.document else None for record in records] == ["a", None, "c"]
    assert records[1].source == f"{path}:3"
    assert records[1].problem is not None
    assert records[1].problem.startswith(problem)
    with pytest.raises(UserError) as caught:
        survey(open_corpus(path))
    assert str(caught.value).startswith(f"{path}:3: {problem}")
    assert str(caught.value).endswith("--on-bad skip")
    assert "\n" not in str(caught.value)
    found = survey(open_corpus(path), on_bad="skip")
    assert (found.documents, found.records, found.bad) == (2, 3, 1)
    assert found.first_bad == f"{path}:3: {records[1].problem}"
    assert [(n, d.doc_id) for n, d in documents(open_corpus(path), found)] == [(0, "a"), (2, "c")]


def test_escaped_surrogate_pairs_and_odd_line_separators_are_text(tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", '{"_id": "\\ud83d\\udeb2", "text": "a\u2028b\x85c"}\n')
    assert found(open_corpus(path)) == [Document("\U0001f6b2", "a\u2028b\x85c", "", {})]


def test_csv_fields_may_be_long_and_hold_line_ends(tmp_path: Path) -> None:
    long = "word " * 100_000
    path = write(tmp_path / "c.csv", as_csv([{"id": "a", "text": "one\ntwo"}, {"id": "b", "text": long}]))
    assert [document.text for document in found(open_corpus(path))] == ["one\ntwo", long]
    assert [record.source for record in open_corpus(path)] == [f"{path}:2", f"{path}:4"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("c.csv", b"id,text\na,x,y\nb,z\n", "c.csv:2: found 3 columns, the header has 2; make them equal"),
        ("c.csv", b"id,text\na,\xff\nb,z\n", "c.csv:2: not UTF-8; save the file as UTF-8"),
        ("c.csv", b'id,text\na,"x"y\nb,z\n', "c.csv:2: not CSV (',' expected after '\"'); double the"),
        ("c.tsv", b"id\ttext\na\nb\tz\n", "c.tsv:2: found 1 columns, the header has 2; make them equal"),
        ("c.tsv", b"id\ttext\na\t\xff\nb\tz\n", "c.tsv:2: not UTF-8"),
        ("c.tsv", b"id\ttext\n\tx\nb\tz\n", "c.tsv:2: the id 'id' is empty"),
        ("c.tsv", f"id\ttext\n{'é' * 16_384}\tx\nb\tz\n".encode(), "c.tsv:2: the id 'éé"),
        (
            "c.jsonl",
            b'{"id": "a", "text": "x", "n": [-1e999]}\n{"id": "b", "text": "z"}',
            "c.jsonl:1: not JSON (-1e999 is",
        ),
    ],
)
def test_a_bad_line_of_a_table(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    corpus = open_corpus(write(tmp_path / name, content))
    assert len(problems(corpus)) == 1
    assert problems(corpus)[0].startswith(expected)
    assert found(corpus) == [Document("b", "z", "", {})]


def test_quotation_marks_in_tsv_are_characters(tmp_path: Path) -> None:
    path = write(tmp_path / "c.tsv", 'id\ttext\na\t"open\nb\t""x"" y\n')
    assert [document.text for document in found(open_corpus(path))] == ['"open', '""x"" y']


def test_an_unnamed_column_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "c.csv", ",id,text\n0,a,x\n")  # as pandas writes its row index
    assert found(open_corpus(path)) == [Document("a", "x", "", {})]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.jsonl", "", r"c.jsonl: holds no record; give a corpus with at least one document"),
        ("c.jsonl", "\n \n", r"c.jsonl: holds no record"),
        ("c.csv", "id,text\n", r"c.csv: holds no record"),
        ("c.csv", "", r"c.csv: holds no record"),
        ("c.csv", 'id,text\na,x\nb,"y\nc,z\n', r"c.csv:3: a double quote opens here and never closes"),
        ("c.csv", b"id,text,n\xe4me\na,x,y\n", r"c.csv:1: the header is not UTF-8"),
        ("c.tsv", "id\ttext\ttext\n", r"c.tsv:1: the column 'text' stands twice"),
        ("c.json", ONE, r"c.json: cannot tell the format from the suffix '.json'; allowed: .jsonl, .*, hf:NAME"),
        ("c", ONE, r"c: cannot tell the format from the suffix ''"),
    ],
)
def test_a_file_that_cannot_be_a_corpus(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        survey(open_corpus(write(tmp_path / name, content)))
    assert "\n" not in str(caught.value)


def test_damaged_gzip_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl.gz"
    whole = gzip.compress("".join(f'{{"_id": "{n}", "text": "x{n * n}"}}\n' for n in range(500)).encode())
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for damaged in (whole[:-20], whole[: len(whole) // 2], bytes(flipped), b"plain", whole + b"tail"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"c.jsonl.gz: the gzip data is damaged or cut off \(.*\); get or compress"):
            survey(open_corpus(path), on_duplicate="skip", on_bad="skip")


def test_the_longest_id_is_that_of_the_index(tmp_path: Path) -> None:
    assert LONGEST_ID == LONGEST_TERM
    path = write(tmp_path / "c.tsv", f"id\ttext\n{'é' * 16_383}\tx\n{'a' * 32_767}\ty\n")
    assert [document.text for document in found(open_corpus(path))] == ["x"]
    assert problems(open_corpus(path))[0].endswith("is longer than 32766 bytes; give it a shorter one")


def test_what_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's answers are played: the superuser may read everything."""
    (tmp_path / "folder" / "locked").mkdir(parents=True)
    write(tmp_path / "folder" / "a.txt", "x")
    scandir = os.scandir

    def refuse(path: str | Path) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(
        UserError, match=r"folder/locked: cannot be read \(Permission denied\); make the folder readable"
    ):
        open_corpus(tmp_path / "folder")

    def deny(path: Path, *_: object, **__: object) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    file = write(tmp_path / "c.jsonl", ONE)
    for method in ("open", "exists", "is_dir"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, method, deny)
            with pytest.raises(
                UserError, match=r"c\.jsonl: cannot be read \(Permission denied\); give the path of a read"
            ):
                survey(open_corpus(file))


def test_folders_and_paths_that_hold_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.jsonl: no such corpus; give the path of a file or folder"):
        open_corpus(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match=r"found neither corpus.jsonl nor a .txt, .md, .rst file"):
        open_corpus(tmp_path)
    (tmp_path / "qrels").mkdir()
    with pytest.raises(UserError, match=r"a BEIR folder without corpus.jsonl or corpus.jsonl.gz; add one"):
        open_corpus(tmp_path)
    with pytest.raises(UserError, match="no name of a data set"):
        open_corpus("hf:")
    write(tmp_path / "corpus.jsonl.gz", ONE)
    assert found(open_corpus(str(tmp_path))) == [Document("a", "x", "", {})]


def listed(content: str, tmp_path: Path) -> Corpus:
    return open_corpus(write(tmp_path / "c.jsonl", content))


DUPLICATES = "".join(
    f'{{"_id": "{name}", "text": "{text}"}}\n' for name, text in [("a", ""), ("b", "2"), ("a", "3"), ("a", "4")]
)


def test_duplicates_follow_the_policy(tmp_path: Path) -> None:
    corpus = listed(DUPLICATES, tmp_path)
    with pytest.raises(UserError, match=r"c.jsonl:3: the id 'a' stands already at .*c.jsonl:1; make ids unique, or"):
        survey(corpus)
    first = survey(corpus, on_duplicate="skip")
    assert [(n, d.text) for n, d in documents(corpus, first)] == [(0, ""), (1, "2")]
    assert (first.documents, first.records, first.duplicates, first.empty) == (2, 4, 2, 1)
    last = survey(corpus, on_duplicate="replace")
    assert [(n, d.text) for n, d in documents(corpus, last)] == [(1, "2"), (3, "4")]
    assert (last.documents, last.duplicates, last.empty, last.dropped) == (2, 2, 0, frozenset({0, 2}))
    assert first.digest != last.digest
    with pytest.raises(UserError, match="on-duplicate: found 'keep', allowed: error, skip, replace"):
        survey(corpus, on_duplicate="keep")  # type: ignore[arg-type]


@given(st.lists(st.sampled_from(["a", "b", "c", "d", None]), max_size=12), st.sampled_from(["skip", "replace"]))
def test_policies_agree_with_a_dict(names: list[str | None], policy: Any) -> None:
    def records() -> Iterator[Record]:
        for number, name in enumerate(names):
            document = None if name is None else Document(name, str(number))
            yield Record(f"here:{number}", document, None if document else "bad")

    class Listed(Corpus):
        def __iter__(self) -> Iterator[Record]:
            return records()

    corpus = Listed("here", lambda: iter(()))
    expected: dict[str, int] = {}
    for number, name in enumerate(names):
        if name is not None and (policy == "replace" or name not in expected):
            expected[name] = number
    if not expected:
        with pytest.raises(UserError, match=r"all \d+ records are bad|holds no record"):
            survey(corpus, policy, "skip")
        return
    result = survey(corpus, policy, "skip")
    kept = [(number, document.doc_id) for number, document in documents(corpus, result)]
    assert kept == sorted((number, name) for name, number in expected.items())
    assert result.documents == len(kept)
    assert result.records == result.documents + result.bad + result.duplicates
    for start in range(len(names) + 1):
        rest = [(number, document.doc_id) for number, document in documents(corpus, result, start)]
        assert rest == [pair for pair in kept if pair[0] >= start]


def test_the_digest_follows_the_content_and_not_the_file(tmp_path: Path) -> None:
    plain = survey(listed(as_jsonl(ROWS), tmp_path)).digest
    assert survey(open_corpus(write(tmp_path / "other.csv", as_csv(ROWS)))).digest == plain
    assert survey(open_corpus(write(tmp_path / "other.jsonl.gz", as_jsonl(ROWS)))).digest == plain
    changed = {survey(listed(as_jsonl([{**ROWS[0], name: "?"}, ROWS[1]]), tmp_path)).digest for name in ROWS[0]}
    assert len(changed | {plain}) == 5
    assert survey(listed(as_jsonl(ROWS[::-1]), tmp_path)).digest != plain


def test_progress_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    survey(listed(ONE, tmp_path), progress=True)
    survey(listed(ONE, tmp_path))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("survey: ") >= 1


def test_reading_holds_one_record_at_a_time(tmp_path: Path) -> None:
    import tracemalloc

    line = '{"_id": "%d", "text": "' + "x" * 1000 + '"}\n'
    path = write(tmp_path / "c.jsonl", "".join(line % number for number in range(5000)))
    tracemalloc.start()
    assert sum(1 for _ in open_corpus(path)) == 5000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000 < path.stat().st_size


def test_importing_the_reader_is_cheap() -> None:
    code = "import sys, retriever.corpus.corpus, retriever.search.fusion.fusion; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "pyarrow", "datasets", "pandas", "torch", "tqdm"} & set(loaded)


def test_the_tiny_data_set_is_whole() -> None:
    tiny = survey(open_corpus(TINY))
    assert (tiny.documents, tiny.empty) == (20, 1)
    queries = {query.query_id for query in load_queries(TINY / "queries.jsonl")}
    doc_ids = {document.doc_id for document in found(open_corpus(TINY))}
    judged = set()
    for split in ("test", "dev"):
        with (TINY / "qrels" / f"{split}.tsv").open() as stream:
            lines = list(csv.DictReader(stream, delimiter="\t"))
        assert {line["corpus-id"] for line in lines} <= doc_ids
        assert {line["score"] for line in lines} == {"1", "2"}
        judged |= {line["query-id"] for line in lines}
    assert judged == queries
    assert len(queries) == 10


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("q.jsonl", '{"_id": "1", "text": "what is it"}\n\n{"id": "3", "query": "and this", "answer": 5}\n'),
        ("q.jsonl.gz", '{"query_id": "1", "question": "what is it"}\n{"_id": "3", "text": "and this"}\n'),
        ("q.tsv", "1\twhat is it\n3\tand this\n"),
        ("q.tsv", "\ufeffquery_id\tlang\ttext\r\n1\ten\twhat is it\r\n3\ten\tand this\r\n"),
        ("q.tsv.gz", "1\twhat is it\n3\tand this"),
        ("q.txt", "what is it\n\nand this\n"),
    ],
)
def test_query_files(tmp_path: Path, name: str, content: str) -> None:
    assert list(load_queries(write(tmp_path / name, content))) == [Query("1", "what is it"), Query("3", "and this")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "q.jsonl",
            b'{"_id": "1", "text": "x"}\n{"_id": "1", "text": "y"}\n',
            r":2: the id '1' stands already at .*:1;",
        ),
        ("q.jsonl", b"x\n", r":1: not JSON"),
        ("q.jsonl", b'{"_id": true, "text": "x"}\n', r":1: '_id' is True, need a string or a whole number"),
        ("q.jsonl", b'{"_id": "1"}\n', r":1: no text of the query; add a field named text or query or question"),
        ("q.jsonl", b'{"_id": "1", "text": " "}\n', r":1: the text of the query is empty"),
        ("q.tsv", b"1\tx\n2\n", r":2: found 1 columns, the header has 2"),
        ("q.tsv", b"1\t\xff\n", r":1: not UTF-8"),
        ("q.txt", b"x\n\xff\n", r":2: byte 0xff at position 1 is not UTF-8"),
        ("q.txt", b"\n\n", r"q.txt: holds no query"),
        ("q.pdf", b"x", r"q.pdf: not a query file; give a file that ends in .jsonl, .tsv, .txt"),
    ],
)
def test_faults_of_query_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        list(load_queries(write(tmp_path / name, content)))
    assert "\n" not in str(caught.value)


def test_a_query_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"q.txt: no such query file"):
        list(load_queries(tmp_path / "q.txt"))
    with pytest.raises(UserError, match="not a query file"):
        list(load_queries(tmp_path))


def test_a_link_that_cannot_be_followed_is_one_bad_record(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("trees", encoding="utf-8")
    (tmp_path / "b.txt").symlink_to("x" * 300)  # longer than a file's name may be
    records = list(open_corpus(tmp_path))
    assert [record.document and record.document.doc_id for record in records] == ["a.txt", None]
    assert "cannot be read" in str(records[1].problem)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "c.jsonl",
            gzip.compress(b"x", mtime=0),  # a test has the same name in every process
            r"c.jsonl:1: this is gzip data; give the file a name",
        ),
        (
            "c.jsonl",
            '{"_id": "a", "text": "x"}\n'.encode("utf-16"),
            r"c.jsonl:1: this is UTF-16; save the file as UTF-8",
        ),
        ("c.csv", "id,text\na,x\n".encode("utf-16"), r"c.csv:1: this is UTF-16; save the file as UTF-8"),
        ("c.csv", b"id,text\ra,x\rb,y\r", r"c.csv:1: lines end in CR alone; save the file with line ends of LF"),
        (
            "c.jsonl",
            b'{"_id": "a", "text": "x", "n": ' + b"9" * 5000 + b"}\n",
            "a whole number of more than 4300 digits",
        ),
        (
            "c.jsonl",
            b'{"_id": "a", "text": "x", "n": ' + b"[" * 9000 + b"]" * 9000 + b"}",
            "lists or objects stand too deep",
        ),
        ("c.jsonl", b'{"_id": "a", "text": ["x"]}\n', "need a string or null; join its items into one"),
    ],
)
def test_a_wrong_form_is_named_as_what_it_is(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says):
        survey(open_corpus(tmp_path / name))


def test_gzip_members_are_joined_and_padding_is_passed_over(tmp_path: Path) -> None:
    members = [gzip.compress(json.dumps({"_id": name, "text": "x"}).encode() + b"\n") for name in "ab"]
    (tmp_path / "c.jsonl.gz").write_bytes(b"".join(members) + bytes(512))
    assert survey(open_corpus(tmp_path / "c.jsonl.gz")).documents == 2
    (tmp_path / "c.jsonl.gz").write_bytes(members[0] + b"garbage")
    with pytest.raises(UserError, match="gzip data is damaged"):
        survey(open_corpus(tmp_path / "c.jsonl.gz"))
