"""Which ways to store vectors and terms `bench compression` measures."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from retriever.indexing.build import IndexingConfig
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Storage", "StorageNames", "plan_storages", "scale_of", "storage_names"]


class Storage(NamedTuple):
    """How an index keeps its vectors and terms, see IndexingConfig."""

    rows: str
    dense_type: str
    impact_scale: int
    max_terms: int | None


def scale_of(text: str, largest: float) -> int:
    """Return the impact scale that "60" names, or "8bits": then the largest weight becomes 255 at most.

    >>> scale_of("7bits", 2.1)
    60
    """
    try:
        scale = int((2 ** int(text.removesuffix("bits")) - 1) / largest) if text.endswith("bits") else int(text)
    except ValueError:
        raise UserError(f"impacts {text!r} cannot be read; write a scale as 100, or 8bits") from None
    if scale < 1:
        raise UserError(f"impacts {text!r} would store nothing; weights go up to {largest:.2f}, give more")
    return scale


class StorageNames(NamedTuple):
    """What to choose from, in the words of the command line: impacts as in `scale_of`, max_terms None for all."""

    rows: Sequence[str]
    dense_types: Sequence[str]
    impacts: Sequence[str]
    max_terms: Sequence[int | None]


def storage_names(rows: str, dense_types: str, impacts: str, max_terms: str) -> StorageNames:
    """Read lists between commas; raise UserError for what an index does not know.

    >>> storage_names("int8", "flat,hnsw", "60,6bits", "all,64").max_terms
    (None, 64)
    """
    try:
        counts = tuple(None if count == "all" else int(count) for count in max_terms.split(","))
    except ValueError:
        raise UserError(f"max terms {max_terms!r} cannot be read; write them as all,192,64") from None
    names = StorageNames(rows.split(","), dense_types.split(","), impacts.split(","), counts)
    for row in names.rows:
        IndexingConfig(rows=row)
    for kind in names.dense_types:
        IndexingConfig(dense_type=kind)
    for count in counts:
        IndexingConfig(max_terms=count)
    return names


def plan_storages(names: StorageNames, largest: float) -> list[Storage]:
    """Return what to measure: each way to keep vectors, each scale and each number of terms, with the first of others.

    Last come the defaults of an index, so that they are measured together. largest: of all term weights.
    """
    default, scales = IndexingConfig(), [scale_of(text, largest) for text in names.impacts]
    first = Storage(names.rows[0], names.dense_types[0], scales[0], names.max_terms[0])
    found = [first._replace(rows=row, dense_type=kind) for row in names.rows for kind in names.dense_types]
    found += [first._replace(impact_scale=scale) for scale in scales]
    found += [first._replace(max_terms=count) for count in names.max_terms]
    found.append(Storage(default.rows, first.dense_type, default.impact_scale, default.max_terms))
    return list(dict.fromkeys(found))
