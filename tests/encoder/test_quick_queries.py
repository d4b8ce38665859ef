"""Quick queries against the usual way: nearly the same views, one text at a time, without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse.linalg import norm

from retriever.encoder.moe.encoder import MoEEncoder
from retriever.encoder.runtime import RuntimeConfig, fastest_precision

pytestmark = pytest.mark.skipif(fastest_precision("cpu") != "int8", reason="this processor does not encode in int8")
QUERIES = ["why does bread rise", "", "how do vaccines work in the human body and for how long", "solar power at night"]
PROGRAM = """
import sys
from retriever.encoder.load import load_encoder
from retriever.encoder.runtime import RuntimeConfig
encoder = load_encoder(sys.argv[1], RuntimeConfig(quick_queries=True), lazy=True)
encoder.encode_queries(["why does bread rise"])
print([name for name in ("torch", "transformers", "sklearn", "pandas") if name in sys.modules])
"""


@pytest.mark.parametrize("query_mode", ["encoder", "lexical"])
def test_views_are_nearly_those_of_the_usual_way(real_encoder_folder: Path, query_mode: str) -> None:
    usual = MoEEncoder(real_encoder_folder).with_query_mode(query_mode).encode_queries(QUERIES)
    quick = MoEEncoder(real_encoder_folder, runtime=RuntimeConfig(quick_queries=True)).with_query_mode(query_mode)
    found = quick.encode_queries(QUERIES)
    assert usual.dense is not None and found.dense is not None
    read = [0, 2, 3]
    assert np.sum(usual.dense[read] * found.dense[read], axis=1).min() > 0.999
    assert not found.dense[1].any() and not usual.dense[1].any()
    assert usual.sparse is not None and found.sparse is not None
    products = np.asarray(usual.sparse.multiply(found.sparse).sum(1)).ravel()[read]
    lengths = (norm(usual.sparse, axis=1) * norm(found.sparse, axis=1))[read]
    assert (products / lengths).min() > 0.99
    np.testing.assert_array_equal(usual.truncated, found.truncated)


def test_a_query_does_not_depend_on_the_others(real_encoder_folder: Path) -> None:
    encoder = MoEEncoder(real_encoder_folder, runtime=RuntimeConfig(quick_queries=True))
    together = encoder.encode_queries(QUERIES * 5)
    for row, query in enumerate(QUERIES):
        alone = encoder.encode_queries([query])
        assert together.dense is not None and alone.dense is not None
        np.testing.assert_array_equal(alone.dense[0], together.dense[row + len(QUERIES)])
        assert together.sparse is not None and alone.sparse is not None
        np.testing.assert_array_equal(alone.sparse.toarray()[0], together.sparse.toarray()[row + len(QUERIES)])


def test_nothing_heavy_is_imported(real_encoder_folder: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(real_encoder_folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
