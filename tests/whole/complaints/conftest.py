"""Two indexes that the tests of complaints only read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.complaints import call, document, make


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an index of 60 documents whose encoder is a SeededEncoder."""
    return make(tmp_path_factory.mktemp("seeded") / "index", [document(number) for number in range(60)])


@pytest.fixture(scope="session")
def real(tiny_encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an index of 30 documents made by the command line with an encoder folder."""
    folder = tmp_path_factory.mktemp("real")
    lines = [
        {"_id": doc.doc_id, "text": f"{doc.text} the moon pulls water", **doc.metadata}
        for doc in map(document, range(30))
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    called = call("index", folder / "corpus.jsonl", "--index", folder / "index", "-e", tiny_encoder_folder, "-q")
    assert called.exit_code == 0, called.output
    return folder / "index"
