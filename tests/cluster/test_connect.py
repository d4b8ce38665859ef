"""What is wrong with a cluster is said in one line, at once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from retriever import Document, UserError
from retriever.cluster.connect import joined
from retriever.cluster.indexing import build_sharded_index
from retriever.testing import SeededEncoder

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")
OTHER_VERSION = """
import os, sys
os.environ.update(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
os.environ["RAY_TMPDIR"] = sys.argv[1]
from ray.cluster_utils import Cluster
own = dict(num_cpus=1, node_ip_address="127.0.0.1", include_dashboard=False, object_store_memory=80 << 20)
cluster = Cluster(initialize_head=True, head_node_args=own)
import ray
from retriever import UserError
from retriever.cluster.connect import joined
ray.__version__ = "2.1.0"
try:
    with joined(cluster.address):
        pass
except UserError as error:
    sys.stdout.write(str(error))
finally:
    cluster.shutdown()
"""


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_no_cluster(address: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"cluster '{address}': cannot be reached \(.*refused\); start one with `ray"):
        build_sharded_index([Document("a", "b")], tmp_path / "i", shards=1, cluster=address, encoder=SeededEncoder())
    assert not (tmp_path / "i").exists()
    with pytest.raises(UserError, match="cannot be reached"), joined(address):
        pass


@pytest.mark.slow
def test_a_cluster_that_asks_for_a_token(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:  # without a token, Ray does not get as far as to ask it
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        code = f"from retriever.cluster.connect import joined\nwith joined({address!r}): pass"
        own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
        command = [sys.executable, "-W", "ignore", "-c", code]
        own |= {"RAY_AUTH_MODE": "token", "HOME": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=own)
    assert done.stderr.splitlines()[-1] == (
        f"retriever.types.errors.UserError: cluster '{address}': asks for a token, and has got none or another one; "
        "set RAY_AUTH_MODE=token here, and copy ~/.ray/auth_token from the machine where it was started"
    )


@pytest.mark.slow
def test_another_version_of_ray(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = Path(f"/tmp/ray-{os.getpid()}")
    command = [sys.executable, "-W", "ignore", "-c", OTHER_VERSION, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert "runs another version" in done.stdout and "2.1.0" in done.stdout, done.stderr[-2000:]
    assert "\n" not in done.stdout
