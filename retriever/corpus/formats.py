"""Files to rows of named fields: JSONL, TSV and CSV.

A reader streams, and reports a bad line as a `Row` with a problem, so that its caller decides whether to stop there.
What makes the rest of a file unreadable (damaged gzip, a quote never closed) raises UserError.
"""

from __future__ import annotations

import csv
import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from retriever.files import INNER_BOM, OTHER_HEADS, decode, read_lines
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from retriever.streams import Readable

__all__ = [
    "Row",
    "read_csv",
    "read_jsonl",
    "read_table",
    "read_tsv",
    "suffix_of",
    "unnamed_columns",
]

LARGEST_CSV_FIELD = 2**26  # characters; the csv module's own 131,072 is less than a long article


class Row(NamedTuple):
    """One row of a source ("file:line"): its fields, or the problem that keeps it from having any."""

    source: str
    fields: dict[str, Any] | None
    problem: str | None = None


def suffix_of(path: Readable) -> str:
    """Return the suffix in lower case, together with the one before a final ".gz".

    >>> from pathlib import Path
    >>> suffix_of(Path("a/corpus.v2.JSONL.gz"))
    '.jsonl.gz'
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return "".join(suffixes[-2:]) if suffixes[-1:] == [".gz"] else "".join(suffixes[-1:])


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits} is too large for a number")
    return number


class _TwiceError(ValueError):
    """A key of a JSON object stands twice: one of its values would be lost."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in names if names.count(name) > 1))
    return fields


_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique)


def _json_row(source: str, line: bytes) -> Row:
    try:
        text = decode(line)
    except ValueError as error:
        return Row(source, None, str(error))
    try:
        fields = _decoder.decode(text)
        if "\\ud" in text or "\\uD" in text:  # a lone half of a surrogate pair is no character
            json.dumps(fields, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return Row(source, None, "an escape \\uD800-\\uDFFF stands without its other half; write the whole character")
    except _TwiceError as error:
        return Row(source, None, f"the key {str(error)!r} stands twice; keep one of them")
    except RecursionError:
        return Row(source, None, "lists or objects stand too deep inside each other; take some levels away")
    except ValueError as error:
        if "integer string conversion" in str(error):
            return Row(source, None, "holds a whole number of more than 4300 digits; put it in double quotes")
        return Row(source, None, f"not JSON ({error}); write one JSON object on each line")
    if not isinstance(fields, dict):
        return Row(source, None, f"found a JSON {type(fields).__name__}, need one JSON object on each line")
    return Row(source, fields)


def read_jsonl(path: Readable) -> Iterator[Row]:
    """Yield one row a line; blank lines are passed over."""
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            yield _json_row(f"{path}:{number}", line)


def read_table(source: str, columns: Sequence[str], cells: Sequence[str]) -> Row:
    """Pair the cells of one line with the column names; a column without a name is left out."""
    if len(cells) != len(columns):
        return Row(source, None, f"found {len(cells)} columns, the header has {len(columns)}; make them equal")
    try:
        "".join(cells).encode("utf-8")
    except UnicodeEncodeError:
        return Row(source, None, "not UTF-8; save the file as UTF-8")
    if cells[0].startswith("\ufeff"):
        return Row(source, None, INNER_BOM)
    return Row(source, {column: cell for column, cell in zip(columns, cells, strict=True) if column})


def _header(path: Readable, cells: Iterable[str]) -> list[str]:
    columns = [cell.strip() for cell in cells]
    try:
        "".join(columns).encode("utf-8")
    except UnicodeEncodeError:
        head = "".join(columns).encode("utf-8", "surrogateescape")[:2]
        raise UserError(
            f"{path}:1: {OTHER_HEADS.get(head, 'the header is not UTF-8; save the file as UTF-8')}"
        ) from None
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise UserError(f"{path}:1: the column {repeated[0]!r} stands twice in the header; give each its own name")
    return columns


def _heads_corpus(cells: Sequence[str]) -> bool:
    """Say whether the first line names the columns: MS MARCO's collection.tsv begins with document 0 instead."""
    return not (len(cells) == 2 and cells[0].isdecimal())


def read_tsv(path: Readable, is_header: Callable[[Sequence[str]], bool] = _heads_corpus) -> Iterator[Row]:
    """Yield one row a line; a quotation mark is a character like any other, as TSV has no quoting.

    is_header: whether the cells of the first line name the columns; if not, these are `id` and `text`.
    """
    columns = ["id", "text"]
    for number, line in enumerate(read_lines(path), start=1):
        cells = line.decode("utf-8", "surrogateescape").rstrip("\r\n").split("\t")
        if number == 1 and is_header(cells):
            columns = _header(path, cells)
        elif line.strip():
            yield read_table(f"{path}:{number}", columns, cells)


def read_csv(path: Readable) -> Iterator[Row]:
    """Yield one row a record after the header: commas, double quotes, line ends allowed inside quotes (RFC 4180)."""
    csv.field_size_limit(max(csv.field_size_limit(), LARGEST_CSV_FIELD))
    reader = csv.reader((line.decode("utf-8", "surrogateescape") for line in read_lines(path)), strict=True)
    columns: list[str] | None = None
    while True:
        source = f"{path}:{reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "end of data" in str(error) or "field limit" in str(error):
                raise UserError(f"{source}: a double quote opens here and never closes; close it") from None
            if "new-line character" in str(error):
                raise UserError(f"{source}: lines end in CR alone; save the file with line ends of LF") from None
            yield Row(source, None, f"not CSV ({error}); double the quotation marks inside a quoted field")
            continue
        if columns is None:
            columns = _header(path, cells)
        elif cells:
            yield read_table(source, columns, cells)


def unnamed_columns(path: Readable) -> int:
    """Return how many columns of a TSV or CSV file have no name in its header, and so are left out."""
    first = next(read_lines(path), b"").decode("utf-8", "surrogateescape").rstrip("\r\n")
    if suffix_of(path).startswith(".tsv"):
        cells = first.split("\t")
        return sum(not cell.strip() for cell in cells) if _heads_corpus(cells) else 0
    return sum(not cell.strip() for cell in next(csv.reader([first]), []))
