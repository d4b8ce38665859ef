"""From a query to hits: legs, modes, fusion, and the `Retriever` that puts them together."""

from retriever.search.leg import register
from retriever.search.legs.bm25 import Bm25Leg
from retriever.search.legs.dense import DenseLeg
from retriever.search.legs.sparse import SparseLeg

__all__ = ["Bm25Leg", "DenseLeg", "SparseLeg"]

# Their weights in the default fusion were chosen together, on NFCorpus dev, Cranfield and CISI with the default
# encoder, so that any two of the legs do well, too.
for leg in (Bm25Leg, SparseLeg, DenseLeg):
    register(leg)
