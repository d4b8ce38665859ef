"""One index and one application for the tests of the server that change nothing."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

from retriever.indexing.build import build_index
from retriever.serve.app import create_app
from retriever.serve.settings import Limits, ServeSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def served_folder(tiny_corpus: Path, tiny_encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an index of the tiny corpus, made with the tiny encoder."""
    folder = tmp_path_factory.mktemp("served") / "tiny"
    build_index(tiny_corpus, folder, encoder=str(tiny_encoder_folder))
    return folder


@pytest.fixture(scope="session")
def client(served_folder: Path) -> Iterator[TestClient]:
    """Return a client of an application that serves this index, read-only, to anybody."""
    with TestClient(create_app(ServeSettings({"tiny": served_folder})), base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture(scope="module")
def folder(served_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the index, to be changed."""
    return shutil.copytree(served_folder, tmp_path_factory.mktemp("written") / "tiny")


@pytest.fixture(scope="module")
def writable(folder: Path) -> Iterator[TestClient]:
    """Return a client that may change it."""
    settings = ServeSettings({"tiny": folder}, write=True, limits=Limits(documents=200_000))
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        yield client
