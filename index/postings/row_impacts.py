"""The impacts of one row, found in the postings, which are stored term by term."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

import numpy as np

from retriever.machine_code import load_kernels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scipy.sparse import csr_matrix

    from retriever.index.postings.sparse import Postings
    from retriever.machine_code import Kernel

__all__ = ["row_impacts", "row_impacts_kernel"]

KERNEL = "retriever.search.kernels.row_impacts"
SOURCES = ("retriever.search.kernels.sparse_sums", "retriever.instructions")


def row_impacts_kernel() -> Kernel:
    """Return the compiled step; compiling it, once after an installation, takes some seconds."""
    return load_kernels(KERNEL, ("row_impacts",), sources=SOURCES)["row_impacts"]


def row_impacts(postings: Postings, row: int, vocab_size: int, terms: Sequence[int] | None = None) -> csr_matrix:
    """Return int32 csr (1, vocab_size): the impacts of a row, or those of some terms.

    All terms of a block are looked up in a millisecond, some in microseconds.
    """
    from scipy.sparse import csr_matrix

    number = bisect_right(postings.first_rows, row) - 1
    block = postings.blocks[number]
    names, starts, sizes = block.terms, block.starts, block.sizes
    if terms is not None:
        _, wanted = block.find(np.unique(terms))
        names, starts, sizes = names[wanted], starts[wanted], sizes[wanted]
    impacts = np.empty(len(names), np.int32)
    address = block.data.__array_interface__["data"][0]
    row_impacts_kernel()(address, block.rows, block.step, starts, sizes, row - postings.first_rows[number], impacts)
    held = np.flatnonzero(impacts)
    return csr_matrix((impacts[held], names[held].astype(np.int32), [0, len(held)]), shape=(1, vocab_size))
