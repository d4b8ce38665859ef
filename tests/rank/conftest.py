"""One index for all stages: texts of few words, views drawn from a seed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from retriever.indexing.build import build_index
from retriever.search.retriever import Retriever
from retriever.testing import SeededEncoder
from retriever.types import Document

os.environ.setdefault("OMP_NUM_THREADS", "1")
COUNT = 300


@pytest.fixture(scope="session")
def documents() -> dict[str, str]:
    """Return texts of 4 to 30 words out of 400, some frequent, by id."""
    random = np.random.default_rng(5)
    frequency = 1 / np.arange(1, 401)
    words = [f"{one}{two}n" for one in ("ba", "do", "ki", "lu", "me") for two in (f"{n:03}" for n in range(80))]
    return {
        f"d{number}": " ".join(random.choice(words, random.integers(4, 31), p=frequency / frequency.sum()))
        for number in range(COUNT)
    }


@pytest.fixture(scope="session")
def folder(documents: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rank") / "index"
    build_index([Document(*pair) for pair in documents.items()], path, encoder=SeededEncoder())
    return path


@pytest.fixture(scope="session")
def retriever(folder: Path) -> Iterator[Retriever]:
    with Retriever.open(folder, SeededEncoder()) as opened:
        yield opened


@pytest.fixture(scope="session")
def queries(documents: dict[str, str]) -> list[str]:
    """Return the beginnings of some texts."""
    return [" ".join(text.split()[:3]) for text in list(documents.values())[:40]]
