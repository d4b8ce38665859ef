"""One view at a time: what is not asked for is not computed, and lexical queries need neither network nor torch."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from retriever.encoder.load import load_encoder
from retriever.encoder.moe.encoder import MoEEncoder
from retriever.encoder.runtime import RuntimeConfig
from retriever.network.checkpoint import MODEL_TYPE, read_settings, read_values
from retriever.types import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from retriever.types import Encoded

PRECISIONS = ("float32", "bfloat16", "int8")


def assert_same(one: Encoded, other: Encoded, view: str) -> None:
    """Compare a view bit by bit."""
    if view == "dense":
        assert one.dense is not None and other.dense is not None
        np.testing.assert_array_equal(one.dense, other.dense)
        return
    assert one.sparse is not None and other.sparse is not None
    assert one.sparse.nnz == other.sparse.nnz > 0
    np.testing.assert_array_equal(one.sparse.toarray(), other.sparse.toarray())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("mode", ["encoder", "lexical"])
@pytest.mark.parametrize("side", ["encode_documents", "encode_queries"])
def test_a_view_alone_is_that_of_both(
    tiny_encoder_folder: Path, tiny_texts: list[str], precision: str, mode: str, side: str
) -> None:
    encoder = MoEEncoder(tiny_encoder_folder, runtime=RuntimeConfig(precision, 300)).with_query_mode(mode)
    encode = getattr(encoder, side)
    texts = [*tiny_texts, "", "yeast " * 100]
    both, dense, sparse = encode(texts), encode(texts, sparse=False), encode(texts, dense=False)
    assert_same(dense, both, "dense")
    assert_same(sparse, both, "sparse")
    assert dense.sparse is dense.tokens is sparse.dense is None
    assert (sparse.tokens is None) == (side == "encode_queries")
    assert dense.truncated.tolist() == both.truncated.tolist() and both.truncated[-1]
    network = (side, mode) != ("encode_queries", "lexical")
    assert sparse.truncated.tolist() == [network and cut for cut in both.truncated]


def test_what_is_not_asked_for_does_not_run(tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of the network are taken out one after the other."""
    encoder = MoEEncoder(tiny_encoder_folder, runtime=RuntimeConfig(precision="float32"))
    lexical = encoder.with_query_mode("lexical")
    monkeypatch.setattr(encoder.network, "pool", None)
    for encode in (encoder.encode_documents, encoder.encode_queries):
        assert encode(["yeast"], dense=False).sparse is not None
        with pytest.raises(TypeError):
            encode(["yeast"])
    monkeypatch.undo()
    monkeypatch.setitem(vars(encoder.network)["_modules"], "sparse_head", None)
    for encode in (encoder.encode_documents, encoder.encode_queries):
        assert encode(["yeast"], sparse=False).dense is not None
        with pytest.raises(TypeError):
            encode(["yeast"])
    assert lexical.encode_queries(["yeast"]).dense is not None
    monkeypatch.setitem(vars(encoder.network)["_modules"], "embeddings", None)
    assert lexical.encode_queries(["yeast"], dense=False).sparse is not None
    with pytest.raises(TypeError):
        lexical.encode_queries(["bread"])  # the views of "yeast" are remembered


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
def test_lexical_queries_import_no_torch(tiny_encoder_folder: Path, tmp_path: Path, storage: str) -> None:
    from transformers import AutoTokenizer

    from retriever.network.folder import load_model, save_encoder

    tokenizer = AutoTokenizer.from_pretrained(str(tiny_encoder_folder))
    folder = save_encoder(load_model(tiny_encoder_folder), tokenizer, tmp_path / "encoder", storage)
    code = (
        "import sys, json\n"
        "from retriever.encoder.load import load_encoder\n"
        f"encoder = load_encoder({str(folder)!r}, lazy=True).with_query_mode('lexical')\n"
        "found = encoder.encode_queries(['the moon and yeast', ''], dense=False)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
        "print(json.dumps([*encoder.identity, found.sparse.toarray().tolist(), found.truncated.tolist()]))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *identity, terms, truncated = json.loads(result.stdout)
    eager = load_encoder(str(folder))
    assert identity == [*eager.identity]
    expected = MoEEncoder(folder).with_query_mode("lexical").encode_queries(["the moon and yeast", ""]).sparse
    assert expected is not None and expected.nnz
    np.testing.assert_array_equal(np.array(terms, np.float32), expected.toarray())
    assert truncated == [False, False]


def test_a_lazy_encoder_is_the_same(tiny_encoder_folder: Path, tiny_texts: list[str]) -> None:
    lazy, eager = MoEEncoder(tiny_encoder_folder, lazy=True), MoEEncoder(tiny_encoder_folder)
    assert lazy.identity == eager.identity and lazy.vocabulary == eager.vocabulary
    assert (lazy.query_mode, lazy.precision) == (eager.query_mode, eager.precision)
    assert "batched" not in vars(lazy._networks)
    for view in ("dense", "sparse"):
        assert_same(lazy.encode_documents(tiny_texts), eager.encode_documents(tiny_texts), view)


def test_a_lazy_encoder_finds_its_faults_later(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder_folder, folder)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"num_hidden_layers": 3}))
    encoder = MoEEncoder(folder, lazy=True)
    assert encoder.with_query_mode("lexical").encode_queries(["yeast"], dense=False).sparse is not None
    with pytest.raises(UserError, match="do not fit"):
        encoder.encode_queries(["yeast"])


def test_values_and_settings_of_a_folder(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    from retriever.network.model import RetrieverConfig

    assert read_settings(tiny_encoder_folder)["model_type"] == MODEL_TYPE == RetrieverConfig.model_type
    found = read_values(tiny_encoder_folder, ["lexical.gain", "lexical.fraction"])
    assert found["lexical.gain"] == 1 and found["lexical.fraction"].shape == (200,)
    with pytest.raises(UserError, match=r"damaged weights file \(.*lexical\.none.*\); copy or build the encoder again"):
        read_values(tiny_encoder_folder, ["lexical.none"])
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        read_values(tmp_path, ["lexical.gain"])
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="damaged"):
        read_values(tmp_path, ["lexical.gain"])
