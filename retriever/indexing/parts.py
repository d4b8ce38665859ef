"""A corpus cut into parts, one for each shard: files of one document a line, which are read from any line on."""

from __future__ import annotations

import json
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING

from retriever.corpus.corpus import NumberedDocument
from retriever.files import file_errors
from retriever.index.files import sync_path
from retriever.index.stored import read_stored, stored_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

__all__ = ["cut", "read_part"]


def cut(stream: Iterable[NumberedDocument], files: Sequence[Path]) -> list[int]:
    """Deal documents out, one file after the other; return how many each has. The files are durable then."""
    counts = [0] * len(files)
    with ExitStack() as opened:
        opened.enter_context(file_errors(files[0].parent, "write"))
        parts = [opened.enter_context(file.open("w", encoding="utf-8")) for file in files]
        for number, (_, document) in enumerate(stream):
            own = number % len(parts)
            parts[own].write(json.dumps(stored_text(document, None)) + "\n")
            counts[own] += 1
    for file in files:
        sync_path(file)
    sync_path(files[0].parent)
    return counts


def read_part(file: Path, start: int = 0) -> Iterator[NumberedDocument]:
    """Yield the documents of a part from line `start` on, each with the number of its line."""
    with file_errors(file, "read"), file.open(encoding="utf-8") as lines:
        for number, line in enumerate(islice(lines, start, None), start):
            yield NumberedDocument(number, read_stored(file, json.loads(line)).document)
