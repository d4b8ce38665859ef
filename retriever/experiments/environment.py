"""What an evaluation ran on: versions, machine, memory."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

__all__ = ["environment", "peak_mib"]

PACKAGES = (
    "hybrid-retriever",
    "torch",
    "transformers",
    "sentence-transformers",
    "faiss-cpu",
    "pyserini",
    "ir-measures",
    "numba",
    "numpy",
    "scipy",
)


def environment() -> dict[str, str]:
    """Return versions of Python, packages and Java, the system and its processor, by name."""
    from retriever.index.lucene.jvm import java_version

    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return found | {
        "Java": java_version(),
        "system": platform.platform(),
        "processor": f"{platform.machine()}, {cores} cores",
    }


def resident_mib() -> tuple[float, float]:
    """Return how much of this process's memory is resident: its own, and that of mapped files; 0 where not known."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0.0, 0.0
    own, mapped = (re.search(rf"{name}:\s*(\d+) kB", status) for name in ("RssAnon", "RssFile"))
    return int(own[1]) / 1024 if own else 0.0, int(mapped[1]) / 1024 if mapped else 0.0


def peak_mib(process: str = "self") -> float:
    """Return the most resident memory that a process has had; 0 where it is not known, or the process has ended.

    Not from getrusage: there a process starts with the peak of the one that started it.
    """
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0
