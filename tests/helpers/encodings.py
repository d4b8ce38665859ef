"""Encodings by our own encoder, and comparing them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retriever.encoder.moe.encoder import MoEEncoder
from retriever.encoder.moe.passes import Wanted
from retriever.encoder.runtime import PRECISIONS as PRECISIONS_OFFERED
from retriever.types import Encoded

if TYPE_CHECKING:
    from collections.abc import Sequence

PRECISIONS = [precision for precision in PRECISIONS_OFFERED if precision not in ("auto", "float16")]


def change_config(folder: Path, **values: object) -> None:
    """Change settings of an encoder folder."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def assert_rows_equal(
    left: Encoded, left_rows: Sequence[int], right: Encoded, right_rows: Sequence[int], tolerance: float = 0.0
) -> None:
    """Compare both views of some rows, bit by bit unless a tolerance is given."""
    assert left.dense is not None and right.dense is not None
    np.testing.assert_allclose(left.dense[left_rows], right.dense[right_rows], rtol=0, atol=tolerance)
    assert left.sparse is not None and right.sparse is not None
    one, other = left.sparse[left_rows], right.sparse[right_rows]
    for array in ("indptr", "indices"):
        np.testing.assert_array_equal(getattr(one, array), getattr(other, array))
    np.testing.assert_allclose(one.data, other.data, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(left.truncated[left_rows], right.truncated[right_rows])


def join(parts: list[Encoded]) -> Encoded:
    """Put the encodings of several batches together."""
    from scipy.sparse import vstack

    dense = np.concatenate([part.dense for part in parts if part.dense is not None])
    return Encoded(
        dense,
        vstack([part.sparse for part in parts if part.sparse is not None]).tocsr(),
        np.concatenate([p.truncated for p in parts]),
    )


def read(encoder: MoEEncoder, texts: list[str], prompt: str = "") -> Encoded:
    """Return the expansions in place of the sparse view, and the counts of tokens."""
    least = encoder.config.min_document_weight
    wanted = Wanted(dense=True, expand=True, counts=True, most=encoder.config.max_terms, least=least)
    return encoder.passes.encode(texts, prompt, wanted).encoded
