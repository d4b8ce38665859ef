"""What searches run, compiled at an installation or beside the first indexing: else the first search takes long.

`python -m retriever.search.compiled` does it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

from retriever.files import cache_root
from retriever.index.lucene.stored_fields import stored_kernel
from retriever.index.postings.row_impacts import row_impacts_kernel
from retriever.index.vectors.halves import halves_kernels
from retriever.index.vectors.scan import processor_scans, scan_kernel
from retriever.network.int8.decoder import decoder_kernels
from retriever.network.int8.query import few_kernels
from retriever.search.legs.bm25_postings import word_kernels
from retriever.search.legs.sparse_postings import sparse_kernel, sparse_kernel_kept

__all__ = ["compile_beside", "compile_kernels"]

YIELDING = 10
"""How much a process that compiles beside another gives way to it."""


def compile_kernels() -> None:
    """Compile all kernels that this processor has the instructions for, and keep their machine code."""
    if processor_scans():
        scan_kernel()
        halves_kernels()
    # Those of the network last: indexing compiles them, too.
    for load in (sparse_kernel, word_kernels, stored_kernel, row_impacts_kernel, decoder_kernels, few_kernels):
        load()


def compile_beside() -> None:
    """Begin to compile what searches run in another process, where that was never done: nobody waits for it.

    It ends by itself, after this process if need be.
    """
    if sparse_kernel_kept():
        return
    with suppress(OSError):  # then the first search does it
        (cache_root() / "kernels").mkdir(parents=True, exist_ok=True)
        nowhere = subprocess.DEVNULL
        command = [sys.executable, "-m", __name__, "--beside"]
        subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True)


if __name__ == "__main__":
    if "--beside" in sys.argv:
        os.nice(YIELDING)
    compile_kernels()
