"""How a server runs: what it serves, where it listens, what it allows; safe where nothing is said."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.index.places import is_elsewhere
from retriever.index.settings import read_settings
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retriever.cluster.replicas import SearchCluster
    from retriever.serve.security.keys import Keys

__all__ = ["Limits", "ServeSettings", "is_loopback", "named_indexes"]


HOST_NAME = re.compile(r"[\w.-]+|\*")
ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:\d+)?|https?://\[[0-9a-f:.]+\](:\d+)?")
"""As browsers write it."""


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and how much of the machine all of them may take.

    query: characters of a query, a filter or a mode. top_k: hits of one answer. depth: how far `offset` and `top_k` may
    reach. ranked: hits of all rankings of a batch together. reads: hits that a stage of a client's pipeline may read.
    batch: queries, texts or ids of one request. body: bytes of a request. documents: bytes of a request that adds
    documents. headers: bytes of a request line with its headers. listed: bytes of a JSON list of documents, which is
    read as a whole.
    waiting: searches at work or waiting in one process; more are answered 429. connections: open ones of one process.
    seconds: how long a search may take. header_seconds, body_seconds: how long a client may take to send them, and
    `body_seconds` to read an answer. Times are in seconds.
    """

    query: int = 10_000
    top_k: int = 1_000
    depth: int = 10_000
    ranked: int = 1_000_000
    reads: int = 1_000
    batch: int = 1_000
    body: int = 4 * 2**20
    documents: int = 256 * 2**20
    listed: int = 16 * 2**20
    headers: int = 16 * 2**10
    waiting: int = 64
    connections: int = 1_000
    seconds: float = 10.0
    header_seconds: float = 10.0
    body_seconds: float = 60.0


@dataclass(frozen=True)
class ServeSettings:
    """Everything that a server process has to know; can be pickled.

    indexes: folders by the names that clients call them. encoder: where their encoder is, if it has moved.
    write: whether documents may be added and deleted. keys: who may; anybody where there are none.
    host_names: what a client may call this server, beside the loopback's names and addresses. origins: web sites whose
    scripts may ask. threads: searches at work at once in one process. log_queries: whether the log holds what people
    search for. mcp: whether agents are answered, too, at /mcp. pipelines: lines by the names that clients call them.
    cluster: where the shards of the indexes are searched, which then all are sharded ones; None for here.
    """

    indexes: Mapping[str, Path]
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    write: bool = False
    keys: Keys | None = None
    without_keys: bool = False
    encoder: str | None = None
    query_mode: str | None = None
    host_names: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    threads: int = field(default_factory=lambda: max(2, os.cpu_count() or 1))
    log_queries: bool = False
    mcp: bool = False
    pipelines: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits()
    cluster: SearchCluster | None = None

    def check(self) -> None:
        """Refuse what would be unsafe, or cannot work.

        Raises:
            UserError: it listens to other machines and asks nobody for a key, or a folder is no index.
        """
        for path in self.indexes.values():
            if not is_elsewhere(path):  # else it is seen when it is opened
                read_settings(path)
        if not self.indexes:
            raise UserError("no index to serve; give the folder of one")
        if not self.host:
            raise UserError("the host is empty; give an address to listen on, such as 127.0.0.1")
        for name in self.host_names:
            if not HOST_NAME.fullmatch(name):
                raise UserError(f"{name!r}: no name of a host; give one such as search.example.org, without a port")
        for origin in self.origins:
            if not ORIGIN.fullmatch(origin):
                raise UserError(f"{origin!r}: no site; give one such as https://example.org, without a path")
        if not is_loopback(self.host) and not self.keys and not self.without_keys:
            raise UserError(
                f"{self.host}: other machines can reach it, and no key is asked for; give --keys FILE, listen on "
                "127.0.0.1, or say --without-keys where something else lets only the right people in"
            )


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches what listens on a host.

    >>> is_loopback("localhost"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("example.org")
    (True, True, False, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def named_indexes(given: Sequence[str]) -> dict[str, Path]:
    """Return index folders by name: "NAME=DIR", or a folder, whose name is its own.

    Raises:
        UserError: two have the same name, or one has a name that cannot stand in an address.
    """
    found: dict[str, Path] = {}
    for text in given:
        if text.startswith(("http://", "https://")):
            raise UserError(f"{text}: an address, not a folder; this command serves folders of indexes")
        name, equals, folder = text.partition("=")
        if not equals or Path(text).exists():
            name, folder = Path(text).absolute().name, text
        if not name or not all(sign.isalnum() or sign in "._-" for sign in name) or name.startswith("."):
            raise UserError(
                f"{text}: the index would be called {name!r}; names have letters, digits, '.', '_' and '-'; "
                "give another one as NAME=DIR"
            )
        if name in found:
            raise UserError(f"{found[name]} and {folder} are both called {name}; name one of them as NAME=DIR")
        found[name] = Path(folder)
    return found
