"""Reading files of queries."""

from __future__ import annotations

import re
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.corpus.formats import Row, read_jsonl, read_tsv, suffix_of
from retriever.files import decode, read_lines
from retriever.streams import STANDARD, Readable, Spooled, named, spooled
from retriever.types import Query, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["load_queries", "unique_queries"]

ID_KEYS = ("_id", "id", "query_id", "query-id", "qid", "queryid")
TEXT_KEYS = ("text", "query", "question")


def load_queries(path: str | Path, *, allow_empty: bool = False) -> Iterator[Query]:
    """Yield the queries of a file: JSONL, TSV (id, text; a header is optional) or plain text, each also as .gz.

    In JSONL the id is the first of `_id`, `id`, `query_id`, the text the first of `text`, `query`, `question`.
    In plain text each line is a query and its id is the line's number; blank lines are passed over everywhere.
    Whatever its name, a file that begins with <top> holds TREC topics: <num> is the id, <title> the text.
    "-" is standard input; there, and in pipes without a suffix, the first line tells the form. Whole numbers as ids
    become their decimal text.

    Raises:
        UserError: at the first bad line, repeated id or (unless allowed) empty query, which it names, or when there is
            no query.
    """
    path = Path(path)
    if str(path) != STANDARD and not path.exists():
        raise UserError(f"{path}: no such query file; give the path of a {', '.join(READERS)} file")
    source = spooled(path)
    reader = READERS.get(suffix_of(source).removesuffix(".gz"))
    if not path.is_dir():
        first = _first_line(source)
        if first.lower().startswith(b"<top>"):
            reader = _read_topics
        elif isinstance(source, Spooled) and not first.startswith(b"{") and not named(path):
            reader = READERS[".tsv" if b"\t" in first else ".txt"]
    if reader is None or path.is_dir():
        raise UserError(
            f"{path}: not a query file; give a file that ends in {', '.join(READERS)}, these with .gz, or TREC topics"
        )
    return unique_queries(str(path), reader(source), allow_empty=allow_empty)


def unique_queries(source: str, rows: Iterable[Row], *, allow_empty: bool = False) -> Iterator[Query]:
    """Yield the query of each row; raise UserError as `load_queries` does."""
    places: dict[str, str] = {}
    for row in rows:
        query = _query(row, allow_empty)
        if query.query_id in places:
            raise UserError(
                f"{row.source}: the id {query.query_id!r} stands already at {places[query.query_id]}; make ids unique"
            )
        places[query.query_id] = row.source
        yield query
    if not places:
        raise UserError(f"{source}: holds no query; give a file with at least one")


def _query(row: Row, allow_empty: bool) -> Query:
    if row.fields is None:
        raise UserError(f"{row.source}: {row.problem}")
    values = []
    for role, keys in (("id", ID_KEYS), ("text", TEXT_KEYS)):
        key = next((key for key in keys if key in row.fields), None)
        if key is None:
            raise UserError(f"{row.source}: no {role} of the query; add a field named {' or '.join(keys)}")
        value = row.fields[key]
        if role == "id" and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            need = "a string or a whole number" if role == "id" else "a string"
            raise UserError(f"{row.source}: {key!r} is {value!r}, need {need}; put it in double quotes")
        if not value.strip() and not (allow_empty and role == "text"):
            raise UserError(f"{row.source}: the {role} of the query is empty; write it or remove the line")
        values.append(value)
    return Query(*values)


def _heads_queries(cells: Sequence[str]) -> bool:
    return bool(set(cells) & set(ID_KEYS) and set(cells) & set(TEXT_KEYS))


def _read_text(path: Readable) -> Iterator[Row]:
    for number, line in enumerate(read_lines(path), start=1):
        source = f"{path}:{number}"
        try:
            text = decode(line)
        except ValueError as error:
            yield Row(source, None, str(error))
        else:
            if text.strip():
                yield Row(source, {"id": str(number), "text": text})


def _first_line(path: Readable) -> bytes:
    return next((line for line in islice(read_lines(path), 100) if line.strip()), b"").lstrip()


def _read_topics(path: Readable) -> Iterator[Row]:
    """Yield the topics of a TREC file; what stands behind a tag reaches to the next one, closing tags are optional."""
    start = 0  # the line of an open topic, 0 outside
    lines: list[str] = []
    unclosed = "a <top> without its </top>; close it"
    for number, line in enumerate(read_lines(path), start=1):
        try:
            text = decode(line).strip()
        except ValueError as error:
            yield Row(f"{path}:{number}", None, str(error))
            continue
        if text.lower() == "<top>":
            if start:
                yield Row(f"{path}:{start}", None, unclosed)
            start, lines = number, []
        elif text.lower() == "</top>":
            yield _topic(f"{path}:{start}", " ".join(lines))
            start = 0
        else:
            lines.append(text)
    if start:
        yield Row(f"{path}:{start}", None, unclosed)


def _topic(source: str, text: str) -> Row:
    found = {tag.lower(): " ".join(value.split()) for tag, value in re.findall(r"<(\w+)>([^<]*)", text)}
    if "num" not in found or "title" not in found:
        return Row(source, None, f"a topic with {', '.join(found) or 'no tag'}, need <num> and <title>; add them")
    # "Number: 301", "Topic: Falkland oil": the words of the older files' layout are no part of it.
    number, title = (re.sub(r"^(number|topic):\s*", "", found[tag], flags=re.IGNORECASE) for tag in ("num", "title"))
    return Row(source, {"id": number, "text": title})


READERS: dict[str, Callable[[Readable], Iterator[Row]]] = {
    ".jsonl": read_jsonl,
    ".tsv": partial(read_tsv, is_header=_heads_queries),
    ".txt": _read_text,
}
