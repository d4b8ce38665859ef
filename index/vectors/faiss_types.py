"""The FAISS types: how each is made and searched. A new type is an entry here; nothing else names one.

This module imports no FAISS (its functions are given the module) and no NumPy, so that the command line can offer the
names at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DENSE_TYPES", "FAISS_TYPES", "FaissType", "choose_type"]

CONSTRUCTION, SEARCH = 200, 400
"""Candidates kept while HNSW is built and searched: with FAISS's 40 and 16, groups of near copies are out of reach."""


class FaissType(NamedTuple):
    """A FAISS index type.

    factory: FAISS's factory string; {lists} becomes the number of lists for the rows at hand.
    proposals_per_hit: how many candidate rows it proposes per requested hit.
    search_parameters: from the FAISS module, an index, a selector of rows and the number of rows wanted to FAISS's
    parameters that keep to the selected rows and visit enough of them.
    prepare: what to set on an index before it is trained.
    visits: from the number of rows wanted to how many candidates are kept meanwhile, each of which costs time.
    """

    factory: str
    proposals_per_hit: int
    search_parameters: Callable[[Any, Any, Any, int], Any]
    prepare: Callable[[Any], None] = lambda index: None
    visits: Callable[[int], int] = lambda wanted: wanted


def _prepare_hnsw(index: Any) -> None:
    index.hnsw.efConstruction = CONSTRUCTION


def _search_hnsw(faiss: Any, index: Any, selector: Any, wanted: int) -> Any:
    return faiss.SearchParametersHNSW(sel=selector, efSearch=_hnsw_visits(wanted))


def _hnsw_visits(wanted: int) -> int:
    return max(SEARCH, 2 * wanted)


def _search_ivf(faiss: Any, index: Any, selector: Any, wanted: int) -> Any:
    """Visit enough lists for what is wanted, an eighth of them at least."""
    lists = max(16, index.nlist // 8, -(-2 * wanted * index.nlist // max(1, index.ntotal)))
    return faiss.SearchParametersIVF(sel=selector, nprobe=min(index.nlist, lists))


FAISS_TYPES = {
    "hnsw": FaissType("HNSW32,SQ8", 2, _search_hnsw, _prepare_hnsw, _hnsw_visits),
    "ivf": FaissType("IVF{lists},RaBitQ", 10, _search_ivf),
}
DENSE_TYPES = ("flat", *FAISS_TYPES)
"""What users choose from; "flat" scores all rows, without FAISS."""
AUTO = ((50_000, "flat"), (500_000, "hnsw"))
"""Up to how many rows "auto" means which type; beyond, it is "ivf"."""


def choose_type(name: str, rows: int) -> str:
    """Return the type that `name` stands for: "auto" goes by the number of rows.

    >>> choose_type("auto", 60_000)
    'hnsw'
    """
    if name == "auto":
        return next((kind for limit, kind in AUTO if rows <= limit), "ivf")
    if name not in DENSE_TYPES:
        raise UserError(f"dense type {name!r} is not known; allowed: auto, {', '.join(DENSE_TYPES)}")
    return name
