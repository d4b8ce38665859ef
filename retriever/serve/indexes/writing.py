"""Changing a served index: one request is one commit, and its answer comes when searches see it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from retriever.corpus.corpus import Corpus
from retriever.corpus.formats import Row, read_jsonl
from retriever.index.lock import LockedError, patience
from retriever.indexing.build import IndexingConfig
from retriever.indexing.writer import IndexWriter, add_corpus
from retriever.serve.problems import ProblemError
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from retriever.serve.indexes.opened import ServedIndex

__all__ = ["add_documents", "delete_documents", "listed", "streamed"]

T = TypeVar("T")
NAME = "documents"
"""What messages call the documents of a request, each with its number."""
LOCK_SECONDS = 30.0
"""How long to stand in line while another process writes to the index."""
WHOLE = 2**62
"""Documents and seconds after which to commit: not before the end."""


def streamed(path: Path) -> Corpus:
    """Return the documents of a file with a JSON object a line."""

    def rows() -> Iterator[Row]:
        for row in read_jsonl(path):
            yield row._replace(source=f"{NAME}:{row.source.rpartition(':')[2]}")

    return Corpus(NAME, rows)


def listed(path: Path) -> Corpus:
    """Return the documents of a file that holds {"documents": [...]}.

    Raises:
        UserError: it does not.
    """
    try:
        values = json.loads(path.read_bytes(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise UserError(f'the body is not JSON ({error}); send {{"documents": [...]}}') from None
    found = values.get(NAME) if isinstance(values, dict) and set(values) == {NAME} else None
    if not isinstance(found, list):
        raise UserError('the body has no list of documents; send {"documents": [...]} and nothing beside it')

    def rows() -> Iterator[Row]:
        for number, fields in enumerate(found, start=1):
            source = f"{NAME}:{number}"
            if isinstance(fields, dict):
                yield Row(source, fields)
            else:
                yield Row(source, None, f"found a JSON {type(fields).__name__}, need a JSON object; write one")

    return Corpus(NAME, rows)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def add_documents(index: ServedIndex, corpus: Corpus, on_duplicate: str, on_bad: str) -> dict[str, Any]:
    """Add documents, or replace those whose ids are there, all in one commit; return what was done."""
    config = IndexingConfig(
        on_duplicate=on_duplicate, on_bad=on_bad, commit_every_documents=WHOLE, commit_every_seconds=WHOLE
    )

    def add() -> dict[str, Any]:
        with index.use() as retriever:
            report = add_corpus(index.path, corpus, encoder=retriever.encoder, config=config)
        values = report._asdict()
        del values["left_out"]
        return values

    return _changed(index, add)


def delete_documents(index: ServedIndex, ids: Sequence[str]) -> dict[str, Any]:
    """Delete documents; return how many were there, and how many not."""
    asked = set(ids)

    def delete() -> dict[str, Any]:
        with IndexWriter.open(index.path) as writer:
            deleted = writer.delete(asked)
            if deleted:
                writer.commit()
            return {"deleted": deleted, "unknown": len(asked) - deleted, "documents": len(writer)}

    return _changed(index, delete)


def _changed(index: ServedIndex, change: Callable[[], T]) -> T:
    """Make a change when no other process writes to the index, and let searches see it."""
    with index.writing:
        try:
            with patience(LOCK_SECONDS):
                done = change()
        except LockedError:
            raise ProblemError(
                503,
                "locked",
                f"{index.name}: another process writes to it; try again later",
                {"retry-after": "10"},
            ) from None
        index.refresh()
        return done
