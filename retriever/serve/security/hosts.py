"""Which names a server answers to, and which web pages may ask it.

A page that someone visits can make the browser ask a server on the same machine: by a name of its own that it points
to 127.0.0.1 (DNS rebinding), which the Host header tells, or directly, which the Origin header tells.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from retriever.serve.problems import ProblemError
from retriever.serve.security.access import is_closed
from retriever.serve.settings import is_loopback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retriever.serve.settings import ServeSettings

__all__ = ["check_fetch", "check_host", "check_origin", "one_header"]

ANY = "*"


def check_host(host: str, settings: ServeSettings) -> None:
    """Refuse a request that calls the server by a name that is not its own; `host` may end with a port."""
    name = _without_port(host).lower().rstrip(".")
    if ANY in settings.host_names or name in (known.lower() for known in settings.host_names):
        return
    if is_loopback(name) or (not is_loopback(settings.host) and _is_address(name)):
        return
    raise ProblemError(
        421, "unknown-host", f"this server is not called {ascii(host)[:80]}; ask by its address, or start it with "
        "--host-name NAME"
    )  # fmt: skip


def check_origin(origin: str | None, host: str, settings: ServeSettings) -> None:
    """Refuse a request that a page of another site makes, unless that site was named."""
    if origin is None or origin in settings.origins:
        return
    scheme, _, rest = origin.partition("://")
    if scheme in ("http", "https") and rest.lower() == host.lower():
        return
    raise ProblemError(
        403, "other-site", f"pages of {ascii(origin)[:80]} may not ask this server; start it with --origin URL to "
        "let them"
    )  # fmt: skip


def check_fetch(site: str | None, origin: str | None, path: str) -> None:
    """Refuse what a page of another site has a browser fetch without an Origin, as an image or by a link.

    Its script cannot read the answer, but it can have the server search, and see how long that takes. site: what the
    browser says of it (Sec-Fetch-Site). The search page itself may be linked to.
    """
    if site in ("cross-site", "same-site") and origin is None and is_closed(path):
        raise ProblemError(
            403, "other-site", "pages of other sites may not ask this server; open the search page, or ask it yourself"
        )


def _without_port(host: str) -> str:
    """Return the name or address of a Host header.

    >>> _without_port("[::1]:8000"), _without_port("localhost:8000"), _without_port("localhost")
    ('::1', 'localhost', 'localhost')
    """
    if host.startswith("[") and "]" in host:
        return host[1:].partition("]")[0]
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def one_header(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> str | None:
    """Return the value of a header, None without it; raise ProblemError 400 where it stands twice."""
    found = [value for key, value in headers if key == name]
    if len(found) > 1:
        raise ProblemError(
            400, "invalid-request", f"the header {name.decode()} stands {len(found)} times; send it once"
        )
    return found[0].decode("latin-1") if found else None
