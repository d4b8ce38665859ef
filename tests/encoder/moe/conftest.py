"""Texts and an encoder folder for the tests of our own encoder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def readable_texts(tiny_texts: list[str]) -> list[str]:
    """Return the tiny corpus without the text in scripts that the tiny tokeniser cannot read: it has no views."""
    return [text for text in tiny_texts if "Москва" not in text]


@pytest.fixture
def folder(tiny_encoder_folder: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny encoder that a test may damage."""
    return Path(shutil.copytree(tiny_encoder_folder, tmp_path / "encoder"))
