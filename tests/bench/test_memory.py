"""Memory of a process: what it wrote and what it mapped, told apart."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from retriever.bench.memory import memory_of

SIZE = 64 << 20

pytestmark = pytest.mark.skipif(memory_of() is None, reason="this system does not say")


def test_written_memory_is_private() -> None:
    # Pages of the system, since an array may lie in memory that this process wrote before.
    with mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        before = memory_of()
        for place in range(0, SIZE, mmap.PAGESIZE):
            held[place] = 1
        after = memory_of()
    assert before is not None and after is not None
    assert SIZE * 0.9 < after.private - before.private < SIZE * 1.5


def test_a_mapped_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(SIZE))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        before = memory_of()
        assert sum(mapped[place] for place in range(0, SIZE, mmap.PAGESIZE)) == 0
        after = memory_of()
    assert before is not None and after is not None
    assert after.mapped - before.mapped > SIZE * 0.9
    assert after.private - before.private < SIZE * 0.1


def test_no_such_process() -> None:
    assert memory_of(2**30) is None
