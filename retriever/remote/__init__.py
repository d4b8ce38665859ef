"""An index behind a server, searched as if it were here: `pip install 'hybrid-retriever[client]'`."""

from __future__ import annotations

from retriever.remote.asynchronous import AsyncRetriever
from retriever.remote.client import RemoteRetriever

__all__ = ["AsyncRetriever", "RemoteRetriever"]
