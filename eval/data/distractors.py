"""Passages that answer no query of a data set, from files of texts without ids."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.files import numbered_lines
from retriever.types import Document, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["PREFIX", "read_distractors"]

PREFIX = "distractor-"
TEXT_KEYS = ("text", "contents", "positive")


def read_distractors(paths: Sequence[Path]) -> Iterator[Document]:
    """Yield the different texts of JSONL files (.gz too) as documents "distractor-0", "distractor-1", ...

    The text is the first of `text`, `contents` and, as in training files, `positive`; blank ones are passed over.
    Raises UserError with file and line for a record without text.
    """
    seen: set[bytes] = set()  # digests: a fifth of the texts themselves
    for path in paths:
        for line in numbered_lines(path):
            document = _document(line.where, line.text, f"{PREFIX}{len(seen)}")
            digest = hashlib.blake2b(document.contents.encode(errors="replace"), digest_size=16).digest()
            if document.contents and digest not in seen:
                seen.add(digest)
                yield document


def _document(where: str, line: str, doc_id: str) -> Document:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f'{where}: not JSON ({error}); need {{"text": "..."}}') from None
    found = record if isinstance(record, dict) else {}
    text = next((found[key] for key in TEXT_KEYS if isinstance(found.get(key), str)), None)
    if text is None:
        keys = ", ".join(map(repr, found)) or f"a {type(record).__name__}"
        raise UserError(f"{where}: found {keys}, need a string under {' or '.join(TEXT_KEYS)}")
    title = found.get("title")
    return Document(doc_id, text, title if isinstance(title, str) else "")
