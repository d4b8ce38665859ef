"""Documents by the kernels for queries, with the same numbers: on processors whose fastest products they are."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch

from retriever.network.int8.kernels.tiles import processor_has
from retriever.network.model import RetrieverOutput

if TYPE_CHECKING:
    from retriever.network.int8.query import QueryNetwork
    from retriever.network.model import RetrieverConfig
    from retriever.network.packing import Packed

__all__ = ["TiledNetwork", "products_overflow", "tiles_pay"]


def tiles_pay() -> bool:
    """Say whether `tiles` are faster than oneDNN's products: where both are VNNI's and AVX512-BF16's, not AMX's."""
    return processor_has("avx512vnni") and processor_has("avx512bf16") and not processor_has("amx-int8")


@cache
def products_overflow() -> bool:
    """Say whether torch's int8 products are wrong here: without VNNI or AMX, oneDNN adds up pairs in 16 bits."""
    import torch

    ones = torch.full((64, 64), 127, dtype=torch.int8)
    return bool((torch._int_mm(ones, -ones) != -64 * 127 * 127).any())


class TiledNetwork:
    """Encodes packed batches as `Int8Network` does, but for the routing of experts, by the network for queries."""

    def __init__(self, network: QueryNetwork, config: RetrieverConfig) -> None:
        self.config = config
        self._network = network

    def encode(self, packed: Packed, *, dense: bool = True, sparse: bool = True, prompt: int = 0) -> RetrieverOutput:
        """Encode a packed batch: only the views that are asked for are computed, texts stay in packed order.

        prompt: how many tokens of each text, from its second on, are a prompt's.
        """
        texts = [
            text.tolist()
            for group in packed.groups
            for text in packed.input_ids[group.start : group.stop].view(group.count, group.length).numpy()
        ]
        found = self._network.encode(texts, dense=dense, sparse=sparse, prompt=prompt)
        vectors, weights = (None if view is None else torch.from_numpy(view) for view in (found.dense, found.sparse))
        return RetrieverOutput(vectors, weights, (), torch.from_numpy(found.states))
