"""Every way to store vectors, through the life of an index: search, compact, verify, settings of an older version."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.index.info import describe
from retriever.index.settings import read_settings, write_settings
from retriever.index.vectors.row_formats import ROW_TYPES, RowFormat, StoredVectors
from retriever.index.verify import Damage, verify_folder
from retriever.types import Document, Encoded, EncoderIdentity, Ranking

os.environ.setdefault("OMP_NUM_THREADS", "1")
DIM, VOCAB, COUNT = 8, 20, 60


def encode(texts: Sequence[str]) -> Encoded:
    random = [np.random.default_rng(zlib.crc32(text.encode())) for text in texts]
    dense = np.array([r.standard_normal(DIM) for r in random], np.float32)
    sparse = np.array([r.random(VOCAB) + 0.1 for r in random], np.float32)
    return Encoded(dense, csr_matrix(sparse), np.zeros(len(texts), bool))


def add(writer: FolderWriter, start: int, stop: int, text: str = "river") -> None:
    documents = [Document(f"d{n:02}", f"{text} {n}") for n in range(start, stop)]
    writer.add(documents, encode([document.contents for document in documents]))


@pytest.fixture(params=ROW_TYPES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Make an index of 60 documents, ten of them with a second version, and HNSW over some of the rows."""
    settings = IndexSettings(EncoderIdentity("stub", "0" * 64, DIM, VOCAB), row_dtype=request.param, max_terms=7)
    with FolderWriter.create(tmp_path / "index", settings) as writer:
        add(writer, 0, 40)
        writer.commit(dense_type="hnsw")
        add(writer, 40, COUNT)
        writer.commit()
    with FolderWriter.open(tmp_path / "index") as writer:
        add(writer, 5, 15, "stone")
        writer.commit()
    return tmp_path / "index"


def answers(folder: Path) -> list[list[Ranking]]:
    with FolderReader.open(folder) as reader:
        queries = encode([f"query {n}" for n in range(5)])
        assert queries.dense is not None
        return [reader.dense(queries.dense, top_k) for top_k in (1, 10, 100)]


def test_scores_are_those_of_the_stored_rows(folder: Path) -> None:
    texts = {f"d{n:02}": f"stone {n}" if 5 <= n < 15 else f"river {n}" for n in range(COUNT)}
    dense, queries = encode(list(texts.values())).dense, encode([f"query {n}" for n in range(5)]).dense
    assert dense is not None and queries is not None
    with FolderReader.open(folder) as reader:
        form = RowFormat(reader.settings.row_dtype, DIM)
        assert sum(reader.sparse_frequencies(range(VOCAB))) == 7 * COUNT  # those replaced count no more
    scores = StoredVectors(form.store(dense), form)[:].astype(np.float64) @ queries.T
    for column, ranking in zip(scores.T, answers(folder)[2], strict=True):
        wanted = sorted(zip(texts, column.tolist(), strict=True), key=lambda hit: -hit[1])
        assert [hit.doc_id for hit in ranking] == [doc_id for doc_id, _ in wanted]
        assert [hit.score for hit in ranking] == pytest.approx([score for _, score in wanted], abs=1e-5)


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_compacting_keeps_the_rows_to_the_bit(folder: Path, kind: str) -> None:
    before, row_dtype = answers(folder), describe(folder).row_dtype
    with FolderWriter.open(folder) as writer:
        assert writer.compact(kind) == 10
    assert answers(folder) == before and verify_folder(folder).damages == ()
    found = describe(folder)
    assert (found.row_dtype, found.max_terms, found.dense_type) == (row_dtype, 7, kind)
    [file] = folder.glob("rows*/vectors.*")
    assert file.stat().st_size == COUNT * RowFormat(row_dtype, DIM).record.itemsize


def test_a_flipped_byte_of_the_rows_is_found(folder: Path) -> None:
    [file] = folder.glob("rows/vectors.*")
    data = bytearray(file.read_bytes())
    for place in (0, len(data) // 2, len(data) - 1):
        damaged = data.copy()
        damaged[place] ^= 1
        file.write_bytes(damaged)
        assert verify_folder(folder).damages == (Damage(f"rows/{file.name}", "wrong checksum"),)
    file.write_bytes(data)
    assert verify_folder(folder).damages == ()


def test_settings_of_a_version_without_a_number_of_terms(tmp_path: Path) -> None:
    settings = IndexSettings(EncoderIdentity("stub", "0" * 64, DIM, VOCAB))
    write_settings(tmp_path, settings)
    values = json.loads((tmp_path / "index.json").read_text())
    del values["max_terms"]
    (tmp_path / "index.json").write_text(json.dumps(values))
    assert read_settings(tmp_path) == settings and (settings.row_dtype, settings.max_terms) == ("float32", None)
