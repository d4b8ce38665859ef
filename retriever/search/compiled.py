"""What searches run, compiled at an installation: else the first search does it, and takes half a minute."""

from __future__ import annotations

from retriever.index.lucene.stored_fields import stored_kernel
from retriever.index.postings.row_impacts import row_impacts_kernel
from retriever.index.vectors.halves import halves_kernels
from retriever.index.vectors.scan import processor_scans, scan_kernel
from retriever.network.int8.decoder import decoder_kernels
from retriever.network.int8.query import few_kernels
from retriever.search.legs.bm25_postings import word_kernels
from retriever.search.legs.sparse_postings import sparse_kernel

__all__ = ["compile_kernels"]


def compile_kernels() -> None:
    """Compile all kernels that this processor has the instructions for, and keep their machine code."""
    for load in (few_kernels, decoder_kernels, sparse_kernel, word_kernels, stored_kernel, row_impacts_kernel):
        load()
    if processor_scans():
        scan_kernel()
        halves_kernels()


if __name__ == "__main__":
    compile_kernels()
