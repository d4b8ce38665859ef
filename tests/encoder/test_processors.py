"""The encoder's contract on smaller processors than this one, which oneDNN and torch imitate in child processes.

Both read what they may use when they first multiply, which processes of the fixture `warm` have not done yet.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from tests.helpers.warm import WarmPython

PROCESSORS = {
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "AVX512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "ATEN_CPU_CAPABILITY": "avx512"},
    "AVX512-VNNI": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI", "ATEN_CPU_CAPABILITY": "avx512"},
    "AVX512-BF16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16", "ATEN_CPU_CAPABILITY": "avx512"},
    "as it is": {},
}
CAPABILITIES = ["DEFAULT", "AVX2", "AVX512", "AMX"]
"""As torch names them, the least first."""
PROGRAM = """
import sys
import numpy as np
import torch
from retriever.encoder.load import load_encoder
from retriever.encoder.runtime import RuntimeConfig
from retriever.encoder.views import joined, picked

texts = ["why does bread rise", "Yeast is a living fungus that feeds on the sugars in flour. " * 3, "", "the sea"]
vectors = {}
for precision in ("float32", "bfloat16", "int8"):
    encoder = load_encoder(sys.argv[1], RuntimeConfig(precision=precision))
    together = encoder.encode_documents(texts)
    alone = joined([encoder.encode_documents([text]) for text in texts])
    backwards = picked(encoder.encode_documents(texts[::-1]), np.arange(len(texts))[::-1])
    for other in (alone, backwards):
        assert np.array_equal(together.dense, other.dense), precision
        assert (together.sparse != other.sparse).nnz == 0, precision
    vectors[precision] = together.dense
for precision, least in (("bfloat16", 0.999), ("int8", 0.998)):
    cosines = np.sum(vectors[precision] * vectors["float32"], axis=1)
    assert cosines[[0, 1, 3]].min() > least, (precision, cosines)
print(load_encoder(sys.argv[1], RuntimeConfig()).precision, torch.backends.cpu.get_cpu_capability())
"""


@pytest.mark.parametrize("name", PROCESSORS)
def test_batches_do_not_matter_and_precisions_agree(name: str, real_encoder_folder: Path, warm: WarmPython) -> None:
    done = warm("-c", PROGRAM, real_encoder_folder, env=os.environ | PROCESSORS[name])
    assert done.returncode == 0, done.stderr[-2000:]
    precision, capability = done.stdout.split()
    has = torch.cpu.get_capabilities()
    if name == "as it is":
        assert precision in ("float32", "bfloat16", "int8") and capability == torch.backends.cpu.get_cpu_capability()
        return
    wanted = PROCESSORS[name]["ATEN_CPU_CAPABILITY"].upper()
    assert capability == min(wanted, "AVX512" if has.get("avx512_f") else "AVX2", key=CAPABILITIES.index)
    assert precision == ("int8" if name == "AVX512-BF16" and has.get("avx512_bf16") else "float32")
