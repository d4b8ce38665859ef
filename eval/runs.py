"""Run files: TREC's six columns and JSON lines, read and written.

A ranking is ordered by (score descending, doc_id ascending). trec_eval ignores the rank column and the order of the
lines: it sorts by score, in single precision, and breaks ties by descending document id. Scores are therefore written
with all their digits, so that `read_run` gives back exactly the ranking that was written, and a system that wants to be
measured in the order that it shows passes its rankings through `separate_ties` first.
"""

from __future__ import annotations

import gc
import gzip
import json
import math
import re
import zlib
from contextlib import ExitStack, contextmanager
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, NamedTuple, cast

import numpy as np

from retriever.corpus_formats import BOM
from retriever.eval.files import atomic_file, file_errors, numbered_lines
from retriever.types import Ranking, Run, ScoredDoc, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

    from retriever.eval.files import Line

__all__ = ["RunFormat", "RunWriter", "ordered", "read_run", "separate_ties", "write_run"]

RunFormat = Literal["trec", "jsonl"]
BLOCK = 1 << 22  # bytes of lines split together


class RunLine(NamedTuple):
    """One line of a run file."""

    query_id: str
    doc_id: str
    score: float


def ordered(ranking: list[ScoredDoc]) -> Ranking:
    """Return a copy ordered by (score descending, doc_id ascending).

    >>> ordered([ScoredDoc("b", 1.0), ScoredDoc("c", 2.0), ScoredDoc("a", 1.0)])
    [ScoredDoc(doc_id='c', score=2.0), ScoredDoc(doc_id='a', score=1.0), ScoredDoc(doc_id='b', score=1.0)]
    """
    return sorted(ranking, key=lambda hit: (-hit.score, hit.doc_id))


def separate_ties(ranking: Ranking) -> Ranking:
    """Lower tied scores by the least that single precision can tell, so that every tool keeps the order of `ranking`.

    A system that shows tied documents in one order should not be measured in another: Anserini does the same before it
    writes a run, and only so are its published figures met (BM25 on NFCorpus: nDCG@10 0.3206 without, 0.3218 with).

    >>> [hit.score for hit in separate_ties([ScoredDoc("a", 0.5), ScoredDoc("b", 0.5)])]
    [0.5, 0.4999999701976776]
    """
    separate = []
    last = math.inf
    scores = np.array([hit.score for hit in ranking], dtype=np.float32)
    for hit, score in zip(ranking, scores.tolist(), strict=True):
        last = score if score < last else float(np.nextafter(np.float32(last), np.float32(-math.inf)))
        separate.append(ScoredDoc(hit.doc_id, last))
    return separate


def read_run(path: str | Path) -> Run:
    """Read a TREC run (query Q0 document rank score tag) or JSON lines; a path ending in .gz is unpacked.

    JSON lines are read where the name ends in .jsonl or the first line stands in braces. The rank is not read: the
    score orders. Raises UserError with file and line for a wrong line, a repeated document, a score that is not finite.
    """
    path = Path(path)
    with _no_cycles():
        try:
            return _ranked(_trec_blocks(path))
        except (ValueError, IndexError, OSError, EOFError, zlib.error):
            # JSON lines, odd white space, or a fault: read line by line, which also finds the line that is at fault.
            return _ranked(_run_by_lines(path))


@contextmanager
def _no_cycles() -> Iterator[None]:
    """Pause the garbage collector: looking for cycles among millions of new tuples takes half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _ranked(run: dict[str, dict[str, float]]) -> Run:
    """Put hits in order; most files have them in order already, and a sort in Python is what would take longest."""
    ranked: Run = {}
    for query_id, scores in run.items():
        ranking = list(map(ScoredDoc._make, scores.items()))
        values = np.fromiter(scores.values(), np.float64, len(scores))
        ranked[query_id] = ranking if (values[1:] < values[:-1]).all() else ordered(ranking)
    return ranked


def _trec_blocks(path: Path) -> dict[str, dict[str, float]]:
    """Read a TREC run block by block, much faster than by lines; raise ValueError for whatever is out of line."""
    if _named_jsonl(path):
        raise ValueError("not TREC's")
    run: dict[str, dict[str, float]] = {}
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as stream:
        while lines := cast("IO[bytes]", stream).readlines(BLOCK):
            block = b"".join(lines)
            # Of white space only spaces, tabs and line ends part columns; an id may hold the rest, and the mark of
            # UTF-8 files stands before the first id.
            if any(mark in block for mark in (b"\v", b"\f", b"\r", b"{", BOM)):
                raise ValueError("not plain")
            for query_id, group in groupby(map(bytes.split, lines), key=itemgetter(0)):
                _, _, doc_ids, _, scores, _ = zip(*group, strict=True)
                values = list(map(float, scores))
                if b"_" in b"".join(scores) or not all(map(math.isfinite, values)):  # float() reads 1_000 as well
                    raise ValueError("not a number, or not a finite one")
                ranking = run.setdefault(query_id.decode(), {})
                count = len(ranking) + len(doc_ids)
                ranking.update(zip(map(bytes.decode, doc_ids), values, strict=True))
                if len(ranking) != count:
                    raise ValueError("a document twice")
    return run


def _run_by_lines(path: Path) -> dict[str, dict[str, float]]:
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


def write_run(
    path: str | Path, run: Run, tag: str = "retriever", *, run_format: RunFormat | None = None, overwrite: bool = True
) -> None:
    """Write a whole run to a file; see RunWriter."""
    with RunWriter(path, tag, run_format=run_format, overwrite=overwrite) as writer:
        for query_id, ranking in run.items():
            writer.write(query_id, ranking)


class RunWriter:
    """Writes a run query by query; the file appears, whole, when the `with` block ends without an error.

    The format is JSON lines where the name ends in .jsonl (or .jsonl.gz) and TREC otherwise, unless told.
    A query without hits leaves no line, as in every TREC run: evaluation counts it as missing.
    """

    def __init__(
        self,
        path: str | Path,
        tag: str = "retriever",
        *,
        run_format: RunFormat | None = None,
        overwrite: bool = True,
    ) -> None:
        self._path = Path(path)
        self._tag = tag
        self._format: RunFormat = run_format or ("jsonl" if _named_jsonl(self._path) else "trec")
        if self._format == "trec":
            _require_word(self._path, "tag", tag)
        self._overwrite = overwrite
        self._written: set[str] = set()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stream: IO[bytes] = self._stack.enter_context(atomic_file(self._path, overwrite=self._overwrite))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def write(self, query_id: str, ranking: Ranking) -> None:
        """Write the hits of one query, best first; raise UserError for a ranking or an id that the file cannot hold."""
        if query_id in self._written:
            raise UserError(f"{self._path}: query {query_id!r} is written a second time; give each query once")
        self._written.add(query_id)
        _require_ranking(self._path, query_id, ranking)
        lines = self._jsonl(query_id, ranking) if self._format == "jsonl" else self._trec(query_id, ranking)
        try:
            data = "".join(lines).encode()
        except UnicodeEncodeError:
            raise UserError(
                f"{self._path}: an id of query {query_id!r} has no UTF-8 form; "
                "write JSON lines (a name that ends in .jsonl)"
            ) from None
        with file_errors(self._path, "write"):
            self._stream.write(data)

    def _trec(self, query_id: str, ranking: Ranking) -> Iterator[str]:
        _require_word(self._path, "query id", query_id)
        for rank, (doc_id, score) in enumerate(ranking, start=1):
            _require_word(self._path, "document id", doc_id)
            # float() because NumPy's scalars print their type; repr is the shortest text that reads back the same.
            yield f"{query_id} Q0 {doc_id} {rank} {float(score)!r} {self._tag}\n"

    def _jsonl(self, query_id: str, ranking: Ranking) -> Iterator[str]:
        for rank, (doc_id, score) in enumerate(ranking, start=1):
            record = {"query_id": query_id, "doc_id": doc_id, "rank": rank, "score": float(score)}
            yield json.dumps(record) + "\n"


def _named_jsonl(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith(".jsonl")


def _require_word(path: Path, what: str, text: str) -> None:
    if text.split() != [text]:
        raise UserError(
            f"{path}: {what} {text!r} is empty or holds white space, which a TREC run cannot write;"
            " write JSON lines (a name that ends in .jsonl)"
        )


def _require_ranking(path: Path, query_id: str, ranking: Ranking) -> None:
    if not all(math.isfinite(hit.score) for hit in ranking):
        raise UserError(f"{path}: query {query_id!r} has a score that is not a finite number; scores must be finite")
    keys = [(-float(hit.score), hit.doc_id) for hit in ranking]
    if any(after <= before for before, after in pairwise(keys)):
        raise UserError(
            f"{path}: the hits of query {query_id!r} are not ordered by (score descending, doc_id ascending),"
            " each document once; order them first"
        )
    if len({hit.doc_id for hit in ranking}) != len(ranking):
        raise UserError(f"{path}: query {query_id!r} has a document twice; give each document once")


def _run_lines(path: Path) -> Iterator[tuple[str, RunLine]]:
    parse: Callable[[Line], RunLine] | None = None
    for line in numbered_lines(path):
        if parse is None:
            braces = line.text.startswith("{") and line.text.rstrip().endswith("}")
            parse = _jsonl_line if _named_jsonl(path) or braces else _trec_line
        yield line.where, parse(line)


def _trec_line(line: Line) -> RunLine:
    columns = re.split(r"[ \t]+", line.text.strip(" \t"))
    if len(columns) != 6:
        raise UserError(f"{line.where}: found {len(columns)} columns, need six (query Q0 document rank score tag)")
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
