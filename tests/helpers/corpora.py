"""Corpus files of any form, and what is read of them."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

from retriever.corpus.corpus import Corpus
from retriever.types import Document

ROWS = [
    {"_id": "a", "text": "First text.", "title": "One", "lang": "en"},
    {"_id": "b", "text": 'Ein "Zitat", naïve 東京', "title": "", "lang": "de"},
]
ONE = '{"_id": "a", "text": "x"}\n'


def found(corpus: Corpus) -> list[Document]:
    """Return the documents of a corpus."""
    return [record.document for record in corpus if record.document is not None]


def problems(corpus: Corpus) -> list[str]:
    """Return what is wrong with its bad records, with their places."""
    return [f"{Path(record.source).name}: {record.problem}" for record in corpus if record.problem]


def write(path: Path, content: str | bytes) -> Path:
    """Write a file, compressed where its name says so; return its path."""
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def as_jsonl(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_csv(rows: list[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
