"""Documents as they are stored: JSON texts that give the same documents back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from retriever.index.files import VERIFY, damaged
from retriever.index.lucene.writer import LONGEST_TERM
from retriever.types import Document, Span, UserError

__all__ = ["StoredDocument", "check_document", "read_stored", "stored_text"]


class StoredDocument(NamedTuple):
    """A document as it is stored, and the spans of its text that are its chunks, none in an index of whole ones."""

    document: Document
    chunks: list[Span]


def check_document(document: Document) -> Document:
    """Return a document; raise UserError for one whose parts are not of their types, or that has no id."""
    shown = _shown(document)
    fields = {
        "id": document.doc_id,
        "title": document.title,
        "text": document.text,
        "expansion": document.expansion,
    }
    for name, value in fields.items():
        if not isinstance(value, str):
            raise UserError(
                f"document {shown}: its {name} is of type {type(value).__name__}, need a string; write it as one"
            )
    if not document.doc_id.strip():
        raise UserError(f"document {shown}: its id is empty or blank, need at least one character; give it one")
    if not isinstance(document.metadata, Mapping):
        raise UserError(
            f"document {shown}: its metadata is of type {type(document.metadata).__name__}, need a mapping; give a dict"
        )
    return document


def stored_text(document: Document, chunks: Sequence[Span] | None, language: str = "") -> str:
    """Return the JSON that is stored of a document; raise UserError for one that cannot be stored.

    chunks: the spans of its text that are its chunks; None in an index of whole documents.
    language: the code of the one that it is read in; "" where all are read alike.
    """
    shown = _shown(document)
    fields = {"id": document.doc_id, "title": document.title, "text": document.text}
    try:
        parts: dict[str, object] = {} if chunks is None else {"chunks": chunks}
        parts |= {"language": language} if language else {}
        parts |= {"expansion": document.expansion} if document.expansion else {}
        raw = json.dumps(fields | {"metadata": dict(document.metadata)} | parts, ensure_ascii=False, allow_nan=False)
        raw.encode()
    except UnicodeEncodeError:
        raise UserError(f"document {shown}: holds half of a surrogate pair; write its text as valid Unicode") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"document {shown}: its metadata is no JSON ({error}); give strings, finite numbers, lists, dicts or None"
        ) from None
    if len(document.doc_id.encode()) > LONGEST_TERM:
        raise UserError(f"document {shown}...: the id is longer than {LONGEST_TERM} bytes; give it a shorter one")
    return raw


def read_stored(folder: Path | str, text: str) -> StoredDocument:
    """Read what `stored_text` wrote; raise UserError, which names the index, for anything else."""
    try:
        fields = json.loads(text)
        metadata, expansion = fields["metadata"], fields.get("expansion", "")
        document = Document(fields["id"], fields["text"], fields["title"], metadata, expansion)
        return StoredDocument(document, [Span(*span) for span in fields.get("chunks", ())])
    except (ValueError, KeyError, TypeError):
        raise damaged(folder, "a stored document cannot be read", VERIFY) from None


def _shown(document: Document) -> str:
    return ascii(document.doc_id)[:80]
