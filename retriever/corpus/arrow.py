"""Typed sources to rows of named fields: Parquet files and the `datasets` library, both through Arrow."""

from __future__ import annotations

import datetime
import decimal
import logging
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from retriever.corpus.formats import Row
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["read_hf", "read_parquet"]

PARQUET_BATCH = 256  # rows held in memory at once


def _plain(value: Any) -> Any:
    """Turn a value of Arrow into one of JSON: dates to ISO 8601, not-a-number (pandas' missing value) to None."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, (float, decimal.Decimal)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    raise TypeError(type(value).__name__)


def _typed_row(source: str, fields: dict[str, Any]) -> Row:
    plain = {}
    for name, value in fields.items():
        try:
            plain[name] = _plain(value)
        except TypeError as error:
            return Row(source, None, f"{name!r} holds {error}, need text, numbers, dates or lists of them; drop it")
    return Row(source, plain)


def read_parquet(path: Path) -> Iterator[Row]:
    """Yield the rows of a Parquet file, numbered from 1, a few hundred in memory at a time."""
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=PARQUET_BATCH):
                for fields in batch.to_pylist():
                    number += 1
                    yield _typed_row(f"{path}:row {number}", fields)
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
    except (OSError, ValueError, RuntimeError, HTTPError, DatasetsError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"hf:{name}: cannot be loaded ({reason}); give hf:NAME, hf:NAME:SPLIT or hf:NAME:CONFIG/SPLIT "
            "of a data set that the network reaches or of a local folder"
        ) from None
    finally:
        log.setLevel(level)


def _choose_split(name: str, splits: Iterable[str]) -> str:
    """Return "corpus" (as BEIR names it) or the only split there is."""
    names = sorted(splits)
    if "corpus" in names:
        return "corpus"
    if len(names) == 1:
        return names[0]
    raise UserError(f"hf:{name}: has the splits {', '.join(names)}; choose one with hf:{name}:{names[0]}")


def read_hf(name: str, split: str | None = None) -> Iterator[Row]:
    """Yield the rows of a data set of `datasets`, streamed; `split` may be SPLIT or CONFIG/SPLIT."""
    import datasets

    config, _, part = (split or "").rpartition("/")
    with _one_error(name):
        loaded = datasets.load_dataset(name, config or None, split=part or None, streaming=True)
        rows = loaded if part else loaded[_choose_split(name, loaded)]
        for number, fields in enumerate(rows, start=1):
            yield _typed_row(f"hf:{name}:row {number}", fields)
