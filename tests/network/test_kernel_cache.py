"""Compiled kernels where nothing can be kept of them, and where what was kept is damaged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
from numba import njit
from retriever.network.kernel_cache import keep_compiled
@njit
def third(x):
    return x / 3
keep_compiled(third)
print(third(6))
"""


def call(folder: Path, limit: str = "unlimited") -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "kept")}
    command = ["/bin/sh", "-c", f'ulimit -f {limit} && exec "$0" "$1"', sys.executable, str(folder / "script.py")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)


def test_kernels_are_kept_where_they_can_be_and_work_where_not(tmp_path: Path) -> None:
    done = call(tmp_path, limit="0")  # no file may hold a byte, as on a full disk
    assert (done.returncode, done.stdout) == (0, "2.0\n")
    assert done.stderr == "cannot keep compiled kernels for next time ([Errno 27] File too large); all else works\n"
    done = call(tmp_path)
    assert (done.stdout, done.stderr) == ("2.0\n", "")
    kept = [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    assert len(kept) == 2  # an index and the code
    for path in kept:
        path.write_bytes(path.read_bytes()[:50])
    done = call(tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (0, "2.0\n", 1)
    assert done.stderr.startswith("cannot keep compiled kernels for next time (damaged: ")
    done = call(tmp_path)
    assert (done.stdout, done.stderr) == ("2.0\n", "")
