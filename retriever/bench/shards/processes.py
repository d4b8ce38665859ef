"""What the processes of a measurement hold and take, of this one and all that it starts, by their names."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["ProcessMemory", "Watch"]

EVERY = 0.25
TICKS = os.sysconf("SC_CLK_TCK")
HERE = "this process"


class ProcessMemory(NamedTuple):
    """The processes of one name: how many, and the most resident MiB of any of them; `private` belongs to no file."""

    name: str
    number: int
    resident: float
    private: float


class _Seen(NamedTuple):
    name: str
    resident: int
    private: int
    ticks: int


class Watch:
    """Looks at this process and its descendants a few times a second, as long as the block lasts (Linux)."""

    def __init__(self) -> None:
        self._most: dict[int, dict[str, _Seen]] = defaultdict(dict)
        self._ticks: dict[int, int] = {}
        self._before: dict[int, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.seconds = 0.0

    def __enter__(self) -> Self:
        self._before = {pid: seen.ticks for pid, seen in _family().items()}
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.monotonic() - self._started
        self._stop.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._stop.wait(EVERY):
            self._look()

    def _look(self) -> None:
        for pid, seen in _family().items():
            self._ticks[pid] = seen.ticks
            names = self._most[pid]
            if seen.name not in names or names[seen.name].resident < seen.resident:
                names[seen.name] = seen

    @property
    def cpu_seconds(self) -> float:
        """Return the processor time that all of them took in the block."""
        return sum(ticks - self._before.get(pid, 0) for pid, ticks in self._ticks.items()) / TICKS

    @property
    def memory(self) -> list[ProcessMemory]:
        """Return what the processes held, the largest first."""
        by_name: dict[str, list[_Seen]] = defaultdict(list)
        for names in self._most.values():
            for name, seen in names.items():
                by_name[name].append(seen)
        found = [
            ProcessMemory(
                name,
                len(seen),
                max(one.resident for one in seen) / 1024,
                max(one.private for one in seen) / 1024,
            )
            for name, seen in by_name.items()
        ]
        return sorted(found, key=lambda one: -one.resident)


def _family() -> dict[int, _Seen]:
    """Return this process and its descendants as they are now, by id."""
    parents, found = {}, {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError, KeyError, IndexError):  # it has ended meanwhile, or is no process
            pid = int(entry.name)
            status = dict(
                line.split(":", 1)
                for line in (entry / "status").read_text(encoding="utf-8").splitlines()
                if ":" in line
            )
            parents[pid] = int(status["PPid"])
            times = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            resident, private = (int(status[name].split()[0]) for name in ("VmRSS", "RssAnon"))
            found[pid] = _Seen(_name(pid, entry), resident, private, int(times[11]) + int(times[12]))
    return {pid: seen for pid, seen in found.items() if _descends(pid, parents)}


def _name(pid: int, entry: Path) -> str:
    if pid == os.getpid():
        return HERE
    words = (entry / "cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
    if words[0].startswith("ray::"):
        return words[0].partition(".")[0]  # of an actor without its method
    programs = [Path(word).name for word in words[:3] if word and not word.startswith("-")]
    return programs[1] if len(programs) > 1 and programs[0].startswith("python") else programs[0]


def _descends(pid: int, parents: dict[int, int]) -> bool:
    while pid > 1:
        if pid == os.getpid():
            return True
        pid = parents.get(pid, 0)
    return False
