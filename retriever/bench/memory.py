"""What memory a process holds: its own, and what it maps of files, which the system can take back."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

__all__ = ["Memory", "memory_of"]


class Memory(NamedTuple):
    """Resident memory of a process in bytes.

    private: what it wrote, which nobody else has and no file holds. mapped: unchanged pages of files, such as an index,
    weights or libraries, whether other processes map them too or not.
    """

    private: int
    mapped: int


def memory_of(process: int | str = "self") -> Memory | None:
    """Return what a process holds now; None where the system does not say (it is Linux's /proc that does)."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = {name: int(rest.split()[0]) << 10 for name, _, rest in (line.partition(":") for line in lines[1:])}
    return Memory(found["Anonymous"], found["Rss"] - found["Anonymous"])
