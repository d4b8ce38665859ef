"""Process pairs in blocks: a run that was killed can be resumed, and ends with the same file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retriever.files import atomic_file, read_lines
from retriever.index.files import sync_path, write_whole
from retriever.index.lock import WriteLock
from retriever.streams import is_stream, refuse_stream
from retriever.train.data.pairs import PAIRS_AGAIN, PairRecord, read_pairs
from retriever.train.data.vectors import VectorStore
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

__all__ = ["Rewriting"]

BLOCK = 128
"""Records worked on together, and what a kill loses at most."""


class Rewriting:
    """Writes one record to `output` for each record of a file of pairs.

    What is done lies in the folder OUTPUT.part: the records, vectors of teachers, and note.json, which is written anew
    after each block and says how much of them counts. The next run cuts off the rest and continues after it, so `work`
    sees the same blocks, with the same vectors stored, as in a run without interruption.
    """

    def __init__(
        self, pairs: str | Path, output: str | Path, settings: Mapping[str, Any], *, block: int = BLOCK
    ) -> None:
        """Begin, or continue. settings: what else the records depend on, compared before continuing.

        Raises:
            UserError: the output is there already, is being written, or was begun from other pairs or settings.
        """
        self.pairs, self.output, self._block = Path(pairs), Path(output), block
        refuse_stream(self.pairs, PAIRS_AGAIN)
        if is_stream(self.output):
            raise UserError(
                f"{output}: not a file, and only a file can be continued after an interruption; give a path with -o"
            )
        if self.output.exists():
            raise UserError(f"{output}: exists; give another path with -o, or remove it")
        self._lines = sum(1 for line in read_lines(self.pairs) if line.strip())
        with self.pairs.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.folder = self.output.with_name(self.output.name + ".part")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._note, self._part = self.folder / "note.json", self.folder / "records.jsonl"
        self._stores: dict[str, VectorStore] = {}
        self._settings = {"pairs": digest, "block": block, **settings}
        self._done, self._size, self._rows = 0, 0, dict[str, int]()
        self._lock = WriteLock(self.folder)
        try:
            self._load()
        except BaseException:
            self._lock.release()
            raise

    def _load(self) -> None:
        if self._note.exists():
            note = json.loads(self._note.read_bytes())
            begun = note["settings"]
            changed = [key for key, value in self._settings.items() if begun.get(key) != value]
            if changed:
                raise UserError(
                    f"{self.folder}: begun with {changed[0]} {begun.get(changed[0])!r}, cannot continue with "
                    f"{self._settings[changed[0]]!r}; give the same file and options, or remove the folder"
                )
            self._done, self._size, self._rows = note["done"], note["size"], note["rows"]
        self._part.touch()
        os.truncate(self._part, self._size)

    def vectors(self, name: str, dim: int) -> VectorStore:
        """Return the store of this name as it was at the last whole block."""
        self._stores[name] = VectorStore(self.folder / f"vectors-{name}", dim, self._rows.get(name, 0))
        return self._stores[name]

    def run(self, work: Callable[[list[PairRecord]], list[dict[str, Any]]], *, progress: bool = False) -> None:
        """Do the blocks that are left; raise UserError for a line that cannot be used."""
        from tqdm import tqdm

        records = islice(read_pairs(self.pairs), self._done, None)
        with tqdm(total=self._lines, initial=self._done, unit=" pairs", file=sys.stderr, disable=not progress) as bar:
            while batch := list(islice(records, self._block)):
                lines = [json.dumps(fields, ensure_ascii=False).encode() + b"\n" for fields in work(batch)]
                with self._part.open("ab") as part:
                    part.write(b"".join(lines))
                self._done += len(batch)
                self._commit()
                bar.update(len(batch))

    def _commit(self) -> None:
        sync_path(self._part)
        for store in self._stores.values():
            store.sync()
        self._size = self._part.stat().st_size
        self._rows |= {name: len(store) for name, store in self._stores.items()}
        note = {"settings": self._settings, "done": self._done, "size": self._size, "rows": self._rows}
        write_whole(self._note, json.dumps(note).encode())

    def finish(self) -> int:
        """Put the records where they belong, remove the folder, and return how many records there are."""
        if self.output.suffix == ".gz":
            with self._part.open("rb") as plain, atomic_file(self.output) as packed:
                shutil.copyfileobj(plain, packed)
        else:
            self._part.replace(self.output)
        shutil.rmtree(self.folder)
        return self._done

    def __enter__(self) -> Rewriting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
