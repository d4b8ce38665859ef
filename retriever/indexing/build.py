"""From a corpus to an index folder: survey, encode, add, commit; every step a stream."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retriever.corpus.corpus import FieldNames, NumberedDocument, Survey, documents, survey
from retriever.encoder.load import load_encoder
from retriever.encoder.tokens import load_token_encoder, token_encoder_of
from retriever.functions import check_function_name
from retriever.index.commit import UNFINISHED, unfinished
from retriever.index.places import open_reader
from retriever.index.reader import FolderReader
from retriever.index.settings import IndexSettings, TokenSettings
from retriever.index.vectors.faiss_types import choose_type
from retriever.index.writer import FolderWriter
from retriever.indexing.chunking import Chunker, chunking_for
from retriever.indexing.documents import opened
from retriever.indexing.expansion import expanded, expansion_of
from retriever.languages import analyzer_named
from retriever.names import TOKEN_BITS
from retriever.types import EncodedByToken, EncoderIdentity, UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from retriever.corpus.corpus import Corpus
    from retriever.corpus.left_out import LeftOut
    from retriever.index.contract import IndexWriter
    from retriever.types import Document, Encoder, Span

__all__ = [
    "IndexReport",
    "IndexingConfig",
    "add_batches",
    "build_index",
    "create_index",
    "holds",
    "interrupted",
    "write_stream",
]


@dataclass(frozen=True)
class IndexingConfig:
    """How to build an index.

    on_duplicate: error, skip (keep the first) or replace (keep the last). on_bad: error or skip.
    id_field, text_field, title_field: of a corpus, where they have other names than `open_corpus` knows.
    language: of the documents, by code or English name, for the analyser that BM25 reads with: "auto" for an analyser
    by document, by its own language, "other" for words as they stand.
    dense_type: one of `DENSE_TYPES`, or auto (by size). batch: about so many chunks are encoded together.
    commit_every_documents, commit_every_seconds: what comes first; a crash loses no more than that.
    rows, impact_scale, max_terms, min_weight: how vectors and terms are stored, see IndexSettings and `bench
    compression`.
    chunk: split long documents by sentences, as `chunking_for` says, of at most chunk_tokens tokens of which
    chunk_overlap are those of the part before.
    tokens: what encodes documents token by token, too, for the stage late-interaction: "own", the encoder itself, or
    the folder of a MultiVectorEncoder; None for nothing. token_bits: 8 or 2, of each number of a token's vector.
    expand: a function, or "module:function", that gives for each of n texts words to be found by as well (see
    `Expansion`).

    Raises:
        UserError: settings that cannot be built or stored.
    """

    on_duplicate: str = "error"
    on_bad: str = "error"
    id_field: str | None = None
    text_field: str | None = None
    title_field: str | None = None
    dense_type: str = "auto"
    batch: int = 256
    commit_every_documents: int = 20_000
    commit_every_seconds: float = 120.0
    language: str = "en"
    k1: float = 0.9
    b: float = 0.4
    # The smallest that lose less than 0.002 of nDCG@10 in each leg and fused, on NFCorpus dev, Cranfield and CISI.
    rows: str = "int8"
    impact_scale: int = 30
    max_terms: int | None = None
    min_weight: float | None = None
    chunk: bool = False
    chunk_tokens: int | None = None
    chunk_overlap: int | None = None
    tokens: str | None = None
    token_bits: int = 8
    expand: str | Callable[..., object] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be done before anything is read."""
        choose_type(self.dense_type, rows=0)  # refuses an unknown one
        if self.token_bits not in TOKEN_BITS:
            raise UserError(f"token_bits is {self.token_bits!r}; need one of {', '.join(map(str, TOKEN_BITS))}")
        if isinstance(self.expand, str):
            check_function_name(self.expand)
        if self.batch < 1 or self.commit_every_documents < 1 or not self.commit_every_seconds > 0:
            raise UserError("batch, commit_every_documents and commit_every_seconds must be above 0")
        self.settings(EncoderIdentity("none", "", 0, 0))

    @property
    def field_names(self) -> FieldNames:
        """Return what the fields of a corpus are called."""
        return FieldNames(self.id_field, self.text_field, self.title_field)

    def settings(self, encoder: EncoderIdentity) -> IndexSettings:
        """Return what an index of this encoder may never change; raise UserError for what cannot be stored."""
        return IndexSettings(
            encoder,
            analyzer_named(self.language),
            self.k1,
            self.b,
            self.impact_scale,
            self.rows,
            self.max_terms,
            min_weight=self.min_weight,
        )


class IndexReport(NamedTuple):
    """What was indexed: live documents, those without text, those cut off by the encoder, what the survey left out.

    chunks: how many chunks the documents were split into; as many as documents if they were left whole.
    left_out: what the source holds and is no record, such as files of another suffix, by kind.
    unread: chunks in a language that the encoder does not read: their words alone find them.
    """

    documents: int
    chunks: int
    empty: int
    truncated: int
    bad: int
    duplicates: int
    first_bad: str
    seconds: float
    sizes: Mapping[str, int]
    left_out: tuple[LeftOut, ...] = ()
    unread: int = 0


def build_index(
    corpus: str | Path | Corpus | Iterable[Document],
    folder: str | Path,
    *,
    encoder: str | Encoder = "default",
    config: IndexingConfig | None = None,
    resume: bool = False,
    progress: bool = False,
) -> IndexReport:
    """Index a corpus into a new folder, or continue after the last commit of an interrupted run.

    Every record is read and checked once before the first is encoded, so bad input leaves nothing behind.
    corpus: what `retriever index` takes (a path, "hf:NAME", ...), or documents; what can be iterated over only once,
    such as a generator, is written to a temporary file beside the index first: memory does not grow with it.
    encoder: an object, or a specification as `load_encoder` takes it.
    resume: give the same corpus again, and the documents that are committed are not encoded again.
    progress: show documents/s and the time left on standard error.

    Raises:
        UserError: bad input, a folder that is not empty, another corpus or encoder than the interrupted run had.
    """
    config = config or IndexingConfig()
    folder = Path(folder)
    started = time.monotonic()
    check_output(folder, resume)
    expansion_of(config.expand)  # what cannot be imported is known before anything is done
    network = load_encoder(encoder) if isinstance(encoder, str) else encoder
    with opened(corpus, folder.absolute().parent, config.field_names) as source:
        found = survey(source, config.on_duplicate, config.on_bad, progress)  # type: ignore[arg-type]  # checked there
        with _open_writer(folder, network, config, found, resume) as writer:
            _write(writer, source, found, network, config, progress)
            committed = writer.committed
    with FolderReader.open(folder) as reader:
        sizes, chunks = reader.sizes(), reader.num_chunks
    return IndexReport(
        documents=committed.documents,
        chunks=chunks,
        empty=committed.empty,
        truncated=committed.truncated,
        unread=committed.unread,
        bad=found.bad,
        duplicates=found.duplicates,
        first_bad=found.first_bad,
        seconds=time.monotonic() - started,
        sizes=sizes,
        left_out=tuple(source.left_out),
    )


def check_output(folder: Path, resume: bool) -> None:
    """Refuse a folder that an index cannot be made in."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file, need a new or empty folder for the index; give another path")
    if not resume and folder.exists() and any(folder.iterdir()):
        raise UserError(
            f"{folder}: the output folder is not empty; choose another, remove it, or continue an interrupted run "
            "with --resume"
        )


def create_index(
    folder: str | Path, *, encoder: str | Encoder = "default", config: IndexingConfig | None = None
) -> None:
    """Make an index without documents in a new or empty folder, for an `IndexWriter` to fill.

    Raises:
        UserError: the folder is not empty, or the encoder cannot be loaded.
    """
    config = config or IndexingConfig()
    network = load_encoder(encoder) if isinstance(encoder, str) else encoder
    settings = replace(config.settings(network.identity), tokens=token_settings(config, network))
    with FolderWriter.create(folder, settings) as writer:
        writer.commit(dense_type=config.dense_type)


def interrupted(folder: str | Path) -> bool:
    """Return whether the last run of `build_index` into this index folder did not reach the end of its corpus."""
    with closing(open_reader(folder)) as reader:
        return unfinished(reader.commit_data)


def holds(folder: str | Path, found: Survey) -> bool:
    """Return whether the index was built from the surveyed corpus, and nothing was added, replaced or deleted since."""
    with closing(open_reader(folder)) as reader:
        commit = reader.commit_data
        # Each version of a document has its rows: there are dead ones only after a change.
        unchanged = commit.mark.rows == reader.num_chunks and commit.documents == found.documents
        return commit.note.get("corpus") == found.digest and unchanged


def token_settings(config: IndexingConfig, encoder: Encoder) -> TokenSettings | None:
    """Return the token encoder that an index is to have, None for none; raise UserError if it cannot be loaded."""
    if config.tokens is None:
        return None
    found = load_token_encoder(config.tokens, encoder)
    return TokenSettings(found.name, found.sha256, found.dim, config.token_bits)


class AddedBatch(NamedTuple):
    """How many documents were added at once, and the ordinal of the last one.

    unread: how many of their chunks the encoder could not read, of an index with vectors.
    """

    documents: int
    last: int
    unread: int


class Written(NamedTuple):
    """How many documents a stream had, and how many of their chunks the encoder could not read."""

    documents: int
    unread: int


def add_batches(
    writer: IndexWriter, stream: Iterable[NumberedDocument], encoder: Encoder, size: int
) -> Iterator[AddedBatch]:
    """Part, encode and add documents, about `size` chunks at a time, so that memory does not follow their length."""
    chunker = Chunker(encoder, writer.settings.chunking)
    wanted = writer.settings.tokens
    tokens = None if wanted is None else token_encoder_of(wanted.name, wanted.sha256, encoder)
    for batch in _batches(stream, chunker, size):
        group = [numbered.document for numbered, _ in batch]
        texts = [chunk.contents for numbered, spans in batch for chunk in numbered.document.split(spans)]
        if tokens is None:
            found = EncodedByToken(encoder.encode_documents(texts), None)
        else:
            found = tokens.with_views(texts, encoder)
        writer.add(group, found.encoded, [spans for _, spans in batch], found.tokens)
        unread = found.encoded.unread if writer.settings.encoder.dense_dim else None
        yield AddedBatch(len(group), batch[-1][0].ordinal, 0 if unread is None else int(unread.sum()))


def _batches(
    stream: Iterable[NumberedDocument], chunker: Chunker, size: int
) -> Iterator[list[tuple[NumberedDocument, list[Span]]]]:
    batch: list[tuple[NumberedDocument, list[Span]]] = []
    count = 0
    for numbered in stream:
        spans = chunker(numbered.document)
        batch.append((numbered, spans))
        count += len(spans)
        if count >= size:
            yield batch
            batch, count = [], 0
    if batch:
        yield batch


def index_settings(config: IndexingConfig, encoder: Encoder) -> IndexSettings:
    """Return what an index that is built in this way may never change."""
    chunking = chunking_for(encoder, config.chunk_tokens, config.chunk_overlap) if config.chunk else None
    return replace(config.settings(encoder.identity), chunking=chunking, tokens=token_settings(config, encoder))


def check_continued(folder: Path, begun: IndexSettings, settings: IndexSettings) -> None:
    """Refuse to go on with an index in another way than it was begun."""
    if begun.encoder.sha256 != settings.encoder.sha256:
        raise UserError(
            f"{folder}: begun with the encoder {begun.encoder.name}, cannot continue with {settings.encoder.name}; "
            "give the same one with --encoder"
        )
    for name in (field.name for field in fields(settings) if field.name != "encoder"):
        before, now = getattr(begun, name), getattr(settings, name)
        if before != now:
            shown = "rows" if name == "row_dtype" else name
            raise UserError(
                f"{folder}: begun with {shown} {before}, cannot continue with {now}; give the same settings"
            )


def _open_writer(folder: Path, encoder: Encoder, config: IndexingConfig, found: Survey, resume: bool) -> FolderWriter:
    settings = index_settings(config, encoder)
    if not (resume and (folder / "index.json").exists()):
        return FolderWriter.create(folder, settings)
    writer = FolderWriter.open(folder)
    try:
        check_continued(folder, writer.settings, settings)
        if writer.committed.note and writer.committed.note.get("corpus") != found.digest:
            raise UserError(f"{folder}: begun with another corpus; give the same one, or build a new index")
    except BaseException:
        writer.close()
        raise
    return writer


def _write(
    writer: FolderWriter,
    source: Corpus,
    found: Survey,
    encoder: Encoder,
    config: IndexingConfig,
    progress: bool,
) -> None:
    from tqdm import tqdm

    note = writer.committed.note
    if "position" in note and UNFINISHED not in note:
        return  # nothing is left to do, and a commit would undo what was changed since, such as the FAISS type
    start = int(note.get("position", 0))
    with tqdm(
        total=found.documents, initial=len(writer), desc="index", unit=" docs", file=sys.stderr, disable=not progress
    ) as bar:
        write_stream(
            writer,
            documents(source, found, start),
            encoder,
            config,
            lambda position: {"corpus": found.digest, "position": str(position), UNFINISHED: "yes"},
            bar.update,
        )
        bar.set_description("commit")
        writer.commit({"corpus": found.digest, "position": str(found.records)}, dense_type=config.dense_type)


def write_stream(
    writer: IndexWriter,
    stream: Iterator[NumberedDocument],
    encoder: Encoder,
    config: IndexingConfig,
    note: Callable[[int], Mapping[str, str]],
    advance: Callable[[int], object],
) -> Written:
    """Encode and add documents in batches, and commit now and then; the end is left to the caller to commit.

    It is committed early where another writer stands in line, which then has its turn.

    note: what to write into a commit after which the record of this ordinal comes next.
    advance: is told each batch's size.
    """
    count, unread, pending, last_commit = 0, 0, 0, time.monotonic()
    for added in add_batches(writer, expanded(stream, expansion_of(config.expand)), encoder, config.batch):
        advance(added.documents)
        count, pending, unread = count + added.documents, pending + added.documents, unread + added.unread
        late = time.monotonic() - last_commit >= config.commit_every_seconds
        if late or pending >= config.commit_every_documents or writer.wanted:
            writer.commit(note(added.last + 1))
            pending, last_commit = 0, time.monotonic()
    return Written(count, unread)
