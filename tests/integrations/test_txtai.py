from __future__ import annotations

from pathlib import Path

import pytest
from txtai import Embeddings

from retriever import Document, Retriever, build_index

pytestmark = [pytest.mark.lucene, pytest.mark.filterwarnings("ignore::DeprecationWarning:txtai")]
TEXTS = ["why bread rises", "twins look alike", "twins look alike", "the sea has tides"]


def test_a_database_searches_saves_and_loads(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    scoring = {
        "method": "retriever.integrations.txtai.HybridScoring",
        "terms": True,
        "encoder": str(tiny_encoder_folder),
    }
    database = Embeddings(content=True, keyword=True, scoring=scoring)
    database.index([(f"d{n}", {"text": text, "n": n}, None) for n, text in enumerate(TEXTS)])
    found = database.search("select id, n, text, score from txtai where similar('twins alike') and n < 2")
    assert [(row["id"], row["text"]) for row in found[:1]] == [("d1", TEXTS[1])]
    build_index(
        [Document(str(n), text) for n, text in enumerate(TEXTS)], tmp_path / "i", encoder=str(tiny_encoder_folder)
    )
    with Retriever.open(tmp_path / "i") as retriever:
        hits = retriever.search("twins alike", 4)
    assert [(row["id"], row["score"]) for row in database.search("twins alike", 4)] == [
        (f"d{hit.doc_id}", hit.score) for hit in hits if hit.score > 0
    ], "txtai drops scores of 0"
    database.save(str(tmp_path / "saved"))
    database.delete(["d1"])
    database.upsert([("d9", "twins again", None)])
    assert {"d2", "d9"} <= {row["id"] for row in database.search("twins", 9)} and database.count() == 4
    database.close()
    with Embeddings().load(str(tmp_path / "saved")) as again:
        assert {"d1", "d2"} <= {row["id"] for row in again.search("twins", 9)}
