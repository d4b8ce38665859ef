"""A sharded index answers as one index of the same documents: every hit, every score, to the last tie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retriever.index import FolderWriter, IndexSettings
from retriever.index.shards.manifest import ShardManifest, write_manifest
from retriever.indexing.writer import IndexWriter
from retriever.search.retriever import MODES, Retriever
from retriever.testing import SeededEncoder
from retriever.types import Document, Query

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
WORDS = ["river", "stone", "bread", "winter", "garden", "paper", "silver", "letter", "island", "candle", "rivers"]
COUNT = 300


def documents(seed: int = 1, count: int = COUNT) -> list[Document]:
    """Make documents of which many tie: short ones of few words, and every fifth one twice."""
    random = np.random.default_rng(seed)
    found: list[Document] = []
    for number in range(count):
        text = " ".join(random.choice(WORDS, random.integers(0, 6)))
        if number % 5 == 4:
            text = found[-1].text
        metadata = {
            "n": number % 120,
            **({"rare": "yes"} if number == 7 else {}),
            "day": "2020-01-02" if number % 2 else "x",
        }
        found.append(Document(f"d{random.integers(1 << 30):x}-{number}", text, metadata=metadata))
    return found


def made(folder: Path, parts: list[list[Document]]) -> Path:
    names = [f"shard-{number}" for number in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        FolderWriter.create(folder / name, IndexSettings(SeededEncoder().identity)).close()
        with IndexWriter.open(folder / name, SeededEncoder()) as writer:
            writer.add(part)
            writer.commit()
    write_manifest(folder, ShardManifest(tuple(names)))
    return folder


QUERIES = [Query(text, text) for text in ("river", "river stone winter", "bread bread candle", "island", "unknown")]


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_every_ranking_is_that_of_one_index(shards: int, tmp_path: Path) -> None:
    corpus = documents()
    whole = made(tmp_path / "whole", [corpus])
    parted = made(tmp_path / "parted", [corpus[number::shards] for number in range(shards)])
    with (
        Retriever.open(whole / "shard-0", SeededEncoder()) as one,
        Retriever.open(parted, SeededEncoder()) as several,
    ):
        for where in (None, "n < 100", "rare = yes", "day >= 2020-01-01"):
            for depth in (3, 50, 1000):
                expected = list(one.rank_modes(QUERIES, depth, modes=MODES, filter=where))
                assert list(several.rank_modes(QUERIES, depth, modes=MODES, filter=where)) == expected
        for query in QUERIES:
            mine = one.search(query.text, 20, explain=True, highlight=True)
            assert several.search(query.text, 20, explain=True, highlight=True) == mine
        assert several.fields() == one.fields()
        for field in ("n", "rare", "day"):
            assert several.facets(field, top_k=50) == one.facets(field, top_k=50)
        assert several.facets("day", "river", filter="n < 50") == one.facets("day", "river", filter="n < 50")
        some = corpus[10].doc_id
        assert several.more_like_this(some, 5) == one.more_like_this(some, 5)
        assert several.documents([some, "none"]) == one.documents([some, "none"])
