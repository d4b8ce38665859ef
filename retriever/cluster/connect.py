"""Joining a Ray cluster, or starting one on this machine. Nothing else in the project imports Ray first."""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
import threading
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from retriever.cluster.signals import signal_handlers_kept
from retriever.extras import extra
from retriever.processes import processors
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LOCAL", "import_ray", "joined", "spread"]

LOCAL = "local"
"""The address that stands for a cluster of this machine alone, which ends with the program that starts it."""
STORE = 100 << 20
"""Bytes of shared memory of a cluster of our own: what goes through it is queries and hits."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else Ray listens on the machine's address
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # tasks without a GPU keep what they see: Ray warns otherwise
    "RAY_DEDUP_LOGS": "0",
}
PROBE = 5.0
"""Seconds to wait for the machine of an address."""
STARTS = 3
"""How often a cluster of our own is tried to start."""
AUTHENTICATION = "RAY_AUTH_MODE"
log = logging.getLogger(__name__)


_joining = threading.Lock()
_ours: list[ExitStack] = []
"""Of the connection that was made here, once for each of its users: the last one ends it."""


def import_ray() -> Any:
    """Import Ray, which reads its settings from the environment as it is imported; raise UserError if it is missing."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with extra("ray"):
        import ray
    return ray


@contextmanager
def joined(address: str) -> Iterator[Any]:
    """Give Ray, connected to a cluster for the time of the block: "local", or an address as `ray.init` takes it.

    A program that has joined a cluster already goes on with that one, which stays.

    Raises:
        UserError: there is no cluster, it runs another version of Ray or Python, or Ray is not installed.
    """
    if address == LOCAL:
        os.environ.setdefault(AUTHENTICATION, "disabled")  # it listens to this machine alone, and leaves no token
    ray = import_ray()
    with _joining:
        if not _ours and not ray.is_initialized():
            _ours.append(ExitStack())
            try:
                folder = tempfile.TemporaryDirectory(prefix="ray-", dir=_short(), ignore_cleanup_errors=True)
                _ours[0].enter_context(_events_logged())
                _connect(ray, address, _ours[0].enter_context(folder))
            except BaseException:
                _ours.pop().close()
                raise
            _ours[0].callback(_leave, ray)
        elif _ours:
            _ours.append(_ours[0])
    try:
        yield ray
    finally:
        with _joining:
            if _ours and len(_ours) == 1:
                _ours[0].close()
            if _ours:
                _ours.pop()


@contextmanager
def _events_logged() -> Iterator[None]:
    """Log the first sentence of what Ray tells of deaths: it writes pages of it to standard output."""
    from ray._private import worker

    before = worker.print_to_stdstream
    worker.print_to_stdstream = lambda data, **_: log.warning("Ray: %s", " ".join(data["lines"]).partition(". ")[0])
    try:
        yield
    finally:
        worker.print_to_stdstream = before


def _leave(ray: Any) -> None:
    with signal_handlers_kept():  # Ray leaves none behind
        ray.shutdown()


def _short() -> str:
    """Return a folder with a short name: the paths of Ray's sockets may have 107 bytes."""
    usual = tempfile.gettempdir()
    return usual if len(usual) < 20 else "/tmp"


def _connect(ray: Any, address: str, folder: str) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    own: dict[str, Any] = {
        "num_cpus": processors(),
        "include_dashboard": False,
        "object_store_memory": STORE,
        "_temp_dir": folder,
        "_node_ip_address": "127.0.0.1",
    }
    _probe(address)
    written: list[bytes] = []
    try:
        with signal_handlers_kept():
            if address == LOCAL:
                _started(ray, own | quiet)
            else:
                here = address.startswith(("127.", "localhost:"))
                with _standard_error_read() as written, _on_loopback() if here else nullcontext():
                    ray.init(address, **({} if address.startswith("ray://") else quiet))
    except ray.exceptions.AuthenticationError:
        raise _refused(address) from None
    except (ConnectionError, ValueError, TimeoutError) as error:
        if b"InvalidAuthToken" in b"".join(written):
            raise _refused(address) from None
        raise _unreachable(address, _line(error)) from None
    except RuntimeError as error:
        if "ersion" not in str(error):
            raise
        raise UserError(
            f"cluster {address!r}: runs another version ({_line(error)}); install there what `pip freeze` shows here"
        ) from None


def _started(ray: Any, options: dict[str, Any]) -> None:
    """Start a cluster of our own. Ray waits for 30 seconds, which a busy machine may not keep to: once more then."""
    for _ in range(STARTS):
        try:
            with _on_loopback():
                ray.init(LOCAL, **options)
            return
        except Exception as error:
            if "timed out during startup" not in str(error):  # Ray raises a plain Exception
                raise
            ray.shutdown()
    raise UserError(
        f"cluster 'local': Ray did not start within 30 s, {STARTS} times; the machine is too busy, try again later"
    )


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Let Ray use this machine's own address alone: where a program imported it first, it has not read our `QUIET`."""
    from ray._private import ray_constants

    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _standard_error_read() -> Iterator[list[bytes]]:
    """Give what is written to standard error in the block, after it, and write it there if the block ends well.

    Ray's core writes a line each second while it cannot join, whatever level of logging is set.
    """
    written: list[bytes] = []
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield written
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            written.append(file.read())
    sys.stderr.write(written[0].decode(errors="replace"))


def _probe(address: str) -> None:
    """Raise UserError where nothing listens: Ray itself tries for a minute, and writes lines of its own."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and port.isdigit()):
        return  # "local", "auto": Ray knows where
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, _line(error)) from None


def _unreachable(address: str, reason: str) -> UserError:
    return UserError(
        f"cluster {address!r}: cannot be reached ({reason}); start one with `ray start --head`, or give --cluster local"
    )


def _refused(address: str) -> UserError:
    return UserError(
        f"cluster {address!r}: asks for a token, and has got none or another one; set {AUTHENTICATION}=token here, and "
        "copy ~/.ray/auth_token from the machine where it was started"
    )


def _line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(error).split())[:300]


def spread(ray: Any) -> list[Any]:
    """Return where actors go, so that each next one is on another machine; elsewhere, if that one is lost or full."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = sorted(node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU"))
    return [NodeAffinitySchedulingStrategy(node, soft=True) for node in nodes] or ["SPREAD"]
