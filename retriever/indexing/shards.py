"""From a corpus to a sharded index: survey, cut into parts, build a shard of each, wherever; every step can be resumed.

    DIR/shards.json    the manifest, from the start on; its note says whether the index is unfinished
    DIR/shard-00000/   index folders
    DIR/parts/         the parts that the shards are built from, until all are finished

A shard is built by whoever has its lock. One that was begun goes on after its last commit, so what a worker that died
had done is encoded again at most from there on.
"""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from retriever.corpus.corpus import documents, survey
from retriever.encoder.load import load_encoder
from retriever.index.commit import UNFINISHED
from retriever.index.lock import LockedError, WriteLock
from retriever.index.places import open_reader
from retriever.index.settings import read_settings
from retriever.index.shards.manifest import ShardManifest, is_sharded, read_manifest, write_manifest
from retriever.index.shards.merge import shard_name
from retriever.index.writer import FolderWriter
from retriever.indexing.build import (
    IndexingConfig,
    IndexReport,
    check_continued,
    check_output,
    index_settings,
    write_stream,
)
from retriever.indexing.documents import opened
from retriever.indexing.parts import cut, read_part
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from retriever.corpus.corpus import Corpus, Survey
    from retriever.encoder.runtime import RuntimeConfig
    from retriever.index.settings import IndexSettings
    from retriever.types import Document, Encoder

__all__ = ["Loading", "Run", "ShardDone", "ShardTask", "build_shard", "build_shards", "run_here"]

PARTS = "parts"
PATIENCE = 60.0
"""Seconds to wait for the lock of a shard: of a worker that is about to end."""


class Loading(NamedTuple):
    """What a worker encodes with: an object that can be sent to it, or a specification, loaded there with `runtime`."""

    encoder: str | Encoder
    runtime: RuntimeConfig | None
    config: IndexingConfig

    def load(self) -> Encoder:
        """Return the encoder."""
        return load_encoder(self.encoder, self.runtime) if isinstance(self.encoder, str) else self.encoder


class ShardTask(NamedTuple):
    """What a worker needs to build a shard, or to go on with one. documents: how many the part has."""

    folder: Path
    part: Path
    documents: int
    how: Loading

    @property
    def name(self) -> str:
        """Return the name of the shard."""
        return self.folder.name


class ShardDone(NamedTuple):
    """A shard that is finished, and how many documents were encoded for it now."""

    name: str
    encoded: int


Run: TypeAlias = "Callable[[Sequence[ShardTask], Callable[[int], object]], Iterable[ShardDone]]"
"""Builds shards and yields them as they are finished; the second argument is told of documents as they are added."""


def build_shard(task: ShardTask, advance: Callable[[int], object], encoder: Encoder | None = None) -> ShardDone:
    """Build a shard, or go on after its last commit; nothing if it is finished.

    encoder: that of the task, if it is loaded already.

    Raises:
        UserError: a full disk, another encoder than the shard was begun with, or a damaged shard.
    """
    with _opened_writer(task.folder) as writer:
        note = writer.committed.note
        if _finished(note):
            return ShardDone(task.name, 0)
        if encoder is None:
            encoder = task.how.load()
        if writer.settings.encoder.sha256 != encoder.identity.sha256:
            raise UserError(
                f"{task.folder}: begun with the encoder {writer.settings.encoder.name}, this worker has another one "
                f"at {encoder.identity.name}; put the same files on every machine"
            )
        encoded = write_stream(
            writer,
            read_part(task.part, int(note.get("position", 0))),
            encoder,
            task.how.config,
            lambda position: {**note, "position": str(position), UNFINISHED: "yes"},
            advance,
        )
        done = {key: value for key, value in note.items() if key != UNFINISHED}
        writer.commit({**done, "position": str(task.documents)}, dense_type=task.how.config.dense_type)
        return ShardDone(task.name, encoded.documents)


def _finished(note: Mapping[str, str]) -> bool:
    return "position" in note and UNFINISHED not in note


def _opened_writer(folder: Path) -> FolderWriter:
    """Open a shard; a worker that was killed may hold its lock for a moment longer."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return FolderWriter.open(folder)
        except LockedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


def run_here(tasks: Sequence[ShardTask], advance: Callable[[int], object]) -> Iterator[ShardDone]:
    """Build the shards in this process, one after the other, with one encoder."""
    encoder = tasks[0].how.load()
    return (build_shard(task, advance, encoder) for task in tasks)


def build_shards(
    corpus: str | Path | Corpus | Iterable[Document],
    folder: str | Path,
    *,
    shards: int,
    run: Run = run_here,
    encoder: str | Encoder = "default",
    runtime: RuntimeConfig | None = None,
    config: IndexingConfig | None = None,
    resume: bool = False,
    progress: bool = False,
) -> IndexReport:
    """Index a corpus into a new folder of `shards` shards, or continue an interrupted run, as `build_index` does.

    run: what builds the shards.

    Raises:
        UserError: bad input, a folder that is not empty, or another corpus, encoder or number of shards than the
            interrupted run had.
    """
    if shards < 1:
        raise UserError(f"{shards} shards; need 1 or more")
    config = config or IndexingConfig()
    folder, started = Path(folder).absolute(), time.monotonic()
    check_output(folder, resume)
    how = Loading(encoder, runtime, config)
    settings = index_settings(config, how.load())
    with opened(corpus, folder.parent, config.field_names) as source:
        found = survey(source, config.on_duplicate, config.on_bad, progress)  # type: ignore[arg-type]  # checked there
        folder.mkdir(parents=True, exist_ok=True)
        lock = WriteLock(folder)
        try:
            if resume and is_sharded(folder):
                _check_begun(folder, found, shards, settings)
            else:
                _begin(folder, source, found, shards, settings)
            if not _finished(read_manifest(folder).note):
                _build(folder, found, run, how, progress)
            shutil.rmtree(folder / PARTS, ignore_errors=True)
        finally:
            lock.release()
        return _report(folder, found, source, started)


def _begin(folder: Path, source: Corpus, found: Survey, shards: int, settings: IndexSettings) -> None:
    """Cut the corpus, and make the shards, empty; with the manifest, which comes last, all of this is done."""
    names = tuple(map(shard_name, range(shards)))
    for leftover in (folder / PARTS, *(folder / name for name in names)):
        shutil.rmtree(leftover, ignore_errors=True)  # of a run that did not come as far as the manifest
    (folder / PARTS).mkdir()
    counts = cut(documents(source, found), [folder / PARTS / f"{name}.jsonl" for name in names])
    for name, count in zip(names, counts, strict=True):
        with FolderWriter.create(folder / name, settings) as writer:
            note = {"corpus": f"{found.digest}/{name}", "documents": str(count), "position": "0"}
            writer.commit(note | {UNFINISHED: "yes"})
    write_manifest(folder, ShardManifest(names, note=_note(found) | {UNFINISHED: "yes"}))


def _note(found: Survey) -> dict[str, str]:
    return {"corpus": found.digest, "position": str(found.records)}


def _check_begun(folder: Path, found: Survey, shards: int, settings: IndexSettings) -> None:
    manifest = read_manifest(folder)
    if len(manifest.shards) != shards:
        raise UserError(
            f"{folder}: begun with {len(manifest.shards)} shards, cannot continue with {shards}; give the same number"
        )
    if manifest.note.get("corpus") != found.digest:
        raise UserError(f"{folder}: begun with another corpus; give the same one, or build a new index")
    check_continued(folder, read_settings(folder / manifest.shards[0]), settings)


def _build(folder: Path, found: Survey, run: Run, how: Loading, progress: bool) -> None:
    from tqdm import tqdm

    manifest = read_manifest(folder)
    with closing(open_reader(folder)) as reader:
        there = reader.num_documents
        notes = [shard.commit_data.note for shard in reader.shards]  # type: ignore[attr-defined]  # it is sharded
    tasks = [
        ShardTask(folder / name, folder / PARTS / f"{name}.jsonl", int(note["documents"]), how)
        for name, note in zip(manifest.shards, notes, strict=True)
        if not _finished(note)
    ]
    with tqdm(
        total=found.documents, initial=there, desc="index", unit=" docs", file=sys.stderr, disable=not progress
    ) as bar:
        for number, _ in enumerate(run(tasks, bar.update) if tasks else (), len(manifest.shards) - len(tasks) + 1):
            bar.set_postfix_str(f"{number} of {len(manifest.shards)} shards")
    write_manifest(folder, manifest.next(_note(found)))


def _report(folder: Path, found: Survey, source: Corpus, started: float) -> IndexReport:
    with closing(open_reader(folder)) as reader:
        commit = reader.commit_data
        return IndexReport(
            documents=commit.documents,
            chunks=reader.num_chunks,
            empty=commit.empty,
            truncated=commit.truncated,
            unread=commit.unread,
            bad=found.bad,
            duplicates=found.duplicates,
            first_bad=found.first_bad,
            seconds=time.monotonic() - started,
            sizes=reader.sizes(),
            left_out=tuple(source.left_out),
        )
