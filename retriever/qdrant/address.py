"""Addresses of collections: on a server, in Qdrant's engine in this process, or in the client's imitation of it.

qdrant://host[:port]/collection    a server; qdrants:// for one that speaks TLS
qdrant-edge:folder                 the engine in this process (qdrant-edge-py)
qdrant-local:folder                qdrant-client's local mode, slow: for tests
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from retriever.types import UserError

__all__ = ["Address", "parse_address"]

PORT = 6333
COLLECTION = re.compile(r"[^\s/?#<>:\"|*\\\x00-\x1f]{1,255}")
"""What Qdrant allows as a name."""
# One slash, too: whoever makes a Path of an address loses the other one.
_SERVER = re.compile(
    r"(?P<scheme>qdrants?):/{1,2}(?P<host>\[[0-9a-fA-F:.]+\]|[^/:@\[\]\s]+)(:(?P<port>\d{1,5}))?/(?P<name>.*)"
)
_FOLDER = re.compile(r"(?P<scheme>qdrant-(edge|local)):(?P<folder>.+)", re.DOTALL)
ALLOWED = "write qdrant://host[:port]/collection, qdrants:// for TLS, or qdrant-edge:FOLDER"


class Address(NamedTuple):
    """Where a collection is. scheme: as it is written. host, port: of a server. folder: of one in this process."""

    scheme: str
    host: str
    port: int
    collection: str
    folder: Path

    @property
    def url(self) -> str:
        """Return the address of the server."""
        return f"{'https' if self.scheme == 'qdrants' else 'http'}://{self.host}:{self.port}"

    def __str__(self) -> str:
        if self.host:
            return f"{self.scheme}://{self.host}:{self.port}/{self.collection}"
        return f"{self.scheme}:{self.folder}"


def parse_address(place: str) -> Address:
    """Read an address; raise UserError for one that cannot be read, without a key that may stand in it.

    >>> str(parse_address("qdrant://localhost/papers"))
    'qdrant://localhost:6333/papers'
    """
    scheme = place.partition(":")[0]
    if "@" in place and not _FOLDER.fullmatch(place):
        raise UserError(f"{scheme}://...: an address holds no key; set QDRANT_API_KEY, and leave out what is before @")
    if found := _FOLDER.fullmatch(place):
        return Address(found["scheme"], "", 0, "retriever", Path(found["folder"]))
    server = _SERVER.fullmatch(place)
    if server is None or not COLLECTION.fullmatch(server["name"]) or not 0 < int(server["port"] or PORT) < 65_536:
        shown = re.sub("^(qdrants?):/{0,2}", r"\1://", place)  # as it was written, before it became a Path
        raise UserError(f"{shown!r}: not the address of a collection; {ALLOWED}")
    return Address(server["scheme"], server["host"], int(server["port"] or PORT), server["name"], Path())
