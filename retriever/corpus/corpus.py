"""A corpus as a stream of documents: opening it in any form, surveying it once, reading it from any record on."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import sys
from contextlib import nullcontext
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from retriever.corpus.addresses import RemoteFile, files_named, reading, several
from retriever.corpus.arrow import read_hf, read_parquet
from retriever.corpus.formats import Row, read_csv, read_jsonl, read_tsv, suffix_of, unnamed_columns
from retriever.corpus.ir_datasets import read_ir
from retriever.corpus.left_out import LeftOut, counted, left_out_text
from retriever.corpus.queries import load_queries
from retriever.corpus.text_folder import TEXT_SUFFIXES, read_folder, text_folder
from retriever.streams import STANDARD, Readable, is_stream, spooled
from retriever.types import Document, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Self

__all__ = [
    "Corpus",
    "FieldNames",
    "NumberedDocument",
    "Record",
    "Survey",
    "documents",
    "load_queries",
    "open_corpus",
    "survey",
]

ID_KEYS = ("_id", "id", "doc_id", "docid", "docno")
TEXT_KEYS = ("text", "contents", "abstract")
TITLE_KEY = "title"
NO_CORPUS = re.compile(r"queries|qrels|readme|licen[cs]e|corpus\.jsonl(\.gz)?$", re.IGNORECASE)
"""Files of a BEIR folder that are not left out of its corpus; corpus.jsonl may lie there packed, too."""
FOLDER_FILES = ("corpus.jsonl", "corpus.jsonl.gz")
"""The corpus of a BEIR folder is the first of these."""
LONGEST_ID = 32_766
"""In UTF-8 bytes: what Lucene takes as one term."""
READERS: dict[str, Callable[[Readable], Iterator[Row]]] = {
    ".jsonl": read_jsonl,
    ".jsonl.gz": read_jsonl,
    ".tsv": read_tsv,
    ".tsv.gz": read_tsv,
    ".csv": read_csv,
    ".csv.gz": read_csv,
    ".parquet": read_parquet,
}
ON_DUPLICATE = ("error", "skip", "replace")
ON_BAD = ("error", "skip")


class Record(NamedTuple):
    """One record of a corpus and where it stands ("file:line"): a document, or the problem with it."""

    source: str
    document: Document | None
    problem: str | None


class FieldNames(NamedTuple):
    """The fields that hold a record's id, text and title; None for the usual names, see `open_corpus`."""

    id: str | None = None
    text: str | None = None
    title: str | None = None


class Corpus:
    """The records of one source; each iteration reads it from the start and holds one record at a time."""

    def __init__(
        self, spec: str, rows: Callable[[], Iterator[Row]], left_out: Callable[[], list[LeftOut]] = list
    ) -> None:
        """Wrap `rows`; left_out: says what the source holds that is no record, such as files of another suffix."""
        self.spec = spec
        self._rows = rows
        self._left_out = left_out
        self._names = FieldNames()

    def __repr__(self) -> str:
        return f"Corpus({self.spec!r})"

    def named(self, names: FieldNames) -> Self:
        """Return the same source, read by these names of its fields."""
        other = copy.copy(self)
        other._names = names
        return other

    @property
    def left_out(self) -> list[LeftOut]:
        """Return what the source holds and is no record of it: files and columns, counted by kind."""
        return self._left_out()

    def __iter__(self) -> Iterator[Record]:
        for row in self._rows():
            if row.fields is None:
                yield Record(row.source, None, row.problem)
                continue
            try:
                yield Record(row.source, _document(row.fields, self._names), None)
            except ValueError as error:
                yield Record(row.source, None, str(error))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _either(keys: Sequence[str]) -> str:
    """Say which one of some names is needed, as people say it."""
    return " or ".join(filter(None, (", ".join(keys[:-1]), keys[-1])))


def _key(fields: dict[str, Any], keys: Sequence[str], role: str, chosen: str | None) -> str:
    """Return the field that was chosen for a role, or else the first of the usual ones."""
    for key in keys if chosen is None else [chosen]:
        if key in fields:
            return key
    found = ", ".join(map(str, fields)) or "no field"
    if chosen is not None:
        raise ValueError(f"no field {chosen!r}: found {_shown(found)}; name one of these with --{role}-field")
    raise ValueError(
        f"no {role}: found {_shown(found)}, need a field named {_either(keys)}; add it, or name one with --{role}-field"
    )


def _text(key: str, value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        remedy = "join its items into one" if isinstance(value, (list, dict)) else "put it in double quotes"
        raise ValueError(f"{key!r} is {_shown(value)}, need a string or null; {remedy}")
    return value


def _document(fields: dict[str, Any], names: FieldNames) -> Document:
    """Build a document from the fields of a row; raise ValueError that says what is wrong with them."""
    id_key = _key(fields, ID_KEYS, "id", names.id)
    text_key = _key(fields, TEXT_KEYS, "text", names.text)
    title_key = names.title or TITLE_KEY
    doc_id = fields[id_key]
    if isinstance(doc_id, int) and not isinstance(doc_id, bool):
        doc_id = str(doc_id)
    if not isinstance(doc_id, str):
        raise ValueError(
            f"the id {id_key!r} is {_shown(doc_id)}, need a string or a whole number; put it in double quotes"
        )
    if not doc_id.strip():
        raise ValueError(f"the id {id_key!r} is empty, need a string with at least one character; give it one")
    if len(doc_id) > LONGEST_ID // 4 and len(doc_id.encode()) > LONGEST_ID:
        raise ValueError(f"the id {_shown(doc_id)} is longer than {LONGEST_ID} bytes; give it a shorter one")
    return Document(
        doc_id,
        _text(text_key, fields[text_key]),
        _text(title_key, fields.get(title_key)),
        _metadata(fields, (id_key, text_key, title_key)),
    )


def _metadata(fields: dict[str, Any], used: Sequence[str]) -> dict[str, Any]:
    """Return the other fields; those of BEIR's `metadata` object stand beside them, so that filters can name them."""
    found = {key: value for key, value in fields.items() if key not in used}
    if isinstance(found.get("metadata"), dict):
        found = found.pop("metadata") | found
    return found


def open_corpus(spec: str | Path, *, spool: Path | None = None) -> Corpus:
    """Open a BEIR folder, a JSONL, TSV, CSV or Parquet file, a folder of text files, "hf:NAME[:SPLIT]" or "ir:ID".

    Several files are named by a pattern ("parts/*.jsonl.gz"), and read in the order of their names. Files and BEIR
    folders in object stores have addresses ("s3://bucket/parts/*.parquet"), as fsspec takes them.
    Fields: the id is the first of `_id`, `id`, `doc_id`, `docid`, `docno`, the text the first of `text`, `contents`,
    `abstract`, unless `Corpus.named` says others;
    `title` may be missing or null, the text may be empty or null; all other fields are metadata.
    An id is a string, or a whole number, which becomes its decimal text.
    What can be read only once ("-" for standard input, pipes) is copied to a temporary file in the folder `spool` (the
    system's by default) when it is first read; JSONL or Parquet, packed or not, where no suffix says what it is.

    Raises:
        UserError: nothing is there, or it has none of these forms. What is inside is found by `survey`.
    """
    if several(spec):
        return _open_files(str(spec), files_named(spec, FOLDER_FILES))
    if isinstance(spec, str) and spec.startswith("hf:"):
        name, split = _hf_name(spec.removeprefix("hf:"))
        return Corpus(spec, partial(read_hf, name, split))
    if isinstance(spec, str) and spec.startswith("ir:"):
        return Corpus(spec, partial(read_ir, spec.removeprefix("ir:")))
    try:
        return _open_path(Path(spec), spool)
    except OSError as error:
        raise UserError(
            f"{spec}: cannot be read ({error.strerror}); give the path of a readable file or folder"
        ) from None


def _open_files(spec: str, files: Sequence[Readable]) -> Corpus:
    readers = [(file, _reader(file)) for file in files]

    def rows() -> Iterator[Row]:
        for file, reader in readers:
            with reading(file) if isinstance(file, RemoteFile) else nullcontext():
                yield from reader(file)

    def left_out() -> list[LeftOut]:
        with reading(spec):
            return [kind for file in files for kind in _columns_left_out(file)]

    return Corpus(spec, rows, left_out)


def _open_path(path: Path, spool: Path | None) -> Corpus:
    if path.is_dir():
        return _open_folder(path, spool)
    if str(path) != STANDARD and not path.exists():
        raise UserError(f"{path}: no such corpus; give the path of a file or folder, an address, hf:NAME or ir:ID")
    if is_stream(path):
        return _open_stream(path, spool)
    return Corpus(str(path), partial(_reader(path), path), partial(_columns_left_out, path))


def _open_stream(path: Path, spool: Path | None) -> Corpus:
    source = cache(partial(spooled, path, spool))  # copied when it is first read
    return Corpus(str(path), lambda: _reader(source())(source()), lambda: _columns_left_out(source()))


def _reader(source: Readable) -> Callable[[Readable], Iterator[Row]]:
    reader = READERS.get(suffix_of(source))
    if reader is None:
        raise UserError(
            f"{source}: cannot tell the format from the suffix {suffix_of(source)!r}; "
            f"allowed: {', '.join(READERS)}, a BEIR folder, a folder of {', '.join(TEXT_SUFFIXES)} files, hf:NAME"
        )
    return reader


def _columns_left_out(source: Readable) -> list[LeftOut]:
    count = unnamed_columns(source) if suffix_of(source).startswith((".csv", ".tsv")) else 0
    return [LeftOut("columns without a name", count, str(source))] if count else []


def _hf_name(rest: str) -> tuple[str, str | None]:
    """Part NAME from SPLIT; the name of a local folder may contain a colon."""
    name, colon, split = rest.rpartition(":")
    if not colon or Path(rest).exists():
        name, split = rest, ""
    if not name:
        raise UserError("hf:: no name of a data set; give hf:NAME or hf:NAME:SPLIT")
    return name, split or None


def _open_folder(folder: Path, spool: Path | None) -> Corpus:
    for name in FOLDER_FILES:
        path = folder / name
        if path.exists():
            opened = _open_path(path, spool)
            return Corpus(str(folder), opened._rows, partial(_beside, path))
    if (folder / "qrels").is_dir() or (folder / "queries.jsonl").exists():
        raise UserError(f"{folder}: a BEIR folder without corpus.jsonl or corpus.jsonl.gz; add one of them")
    texts = text_folder(folder)
    if not texts.files:
        found = f" ({shown})" if (shown := left_out_text(texts.left_out)) else ""
        raise UserError(
            f"{folder}: found neither corpus.jsonl nor a {', '.join(TEXT_SUFFIXES)} file{found}; "
            "give a BEIR folder, a folder of text files or a corpus file"
        )
    return Corpus(str(folder), partial(read_folder, folder), lambda: text_folder(folder).left_out)


def _beside(corpus: Path) -> list[LeftOut]:
    """Count the files beside corpus.jsonl that could be documents, too: queries are none."""
    others = sorted(path.name for path in corpus.parent.iterdir() if path != corpus and path.is_file())
    readable = [name for name in others if suffix_of(Path(name)) in (*READERS, *TEXT_SUFFIXES)]
    return counted((f"files beside {corpus.name}", name) for name in readable if not NO_CORPUS.match(name))


class Survey(NamedTuple):
    """What one pass over a corpus found.

    documents: how many are to be indexed, `empty` of them with an empty or blank text.
    records: how many were read, `bad` and `duplicates` among them; `first_bad` is the first with its problem.
    dropped: ordinals (from 0) of the duplicates to leave out; bad records are left out too, but not listed.
    digest: SHA-256 of all records and of what is dropped; two surveys with equal digests index the same documents.
    """

    documents: int
    records: int
    bad: int
    duplicates: int
    empty: int
    first_bad: str
    dropped: frozenset[int]
    digest: str


def survey(
    corpus: Corpus,
    on_duplicate: Literal["error", "skip", "replace"] = "error",
    on_bad: Literal["error", "skip"] = "error",
    progress: bool = False,
) -> Survey:
    """Read the whole corpus once, before anything is encoded or written; keep only ids in memory.

    Of records with the same id, `skip` keeps the first and `replace` the last.

    Raises:
        UserError: the first bad record or duplicate where the policy is "error", or no document is left.
    """
    from tqdm import tqdm

    _check_policy("on-duplicate", on_duplicate, ON_DUPLICATE)
    _check_policy("on-bad", on_bad, ON_BAD)
    places: dict[str, int] = {}
    dropped: set[int] = set()
    empty: set[int] = set()
    records = bad = 0
    first_bad = ""
    digest = hashlib.sha256()
    for ordinal, (source, document, problem) in enumerate(
        tqdm(corpus, desc="survey", unit=" records", file=sys.stderr, disable=not progress)
    ):
        records += 1
        digest.update(_fingerprint(document))
        if document is None:
            if on_bad == "error":
                raise UserError(f"{source}: {problem}, or leave bad records out with --on-bad skip")
            first_bad = first_bad or f"{source}: {problem}"
            bad += 1
            continue
        if not document.text.strip():
            empty.add(ordinal)
        earlier = places.setdefault(document.doc_id, ordinal)
        if earlier == ordinal:
            continue
        if on_duplicate == "error":
            first = next(islice(corpus, earlier, None)).source
            raise UserError(
                f"{source}: the id {_shown(document.doc_id)} stands already at {first}; "
                "make ids unique, or choose --on-duplicate skip (keep the first) or replace (keep the last)"
            )
        if on_duplicate == "replace":
            places[document.doc_id] = ordinal
        dropped.add(earlier if on_duplicate == "replace" else ordinal)
    if not places:
        found = f"all {bad} records are bad, the first at {first_bad}" if bad else "holds no record"
        raise UserError(f"{corpus.spec}: {found}; give a corpus with at least one document")
    digest.update(json.dumps(sorted(dropped)).encode())
    return Survey(
        documents=len(places),
        records=records,
        bad=bad,
        duplicates=len(dropped),
        empty=len(empty - dropped),
        first_bad=first_bad,
        dropped=frozenset(dropped),
        digest=digest.hexdigest(),
    )


def _fingerprint(document: Document | None) -> bytes:
    fields = None if document is None else [*document[:3], dict(document.metadata)]
    return json.dumps(fields).encode() + b"\n"


def _check_policy(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UserError(f"{name}: found {value!r}, allowed: {', '.join(allowed)}; choose one of them")


class NumberedDocument(NamedTuple):
    """A document and the ordinal of its record in the corpus, from 0."""

    ordinal: int
    document: Document


def documents(corpus: Corpus, survey: Survey, start: int = 0) -> Iterator[NumberedDocument]:
    """Yield the documents to index from record `start` on, in the order of the corpus."""
    for ordinal, record in enumerate(islice(corpus, start, None), start):
        if record.document is not None and ordinal not in survey.dropped:
            yield NumberedDocument(ordinal, record.document)
