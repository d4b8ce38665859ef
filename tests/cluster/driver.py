"""A program that builds a sharded index on a Ray cluster of its own; tests kill it and its workers."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retriever.testing import SeededEncoder
from retriever.types import Document, Encoded

WORDS = ["river", "stone", "bread", "winter", "garden", "paper", "silver", "letter", "island", "candle"]
KILLS = int(os.environ.get("RETRIEVER_KILLS", "3"))
SHARDS, DOCUMENTS, BATCH, COMMIT = 4, 400 * max(3, KILLS), 16, 64
HELD = DOCUMENTS * 3
"""Bytes of the log, some five for each text, with which a run waits for the test."""


def corpus() -> list[Document]:
    random = np.random.default_rng(3)
    return [Document(f"d{n}", f"text {n} " + " ".join(random.choice(WORDS, 8))) for n in range(DOCUMENTS)]


class SlowEncoder(SeededEncoder):
    """Takes its time, and writes down which texts it was given.

    It goes on to the end, at once, when the test has made a file `finish` beside the log: however busy the machine is,
    there is something left to be killed until then.
    """

    def __init__(self, log: Path, seconds: float) -> None:
        super().__init__()
        self._log, self._seconds = log, seconds
        self._finish = log.with_name("finish")

    def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        with self._log.open("a", encoding="utf-8") as file:  # a line is written at once
            file.write("".join(f"{text.split()[1]}\n" for text in texts))
        if not self._finish.exists():
            time.sleep(self._seconds)
        while self._log.stat().st_size > HELD and not self._finish.exists():
            time.sleep(0.05)
        return super().encode_documents(texts, dense=dense, sparse=sparse)


if __name__ == "__main__":
    from retriever.cluster.indexing import build_sharded_index
    from retriever.indexing.build import IndexingConfig

    os.environ["RAY_DISABLE_IMPORT_WARNING"] = "1"
    folder, log = map(Path, sys.argv[1:3])
    report = build_sharded_index(
        corpus(),
        folder,
        shards=SHARDS,
        cluster="local",
        encoder=SlowEncoder(log, float(sys.argv[3])),
        config=IndexingConfig(dense_type="flat", batch=BATCH, commit_every_documents=COMMIT),
        resume=True,
    )
    sys.stdout.write(f"{report.documents}\n")
