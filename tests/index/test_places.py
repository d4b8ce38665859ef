"""Addresses are opened by the kind of place that claims them, all others as folders."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from retriever import Document, IndexWriter, Retriever, UserError, build_index
from retriever.index import places


def test_a_kind_opens_what_it_claims(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    build_index([Document("d1", "the sea")], tmp_path / "i", encoder="none")
    module = ModuleType("elsewhere")
    folders = import_module(places.FOLDERS)
    for name in ("open_reader", "open_writer"):
        opened = getattr(folders, name)
        setattr(module, name, lambda place, opened=opened, **how: opened(tmp_path / "i", **how))
    monkeypatch.setitem(sys.modules, "elsewhere", module)
    monkeypatch.setitem(places.KINDS, "elsewhere", places.Kind(lambda place: place == "there:i", "elsewhere"))
    with IndexWriter.open("there:i") as writer:
        writer.add([Document("d2", "the land")])
        writer.commit()
    with Retriever.open("there:i") as retriever:
        assert [hit.doc_id for hit in retriever.search("land")] == ["d2"]
    with pytest.raises(UserError, match="no such index folder"):
        Retriever.open("here:i")
