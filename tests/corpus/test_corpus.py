"""The survey of a corpus: its policies, its digest, and what reading costs."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever.corpus.corpus import Corpus, Record, documents, load_queries, open_corpus, survey
from retriever.types import Document, UserError
from tests.helpers.corpora import ONE, ROWS, as_csv, as_jsonl, found, write

TINY = Path(__file__).parents[1] / "data" / "tiny"


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
