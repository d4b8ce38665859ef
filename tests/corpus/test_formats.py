"""Every form of a corpus gives the same documents."""

from __future__ import annotations

import datetime
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from retriever.corpus.arrow import _plain
from retriever.corpus.corpus import FieldNames, open_corpus, survey
from retriever.types import Document, UserError
from tests.helpers.corpora import ROWS, as_csv, as_jsonl, found, problems, write

DOCUMENTS = [
    Document("a", "First text.", "One", {"lang": "en"}),
    Document("b", 'Ein "Zitat", naïve 東京', "", {"lang": "de"}),
]


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


def test_fields_of_other_names(tmp_path: Path) -> None:
    path = write(tmp_path / "c.csv", "ident,id,head,body\nx1,7,Bread,It rises\n")
    names = FieldNames(id="ident", text="body", title="head")
    corpus = open_corpus(path)
    assert found(corpus.named(names)) == [Document("x1", "It rises", "Bread", {"id": "7"})]
    assert found(corpus.named(FieldNames(text="body"))) == [
        Document("7", "It rises", "", {"ident": "x1", "head": "Bread"})
    ]
    (problem,) = problems(corpus.named(FieldNames(id="number", text="body")))
    assert "no field 'number': found 'ident, id, head, body'; name one of these with --id-field" in problem
    (problem,) = problems(corpus)
    assert "no text: found" in problem and "name one with --text-field" in problem


def test_escaped_surrogate_pairs_and_odd_line_separators_are_text(tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", '{"_id": "\\ud83d\\udeb2", "text": "a\u2028b\x85c"}\n')
    assert found(open_corpus(path)) == [Document("\U0001f6b2", "a\u2028b\x85c", "", {})]


def test_csv_fields_may_be_long_and_hold_line_ends(tmp_path: Path) -> None:
    long = "word " * 100_000
    path = write(tmp_path / "c.csv", as_csv([{"id": "a", "text": "one\ntwo"}, {"id": "b", "text": long}]))
    assert [document.text for document in found(open_corpus(path))] == ["one\ntwo", long]
    assert [record.source for record in open_corpus(path)] == [f"{path}:2", f"{path}:4"]


def test_quotation_marks_in_tsv_are_characters(tmp_path: Path) -> None:
    path = write(tmp_path / "c.tsv", 'id\ttext\na\t"open\nb\t""x"" y\n')
    assert [document.text for document in found(open_corpus(path))] == ['"open', '""x"" y']


def test_an_unnamed_column_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "c.csv", ",id,text\n0,a,x\n")  # as pandas writes its row index
    assert found(open_corpus(path)) == [Document("a", "x", "", {})]


def test_gzip_members_are_joined_and_padding_is_passed_over(tmp_path: Path) -> None:
    members = [gzip.compress(json.dumps({"_id": name, "text": "x"}).encode() + b"\n") for name in "ab"]
    (tmp_path / "c.jsonl.gz").write_bytes(b"".join(members) + bytes(512))
    assert survey(open_corpus(tmp_path / "c.jsonl.gz")).documents == 2
    (tmp_path / "c.jsonl.gz").write_bytes(members[0] + b"garbage")
    with pytest.raises(UserError, match="gzip data is damaged"):
        survey(open_corpus(tmp_path / "c.jsonl.gz"))
