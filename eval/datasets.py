"""BEIR folders and relevance judgements."""

from __future__ import annotations

import json
import re
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retriever.eval.files import numbered_lines
from retriever.types import Qrels, Query, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retriever.eval.files import Line

__all__ = ["Dataset", "load_dataset", "read_qrels"]

# trec_eval keeps a table with one entry per grade: a grade of 300 million takes it 2 GB.
LARGEST_GRADE = 1_000_000


class Dataset(NamedTuple):
    """One split of a data set: `corpus` is its file of documents, `queries` are the judged ones in file order.

    `exclude_self`: a document whose id is the query's own is no hit (ArguAna, where the queries stand in the corpus).
    """

    name: str
    corpus: Path
    queries: list[Query]
    qrels: Qrels
    exclude_self: bool = False


class Judgement(NamedTuple):
    """One line of a qrels file; `where` is "FILE:NUMBER"."""

    where: str
    query_id: str
    doc_id: str
    grade: int


def load_dataset(folder: str | Path, split: str = "test") -> Dataset:
    """Read queries and judgements of one split of a BEIR folder (corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv).

    Each file may be gzipped. Raises UserError that names what is missing or wrong, and where.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a BEIR folder (corpus.jsonl, queries.jsonl, qrels/)")
    corpus = _file_or_gz(folder / "corpus.jsonl")
    queries = _read_queries(_file_or_gz(folder / "queries.jsonl"))
    qrels_path = _split_path(folder, split)
    qrels = read_qrels(qrels_path)
    unknown = qrels.keys() - queries.keys()
    if unknown:
        found = next(judgement for judgement in _judgements(qrels_path) if judgement.query_id in unknown)
        raise UserError(
            f"{found.where}: query {found.query_id!r} is not in {folder / 'queries.jsonl'};"
            f" add it there or drop its judgements ({len(unknown)} such queries)"
        )
    judged = [query for query in queries.values() if query.query_id in qrels]
    return Dataset(folder.resolve().name, corpus, judged, qrels)


def read_qrels(path: str | Path) -> Qrels:
    """Read judgements: BEIR's TSV (query-id, corpus-id, score under a header) or TREC qrels (query 0 document grade).

    The first line decides: three columns between tabs are BEIR's, four columns are TREC's. The path may end in .gz.
    A repeated line is taken once; the same pair with another grade is an error. Raises UserError with file and line.
    """
    path = Path(path)
    qrels: Qrels = {}
    for where, query_id, doc_id, grade in _judgements(path):
        before = qrels.setdefault(query_id, {}).setdefault(doc_id, grade)
        if before != grade:
            raise UserError(
                f"{where}: query {query_id!r} and document {doc_id!r} have grade {grade} here and {before} before;"
                " keep one of the two lines"
            )
    if not qrels:
        raise UserError(f"{path}: no judgements; give lines of query, document and grade")
    return qrels


def _judgements(path: Path) -> Iterator[Judgement]:
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
    return Judgement(line.where, columns[0], columns[1], _grade(line.where, columns[2]))


def _trec_judgement(line: Line) -> Judgement:
    columns = re.split(r"[ \t]+", line.text.strip(" \t"))
    if len(columns) != 4:
        raise UserError(
            f"{line.where}: found {len(columns)} columns, need TREC's four (query 0 document grade)"
            " or BEIR's three between tabs under the header query-id, corpus-id, score"
        )
    return Judgement(line.where, columns[0], columns[2], _grade(line.where, columns[3]))


def _grade(where: str, text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise UserError(f"{where}: grade {text!r} is not an integer; grades are whole numbers such as 0, 1, 2")
    grade = int(text)
    if abs(grade) > LARGEST_GRADE:
        raise UserError(f"{where}: grade {grade} is out of range; use grades from -{LARGEST_GRADE} to {LARGEST_GRADE}")
    return grade


def _read_queries(path: Path) -> dict[str, Query]:
    queries: dict[str, Query] = {}
    for line in numbered_lines(path):
        query = _query(line)
        if query.query_id in queries:
            raise UserError(f"{line.where}: query id {query.query_id!r} stands a second time; ids must be unique")
        queries[query.query_id] = query
    return queries


def _query(line: Line) -> Query:
    try:
        record = json.loads(line.text)
    except (ValueError, RecursionError) as error:
        raise UserError(f'{line.where}: not JSON ({error}); need {{"_id": "...", "text": "..."}}') from None
    if not isinstance(record, dict):
        raise UserError(f'{line.where}: found a {type(record).__name__}, need {{"_id": "...", "text": "..."}}')
    for key in ("_id", "text"):
        if not isinstance(record.get(key), str):
            found = f"a {type(record[key]).__name__}" if key in record else f"only {', '.join(record) or 'no keys'}"
            raise UserError(f"{line.where}: need a string under {key!r}, found {found}")
    return Query(record["_id"], record["text"])


def _file_or_gz(path: Path) -> Path:
    packed = path.with_name(path.name + ".gz")
    if not path.is_file() and not packed.is_file():
        raise UserError(f"{path}: no such file; a BEIR folder holds corpus.jsonl, queries.jsonl and qrels/")
    return path if path.is_file() else packed


def _split_path(folder: Path, split: str) -> Path:
    found = {path.name.removesuffix(".gz").removesuffix(".tsv"): path for path in _split_files(folder)}
    if split not in found:
        splits = ", ".join(sorted(found)) or "none"
        raise UserError(f"{folder / 'qrels'}: no split {split!r}; splits found: {splits}")
    return found[split]


def _split_files(folder: Path) -> list[Path]:
    # The plain file comes last, so that it is the one kept where both are there.
    return [*(folder / "qrels").glob("*.tsv.gz"), *(folder / "qrels").glob("*.tsv")]
