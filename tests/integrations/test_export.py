"""The exported views, loaded by sentence-transformers as any of its models: the vectors are the encoder's own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sentence_transformers import SentenceTransformer, SparseEncoder

from retriever.cli.main import cli
from retriever.encoder.moe.encoder import MoEEncoder
from retriever.encoder.runtime import RuntimeConfig
from retriever.integrations.export import export_view
from retriever.types import UserError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch
TEXTS = ["what do cats eat", "", "  ", "trees make wood and wood makes paper " * 20, "a\ud800b", "Zürich, 東京!"]


@pytest.fixture(scope="module", params=["encoder", "lexical"])
def encoder_folder(
    request: pytest.FixtureRequest, tiny_encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return the tiny encoder with prompts of its own and each way to make queries sparse."""
    folder = tmp_path_factory.mktemp("own") / "encoder"
    shutil.copytree(tiny_encoder_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"query_prompt": "query: ", "document_prompt": "text: ", "query_mode": request.param}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def texts(tiny_texts: list[str]) -> list[str]:
    return TEXTS + tiny_texts


def test_the_dense_view(encoder_folder: Path, texts: list[str], tmp_path: Path) -> None:
    ours = MoEEncoder(encoder_folder, runtime=RuntimeConfig(precision="float32"))
    model = SentenceTransformer(
        str(export_view(str(encoder_folder), "dense", tmp_path / "dense")), trust_remote_code=True
    )
    for theirs, expected in (
        (model.encode_query(texts), ours.encode_queries(texts).dense),
        (model.encode_document(texts, batch_size=3), ours.encode_documents(texts).dense),
    ):
        assert expected is not None and theirs.shape == expected.shape
        np.testing.assert_allclose(theirs, expected, atol=1e-5)
    assert np.abs(model.encode_query(texts) - model.encode_document(texts)).max() > 1e-3, "each has its own prompt"
    assert model.get_embedding_dimension() == ours.identity.dense_dim
    assert model.similarity_fn_name == "cosine" and model.max_seq_length == ours.config.max_length


def test_the_sparse_view(encoder_folder: Path, texts: list[str], tmp_path: Path) -> None:
    ours = MoEEncoder(encoder_folder, runtime=RuntimeConfig(precision="float32"))
    model = SparseEncoder(str(export_view(str(encoder_folder), "sparse", tmp_path / "sparse")), trust_remote_code=True)
    for theirs, expected in (
        (model.encode_query(texts), ours.encode_queries(texts).sparse),
        (model.encode_document(texts, batch_size=3), ours.encode_documents(texts).sparse),
    ):
        assert expected is not None and expected.nnz > 0
        np.testing.assert_allclose(theirs.to_dense().numpy(), expected.toarray(), atol=1e-5)
    [decoded] = model.decode(model.encode_document(["what do cats eat"]))
    row = ours.encode_documents(["what do cats eat"]).sparse
    assert row is not None
    assert {pair[0] for pair in decoded} == {ours.vocabulary[i] for i in row.indices.tolist()}  # type: ignore[index]
    assert model.similarity_fn_name == "dot"


def test_the_folded_view_is_both(encoder_folder: Path, texts: list[str], tmp_path: Path) -> None:
    """Against its definition, slice by slice: the inner product is half the dense one, half that of the slices."""
    ours = MoEEncoder(encoder_folder, runtime=RuntimeConfig(precision="float32"))
    folder = export_view(str(encoder_folder), "folded", tmp_path / "folded", slices=10)
    model = SentenceTransformer(str(folder), trust_remote_code=True)
    assert model.get_embedding_dimension() == ours.identity.dense_dim + 10
    made = {}
    for name, found, encoded in (
        ("query", model.encode_query(texts), ours.encode_queries(texts)),
        ("document", model.encode_document(texts, batch_size=3), ours.encode_documents(texts)),
    ):
        assert encoded.dense is not None and encoded.sparse is not None
        slices = np.zeros((len(texts), 10))
        for row, term in zip(*encoded.sparse.nonzero(), strict=True):
            place = int(term) * 2_654_435_761 % 2**32 % 10
            slices[row, place] = max(slices[row, place], encoded.sparse[row, term])
        lengths = np.linalg.norm(slices, axis=1, keepdims=True)
        whole = np.hstack([encoded.dense, slices / np.where(lengths > 0, lengths, 1)])
        lengths = np.linalg.norm(whole, axis=1, keepdims=True)
        made[name] = whole / np.where(lengths > 0, lengths, 1)
        np.testing.assert_allclose(found, made[name], atol=1e-5)
        assert (np.abs(made[name][:, -10:]).sum(1) > 0).sum() > 4
    wanted = made["query"] @ made["document"].T
    np.testing.assert_allclose(model.similarity(made["query"], made["document"]), wanted, atol=1e-4)


def test_a_saved_copy_is_the_same(tiny_encoder_folder: Path, texts: list[str], tmp_path: Path) -> None:
    first = SentenceTransformer(
        str(export_view(str(tiny_encoder_folder), "dense", tmp_path / "dense")), trust_remote_code=True
    )
    first.save_pretrained(str(tmp_path / "copy"))
    second = SentenceTransformer(str(tmp_path / "copy"), trust_remote_code=True)
    np.testing.assert_array_equal(first.encode(texts), second.encode(texts))


@pytest.mark.processes
def test_without_trust_or_without_the_package_it_says_what_is_missing(
    tiny_encoder_folder: Path, tmp_path: Path
) -> None:
    folder = export_view(str(tiny_encoder_folder), "dense", tmp_path / "dense")
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        SentenceTransformer(str(folder))
    program = (
        "import importlib.metadata as m, sys\n"
        "version = m.version\n"
        "def missing(name):\n"
        "    if name == 'hybrid-retriever': raise m.PackageNotFoundError(name)\n"
        "    return version(name)\n"
        "m.version = missing\n"
        "from sentence_transformers import SentenceTransformer\n"
        "SentenceTransformer(sys.argv[1], trust_remote_code=True)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "hybrid-retriever" in done.stderr.splitlines()[-1] + done.stderr
    assert "ImportError" in done.stderr


def test_the_command_and_its_faults(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    def call(*args: object) -> str:
        result = CliRunner().invoke(cli, ["export", *map(str, args)])
        assert result.exit_code in (0, 1), result.output
        return result.output

    out = tmp_path / "deep" / "sparse"
    assert f'SparseEncoder("{out}", trust_remote_code=True)' in call(tiny_encoder_folder, "--view", "sparse", "-o", out)
    assert {"modules.json", "view.json", "config.json", "README.md"} <= {file.name for file in out.iterdir()}
    assert "exists and is not an empty folder" in call(tiny_encoder_folder, "--view", "dense", "-o", out)
    for spec in ("none", "st:any"):
        assert f"{spec}: not an encoder of ours" in call(spec, "--view", "dense", "-o", tmp_path / "x")
    assert "no such folder" in call(tmp_path / "nothing", "--view", "dense", "-o", tmp_path / "x")
    assert not (tmp_path / "x").exists()
    with pytest.raises(UserError, match="view 'both' is unknown; choose one of dense, sparse"):
        export_view("default", "both", tmp_path / "x")
