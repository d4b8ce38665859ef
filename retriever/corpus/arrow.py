"""Typed sources to rows of named fields: Parquet files and the `datasets` library, both through Arrow."""

from __future__ import annotations

import datetime
import decimal
import logging
import math
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.corpus.formats import Row
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from retriever.streams import Readable

__all__ = ["config_names", "read_hf", "read_parquet", "split_names"]

PARQUET_BATCH = 256  # rows held in memory at once


UNREADABLE = (ArithmeticError, AttributeError, ImportError, LookupError, RecursionError, TypeError, ValueError)
"""What is raised for a value that has no form in Python; Arrow's own errors are ValueErrors or LookupErrors."""


def _plain(value: Any) -> Any:
    """Turn a value of Arrow into one of JSON: dates to ISO 8601, not-a-number (pandas' missing value) to None.

    Raises:
        TypeError: it has no form in JSON, such as bytes or infinity.
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, (float, decimal.Decimal)):
        return _number(value)
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    raise TypeError(type(value).__name__)


def _number(value: float | decimal.Decimal) -> float | int | None:
    if math.isnan(value):
        return None
    if isinstance(value, decimal.Decimal) and value == value.to_integral_value() and value.as_tuple().exponent == 0:
        return int(value)  # a column without decimals: all digits count, as in numbers of accounts
    number = float(value)
    if math.isinf(number):
        raise TypeError("infinity")
    return number


def _typed_row(source: str, fields: Mapping[str, Any]) -> Row:
    plain = {}
    for name, value in fields.items():
        try:
            plain[name] = _plain(value)
        except TypeError as error:
            return Row(source, None, f"{name!r} holds {error}, need text, numbers, dates or lists of them; drop it")
    return Row(source, plain)


def _batch_rows(batch: Any) -> Iterator[Mapping[str, Any] | _Unreadable]:
    """Yield the rows of a batch or table of Arrow; where a value cannot be read, its row alone is lost."""
    try:
        yield from batch.to_pylist()
        return
    except UNREADABLE:
        pass
    names = batch.schema.names
    columns = [batch.column(place) for place in range(len(names))]
    for number in range(batch.num_rows):
        yield _row_of_cells(names, columns, number)


def _row_of_cells(names: list[str], columns: list[Any], number: int) -> Mapping[str, Any] | _Unreadable:
    fields = {}
    for name, column in zip(names, columns, strict=True):
        try:
            fields[name] = column[number].as_py()
        except UNREADABLE as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            return _Unreadable(
                f"{name!r} holds a {column.type} that cannot be read ({reason[:120]}); correct or drop it"
            )
    return fields


class _Unreadable(NamedTuple):
    problem: str


def _row(source: str, fields: Mapping[str, Any] | _Unreadable) -> Row:
    return Row(source, None, fields.problem) if isinstance(fields, _Unreadable) else _typed_row(source, fields)


def _refuse_repeated(source: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{source}: the column {name!r} stands twice; give each its own name")


def read_parquet(path: Readable) -> Iterator[Row]:
    """Yield the rows of a Parquet file, numbered from 1, a few hundred in memory at a time."""
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with path.open("rb") as file, pyarrow.parquet.ParquetFile(file) as table:
            _refuse_repeated(str(path), table.schema_arrow.names)
            for batch in table.iter_batches(batch_size=PARQUET_BATCH):
                for fields in _batch_rows(batch):
                    number += 1
                    yield _row(f"{path}:row {number}", fields)
    except UserError:
        raise
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a whole Parquet file ({reason}); get or write the file again") from None


@contextmanager
def _one_error(name: str) -> Iterator[None]:
    """Turn what `datasets` raises into one UserError, and keep the hub's account of its retries off the screen."""
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # httpx or httpx2, as the hub chose

    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, HTTPError, DatasetsError) as error:
        # LookupError, TypeError: names such as "a/" or "/b" are taken apart without a look at what is there.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"hf:{name}: cannot be loaded ({reason}); give hf:NAME, hf:NAME:SPLIT or hf:NAME:CONFIG/SPLIT "
            "of a data set that the network reaches or of a local folder"
        ) from None
    finally:
        log.setLevel(level)


def _choose_split(name: str, splits: Iterable[str], preferred: Sequence[str]) -> str:
    """Return the first preferred split, or the only one that there is."""
    names = sorted(splits)
    for wanted in preferred:
        if wanted in names:
            return wanted
    if len(names) == 1:
        return names[0]
    raise UserError(f"hf:{name}: has the splits {', '.join(names)}; choose one with hf:{name}:{names[0]}")


def config_names(name: str) -> list[str]:
    """Return the configurations of a data set of `datasets`."""
    import datasets

    with _one_error(name):
        return list(datasets.get_dataset_config_names(name))


def split_names(name: str, config: str) -> list[str]:
    """Return the splits of a configuration of a data set of `datasets`."""
    import datasets

    with _one_error(name):
        return list(datasets.get_dataset_split_names(name, config))


def read_hf(name: str, split: str | None = None, *, preferred: Sequence[str] = ("corpus",)) -> Iterator[Row]:
    """Yield the rows of a data set of `datasets`, streamed; `split` may be SPLIT, CONFIG/SPLIT or CONFIG/.

    preferred: the splits to take where none is named, the first that is there; else the only one.
    """
    import datasets

    config, _, part = (split or "").rpartition("/")
    with _one_error(name):
        loaded = datasets.load_dataset(name, config or None, split=part or None, streaming=True)
        rows = loaded if part else loaded[_choose_split(name, loaded, preferred)]
        number = 0
        for table in rows.with_format("arrow").iter(batch_size=PARQUET_BATCH):
            for fields in _batch_rows(table):
                number += 1
                yield _row(f"hf:{name}:row {number}", fields)
