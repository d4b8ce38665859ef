"""A check that a network gives a text the same views whatever stands beside it in a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from retriever.network.packing import pack

if TYPE_CHECKING:
    from retriever.network.model import RetrieverModel

__all__ = ["batch_independent"]

LENGTHS = (9, 40, 100)


def batch_independent(model: RetrieverModel) -> bool:
    """Return whether three made-up texts have the same views alone and in a crowd, bit by bit.

    What processors' libraries do with other shapes of products cannot be known, only tried.
    """
    most = model.config.max_length
    draw = torch.Generator().manual_seed(0)
    texts = [
        torch.randint(model.config.vocab_size, (min(length, most),), generator=draw).tolist() for length in LENGTHS
    ]
    with torch.inference_mode():
        crowd = model.encode(pack(texts * 3))
        for row, text in enumerate(texts):
            alone = model.encode(pack([text]))
            for one, many in ((alone.dense, crowd.dense), (alone.sparse, crowd.sparse)):
                assert one is not None and many is not None
                if not torch.equal(one[0], many[row]):
                    return False
    return True
