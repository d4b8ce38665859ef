"""Query files of every form, and their faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from retriever.corpus.corpus import load_queries
from retriever.types import Query, UserError
from tests.helpers.corpora import write


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
