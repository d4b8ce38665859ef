"""Relevance judgements: BEIR's three columns and TREC's four."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retriever.files import numbered_lines
from retriever.types import Qrels, UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from retriever.files import Line

__all__ = [
    "JudgedFile",
    "Judgement",
    "collect",
    "judged_documents",
    "judgements",
    "parse_grade",
    "read_judgements",
    "read_qrels",
]

# trec_eval keeps a table with one entry per grade: a grade of 300 million takes it 2 GB.
LARGEST_GRADE = 1_000_000
USUAL = "0"
"""The second column of TREC qrels without subtopics."""


class Judgement(NamedTuple):
    """One line of judgements; `where` is "FILE:NUMBER"."""

    where: str
    query_id: str
    doc_id: str
    grade: int
    subtopic: str = USUAL


def read_qrels(path: str | Path) -> Qrels:
    """Read judgements: BEIR's TSV (query-id, corpus-id, score under a header) or TREC qrels (query 0 document grade).

    The first line decides: three columns between tabs are BEIR's, four columns are TREC's. The path may end in .gz.
    A repeated line is taken once; the same pair with another grade is an error. Where TREC's second column parts
    subtopics, a document has the highest of its grades. Raises UserError with file and line.
    """
    return collect(str(path), judgements(Path(path)))


class JudgedFile(NamedTuple):
    """What one file judges: grades by query and document, and by subtopic too if requested."""

    qrels: Qrels
    subtopics: dict[str, dict[str, dict[str, int]]] | None


def read_judgements(path: str | Path, *, subtopics: bool) -> JudgedFile:
    """Read judgements once, as `read_qrels` does; `subtopics`: by TREC's second column too, for diversity measures."""
    if not subtopics:
        return JudgedFile(read_qrels(path), None)
    found = list(judgements(Path(path)))
    by_query: dict[str, dict[str, dict[str, int]]] = {}
    for _, query_id, doc_id, grade, subtopic in found:
        by_query.setdefault(query_id, {}).setdefault(doc_id, {})[subtopic] = grade
    return JudgedFile(collect(str(path), found), by_query)


def collect(source: str, found: Iterable[Judgement]) -> Qrels:
    """Return judgements by query and document; raise UserError for none, and for a pair with two grades."""
    qrels: Qrels = {}
    parts: dict[tuple[str, str, str], int] = {}
    for where, query_id, doc_id, grade, subtopic in found:
        grades = qrels.setdefault(query_id, {})
        if subtopic == USUAL:
            before = grades.setdefault(doc_id, grade)
        else:
            before = parts.setdefault((query_id, doc_id, subtopic), grade)
            grades[doc_id] = max(grades.get(doc_id, grade), grade)
        if before != grade:
            raise UserError(
                f"{where}: query {query_id!r} and document {doc_id!r} have grade {grade} here and {before} before;"
                " keep one of the two lines"
            )
    if not qrels:
        raise UserError(f"{source}: no judgements; give lines of query, document and grade")
    return qrels


def judged_documents(qrels: Qrels) -> set[str]:
    """Return the ids of all documents that are judged for some query."""
    return {doc_id for grades in qrels.values() for doc_id in grades}


def judgements(path: Path) -> Iterator[Judgement]:
    """Yield the judgements of a file in order; see `read_qrels`."""
    lines = numbered_lines(path)
    first = next(lines, None)
    if first is None:
        return
    beir = first.text.count("\t") == 2
    if not (beir and first.text.split("\t")[2].strip().lower() == "score"):
        lines = chain([first], lines)
    parse = _beir_judgement if beir else _trec_judgement
    yield from map(parse, lines)


def _beir_judgement(line: Line) -> Judgement:
    columns = [column.strip() for column in line.text.split("\t")]
    if len(columns) != 3 or not all(columns[:2]):
        raise UserError(f"{line.where}: found {len(columns)} columns, need query-id, corpus-id and score between tabs")
    return Judgement(line.where, columns[0], columns[1], parse_grade(line.where, columns[2]))


def _trec_judgement(line: Line) -> Judgement:
    columns = re.split(r"[ \t]+", line.text.strip(" \t"))
    if len(columns) != 4:
        raise UserError(
            f"{line.where}: found {len(columns)} columns, need TREC's four (query 0 document grade)"
            " or BEIR's three between tabs under the header query-id, corpus-id, score"
        )
    subtopic = USUAL if columns[1] == "Q0" else columns[1]
    return Judgement(line.where, columns[0], columns[2], parse_grade(line.where, columns[3]), subtopic)


def parse_grade(where: str, text: str) -> int:
    """Return a whole-numbered grade; raise UserError for anything else."""
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise UserError(f"{where}: grade {text!r} is not an integer; grades are whole numbers such as 0, 1, 2")
    grade = int(text)
    if abs(grade) > LARGEST_GRADE:
        raise UserError(f"{where}: grade {grade} is out of range; use grades from -{LARGEST_GRADE} to {LARGEST_GRADE}")
    return grade
