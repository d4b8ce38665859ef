"""Changing an index: add, update and delete documents, in every leg at once."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retriever.corpus.corpus import NumberedDocument, documents, survey
from retriever.encoder.of_index import load_index_encoder
from retriever.files import decode, read_lines
from retriever.index.places import open_writer
from retriever.index.stored import check_document
from retriever.indexing.build import IndexingConfig, add_batches, write_stream
from retriever.indexing.documents import opened
from retriever.indexing.expansion import expansion_of
from retriever.lazy import lazy
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from retriever.corpus.corpus import Corpus
    from retriever.corpus.left_out import LeftOut
    from retriever.encoder.runtime import RuntimeConfig
    from retriever.index import contract
    from retriever.types import Document, Encoder

__all__ = ["AddReport", "IndexWriter", "add_corpus", "read_ids"]

ADDING, POSITION = "adding", "adding_position"
"""Notes of a commit in the middle of adding a corpus: its digest, and the record to go on from."""


class IndexWriter:
    """The one writer of an index. Nothing lasts, and no reader sees it, before `commit`.

    Examples:
        ```python
        with IndexWriter.open("my-index") as writer:
            writer.add([Document("d1", "Trees make wood.")])  # an id that is there already is an update
            writer.delete(["d2"])
            writer.commit()
        ```
    """

    def __init__(
        self,
        folder: contract.IndexWriter,
        encoder: str | Encoder | None = None,
        *,
        runtime: RuntimeConfig | None = None,
    ) -> None:
        self.folder = folder
        self._encoder = encoder
        self._runtime = runtime

    @classmethod
    def open(
        cls, path: str | Path, encoder: str | Encoder | None = None, *, runtime: RuntimeConfig | None = None
    ) -> IndexWriter:
        """Open an index folder for changes; only one writer at a time may.

        encoder: where the index's encoder is, if not where it was when the index was built; it is loaded with the first
        document that is added.

        Raises:
            UserError: the folder is missing, foreign, damaged or open in another writer.
        """
        return cls(open_writer(path), encoder, runtime=runtime)

    @lazy
    def encoder(self) -> Encoder:
        """Return the encoder of the index; raise UserError if it is not there or not the same any more."""
        return load_index_encoder(self.folder.path, self.folder.settings.encoder, self._encoder, self._runtime)

    def __contains__(self, doc_id: str) -> bool:
        return doc_id in self.folder

    def __len__(self) -> int:
        return len(self.folder)

    def add(self, documents: Iterable[Document]) -> int:
        """Encode and add a stream of documents; return how many. A later one replaces an earlier one with its id.

        Raises:
            UserError: a document that cannot be stored, or an encoder that is not the one of the index.
        """
        stream = (NumberedDocument(i, document) for i, document in enumerate(map(check_document, documents)))
        return sum(added.documents for added in add_batches(self.folder, stream, self.encoder, IndexingConfig.batch))

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents; return how many there were. Unknown ids are passed over."""
        if isinstance(ids, str):
            raise TypeError(f"ids is the string {ids!r}; give a list of ids")
        return self.folder.delete(ids)

    def commit(self) -> None:
        """Make everything so far durable, and visible in every leg to readers that open or reopen from now on.

        A writer that stands in line for the index, such as a server's, has its turn before the next change.
        """
        note = self.folder.committed.note  # `retriever index --resume` finds its place in it
        kept = {key: value for key, value in note.items() if key not in (ADDING, POSITION)}
        self.folder.commit(kept)
        self.folder.renew_dense()

    def compact(self, dense_type: str | None = None) -> int:
        """Commit, without what is deleted or replaced, and build FAISS again; return how many dead rows were dropped.

        Nothing is encoded. dense_type: the FAISS type from now on, as before for None.

        Raises:
            UserError: there is no such FAISS type, or the index is damaged.
        """
        return self.folder.compact(dense_type)

    def close(self) -> None:
        """Forget what was not committed and let the next writer in."""
        self.folder.close()

    def __enter__(self) -> IndexWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AddReport(NamedTuple):
    """What was added: new documents and updated ones, what the survey left out, how many the index has now.

    truncated: of all documents of the index, those longer than the encoder reads.
    left_out: what the source holds and is no record, such as files of another suffix, by kind.
    unread: of all chunks that were added, those in a language that the encoder does not read.
    """

    added: int
    updated: int
    bad: int
    duplicates: int
    first_bad: str
    documents: int
    truncated: int
    seconds: float
    left_out: tuple[LeftOut, ...] = ()
    unread: int = 0


def add_corpus(
    folder: str | Path,
    corpus: str | Path | Corpus | Iterable[Document],
    *,
    encoder: str | Encoder | None = None,
    runtime: RuntimeConfig | None = None,
    config: IndexingConfig | None = None,
    progress: bool = False,
) -> AddReport:
    """Add a corpus to an index; a document whose id is there already replaces it.

    Every record is read and checked once before the first is encoded, so bad input changes nothing. It is committed
    in parts; the same call after an interruption goes on after the last of them.
    config: the policies among the new records, and how often to commit; the rest is the index's own.

    Raises:
        UserError: bad input, another encoder than the index was built with, or a folder that cannot be opened.
    """
    from tqdm import tqdm

    config = config or IndexingConfig()
    started = time.monotonic()
    expansion_of(config.expand)  # what cannot be imported is known before anything is done
    with IndexWriter.open(folder, encoder, runtime=runtime) as writer:
        network = writer.encoder  # refused before the survey, which may take long
        with opened(corpus, Path(folder).absolute().parent, config.field_names) as source:
            found = survey(source, config.on_duplicate, config.on_bad, progress)  # type: ignore[arg-type]  # checked there
            before = len(writer)
            note = writer.folder.committed.note
            start = int(note[POSITION]) if note.get(ADDING) == found.digest else 0
            # Where the bad records stand is not known: all of them are taken to lie behind.
            done = max(0, start - found.bad - sum(ordinal < start for ordinal in found.dropped))
            with tqdm(
                total=found.documents, initial=done, desc="add", unit=" docs", file=sys.stderr, disable=not progress
            ) as bar:
                written = write_stream(
                    writer.folder,
                    documents(source, found, start),
                    network,
                    config,
                    lambda position: {**note, ADDING: found.digest, POSITION: str(position)},
                    bar.update,
                )
                bar.set_description("commit")
                writer.commit()
        committed = writer.folder.committed
    added = min(max(committed.documents - before, 0), written.documents)  # others may have had their turn meanwhile
    return AddReport(
        added=added,
        updated=written.documents - added,
        bad=found.bad,
        duplicates=found.duplicates,
        first_bad=found.first_bad,
        documents=committed.documents,
        truncated=committed.truncated,
        unread=written.unread,
        seconds=time.monotonic() - started,
        left_out=tuple(source.left_out),
    )


def read_ids(path: Path) -> list[str]:
    """Read a file with one id a line; blank lines are passed over. Raise UserError for one that is not UTF-8."""
    ids = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            ids.append(decode(line))
        except ValueError as error:
            raise UserError(f"{path}:{number}: {error}, one id a line") from None
    return [doc_id for doc_id in ids if doc_id.strip()]
