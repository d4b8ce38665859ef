"""What a Lucene commit says about the rest of the folder: the record that makes all of it one transaction."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from retriever.index.files import damaged
from retriever.index.postings.blocks import BlockFile
from retriever.index.vectors.rows import RowMark

__all__ = ["CommitRecord", "parse_commit"]

KEY = "retriever"
START = RowMark()
BLOCKS = ("sparse_files", "bm25_files")


@dataclass(frozen=True)
class CommitRecord:
    """The state of an index at one commit.

    number: counts the commits. rows_folder, live_file, dense_file: paths inside the index folder ("" for none).
    mark: how far the row files reach. dense_choice: the FAISS type chosen ("auto" too), dense_type: what it came to.
    dense_rows: rows that the FAISS file covers. sparse_files: the blocks of postings, none in older indexes.
    bm25_files: those of the postings of words, none in older ones.
    documents, empty, truncated: live documents; those without text; those longer than the encoder reads.
    unread: live rows (chunks) with text but without a vector: the encoder cannot read them. 0 without a dense view.
    *_crc: CRC-32 of the files; settings_crc is that of index.json.
    note: the caller's own words, such as a position in the input.
    """

    number: int = 0
    settings_crc: int = 0
    rows_folder: str = "rows"
    mark: RowMark = START
    live_file: str = ""
    live_crc: int = 0
    dense_choice: str = "auto"
    dense_type: str = "flat"
    dense_file: str = ""
    dense_rows: int = 0
    dense_crc: int = 0
    sparse_files: tuple[BlockFile, ...] = ()
    bm25_files: tuple[BlockFile, ...] = ()
    documents: int = 0
    empty: int = 0
    truncated: int = 0
    unread: int = 0
    note: Mapping[str, str] = field(default_factory=dict)

    def user_data(self) -> dict[str, str]:
        """Return the record as Lucene keeps it."""
        values = dataclasses.asdict(self) | {"mark": self.mark._asdict(), "note": dict(self.note)}
        return {KEY: json.dumps(values, ensure_ascii=False)}


def parse_commit(folder: Path, user_data: Mapping[str, str]) -> CommitRecord:
    """Read a record back; raise UserError if this Lucene commit is not one of ours."""
    try:
        values = json.loads(user_data[KEY])
        files = {name: tuple(BlockFile(*file) for file in values.get(name, ())) for name in BLOCKS}
        return CommitRecord(**values | files | {"mark": RowMark(**values["mark"])})
    except (KeyError, TypeError, ValueError):
        raise damaged(folder, "retriever did not write its last commit") from None


UNFINISHED = "unfinished"
"""Stands in the note of a commit that more documents of the same corpus follow."""


def unfinished(commit: CommitRecord) -> bool:
    """Return whether a commit was made before the end of its corpus."""
    return commit.number == 0 or UNFINISHED in commit.note
