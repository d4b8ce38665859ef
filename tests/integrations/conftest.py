"""Indexes that the adapters' tests share."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from retriever import Document, Retriever, build_index
from retriever.encoder.load import default_encoder_path
from retriever.indexing.build import create_index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def pytest_configure(config: pytest.Config) -> None:
    """Know the markers of the frameworks' own tests."""
    for marker in ("benchmark", "vcr"):
        config.addinivalue_line("markers", f"{marker}: used by langchain-tests")


TINY = Path(__file__).parents[1] / "data" / "tiny"
TWINS = ("one", "two")
"""Ids of two documents with the same text."""


@pytest.fixture(scope="session")
def small_index(tiny_encoder_folder: Path, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an index of the tiny corpus, and of two documents with the same text."""
    folder = tmp_path_factory.mktemp("adapters") / "index"
    records = [json.loads(line) for line in tiny_corpus.read_text(encoding="utf-8").splitlines()]
    own = ("_id", "text", "title")
    documents = [
        Document(r["_id"], r["text"], r.get("title", ""), {k: v for k, v in r.items() if k not in own}) for r in records
    ]
    documents += [Document(name, "Twins look alike.", metadata={"n": n}) for n, name in enumerate(TWINS)]
    build_index(documents, folder, encoder=str(tiny_encoder_folder))
    return folder


@pytest.fixture(scope="session")
def small_retriever(small_index: Path) -> Iterator[Retriever]:
    """Return an open retriever of that index."""
    with Retriever.open(small_index) as retriever:
        yield retriever


@pytest.fixture(scope="session")
def empty_index(tiny_encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an index without documents; copy it to change it."""
    folder = tmp_path_factory.mktemp("adapters") / "empty"
    create_index(folder, encoder=str(tiny_encoder_folder))
    return folder


@pytest.fixture
def new_index(empty_index: Path, tmp_path: Path) -> Callable[[], Path]:
    """Return a function that gives another empty index with each call."""
    count = iter(range(1000))
    return lambda: Path(shutil.copytree(empty_index, tmp_path / f"new-{next(count)}"))


@pytest.fixture(scope="session")
def guide_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the index of the guide, made with the default encoder, or skip."""
    if not (default_encoder_path() / "config.json").is_file():
        pytest.skip(f"no default encoder at {default_encoder_path()}")
    folder = tmp_path_factory.mktemp("guide") / "my-index"
    build_index(TINY, folder)
    return folder
