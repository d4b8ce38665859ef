"""The tables of `bench compression`: as text, as Markdown, as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from retriever.files import atomic_file, file_errors
from retriever.tables import table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from retriever.bench.compression.compression import CompressionPoint
    from retriever.bench.compression.vectors import VectorPoint

__all__ = ["compression_records", "compression_text", "write_compression"]

HEADERS = {
    "dense_type": "faiss",
    "impact_scale": "scale",
    "max_terms": "max terms",
    "rows_bytes": "B rows",
    "faiss_bytes": "B faiss",
    "terms_bytes": "B terms",
    "texts_bytes": "B texts",
    "build_seconds": "build s",
    "per_second": "q/s",
    "qps": "q/s",
    "recall_10": "R@10",
    "recall_100": "R@100",
    "ndcg": "nDCG@10",
    "hybrid_ndcg": "hybrid nDCG@10",
}


def compression_records(points: Sequence[CompressionPoint] | Sequence[VectorPoint]) -> list[dict[str, Any]]:
    """Return each point as one flat mapping."""
    flat: list[dict[str, Any]] = []
    for point in points:
        values = point._asdict()
        storage, legs = values.pop("storage", None), values.pop("legs", {})
        by_leg = {
            f"{leg}_{name}": value
            for leg, one in legs.items()
            for name, value in one._asdict().items()
            if value is not None
        }
        flat.append((storage._asdict() if storage else {}) | values | by_leg)
    return flat


def compression_text(records: Sequence[Mapping[str, Any]], *, markdown: bool = False) -> str:
    """Return records of one kind as a table."""
    header = [_header(name) for name in records[0]]
    rows = [[_cell(name, value) for name, value in record.items()] for record in records]
    if not markdown:
        return table(header, rows)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _header(name: str) -> str:
    leg, _, value = name.partition("_")
    return HEADERS[name] if name in HEADERS else f"{leg} {HEADERS[value]}" if value in HEADERS else name


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "all"
    if isinstance(value, int | str):
        return str(value)
    return f"{value:.4f}" if "ndcg" in name else f"{value:.3f}" if "recall" in name else f"{value:.1f}"


def write_compression(
    folder: Path, title: str, indexes: Sequence[Mapping[str, Any]], vectors: Sequence[Mapping[str, Any]]
) -> None:
    """Write compression.json and compression.md with both tables into a folder; raise UserError if that cannot be."""
    with file_errors(folder, "write"):
        folder.mkdir(parents=True, exist_ok=True)
    tables = [compression_text(records, markdown=True) for records in (indexes, vectors) if records]
    with atomic_file(folder / "compression.json") as file:
        values = {"title": title, "indexes": list(indexes), "vectors": list(vectors)}
        file.write((json.dumps(values, indent=1) + "\n").encode())
    with atomic_file(folder / "compression.md") as file:
        file.write("\n\n".join([f"# {title}", *tables, ""]).encode())
