"""One index in every kind of place: the folder, and collections that it was pushed to."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from retriever import Encoded, Retriever
from retriever.qdrant.push import push
from tests.remote.conftest import folder, library

__all__ = ["Place", "close_to", "collection", "folder", "library", "place"]

Place = Callable[[], str]
SCHEMES = ["qdrant-edge", "qdrant-local"]


def close_to(found: object, expected: object, relative: float = 2e-6) -> bool:
    """Say whether records are equal but for the last digits of floats."""
    if isinstance(found, float) and isinstance(expected, float):
        return found == pytest.approx(expected, rel=relative, abs=relative)
    if isinstance(found, dict) and isinstance(expected, dict):
        return list(found) == list(expected) and all(close_to(found[key], expected[key], relative) for key in found)
    if isinstance(found, (list, tuple)) and type(found) is type(expected) and not isinstance(found, Encoded):
        assert isinstance(expected, (list, tuple))
        return len(found) == len(expected) and all(map(close_to, found, expected, itertools.repeat(relative)))
    return type(found) is type(expected) and bool(found == expected)


@pytest.fixture(scope="session")
def quick_folder() -> Iterator[Path]:
    """Return a folder in memory, where there is one: the client's local mode waits for the disk with every point."""
    memory = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(prefix="retriever-", dir=memory if memory.is_dir() else None))
    yield made
    shutil.rmtree(made)


@pytest.fixture(params=SCHEMES)
def place(request: pytest.FixtureRequest, quick_folder: Path) -> Place:
    """Return what gives addresses of new collections."""
    numbers = itertools.count()
    return lambda: f"{request.param}:{tempfile.mkdtemp(dir=quick_folder)}/{next(numbers)}"


@pytest.fixture(scope="session", params=SCHEMES)
def collection(request: pytest.FixtureRequest, folder: Path, quick_folder: Path) -> Iterator[Retriever]:
    """Return the index as it is in a collection."""
    address = f"{request.param}:{quick_folder}/{request.param}"
    push(folder, address)
    with Retriever.open(address) as retriever:
        yield retriever
