"""A program that keeps a Ray cluster of two nodes on this machine; a line on standard input ends the second one."""

from __future__ import annotations

import os
import sys
from typing import Any

if __name__ == "__main__":
    os.environ.update(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", RAY_USAGE_STATS_ENABLED="0", RAY_TMPDIR=sys.argv[1])
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False, "object_store_memory": 80 << 20}
    cluster: Any = Cluster(initialize_head=True, head_node_args=node)
    try:
        second = cluster.add_node(**node)
        sys.stdout.write(f"{cluster.address}\n")
        sys.stdout.flush()
        if sys.stdin.readline():
            cluster.remove_node(second, allow_graceful=False)
            sys.stdin.read()
    finally:
        cluster.shutdown()
