"""Damaged bytes: verify names every one, an index opened with verification is whole, and without it nothing crashes.

RETRIEVER_FLIPS=500 changes as many bytes as the folder's guarantees were proven with. This file is also the program
that opens what is damaged.
"""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from retriever.index import IndexSettings
from retriever.index.vectors import dense
from retriever.index.verify import verify_folder
from retriever.index.writer import FolderWriter
from retriever.indexing.writer import IndexWriter
from retriever.search.retriever import MODES, Retriever
from retriever.testing import SeededEncoder
from retriever.types import Document, Query, UserError

if TYPE_CHECKING:
    from tests.helpers.warm import WarmPython

os.environ.setdefault("OMP_NUM_THREADS", "1")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
FLIPS = int(os.environ.get("RETRIEVER_FLIPS", "60"))
GONE = -1
OUTCOMES = ("found", "refused", "found, not changed", "refused, not changed")


class Damage(NamedTuple):
    """What to do to a file: change a bit of the byte at a position, cut it off there (bit 8), or remove it (GONE)."""

    file: str
    position: int
    bit: int

    @contextmanager
    def done_to(self, folder: Path) -> Iterator[None]:
        path = folder / self.file
        content = path.read_bytes()
        if self.position == GONE:
            path.unlink()
        elif self.bit == 8:
            path.write_bytes(content[: self.position])
        else:
            changed = bytearray(content)
            changed[self.position] ^= 1 << self.bit
            path.write_bytes(changed)
        try:
            yield
        finally:
            path.write_bytes(content)


def numbered(start: int, stop: int, word: str = "river") -> list[Document]:
    return [Document(f"é{n}", f"{word} number{n}", "T", {"n": n, "word": word}) for n in range(start, stop)]


@pytest.fixture(scope="module", params=["hnsw", "ivf"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an index of several segments, with dead rows and rows newer than its FAISS file."""
    folder: Path = tmp_path_factory.mktemp("damage") / "index"
    FolderWriter.create(folder, IndexSettings(SeededEncoder().identity)).close()
    with IndexWriter.open(folder, SeededEncoder()) as writer:
        writer.add(numbered(0, 250))
        writer.compact(request.param)
        writer.add(numbered(240, 260, "stone"))
        writer.delete(f"é{n}" for n in range(50, 80))
        writer.commit()
    return folder


def damages(folder: Path, count: int) -> list[Damage]:
    """Return random changes of single bytes, in every file alike; each file also gone, empty, and cut short.

    Of the second index, which is the first with another FAISS file, that file alone.
    """
    random = np.random.default_rng(4)
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    files = sorted(file for file in sizes if sizes[file] and not file.endswith("write.lock"))
    chosen = [files[number] for number in random.integers(len(files), size=count)]
    flips = [Damage(file, int(random.integers(sizes[file])), int(random.integers(8))) for file in chosen]
    whole = files if any("hnsw" in file for file in files) else [file for file in files if file.startswith("dense")]
    return flips + [Damage(file, cut, 8) for file in whole for cut in (GONE, 0, sizes[file] - 1)]


def test_every_damage_is_named(folder: Path) -> None:
    for damage in damages(folder, FLIPS // 2):
        with damage.done_to(folder):
            with pytest.raises(UserError) as caught:
                Retriever.open(folder, SeededEncoder(), verify=True)
            assert "\n" not in str(caught.value)
            # Without its newest segments file Lucene has no commit, and with another older one would be the last.
            named = damage.file in str(caught.value) or damage.file.startswith("lucene/segments_")
            assert named, (damage, str(caught.value))
    assert verify_folder(folder).damages == ()
    with Retriever.open(folder, SeededEncoder(), verify=True) as retriever:
        assert retriever.search("river number7", 1, mode="bm25")[0].doc_id == "é7"


PROGRAM = """
import faulthandler, sys
from pathlib import Path
from tests.index.test_damage import main
faulthandler.enable()
main(Path(sys.argv[1]))
"""


def test_no_damage_crashes_the_process(folder: Path, tmp_path: Path, warm: WarmPython) -> None:
    asked = damages(folder, FLIPS // 2)
    copy = shutil.copytree(folder, tmp_path / "copy")
    lines = "".join(f"{damage.file}\t{damage.position}\t{damage.bit}\n" for damage in asked)
    (tmp_path / "asked.tsv").write_text(lines)
    ended = warm("-c", PROGRAM, copy)
    said = ended.stdout.splitlines()
    assert ended.returncode == 0, (asked[len(said)], ended.stderr[-3_000:])
    assert len(said) == len(asked)
    counts = Counter(said)
    assert set(counts) <= {*OUTCOMES}, [pair for pair in zip(asked, said, strict=True) if pair[1] not in OUTCOMES]
    sys.stdout.write(f"{dict(counts)}\n")


def use(folder: Path) -> list[object]:
    """Do what can be done with an index; return what is found."""
    found: list[object] = []
    with Retriever.open(folder, SeededEncoder()) as retriever:
        for where in (None, "n >= 30 and n < 250 and word = river"):
            found += retriever.rank_modes([Query("q", "stone river number7")], 1_000, modes=MODES, filter=where)
            for mode in MODES:
                found += retriever.search("stone river number7", 5, mode=mode, explain=True, filter=where)
        retriever.reader.sizes()
        found.append(retriever.reader.sparse_terms_per_document())
    return found


def change(folder: Path) -> None:
    with IndexWriter.open(folder, SeededEncoder()) as writer:
        writer.delete(["é3"])
        writer.add(numbered(9, 11, "bread"))
        writer.compact()


def outcome(folder: Path, damage: Damage, other: Path, changed: list[object]) -> str:
    """Search a damaged index; then change a copy of it at `other`, which must not make the damage its own."""
    said = "found"
    try:
        with damage.done_to(folder):
            shutil.copytree(folder, other)
            use(folder)
    except UserError as error:
        said = "refused" if "\n" not in str(error) else repr(error)
    try:
        change(other)
        if not verify_folder(other).damages and use(other) != changed:
            return "damage that was committed as whole"
    except UserError as error:
        said += ", not changed" if "\n" not in str(error) else repr(error)
    shutil.rmtree(other)
    return said


def main(folder: Path) -> None:
    dense.SCAN_BELOW = 0  # FAISS is asked, small as the index is
    other = folder.with_name("other")
    change(shutil.copytree(folder, other))
    changed = use(other)
    shutil.rmtree(other)
    for line in folder.with_name("asked.tsv").read_text().splitlines():
        file, position, bit = line.split("\t")
        try:
            said = outcome(folder, Damage(file, int(position), int(bit)), other, changed)
        except Exception:
            said = repr(traceback.format_exc())
            shutil.rmtree(other)
        sys.stdout.write(said + "\n")
        sys.stdout.flush()
