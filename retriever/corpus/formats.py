"""Files to rows of named fields: JSONL, TSV, CSV and folders of text files.

A reader streams, and reports a bad line as a `Row` with a problem, so that its caller decides whether to stop there.
What makes the rest of a file unreadable (damaged gzip, a quote never closed) raises UserError.
"""

from __future__ import annotations

import csv
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from retriever.files import decode, read_lines
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = [
    "TEXT_SUFFIXES",
    "Row",
    "read_csv",
    "read_folder",
    "read_jsonl",
    "read_table",
    "read_tsv",
    "suffix_of",
    "text_files",
]

TEXT_SUFFIXES = (".txt", ".md", ".rst")
LARGEST_CSV_FIELD = 2**26  # characters; the csv module's own 131,072 is less than a long article


class Row(NamedTuple):
    """One row of a source ("file:line"): its fields, or the problem that keeps it from having any."""

    source: str
    fields: dict[str, Any] | None
    problem: str | None = None


def suffix_of(path: Path) -> str:
    """Return the suffix in lower case, together with the one before a final ".gz".

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


_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def _json_row(source: str, line: bytes) -> Row:
    try:
        text = decode(line)
    except ValueError as error:
        return Row(source, None, f"{error}; save the file as UTF-8")
    try:
        fields = _decoder.decode(text)
        if "\\ud" in text or "\\uD" in text:  # a lone half of a surrogate pair is no character
            json.dumps(fields, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return Row(source, None, "an escape \\uD800-\\uDFFF stands without its other half; write the whole character")
    except (ValueError, RecursionError) as error:
        return Row(source, None, f"not JSON ({error}); write one JSON object on each line")
    if not isinstance(fields, dict):
        return Row(source, None, f"found a JSON {type(fields).__name__}, need one JSON object on each line")
    return Row(source, fields)


def read_jsonl(path: Path) -> Iterator[Row]:
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
    return Row(source, {column: cell for column, cell in zip(columns, cells, strict=True) if column})


def _header(path: Path, cells: Iterable[str]) -> list[str]:
    columns = [cell.strip() for cell in cells]
    try:
        "".join(columns).encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{path}:1: the header is not UTF-8; save the file as UTF-8") from None
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise UserError(f"{path}:1: the column {repeated[0]!r} stands twice in the header; give each its own name")
    return columns


def _heads_corpus(cells: Sequence[str]) -> bool:
    """Say whether the first line names the columns: MS MARCO's collection.tsv begins with document 0 instead."""
    return not (len(cells) == 2 and cells[0].isdecimal())


def read_tsv(path: Path, is_header: Callable[[Sequence[str]], bool] = _heads_corpus) -> Iterator[Row]:
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


def read_csv(path: Path) -> Iterator[Row]:
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
            yield Row(source, None, f"not CSV ({error}); double the quotation marks inside a quoted field")
            continue
        if columns is None:
            columns = _header(path, cells)
        elif cells:
            yield read_table(source, columns, cells)


def _refuse_folder(error: OSError) -> NoReturn:
    raise UserError(
        f"{error.filename}: cannot be read ({error.strerror}); make the folder readable or remove it"
    ) from None


def text_files(folder: Path) -> list[str]:
    """List the text files below a folder as sorted relative paths with "/"; hidden files and folders are left out.

    Raises:
        UserError: a folder cannot be read.
    """
    found = []
    for parent, folders, names in os.walk(folder, onerror=_refuse_folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        here = Path(parent).relative_to(folder)
        found += [
            (here / name).as_posix()
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in TEXT_SUFFIXES
        ]
    return sorted(found)


def read_folder(folder: Path) -> Iterator[Row]:
    """Yield one row for each text file: `_id` is its path within the folder, `text` all of it."""
    for name in text_files(folder):
        path = folder / name
        try:
            name.encode("utf-8")
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeEncodeError:
            yield Row(ascii(str(path)), None, "the file's name is not UTF-8; rename it")
        except UnicodeDecodeError as error:
            yield Row(str(path), None, f"byte {error.start + 1} is not UTF-8; save the file as UTF-8")
        except OSError as error:
            yield Row(str(path), None, f"cannot be read ({error.strerror}); make it readable or remove it")
        else:
            yield Row(str(path), {"_id": name, "text": text})
