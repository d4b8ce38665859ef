"""Reading files of queries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from retriever.corpus_formats import Row, decode, read_jsonl, read_lines, read_table, suffix_of
from retriever.types import Query, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["load_queries"]

ID_KEYS = ("_id", "id", "query_id", "query-id", "qid")
TEXT_KEYS = ("text", "query", "question")


def load_queries(path: str | Path) -> Iterator[Query]:
    """Yield the queries of a file: JSONL, TSV (id, text; a header is optional) or plain text, each also as .gz.

    In JSONL the id is the first of `_id`, `id`, `query_id`, the text the first of `text`, `query`, `question`.
    In plain text each line is a query and its id is the line's number; blank lines are passed over everywhere.

    Raises:
        UserError: at the first bad line, empty query or repeated id, which it names, or when there is no query.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such query file; give the path of a {', '.join(READERS)} file")
    reader = READERS.get(suffix_of(path).removesuffix(".gz"))
    if reader is None or path.is_dir():
        raise UserError(f"{path}: not a query file; give a file that ends in {', '.join(READERS)}, or these with .gz")
    places: dict[str, str] = {}
    for row in reader(path):
        query = _query(row)
        if query.query_id in places:
            raise UserError(
                f"{row.source}: the id {query.query_id!r} stands already at {places[query.query_id]}; make ids unique"
            )
        places[query.query_id] = row.source
        yield query
    if not places:
        raise UserError(f"{path}: holds no query; give a file with at least one")


def _query(row: Row) -> Query:
    if row.fields is None:
        raise UserError(f"{row.source}: {row.problem}")
    values = []
    for role, keys in (("id", ID_KEYS), ("text", TEXT_KEYS)):
        key = next((key for key in keys if key in row.fields), None)
        if key is None:
            raise UserError(f"{row.source}: no {role} of the query; add a field named {' or '.join(keys)}")
        value = row.fields[key]
        if not isinstance(value, str):
            raise UserError(f"{row.source}: {key!r} is {value!r}, need a string; put it in double quotes")
        if not value.strip():
            raise UserError(f"{row.source}: the {role} of the query is empty; write it or remove the line")
        values.append(value)
    return Query(*values)


def _read_tsv(path: Path) -> Iterator[Row]:
    """Yield one row a line; the first line is a header if it names both an id and a text column."""
    columns = ["id", "text"]
    for number, line in enumerate(read_lines(path), start=1):
        cells = line.decode("utf-8", "surrogateescape").rstrip("\r\n").split("\t")
        if number == 1 and set(cells) & set(ID_KEYS) and set(cells) & set(TEXT_KEYS):
            columns = cells
        elif line.strip():
            yield read_table(f"{path}:{number}", columns, cells)


def _read_text(path: Path) -> Iterator[Row]:
    for number, line in enumerate(read_lines(path), start=1):
        source = f"{path}:{number}"
        try:
            text = decode(line)
        except ValueError as error:
            yield Row(source, None, f"{error}; save the file as UTF-8")
        else:
            if text.strip():
                yield Row(source, {"id": str(number), "text": text})


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {".jsonl": read_jsonl, ".tsv": _read_tsv, ".txt": _read_text}
