"""Who may do what: which key a request needs, and whether the server takes changes at all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from retriever.serve.problems import ProblemError
from retriever.serve.security.keys import presented

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retriever.serve.security.keys import Key, Scope
    from retriever.serve.settings import ServeSettings

__all__ = ["check_access", "is_closed", "needed_scope"]

READS = ("GET", "HEAD", "OPTIONS")
QUESTIONS = re.compile(r"/indexes/[^/]+/(search|search/batch|encode|documents/get)|/mcp(/.*)?")
"""What is asked by POST and changes nothing."""
CLOSED = re.compile(r"/(indexes|metrics|mcp)(/.*)?")
"""What needs a key; all else is the same for everybody: the page, the description of the interface, /healthz."""


def is_closed(path: str) -> bool:
    """Say whether something is not for everybody: documents, what is known of them, and figures."""
    return CLOSED.fullmatch(path) is not None


def needed_scope(method: str, path: str) -> Scope | None:
    """Return what a key has to allow for a request, None where anybody may.

    >>> needed_scope("GET", "/healthz"), needed_scope("POST", "/indexes/a/search")
    (None, 'read')
    >>> needed_scope("POST", "/indexes/a/documents"), needed_scope("DELETE", "/indexes/a/documents/search")
    ('write', 'write')
    """
    if not is_closed(path):
        return None
    return "read" if method in READS or (method == "POST" and QUESTIONS.fullmatch(path)) else "write"


def check_access(method: str, path: str, headers: Sequence[tuple[bytes, bytes]], settings: ServeSettings) -> Key | None:
    """Return the key of a request, None where it needs none.

    Raises:
        ProblemError: 401 without a key that the server knows, 403 with one that does not allow it, or where the server
        takes no changes.
    """
    scope = needed_scope(method, path)
    key = None
    if settings.keys and scope is not None:
        secret = presented(headers)
        key = None if secret is None else settings.keys.find(secret)
        if key is None:
            found = "no key" if secret is None else "a key that is not known"
            raise ProblemError(
                401,
                "key-needed",
                f"the request has {found}; send one as Authorization: Bearer KEY",
                {"www-authenticate": 'Bearer realm="retriever"'},
            )
        if scope == "write" and key.scope != "write":
            raise ProblemError(403, "key-refused", "the key allows reading alone; send one that allows writing")
    if scope == "write" and not settings.write:
        raise ProblemError(403, "read-only", "this server takes no changes; start it with --write to let it")
    return key
