"""Every fault in a corpus: one line that names the place, or a record that is passed over."""

from __future__ import annotations

import errno
import gzip
import os
from pathlib import Path
from typing import Any

import pytest

from retriever.corpus.corpus import LONGEST_ID, documents, open_corpus, survey
from retriever.index.lucene.writer import LONGEST_TERM
from retriever.types import Document, UserError
from tests.helpers.corpora import ONE, found, problems, write


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"_id": "b"', "not JSON (Expecting ',' delimiter: line 1 column 12 (char 11)); write one JSON object"),
        (b'{"_id": "b", "text": NaN}', "not JSON (NaN is no JSON value)"),
        (b"[" * 100_000, "lists or objects stand too deep"),
        (b'["b", "x"]', "found a JSON list, need one JSON object on each line"),
        (b'{"_id": "b", "text": "\xff"}', "byte 0xff at position 23 is not UTF-8; save the file as UTF-8"),
        (b'{"_id": "b", "text": "\\ud83d"}', "an escape \\uD800-\\uDFFF stands without its other half"),
        (b'{"_id": "b"}', "no text: found '_id', need a field named text, contents or abstract; add it, or"),
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
