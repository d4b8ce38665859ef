"""Pyserini's own REST server over the Lucene folder of an index of ours: what `bench serve` compares with.

It knows prebuilt indexes alone, so the folder is put beside them, as the controller itself would put one.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType

__all__ = ["main"]


def main(folder: str, port: int) -> None:
    """Serve the index at /v1/indexes/bench/search until the process is ended."""
    from retriever.index.lucene.jvm import start_jvm

    start_jvm()
    os.environ.setdefault("OPENAI_API_KEY", "unused")  # pyserini cannot be imported without one; nothing asks OpenAI
    images = ModuleType("pyserini.encode.optional._uniir")  # of pictures: it needs a package of its own
    images.UniIRQueryEncoder = None  # type: ignore[attr-defined]
    sys.modules[images.__name__] = images
    import uvicorn
    from pyserini.search.lucene import LuceneSearcher
    from pyserini.server.models import IndexConfig
    from pyserini.server.rest.app import app
    from pyserini.server.search_controller import get_controller

    searcher = LuceneSearcher(folder)
    searcher.set_bm25(0.9, 0.4)
    controller = get_controller()
    controller.indexes["bench"] = IndexConfig(name="bench", searcher=searcher, base_index="bench", index_type="tf")
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
