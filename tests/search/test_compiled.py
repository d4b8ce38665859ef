"""What searches run is compiled beside the first indexing."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from retriever.search.compiled import compile_beside
from retriever.search.legs.sparse_postings import sparse_kernel, sparse_kernel_kept

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_another_process_compiles_where_that_was_never_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: started.append(command))
    sparse_kernel()
    assert sparse_kernel_kept()
    compile_beside()
    assert started == []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not sparse_kernel_kept()
    compile_beside()
    assert started == [[sys.executable, "-m", "retriever.search.compiled", "--beside"]]
    assert list(tmp_path.rglob("*")) == [tmp_path / "retriever", tmp_path / "retriever" / "kernels"]
