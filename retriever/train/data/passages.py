"""The passages of a file of pairs as a corpus: each text once, under an id that is made from it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.corpus.corpus import Corpus
from retriever.corpus.formats import Row
from retriever.indexing.build import IndexingConfig, build_index, interrupted
from retriever.train.data.pairs import read_pairs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retriever.types import Encoder

__all__ = ["DOCUMENT_FIELD", "has_index", "index_passages", "passage_id"]

DOCUMENT_FIELD = "document"
"""The metadata field that says which document a passage is from, as in the file of pairs."""


def passage_id(text: str) -> str:
    """Return the id of a passage: letters and digits, the same for the same text.

    >>> passage_id("Trees make wood.")
    'pb8ad6f15385595e1dfb1'
    """
    return "p" + hashlib.sha256(text.encode()).hexdigest()[:20]


def has_index(folder: str | Path) -> bool:
    """Return whether an index is there, and was made to its end."""
    return Path(folder, "index.json").exists() and not interrupted(folder)


def index_passages(
    pairs: str | Path, folder: str | Path, encoder: Encoder, *, negatives: bool = False, progress: bool = False
) -> None:
    """Index the positives of a file of pairs (and optionally the negatives); resume where an earlier call stopped.

    An index that is finished is left as it is.

    Raises:
        UserError: the file cannot be read, or the folder holds something else or an index begun from another file.
    """
    if has_index(folder):
        return
    begun = Path(folder, "index.json").exists()
    Path(folder).parent.mkdir(parents=True, exist_ok=True)
    corpus = Corpus(str(pairs), lambda: _rows(pairs, negatives))
    build_index(
        corpus, folder, encoder=encoder, config=IndexingConfig(on_duplicate="skip"), resume=begun, progress=progress
    )


def _rows(pairs: str | Path, negatives: bool) -> Iterator[Row]:
    for record in read_pairs(pairs):
        example = record.example
        from_document = {DOCUMENT_FIELD: example.document} if example.document else {}
        yield Row(record.where, {"_id": passage_id(example.positive), "text": example.positive, **from_document})
        for text in example.negatives if negatives else ():
            yield Row(record.where, {"_id": passage_id(text), "text": text})
