"""The first hits of a process are read in another way than those that follow: to the same rows and scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.index.lucene import hits
from retriever.types import Document, Encoded, EncoderIdentity


def test_first_hits_are_those_that_follow(tmp_path: Path) -> None:
    documents = [Document(f"d, doc={i}", "word " * (1 + i % 3) + "other") for i in range(120)]
    with FolderWriter.create(tmp_path / "index", IndexSettings(EncoderIdentity("none", "", 0, 0))) as writer:
        writer.add(documents, Encoded(None, None, np.zeros(len(documents), bool)))
        writer.commit()
    with FolderReader.open(tmp_path / "index") as reader:
        for text, top_k in (("word", 1), ("word", 50), ("word other", 200), ("nothing", 5)):
            following = reader.bm25(text, top_k)
            hits._read.clear()
            assert reader.bm25(text, top_k) == following
