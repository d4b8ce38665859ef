from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from retriever.encoder.moe.encoder import MoEEncoder
from retriever.encoder.runtime import RuntimeConfig
from retriever.network import matmul
from retriever.network.attention import Attention
from retriever.network.batches import batch_independent
from retriever.network.folder import load_model
from retriever.types import UserError


@pytest.fixture
def other_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make products of more than 32 rows add up in another order, as processors with AMX do."""
    mm = torch.mm

    def by_size(x: torch.Tensor, weight: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
        if len(x) > matmul.ROW_STEP:
            half = x.shape[1] // 2
            found = mm(x[:, :half], weight[:half]) + mm(x[:, half:], weight[half:])
        else:
            found = mm(x, weight)
        return found if out is None else out.copy_(found)

    monkeypatch.setattr(torch, "mm", by_size)
    monkeypatch.setattr(torch, "addmm", lambda bias, x, weight, out: out.copy_(bias + by_size(x, weight)))
    matmul.sizes_agree.cache_clear()
    yield
    matmul.sizes_agree.cache_clear()


@pytest.mark.usefixtures("other_kernels")
def test_kernels_that_differ_by_size_get_one_size(tiny_encoder_folder: Path) -> None:
    assert not matmul.sizes_agree(384, 96)
    draw = torch.Generator().manual_seed(1)
    x, weight, bias = (torch.randn(*shape, generator=draw).bfloat16() for shape in ((300, 384), (96, 384), (96,)))
    with torch.inference_mode():
        whole = matmul.linear(x, weight, bias)
        for rows in (1, 31, 32, 33, 200):
            assert torch.equal(matmul.linear(x[:rows], weight, bias), whole[:rows])
    model = load_model(tiny_encoder_folder)
    model.set_precision("bfloat16")
    assert batch_independent(model)


def test_a_network_that_depends_on_its_batch_is_refused(
    tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(tiny_encoder_folder)
    assert batch_independent(model)
    model.set_precision("bfloat16")
    assert batch_independent(model)
    # Attention that looks at how much there is altogether.
    forward = Attention.forward
    monkeypatch.setattr(Attention, "forward", lambda self, x, *others: forward(self, x, *others) + len(x) * 1e-3)
    assert not batch_independent(model)
    with pytest.raises(UserError, match=r"precision 'bfloat16': on this processor .* use 'float32' or 'int8'"):
        MoEEncoder(tiny_encoder_folder, runtime=RuntimeConfig(precision="bfloat16"))
