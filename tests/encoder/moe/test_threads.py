"""Threads that encode: one torch thread each, everybody else's number as before, the same results."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch

from retriever.encoder.moe.encoder import MoEEncoder
from retriever.encoder.moe.threads import encoding_threads
from retriever.encoder.runtime import RuntimeConfig


@pytest.fixture
def three_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_each_thread_has_one_and_others_keep_theirs() -> None:
    pool = encoding_threads()
    assert pool is not None
    assert list(pool.map(lambda _: torch.get_num_threads(), range(12))) == [1] * 12
    others: list[int] = []
    late = Thread(target=lambda: others.append(torch.get_num_threads()))
    late.start()
    late.join()
    assert [torch.get_num_threads(), *others] == [3, 3]
    pool.shutdown()


def test_one_thread_needs_no_pool() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    assert encoding_threads() is None
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_threads_change_no_result(tiny_encoder_folder: Path, tiny_texts: list[str], precision: str) -> None:
    small = RuntimeConfig(precision=precision, tokens_per_batch=64, window=7)
    several = MoEEncoder(tiny_encoder_folder, runtime=small).encode_documents(tiny_texts)
    torch.set_num_threads(1)
    one = MoEEncoder(tiny_encoder_folder, runtime=small).encode_documents(tiny_texts)
    assert several.dense is not None
    assert one.dense is not None
    assert np.array_equal(several.dense, one.dense)
    assert several.sparse is not None
    assert one.sparse is not None
    assert np.array_equal(several.sparse.toarray(), one.sparse.toarray())
