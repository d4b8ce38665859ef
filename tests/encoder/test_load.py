"""Encoders by their names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from retriever.encoder.load import NoEncoder, load_encoder
from retriever.types import UserError

if TYPE_CHECKING:
    pass


def test_load_encoder_knows_the_names(tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(load_encoder("none"), NoEncoder)
    monkeypatch.setattr("retriever.encoder.spec.default_encoder_path", lambda: tiny_encoder_folder)
    assert load_encoder().identity.name == "default"
    monkeypatch.setattr("retriever.encoder.spec.default_encoder_path", lambda: tiny_encoder_folder / "missing")
    with pytest.raises(UserError, match="default encoder is not there, the installation is incomplete"):
        load_encoder()


@pytest.mark.parametrize("spec", ["", "no-such-folder", "./a/b", "/no/such/folder", "a/b/c"])
def test_names_that_are_nothing(spec: str) -> None:
    with pytest.raises(UserError, match=r"no such|no encoder here|is empty"):
        load_encoder(spec)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "encoder").write_text("x")
    with pytest.raises(UserError, match="no such folder"):
        load_encoder(str(tmp_path / "encoder"))
