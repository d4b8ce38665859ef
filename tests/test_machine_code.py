"""Compiled functions that are kept: called as numba's own, from a file that is checked, without numba."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from retriever import machine_code
from retriever.machine_code import argument, load_kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray

SOURCE = """
import numpy as np
from numba import f4, i8, njit, types
from retriever.machine_code import COMPILED

@njit([types.void(f4[:, ::1], f4, f4[::1])], **COMPILED)
def weighted(rows, weight, out):
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            out[i] += weight * rows[i, j]

@njit([i8(i8[::1])], **COMPILED)
def largest(values):
    best = values[0]
    for value in values:
        best = max(best, value)
    return best

@njit([i8(i8)], **COMPILED)
def failing(value):
    if value > 3:
        raise ValueError("too large")
    return value
"""
PROGRAM = """
import sys
import numpy as np
from retriever.machine_code import load_kernels
kernels = load_kernels("few_functions", ["weighted", "largest", "failing"])
print(kernels["largest"](np.array([3, 9, 4])), "numba" in sys.modules)
"""
NAMES = ["weighted", "largest", "failing"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the functions' module and, for this module of tests, the cache."""
    folder = tmp_path_factory.mktemp("kept")
    (folder / "few_functions.py").write_text(SOURCE)
    return folder


@pytest.fixture(autouse=True)
def fresh(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(machine_code, "_loaded", {})
    monkeypatch.setattr(machine_code, "cache_root", lambda: folder)


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "kernels").glob("*"))


def test_functions_do_what_they_say(folder: Path) -> None:
    kernels = load_kernels("few_functions", NAMES)
    rows, out = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(2, np.float32)
    kernels["weighted"](argument(rows), 2.0, out)
    np.testing.assert_array_equal(out, 1 + 2 * rows.sum(1))
    assert kernels["largest"](np.array([3, -9, 5])) == 5
    assert kernels["failing"](3) == 3
    with pytest.raises(RuntimeError, match="failing"):
        kernels["failing"](4)


@pytest.mark.parametrize(
    "rows", [np.zeros((2, 3)), np.zeros(3, np.float32), np.zeros((2, 6), np.float32)[:, ::2], np.zeros((3, 2), "f4").T]
)
def test_other_arrays_are_refused(rows: NDArray[np.floating]) -> None:
    kernels = load_kernels("few_functions", NAMES)
    with pytest.raises((TypeError, ValueError), match="need"):
        kernels["weighted"](rows, 1.0, np.zeros(2, np.float32))


def test_a_later_process_does_without_numba(folder: Path) -> None:
    load_kernels("few_functions", NAMES)
    program = f"import sys; sys.path.insert(0, {str(folder)!r})\n{PROGRAM}"
    environment = {"XDG_CACHE_HOME": str(folder), "PATH": "", "HOME": str(folder)}
    (folder / "retriever").mkdir()  # the cache of that process
    (folder / "retriever" / "kernels").symlink_to(folder / "kernels")
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=folder.parent, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.split() == ["9", "False"], done.stderr


@pytest.mark.parametrize("place", [0, 10, 30, -1])
def test_a_damaged_file_is_made_again(folder: Path, place: int, capsys: pytest.CaptureFixture[str]) -> None:
    load_kernels("few_functions", NAMES)
    (path,) = kept(folder)
    whole = path.read_bytes()
    data = bytearray(whole)
    data[place] ^= 1
    path.write_bytes(data)
    machine_code._loaded.clear()
    assert load_kernels("few_functions", NAMES)["largest"](np.array([1, 2])) == 2
    (path,) = kept(folder)
    assert path.stat().st_size == len(whole)
    path.write_bytes(whole[:5])
    machine_code._loaded.clear()
    assert load_kernels("few_functions", NAMES)["largest"](np.array([1, 2])) == 2


def test_a_change_of_the_source_is_noticed_and_compiling_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    machine_code._say_once.cache_clear()
    load_kernels("few_functions", NAMES)
    before = kept(folder)
    path = folder / "few_functions.py"
    path.write_text(SOURCE + "\n# changed\n")
    machine_code._loaded.clear()
    load_kernels("few_functions", NAMES)
    assert len(kept(folder)) == len(before) + 1
    assert caplog.messages == ["compiling for this processor, once after an installation: up to half a minute"]


def test_without_room_for_a_cache_all_works(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "file").touch()
    monkeypatch.setattr(machine_code, "cache_root", lambda: folder / "file")
    monkeypatch.setattr("retriever.files._told", set())
    assert load_kernels("few_functions", NAMES)["failing"](1) == 1
