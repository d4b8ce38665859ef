"""Run files: TREC's six columns and JSON lines, read and written.

A ranking is ordered by (score descending, doc_id ascending). trec_eval ignores the rank column and the order of the
lines: it sorts by score, in single precision, and breaks ties by descending document id. Scores are therefore written
with all their digits, so that `read_run` gives back exactly the ranking that was written, and a system that wants to be
measured in the order that it shows passes its rankings through `retriever.ranking.separate_ties` first.
"""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from retriever.eval.data.run_reader import named_jsonl, read_run
from retriever.files import atomic_file, file_errors
from retriever.types import Ranking, Run, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

__all__ = ["RunFormat", "RunWriter", "read_run", "write_run"]

RunFormat = Literal["trec", "jsonl"]


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
        self._format: RunFormat = run_format or ("jsonl" if named_jsonl(self._path) else "trec")
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


def _require_word(path: Path, what: str, text: str) -> None:
    if text.split() != [text] or text.startswith("\ufeff"):
        raise UserError(
            f"{path}: {what} {text!r} is empty or holds white space or a byte order mark, which TREC runs cannot hold;"
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
