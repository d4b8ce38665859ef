"""Sharded indexes beside single ones: rankings, throughput, memory, tail latency."""
