from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from retriever.eval.data.datasets import load_dataset, read_qrels
from retriever.eval.data.qrels import judged_documents
from retriever.types import Query, UserError

HEADER = "query-id\tcorpus-id\tscore\n"


def beir_folder(folder: Path, qrels: str = HEADER + "q2\td1\t1\n") -> Path:
    """Write a folder with queries q1, q2, q3 and one split "test"."""
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "title": "", "text": "one"}\n')
    queries = [{"_id": f"q{n}", "text": f"question {n}", "metadata": {}} for n in (3, 2, 1)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    (folder / "qrels" / "test.tsv").write_text(qrels)
    return folder


def test_a_beir_folder_gives_the_judged_queries_in_file_order(tmp_path: Path) -> None:
    folder = beir_folder(tmp_path / "tiny", HEADER + "q1\td1\t2\nq3\td1\t0\nq1\td9\t-1\n")
    dataset = load_dataset(folder)
    assert dataset.name == "tiny"
    assert dataset.corpus == folder / "corpus.jsonl"
    assert dataset.queries == [Query("q3", "question 3"), Query("q1", "question 1")]
    assert dataset.qrels == {"q1": {"d1": 2, "d9": -1}, "q3": {"d1": 0}}


def test_gzipped_parts_are_read(tmp_path: Path) -> None:
    folder = beir_folder(tmp_path / "tiny")
    plain = load_dataset(folder)
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        path = folder / name
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    packed = load_dataset(folder)
    assert packed[2:] == plain[2:]
    assert packed.corpus == folder / "corpus.jsonl.gz"


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("corpus.jsonl", "corpus.jsonl: no such file"),
        ("queries.jsonl", "queries.jsonl: no such file"),
        ("qrels/test.tsv", "no split 'test'; splits found: none"),
    ],
)
def test_a_missing_part_is_named(tmp_path: Path, missing: str, message: str) -> None:
    (beir_folder(tmp_path / "tiny") / missing).unlink()
    with pytest.raises(UserError, match=message):
        load_dataset(tmp_path / "tiny")


def test_a_missing_folder_and_a_missing_split_say_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing: no such folder; give a BEIR folder"):
        load_dataset(tmp_path / "nothing")
    folder = beir_folder(tmp_path / "tiny")
    (folder / "qrels" / "dev.tsv").write_text(HEADER)
    with pytest.raises(UserError, match="no split 'train'; splits found: dev, test"):
        load_dataset(folder, "train")


def test_qrels_that_name_an_unknown_query_give_its_line(tmp_path: Path) -> None:
    folder = beir_folder(tmp_path / "tiny", HEADER + "q1\td1\t1\n\nq7\td1\t1\nq8\td1\t1\n")
    with pytest.raises(UserError, match=r"test\.tsv:4: query 'q7' is not among the queries of tiny;.*2 such queries"):
        load_dataset(folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"queries\.jsonl:4: not JSON"),
        ("[" * 100_000, r"queries\.jsonl:4: lists or objects stand too deep"),
        ("[1]", r"queries\.jsonl:4: found a JSON list"),
        ('{"key": "q9", "text": "t"}', r"queries\.jsonl:4: no id of the query; add a field named _id"),
        ('{"_id": 9.5, "text": "t"}', r"queries\.jsonl:4: '_id' is 9.5, need a string"),
        ('{"_id": "q9", "text": null}', r"queries\.jsonl:4: 'text' is None, need a string"),
        ('{"_id": "q1", "text": "again"}', r"queries\.jsonl:4: the id 'q1' stands already at .*queries\.jsonl:3"),
    ],
)
def test_a_bad_query_gives_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    folder = beir_folder(tmp_path / "tiny")
    with (folder / "queries.jsonl").open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(UserError, match=message):
        load_dataset(folder)


@pytest.mark.parametrize(
    "text",
    [
        HEADER + "q1\td 1\t2\nq1\td2\t0\nq2\td2\t-1\n",
        "q1\td 1\t2\nq1\td2\t0\nq2\td2\t-1\n",
        "\ufeff" + HEADER.upper() + "q1\td 1\t2\r\n\r\nq1\td2\t0\r\nq2\td2\t-1",
        HEADER + "q1\td 1\t2\nq1\td2\t0\nq1\td2\t0\nq2\td2\t-1\n",
    ],
    ids=["header", "no header", "byte order mark, CRLF, blank line, no last line break", "repeated line"],
)
def test_beir_qrels(tmp_path: Path, text: str) -> None:
    path = tmp_path / "qrels.tsv"
    path.write_bytes(text.encode())
    assert read_qrels(path) == {"q1": {"d 1": 2, "d2": 0}, "q2": {"d2": -1}}


@pytest.mark.parametrize("gap", [" ", "\t", "  \t "])
def test_trec_qrels(tmp_path: Path, gap: str) -> None:
    rows = [("q1", "0", "d\u00a01", "2"), ("q2", "Q0", "d2", "-1"), ("q1", "0", "d2", "+0")]
    path = tmp_path / "qrels.txt.gz"
    path.write_bytes(gzip.compress("".join(gap.join(row) + "\n" for row in rows).encode()))
    assert read_qrels(path) == {"q1": {"d\u00a01": 2, "d2": 0}, "q2": {"d2": -1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"qrels: no judgements"),
        (HEADER, r"qrels: no judgements"),
        (HEADER + "q1\td1\n", r"qrels:2: found 2 columns, need query-id"),
        (HEADER + "q1\td1\t1\t1\n", r"qrels:2: found 4 columns, need query-id"),
        (HEADER + "\td1\t1\n", r"qrels:2: found 3 columns, need query-id"),
        (HEADER + "q1\td1\t1.5\n", r"qrels:2: grade '1\.5' is not an integer"),
        (HEADER + "q1\td1\t1_0\n", r"qrels:2: grade '1_0' is not an integer"),
        (HEADER + "q1\td1\t\u0661\n", r"qrels:2: grade '\u0661' is not an integer"),
        (HEADER + "q1\td1\t1000001\n", r"qrels:2: grade 1000001 is out of range"),
        ("topic\tdocument\trelevant\n", r"qrels:1: grade 'relevant' is not an integer"),
        ("q1 d1 1\n", r"qrels:1: found 3 columns, need TREC's four"),
        ("q1 0 d1 1\nq1 0 d2\n", r"qrels:2: found 3 columns, need TREC's four"),
        ("q1 0 d1 high\n", r"qrels:1: grade 'high' is not an integer"),
        ("q1 0 d1 1\nq1 0 d1 2\n", r"qrels:2: query 'q1' and document 'd1' have grade 2 here and 1 before"),
    ],
)
def test_bad_qrels_give_file_and_line_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "qrels"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_qrels(path)
    assert "\n" not in str(caught.value)


def test_what_is_not_a_text_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing: no such file"):
        read_qrels(tmp_path / "nothing")
    with pytest.raises(UserError, match="cannot be read"):
        read_qrels(tmp_path)
    (tmp_path / "latin").write_bytes("q1 0 d1 1\nq1 0 d\u00e9 1\n".encode("latin-1"))
    with pytest.raises(UserError, match="latin:2: byte 0xe9 at position 7 is not UTF-8; save"):
        read_qrels(tmp_path / "latin")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"q1 0 d1 1\n" * 99)[:-9])
    (tmp_path / "plain.gz").write_bytes(b"q1 0 d1 1\n")
    for name in ("cut.gz", "plain.gz"):
        with pytest.raises(UserError, match=f"{name}: the gzip data is damaged or cut off"):
            read_qrels(tmp_path / name)


@pytest.mark.skipif("RETRIEVER_DATA" not in os.environ, reason="RETRIEVER_DATA does not name the folder of real data")
@pytest.mark.parametrize(("name", "queries"), [("nfcorpus", 323), ("cranfield", 225), ("cisi", 76)])
def test_real_folders_have_the_published_number_of_queries(name: str, queries: int) -> None:
    dataset = load_dataset(Path(os.environ["RETRIEVER_DATA"]) / "eval" / name)
    assert len(dataset.queries) == len(dataset.qrels) == queries


def test_a_query_without_words_is_kept(tmp_path: Path) -> None:
    folder = beir_folder(tmp_path / "tiny", HEADER + "q4\td1\t1\n")
    with (folder / "queries.jsonl").open("a") as stream:
        stream.write('{"_id": "q4", "text": ""}\n')
    assert load_dataset(folder).queries == [Query("q4", "")]


def test_the_registry_says_where_the_query_is_no_hit(tmp_path: Path) -> None:
    assert [load_dataset(beir_folder(tmp_path / name)).exclude_self for name in ("arguana", "nfcorpus", "own")] == [
        True,
        False,
        False,
    ]


def test_judged_documents_are_listed_once() -> None:
    assert judged_documents({"q1": {"d1": 1, "d2": 0}, "q2": {"d1": 2}}) == {"d1", "d2"}


@pytest.mark.parametrize("prefix", ["hf:", "ir:"])
def test_a_prefix_without_a_name_is_refused(prefix: str) -> None:
    with pytest.raises(UserError, match=f"{prefix} names no data set"):
        load_dataset(prefix)
