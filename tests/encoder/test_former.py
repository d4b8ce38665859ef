"""The default encoder of earlier versions, for indexes that were built with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner

from retriever import build_index
from retriever.cli.main import cli
from retriever.encoder.former import former_default
from retriever.encoder.load import load_encoder
from retriever.search.retriever import Retriever
from retriever.types import Document

if TYPE_CHECKING:
    from pathlib import Path

DIGESTS = {
    "0.1": "2b13bbcea88b61acc1948899fa1af9046d31f16929d1784f8a85ee30d6979e59",
    "0.2-dev": "c95b3fd3688a0feeee1e1e3019198f568d98a77d4a0290a84df91948265a9c3b",
}
"""What indexes of these versions remember of their encoder."""
TEXTS = ["Bread rises because yeast gives off gas.", "The moon pulls the water of the sea.", "Cheese is made of milk."]


@pytest.mark.parametrize("version", DIGESTS)
def test_it_is_that_encoder(version: str) -> None:
    """Its digest is that of then; the dense view is today's, and it has more terms than today's."""
    former, today = former_default(version), load_encoder("default")
    assert (former.identity.name, former.identity.sha256) == ("default", DIGESTS[version])
    assert today.identity.sha256 not in DIGESTS.values()
    before, now = former.encode_documents(TEXTS), today.encode_documents(TEXTS)
    assert before.dense is not None and now.dense is not None
    np.testing.assert_array_equal(before.dense, now.dense)
    assert before.sparse is not None and now.sparse is not None and before.sparse.nnz > now.sparse.nnz


@pytest.mark.parametrize("version", DIGESTS)
def test_an_index_of_then_is_searched_and_changed(version: str, tmp_path: Path) -> None:
    documents = [Document(str(number), text) for number, text in enumerate(TEXTS)]
    folder = tmp_path / "index"
    build_index(documents, folder, encoder=former_default(version))
    with Retriever.open(folder) as retriever:
        assert retriever.encoder.identity.sha256 == DIGESTS[version]
        assert [hit.doc_id for hit in retriever.search("why does dough grow?", top_k=1)] == ["0"]
    more = tmp_path / "more.jsonl"
    more.write_text('{"id": "new", "text": "Dough grows in a warm place."}\n')
    added = CliRunner().invoke(cli, ["add", str(folder), str(more)])
    assert added.exit_code == 0, added.output
    with Retriever.open(folder, encoder="default") as retriever:
        assert retriever.search("dough grows", top_k=1)[0].doc_id == "new"
