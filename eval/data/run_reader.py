"""Reading run files: TREC's six columns and JSON lines."""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.eval.collector import collector_paused
from retriever.files import BOM, numbered_lines
from retriever.ranking import order
from retriever.types import Ranking, ScoredDoc, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from retriever.files import Line

__all__ = ["named_jsonl", "read_run"]

LARGE = 1 << 20
"""From this size in bytes on pyarrow reads a run; importing it would take longer than a small one does."""
BLOCK = 1 << 20


class RunLine(NamedTuple):
    """One line of a run file."""

    query_id: str
    doc_id: str
    score: float


def read_run(path: str | Path) -> dict[str, Ranking]:
    """Read a TREC run (query Q0 document rank score tag) or JSON lines; a path ending in .gz is unpacked.

    JSON lines are read where the name ends in .jsonl or the first line stands in braces. The rank is not read: the
    score orders. Raises UserError with file and line for a wrong line, a repeated document, a score that is not finite.
    """
    path = Path(path)
    with collector_paused():
        if not named_jsonl(path) and path.is_file() and path.stat().st_size >= LARGE:
            with suppress(ValueError, OSError, EOFError, zlib.error):  # pyarrow's errors are ValueErrors
                return _ranked(_read_large(path))
        # Small, JSON lines, odd white space, or a fault, whose line is found here.
        return _ranked(_read_by_lines(path))


def _ranked(run: dict[str, dict[str, float]]) -> dict[str, Ranking]:
    """Put hits in order; most files have them in order already, and a sort in Python is what would take longest."""
    ranked: dict[str, Ranking] = {}
    for query_id in list(run):
        scores = run.pop(query_id)  # the whole file in both forms would take twice the memory
        ranking = list(map(ScoredDoc._make, scores.items()))
        values = np.fromiter(scores.values(), np.float64, len(scores))
        ranked[query_id] = ranking if (values[1:] < values[:-1]).all() else order(ranking)
    return ranked


def _read_large(path: Path) -> dict[str, dict[str, float]]:
    """Read a TREC run in blocks, ten times as fast as by lines; raise ValueError for whatever is out of line."""
    run: dict[str, dict[str, float]] = {}
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as stream:
        while block := stream.read(BLOCK):
            query_ids, doc_ids, scores = _columns(block + stream.readline())
            if not math.isfinite(sum(scores)):
                raise ValueError("a score that is not finite")
            start = 0
            for query_id, group in groupby(query_ids):
                stop = start + sum(1 for _ in group)
                ranking = run.setdefault(query_id, {})
                count = len(ranking) + stop - start
                ranking.update(zip(doc_ids[start:stop], scores[start:stop], strict=True))
                if len(ranking) != count:
                    raise ValueError("a document twice")
                start = stop
    return run


def _columns(block: bytes) -> tuple[list[str], list[str], list[float]]:
    """Return query ids, document ids and scores of lines of six columns, separated by one character each."""
    import pyarrow
    from pyarrow import csv

    gap, other = (b"\t", b" ") if b"\t" in block else (b" ", b"\t")
    # Where these stand, pyarrow sees other columns or lines than `_trec_line` does, or JSON begins.
    odd = (gap + gap, b"\n" + gap, gap + b"\n", other, b"\r", b"{", b"\n" + BOM)
    if any(mark in block for mark in odd) or block.startswith((gap, BOM)) or block.endswith(gap):
        raise ValueError("not plain")
    names = ["query_id", "Q0", "doc_id", "rank", "score", "tag"]
    table = csv.read_csv(
        pyarrow.py_buffer(block),
        read_options=csv.ReadOptions(column_names=names, use_threads=False),
        parse_options=csv.ParseOptions(delimiter=gap.decode(), quote_char=False),
        convert_options=csv.ConvertOptions(
            include_columns=["query_id", "doc_id", "score"],
            column_types={"query_id": pyarrow.string(), "doc_id": pyarrow.string(), "score": pyarrow.float64()},
            null_values=[],
        ),
    )
    return tuple(column.to_pylist() for column in table.columns)


def _read_by_lines(path: Path) -> dict[str, dict[str, float]]:
    run: dict[str, dict[str, float]] = {}
    for where, (query_id, doc_id, score) in _run_lines(path):
        if not math.isfinite(score):
            raise UserError(f"{where}: score {score} of document {doc_id!r} is not a finite number; remove the line")
        ranking = run.setdefault(query_id, {})
        if doc_id in ranking:
            raise UserError(
                f"{where}: document {doc_id!r} stands a second time under query {query_id!r}; keep one line"
            )
        ranking[doc_id] = score
    return run


def _run_lines(path: Path) -> Iterator[tuple[str, RunLine]]:
    parse: Callable[[Line], RunLine] | None = None
    for line in numbered_lines(path):
        if parse is None:
            braces = line.text.startswith("{") and line.text.rstrip().endswith("}")
            parse = _jsonl_line if named_jsonl(path) or braces else _trec_line
        yield line.where, parse(line)


def _trec_line(line: Line) -> RunLine:
    columns = re.split(r"[ \t]+", line.text.strip(" \t"))
    if len(columns) != 6:
        raise UserError(
            f"{line.where}: found {len(columns)} columns, need six (query Q0 document rank score tag); "
            "judgements are given after the run"
        )
    try:
        # isascii and "_": float() also reads other scripts' digits and 1_000, which no other tool does.
        score = float(columns[4]) if columns[4].isascii() and "_" not in columns[4] else None
    except ValueError:
        score = None
    if score is None:
        raise UserError(f"{line.where}: score {columns[4]!r} is not a number; column five holds the score")
    return RunLine(columns[0], columns[2], score)


def _jsonl_line(line: Line) -> RunLine:
    need = 'need {"query_id": "...", "doc_id": "...", "score": 1.0}'
    try:
        record = json.loads(line.text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{line.where}: not JSON ({error}); {need}") from None
    if not isinstance(record, dict):
        raise UserError(f"{line.where}: found a {type(record).__name__}; {need}")
    query_id, doc_id, score = record.get("query_id"), record.get("doc_id"), record.get("score")
    if not isinstance(query_id, str) or not isinstance(doc_id, str):
        raise UserError(f"{line.where}: query_id and doc_id must be strings, found {query_id!r} and {doc_id!r}; {need}")
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise UserError(f"{line.where}: score {score!r} is not a number; {need}")
    try:
        return RunLine(query_id, doc_id, float(score))
    except OverflowError:
        raise UserError(f"{line.where}: score {str(score)[:20]}... is too large for a float; {need}") from None


def named_jsonl(path: Path) -> bool:
    """Say whether a file is called one of JSON lines."""
    return path.name.removesuffix(".gz").endswith(".jsonl")
