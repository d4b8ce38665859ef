"""What a server would let whom do: `retriever serve --check`."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from retriever.index.places import describe
from retriever.serve.run import address
from retriever.serve.settings import is_loopback

if TYPE_CHECKING:
    from pathlib import Path

    from retriever.serve.settings import ServeSettings

__all__ = ["exposure"]


def exposure(settings: ServeSettings, key_file: Path | None = None) -> dict[str, str]:
    """Return what is exposed, by subject.

    Raises:
        UserError: the settings are unsafe, or an index cannot be opened.
    """
    settings.check()
    limits = settings.limits
    reach = "this machine alone" if is_loopback(settings.host) else "every machine that has a way to it"
    documents = {name: describe(path).documents for name, path in settings.indexes.items()}
    return {
        "address": address(settings),
        "reached by": reach,
        "called": ", ".join(("localhost and its addresses", *settings.host_names)),
        "pages of other sites": ", ".join(settings.origins) or "none",
        "indexes": ", ".join(f"{name} ({count} documents)" for name, count in documents.items()),
        "reading": _who(settings, "read"),
        "writing": _who(settings, "write") if settings.write else "nobody",
        "without any key": "/healthz, /readyz, /openapi.json and the search page, which hold no document",
        **({"key file": _care(key_file)} if key_file else {}),
        "limits": f"query {limits.query} characters, top_k {limits.top_k}, body {limits.body} bytes (documents: "
        f"{limits.documents}), {limits.waiting} searches waiting, {limits.seconds:g} s a search, "
        f"{limits.connections} connections; each of {settings.workers} processes",
        "log": "queries too" if settings.log_queries else "no queries, no keys",
    }


def _who(settings: ServeSettings, scope: str) -> str:
    if not settings.keys:
        return "anybody who reaches it"
    keys = [key for key in settings.keys if scope == "read" or key.scope == "write"]
    return f"who has one of {len(keys)} keys" if keys else "nobody: no key allows it"


def _care(file: Path) -> str:
    mode = stat.S_IMODE(file.stat().st_mode)
    return f"{file} can be read by others; chmod 600 {file}" if mode & 0o077 else f"{file}, readable by its owner alone"
