"""What the adapters share: what they search, and how records become those of a framework."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from retriever.types import Document
from retriever.wire import hit_to_wire

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retriever.remote.client import RemoteRetriever
    from retriever.search.retriever import Retriever
    from retriever.types import Hit

__all__ = ["Index", "Searcher", "document_of", "hit_metadata", "metadata_of", "opened"]

ID, RANK, PARTS = "_id", "_rank", "_parts"
KEYS = (ID, RANK, "_score", PARTS, "_terms", "_chunks", "_highlights", "_title_highlights", "_stages")
"""What a hit says of itself in a framework's metadata, beside the document's own."""
TITLE = "title"


Searcher: TypeAlias = "Retriever | RemoteRetriever"
"""What can be searched: an index that is open, here or behind a server."""
Index: TypeAlias = "str | Path | Searcher"
"""What the adapters search: the folder of an index or the address of a server, which they open, or what is open."""


def opened(index: Index) -> Searcher:
    """Return what to search; raise UserError for a folder or an address that cannot be opened."""
    if isinstance(index, str) and index.startswith(("http://", "https://")):
        from retriever.remote.client import RemoteRetriever

        return RemoteRetriever(index)
    from retriever.search.retriever import Retriever

    return Retriever.open(index) if isinstance(index, str | Path) else index


def document_of(doc_id: str, text: str, metadata: Mapping[str, Any]) -> Document:
    """Return a framework's document as ours: its title is searched as titles are, and stays a field for filters."""
    title = metadata.get(TITLE)
    own = {key: value for key, value in metadata.items() if key not in KEYS}
    return Document(doc_id, text, title if isinstance(title, str) else "", own)


def metadata_of(document: Document | Hit) -> dict[str, Any]:
    """Return a document's own metadata, its title among them, as `document_of` read them."""
    title = {TITLE: document.title} if document.title else {}
    return {**title, **document.metadata}


def hit_metadata(hit: Hit) -> dict[str, Any]:
    """Return a document's metadata with what the search says of it: id, rank, score, each leg's part and the like.

    All of it is plain JSON; the keys of the search begin with an underscore.
    """
    said = {f"_{name}": value for name, value in hit_to_wire(hit).items()}
    return {**metadata_of(hit), ID: hit.doc_id, **{key: said[key] for key in KEYS[1:] if said[key] != []}}
