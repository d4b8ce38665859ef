"""A FAISS type of one's own is an entry of the registry: built, chosen, searched and filtered without another line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.index.vectors import dense, faiss_types
from retriever.index.vectors.faiss_types import FaissType
from retriever.types import Document, Encoded, EncoderIdentity

DIM, ROWS = 16, 600


def test_a_type_defined_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[int] = []

    def parameters(faiss: Any, index: Any, selector: Any, wanted: int) -> Any:
        searched.append(wanted)
        return faiss.SearchParametersIVF(sel=selector, nprobe=index.nlist)

    monkeypatch.setitem(faiss_types.FAISS_TYPES, "pq", FaissType("IVF{lists},SQ8", 3, parameters))
    monkeypatch.setattr(faiss_types, "DENSE_TYPES", ("flat", *faiss_types.FAISS_TYPES))
    monkeypatch.setattr(dense, "SCAN_BELOW", 0)  # FAISS is needed, small as the index is
    vectors = np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32)
    documents = [Document(f"d{number:03}", "x", metadata={"n": number}) for number in range(ROWS)]
    settings = IndexSettings(EncoderIdentity("stub", "", DIM, 0), row_dtype="float32")
    with FolderWriter.create(tmp_path / "index", settings) as writer:
        writer.add(documents, Encoded(vectors, None, np.zeros(ROWS, bool)))
        writer.commit(dense_type="pq")
    with FolderReader.open(tmp_path / "index", verify=True) as reader:
        assert reader.commit_data.dense_type == "pq"
        for where, limit in ((None, ROWS), ("n < 300", 300)):
            [found] = reader.dense(vectors[:1], 10, None if where is None else reader.select(where))
            exact = np.argsort(-(vectors[:limit] @ vectors[0]), kind="stable")[:10]
            assert [hit.doc_id for hit in found] == [f"d{row:03}" for row in exact]
    assert searched == [62, 62]
