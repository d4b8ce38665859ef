"""Folders made by version 0.1 still open: indexes, an encoder, an export, with the rankings that it gave.

tests/data/made-by-0.1 holds an index of the tiny corpus with one document deleted and one added, another one in chunks,
their encoder, and what version 0.1 found in them (`rankings.json`: "index|mode|query" -> ids with scores).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from retriever import Document, IndexWriter, Retriever, RuntimeConfig
from retriever.encoder.moe.encoder import MoEEncoder
from retriever.index.verify import verify_folder

MADE = Path(__file__).parents[1] / "data" / "made-by-0.1"
RANKINGS = json.loads((MADE / "rankings.json").read_text())


@pytest.fixture(scope="module")
def encoder() -> MoEEncoder:
    return MoEEncoder(MADE / "encoder", "made-by-0.1", RuntimeConfig(precision="float32"))


@pytest.fixture
def made(tmp_path: Path) -> Path:
    shutil.copytree(MADE, tmp_path / "made")
    return tmp_path / "made"


@pytest.mark.parametrize("name", ["index", "chunked"])
def test_an_index_is_searched_as_before(name: str, made: Path, encoder: MoEEncoder) -> None:
    with Retriever.open(made / name, encoder, verify=True) as retriever:
        for key, wanted in RANKINGS.items():
            if key == f"{name}|filter":
                found = [hit.doc_id for hit in retriever.search("water", 5, mode="bm25", filter="year >= 2015")]
                assert found == wanted
            elif key.startswith(f"{name}|"):
                _, mode, query = key.split("|")
                hits = retriever.search(query, 5, mode=mode)
                assert [hit.doc_id for hit in hits] == [doc_id for doc_id, _ in wanted], key
                assert [hit.score for hit in hits] == pytest.approx([score for _, score in wanted], abs=2e-4), key


def test_an_index_is_changed_verified_and_compacted(made: Path, encoder: MoEEncoder) -> None:
    with IndexWriter.open(made / "index", encoder) as writer:
        assert len(writer) == 20 and "d21" in writer and "d20" not in writer
        writer.add([Document("d22", "Bread is cut with a serrated knife.")])
        assert writer.delete(["d21"]) == 1
        writer.commit()
        with Retriever.open(made / "index", encoder) as retriever:
            assert retriever.search("serrated knife", 1)[0].doc_id == "d22"
        writer.compact()
    assert not verify_folder(made / "index").damages
    with Retriever.open(made / "index", encoder) as retriever:
        assert retriever.search("serrated knife", 1, mode="bm25")[0].doc_id == "d22"


def test_an_export_is_loaded_by_the_class_that_it_names(made: Path, encoder: MoEEncoder) -> None:
    from sentence_transformers import SentenceTransformer

    for file in (made / "encoder").iterdir():
        shutil.copy(file, made / "view-dense")
    model = SentenceTransformer(str(made / "view-dense"), trust_remote_code=True, device="cpu")
    dense = encoder.encode_documents(["the sea has water"]).dense
    assert dense is not None
    np.testing.assert_allclose(model.encode(["the sea has water"]), dense, atol=0.02)  # in another precision
