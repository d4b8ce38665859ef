"""More than one machine: shards are built and searched on a Ray cluster."""

from retriever.cluster.indexing import build_sharded_index
from retriever.cluster.replicas import SearchCluster
from retriever.types import ShardLostError

__all__ = ["SearchCluster", "ShardLostError", "build_sharded_index"]
