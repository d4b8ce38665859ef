"""What can be indexed: a corpus by its path, or documents from Python, which may come only once."""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.corpus.corpus import Corpus, FieldNames, Record, open_corpus
from retriever.files import file_errors
from retriever.index.stored import check_document, read_stored, stored_text
from retriever.types import Document, UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["opened"]

USUAL = FieldNames()
NAME = "documents"
"""What messages call documents that come from Python, each with its number."""


@contextmanager
def opened(
    corpus: str | Path | Corpus | Iterable[Document], beside: Path, names: FieldNames = USUAL
) -> Iterator[Corpus]:
    """Give the corpus of a path, or of documents from Python.

    A corpus is read twice, first to check it. What can be iterated over once, such as a generator, is therefore written
    to a temporary file `beside` the index: memory does not grow with it. names: of the fields of a corpus.

    Raises:
        UserError: names are given for documents from Python, which have their own.
    """
    if isinstance(corpus, str | Path):
        yield open_corpus(corpus, spool=beside).named(names)
    elif isinstance(corpus, Corpus):
        yield corpus if names == USUAL else corpus.named(names)
    elif names != USUAL:
        raise UserError("id_field, text_field, title_field: documents have names of their own; leave these out")
    elif iter(corpus) is not corpus:
        yield _Documents(corpus)
    else:
        with file_errors(beside, "write"):
            beside.mkdir(parents=True, exist_ok=True)
            temporary = tempfile.TemporaryDirectory(dir=beside, prefix=".documents-")
        with temporary as folder:
            path = Path(folder) / "documents.jsonl"
            with file_errors(path, "write"), path.open("w", encoding="utf-8") as file:
                for _, document, problem in _Documents(corpus):
                    file.write(json.dumps([problem, document and stored_text(document, None)]) + "\n")
            yield _Written(path)


class _Documents(Corpus):
    """Documents that can be iterated over again and again."""

    def __init__(self, documents: Iterable[Document]) -> None:
        super().__init__(NAME, lambda: iter(()))
        self._documents = documents

    def __iter__(self) -> Iterator[Record]:
        for number, document in enumerate(self._documents, start=1):
            source = f"{NAME}:{number}"
            if not isinstance(document, Document):
                yield Record(source, None, f"found {type(document).__name__}, need retriever.Document; make one of it")
                continue
            try:
                stored_text(check_document(document), None)
            except UserError as error:
                yield Record(source, None, str(error))
            else:
                yield Record(source, document, None)


class _Written(Corpus):
    """Documents in a file of their own, as `opened` writes them."""

    def __init__(self, path: Path) -> None:
        super().__init__(NAME, lambda: iter(()))
        self._path = path

    def __iter__(self) -> Iterator[Record]:
        with self._path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                problem, text = json.loads(line)
                document = None if text is None else read_stored(self._path, text).document
                yield Record(f"{NAME}:{number}", document, problem)
