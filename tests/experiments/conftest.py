"""A cache of their own for the tests of experiments."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from retriever.experiments.experiment import cache_folder

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def cache(own_cache: Path) -> Path:
    """Return an empty folder of indexes."""
    assert cache_folder() == own_cache / "retriever" / "indexes"
    return cache_folder()
