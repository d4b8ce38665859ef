from __future__ import annotations

import errno
import gzip
import json
import math
import os
import re
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retriever.eval.data import run_reader
from retriever.eval.data.runs import RunFormat, RunWriter, read_run, write_run
from retriever.types import Run, ScoredDoc, UserError

# What JSON lines hold; a TREC run only those without white space, and without a byte order mark in front.
# Surrogates are what broken JSON corpora bring.
ANY_ID = st.text(min_size=1, max_size=6) | st.sampled_from(["\ud800", "a b", "\u00a0", "\x85", "{", "é"])
WORD = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6).filter(
    lambda text: text.split() == [text] and not text.startswith("\ufeff")
)
# Few values, so that ties are common, and neighbours that differ in the last bit.
SCORE = st.sampled_from([0.0, -0.0, 1.0, math.nextafter(1.0, 2.0), 1e-300, -3.5, 1e300]) | st.floats(
    allow_nan=False, allow_infinity=False
)


def runs(ids: st.SearchStrategy[str]) -> st.SearchStrategy[Run]:
    """Rankings of one to eight documents in the order that a ranking has by contract."""
    rankings = st.dictionaries(ids, SCORE, min_size=1, max_size=8).map(
        lambda scores: [ScoredDoc(d, s) for d, s in sorted(scores.items(), key=lambda item: (-item[1], item[0]))]
    )
    return st.dictionaries(ids, rankings, max_size=4)


@given(run=runs(WORD), name=st.sampled_from(["run.trec", "run.txt.gz"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_trec_run_is_read_back_exactly(tmp_path: Path, run: Run, name: str) -> None:
    write_run(tmp_path / name, run)
    assert read_run(tmp_path / name) == run


@given(run=runs(ANY_ID), name=st.sampled_from(["run.jsonl", "run.jsonl.gz", "told.txt"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_jsonl_run_is_read_back_exactly_whatever_the_ids(tmp_path: Path, run: Run, name: str) -> None:
    write_run(tmp_path / name, run, run_format="jsonl")
    assert read_run(tmp_path / name) == run


def test_the_lines_of_both_formats(tmp_path: Path) -> None:
    run: Run = {"q1": [ScoredDoc("d2", np.float32(0.1)), ScoredDoc("d1", 0.1)], "none": []}  # type: ignore[arg-type]
    write_run(tmp_path / "run.trec", run, tag="mine")
    assert (tmp_path / "run.trec").read_text() == (
        "q1 Q0 d2 1 0.10000000149011612 mine\nq1 Q0 d1 2 0.1 mine\n"  # float32(0.1) in full
    )
    write_run(tmp_path / "run.jsonl", run)
    assert [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()] == [
        {"query_id": "q1", "doc_id": "d2", "rank": 1, "score": 0.10000000149011612},
        {"query_id": "q1", "doc_id": "d1", "rank": 2, "score": 0.1},
    ]


def test_reading_orders_by_score_then_id_and_ignores_the_rank_column(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_text("q1\tQ0\tb\t1\t1\tx\nq2 Q0 a 1 1e0 x\n\nq1  Q0  c 7 2.5 x\nq1 Q0 a - 1.0 x\n")
    assert read_run(path) == {
        "q1": [ScoredDoc("c", 2.5), ScoredDoc("a", 1.0), ScoredDoc("b", 1.0)],
        "q2": [ScoredDoc("a", 1.0)],
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q Q0 d 1 1.0", "found 5 columns, need six"),
        ("q Q0 d 1 1.0 tag more", "found 7 columns, need six"),
        ("q Q0 d 1 high tag", "score 'high' is not a number"),
        ("q Q0 d 1 1_0 tag", "score '1_0' is not a number"),
        ("q Q0 d 1 \u0661 tag", "score '\u0661' is not a number"),
        ("q Q0 d 1 NaN tag", "score nan of document 'd' is not a finite number"),
        ("q Q0 d 1 -inf tag", "score -inf of document 'd' is not a finite number"),
        ("q Q0 d 1 1e999 tag", "score inf of document 'd' is not a finite number"),
        ("first Q0 d 2 0.5 tag", "document 'd' stands a second time under query 'first'"),
    ],
)
def test_a_bad_trec_line_gives_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "run.trec"
    path.write_text(f"first Q0 d 1 1.0 tag\n{line}\n")
    with pytest.raises(UserError, match=rf"run\.trec:2: {message}") as caught:
        read_run(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("7", "found a int"),
        ('{"query_id": 1, "doc_id": "d", "score": 1}', "query_id and doc_id must be strings, found 1 and 'd'"),
        ('{"query_id": "q", "score": 1}', "must be strings, found 'q' and None"),
        ('{"query_id": "q", "doc_id": "d", "score": true}', "score True is not a number"),
        ('{"query_id": "q", "doc_id": "d", "score": "1"}', "score '1' is not a number"),
        ('{"query_id": "q", "doc_id": "d", "score": NaN}', "score nan of document 'd' is not a finite number"),
        ('{"query_id": "q", "doc_id": "d", "score": 1' + "0" * 400 + "}", "is too large"),
        ('{"query_id": "first", "doc_id": "d", "score": 1}', "document 'd' stands a second time"),
    ],
)
def test_a_bad_jsonl_line_gives_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(f'{{"query_id": "first", "doc_id": "d", "rank": 1, "score": 1.0}}\n{line}\n')
    with pytest.raises(UserError, match=rf"run\.jsonl:2: .*{message}"):
        read_run(path)


LINES = st.lists(
    st.tuples(
        st.sampled_from(["q1", "q2", "q3", "{", "\ufeffq1"]),
        st.sampled_from([" ", "\t", "  ", "\v", "\u00a0"]),
        st.sampled_from(["a", "b", "c", "d", "e", "d\u00a01", "d\v1", "d\r1", "\x85"]),
        st.sampled_from(
            [
                "1.0",
                "1.0",
                "2.5",
                "-3",
                "1e3",
                "1_0",
                "nan",
                "inf",
                "high",
                "\u0661",
                "\u06611",
                "+1",
                ".5",
                "5.",
                "1e400",
                "1E-9",
                "0x1p3",
                "",
                "1e-400",
                "0.1",
                "123456789.123456789e-30",
            ]
        ),
        st.sampled_from(["tag", "tag", "tag", "", "two tags"]),
        st.sampled_from(["\n", "\n", "\r\n", "\n\n", "\n \t\n"]),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda line: (line[0], line[2]),
)


def read_by_definition(text: str) -> Run | None:
    """Return the run that a text holds, None if a line is at fault: six columns, between spaces and tabs."""
    scores: dict[str, dict[str, float]] = {}
    for line in text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n"):
        columns = [column for column in re.split("[ \t]", line) if column]
        if not line.strip():
            continue
        if line.startswith("\ufeff"):  # of a file that was joined with another
            return None
        if len(columns) != 6 or not re.fullmatch(
            r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?", columns[4], re.ASCII | re.IGNORECASE
        ):
            return None
        if columns[2] in scores.setdefault(columns[0], {}) or math.isinf(float(columns[4])):
            return None
        scores[columns[0]][columns[2]] = float(columns[4])
    return {
        query_id: [ScoredDoc(*hit) for hit in sorted(found.items(), key=lambda hit: (-hit[1], hit[0]))]
        for query_id, found in scores.items()
    }


@given(lines=LINES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@pytest.mark.parametrize("large", [0, 1 << 20])
def test_whatever_the_lines_hold_they_are_read_by_definition_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[list[str]], large: int
) -> None:
    monkeypatch.setattr(run_reader, "LARGE", large)
    text = "".join(
        gap.join([query_id, "Q0", doc_id, "1", score, tag]) + end for query_id, gap, doc_id, score, tag, end in lines
    )
    path = tmp_path / "run"
    path.write_bytes(text.encode())
    expected = read_by_definition(text)
    if expected is None:
        with pytest.raises(UserError, match=r"run:\d+: "):
            read_run(path)
    else:
        assert read_run(path) == expected


def test_a_query_may_stand_in_several_places(tmp_path: Path) -> None:
    path = tmp_path / "run.gz"
    lines = [f"q{n % 3} Q0 d{n} 1 {n % 7} x\n" for n in range(200_000)]  # several blocks
    path.write_bytes(gzip.compress("".join(lines).encode(), 1))
    expected = [ScoredDoc(f"d{n}", float(n % 7)) for n in range(1, 200_000, 3)]
    assert read_run(path)["q1"] == sorted(expected, key=lambda hit: (-hit.score, hit.doc_id))


def test_an_id_that_trec_cannot_hold_names_the_remedy_and_leaves_nothing(tmp_path: Path) -> None:
    for query_id, doc_id in [("a b", "d"), ("q", "d\t1"), ("q", ""), ("q", "\u2028"), ("q", "\ud800")]:
        with pytest.raises(UserError, match=r"ends in \.jsonl"):
            write_run(tmp_path / "run.trec", {query_id: [ScoredDoc(doc_id, 1.0)]})
    with pytest.raises(UserError, match="tag 'my run' is empty or holds white space"):
        write_run(tmp_path / "run.trec", {}, tag="my run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("ranking", "message"),
    [
        ([ScoredDoc("a", 1.0), ScoredDoc("b", 2.0)], "are not ordered"),
        ([ScoredDoc("b", 1.0), ScoredDoc("a", 1.0)], "are not ordered"),
        ([ScoredDoc("a", 1.0), ScoredDoc("a", 1.0)], "are not ordered"),
        ([ScoredDoc("a", 2.0), ScoredDoc("a", 1.0)], "has a document twice"),
        ([ScoredDoc("a", math.nan)], "not a finite number"),
        ([ScoredDoc("a", math.inf)], "not a finite number"),
    ],
)
def test_what_is_not_a_ranking_is_refused(tmp_path: Path, ranking: list[ScoredDoc], message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_run(tmp_path / "run.trec", {"q": ranking})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["run.trec", "run.trec.gz", "run.jsonl"])
def test_the_file_appears_only_when_it_is_whole(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_run(path, {"old": [ScoredDoc("d", 1.0)]})
    with pytest.raises(KeyboardInterrupt), RunWriter(path) as writer:
        writer.write("new", [ScoredDoc("d", 1.0)])
        assert list(read_run(path)) == ["old"]
        raise KeyboardInterrupt
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert list(read_run(path)) == ["old"]
    with RunWriter(path) as writer:
        writer.write("new", [ScoredDoc("d", 1.0)])
    assert list(read_run(path)) == ["new"]


@pytest.mark.parametrize("run_format", ["trec", "jsonl"])
def test_a_full_disk_is_one_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_format: RunFormat
) -> None:
    real_open = Path.open

    def full(path: Path, mode: str = "r") -> IO[bytes]:
        """Open for real, but let the bytes go to the device that is always full."""
        real_open(path, mode).close()
        return real_open(Path("/dev/full"), mode)

    monkeypatch.setattr(Path, "open", full)
    for hits in (1, 100_000):  # the error comes at the end, or in the middle of writing
        ranking = [ScoredDoc(f"d{n:06}", 1.0) for n in range(hits)]
        with pytest.raises(UserError, match=rf"run: cannot write \({os.strerror(errno.ENOSPC)}\)"):
            write_run(tmp_path / "run", {"q": ranking}, run_format=run_format)
        assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_caller_is_not_taken_for_one_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="the index"), RunWriter(tmp_path / "run"):
        raise PermissionError("the index")


def test_overwriting_is_refused_when_told_and_only_regular_files_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    write_run(path, {}, overwrite=False)
    with pytest.raises(UserError, match=r"run\.trec: exists; give another path"):
        write_run(path, {}, overwrite=False)
    with pytest.raises(UserError, match="is not a regular file"):
        write_run(tmp_path, {})
    with pytest.raises(UserError, match="no such file or folder"):
        write_run(tmp_path / "nothing" / "run", {})


def test_a_link_keeps_pointing_at_the_file_that_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("")
    (tmp_path / "link").symlink_to("real")
    write_run(tmp_path / "link", {"q": [ScoredDoc("d", 1.0)]})
    assert (tmp_path / "link").is_symlink()
    assert list(read_run(tmp_path / "real")) == ["q"]


def test_a_query_is_written_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="query 'q' is written a second time"), RunWriter(tmp_path / "run") as writer:
        writer.write("q", [])
        writer.write("q", [])


def test_an_empty_file_is_an_empty_run(tmp_path: Path) -> None:
    (tmp_path / "run.gz").write_bytes(gzip.compress(b""))
    assert read_run(tmp_path / "run.gz") == {}
