"""`bench encode`: what it compares, counts and prints, on tiny models made here."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoTokenizer, BertModel, BertTokenizer

from retriever.bench.encoding.encode import EncodeBench, count_tokens, on_cores, read_texts
from retriever.bench.encoding.profile import flops, profile_encoding
from retriever.bench.encoding.systems import KINDS, EncoderSystem, save_control, save_splade
from retriever.cli.main import cli
from retriever.encoder.moe.encoder import MoEEncoder
from retriever.encoder.moe.texts import TextReader
from retriever.encoder.runtime import RuntimeConfig
from retriever.network.folder import load_model, save_encoder
from retriever.network.int8.tiled import TiledNetwork
from retriever.network.upcycle import UpcycleConfig, upcycle
from retriever.types import UserError


@pytest.fixture(scope="module")
def parent(tiny_parent: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parent")
    tiny_parent.model.save_pretrained(folder / "base")
    tiny_parent.tokenizer.save_pretrained(folder / "base")
    modules = [Transformer(str(folder / "base"), max_seq_length=32), Pooling(32, pooling_mode="mean")]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "dense"), create_model_card=False)
    return folder / "dense"


@pytest.fixture(scope="module")
def head_encoder(tiny_parent: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an encoder whose only experts are the sparse head's: 3 of size 48, 2 of them active, each cut in two."""
    settings = UpcycleConfig(
        moe_layers=(), head_experts=3, head_experts_per_token=2, head_granularity=2, head_intermediate_size=48
    )
    model = upcycle(tiny_parent.model, tiny_parent.tokenizer, settings)
    return save_encoder(model, tiny_parent.tokenizer, tmp_path_factory.mktemp("head") / "encoder", "float32")


@pytest.fixture(scope="module")
def sharing_encoder(tiny_parent: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an encoder whose sparse head has 5 experts of size 24, 1 of them active, and 2 shared ones."""
    settings = UpcycleConfig(moe_layers=(), head_experts=5, head_intermediate_size=24, head_shared_experts=2)
    model = upcycle(tiny_parent.model, tiny_parent.tokenizer, settings)
    return save_encoder(model, tiny_parent.tokenizer, tmp_path_factory.mktemp("sharing") / "encoder", "float32")


def bench(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["bench", "encode", *map(str, arguments)])


def test_all_systems_side_by_side(parent: Path, head_encoder: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    queries = tiny_corpus.with_name("queries.jsonl")
    options: list[str | Path] = [
        "--parent",
        parent,
        "--splade",
        "stand-in",
        "--control",
        "stand-in",
        "--precisions",
        "float32",
    ]
    options += ["--documents", "12", "--block", "5", "--threads", "1", "--queries", queries, "--profile"]
    result = bench(
        tiny_corpus, "-e", head_encoder, *options, "--memory", "20", "--every", "10", "-o", tmp_path / "out.json"
    )
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["texts"] == 12 and report["threads"] == 1 and "torch" in report["environment"]
    speed = {row["system"]: row for row in report["speed"]}
    assert list(speed) == [
        "sentence-transformers, dense",
        "transformers, dense, float32",
        "SPLADE (stand-in), sparse",
        "retriever, dense, float32",
        "retriever, sparse, float32",
        "retriever, both, float32",
        "control (stand-in), both, float32",
        "both peers, one after the other",
    ]
    for row in speed.values():
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"] and row["texts_per_second"] > 0
        assert row["tokens_per_second"] / row["texts_per_second"] == pytest.approx(report["tokens"] / 12)
        assert row["system"] in result.stdout
    assert speed["sentence-transformers, dense"]["ratio"] == 1
    seconds = {name: 1 / row["texts_per_second"] for name, row in speed.items()}
    peers = seconds["sentence-transformers, dense"] + seconds["SPLADE (stand-in), sparse"]
    assert seconds["both peers, one after the other"] == pytest.approx(peers)
    assert {(row["query_mode"], row["views"]) for row in report["queries"]} == {
        (mode, views) for mode in ("encoder", "lexical") for views in ("sparse", "dense and sparse")
    }
    assert all(0 < row["p50"] <= row["p95"] <= row["p99"] for row in report["queries"])
    assert [row["view"] for row in report["profile"]] == ["dense", "both"]
    assert [row["texts"] for row in report["memory"]] == [10, 20]
    assert all(row["resident_mib"] > 50 for row in report["memory"])
    assert sum(row["texts"] for row in report["length"]) == 12


def test_peak_memory_and_json_lines(head_encoder: Path, tiny_corpus: Path) -> None:
    result = bench(
        *(tiny_corpus, "-e", head_encoder, "--documents", "4", "--precisions", "float32", "--views", "both"),
        *("--workers", "1", "--peak-memory", "--json"),
    )
    assert result.exit_code == 0, result.output
    row, workers = map(json.loads, result.stdout.splitlines())
    assert workers["system"] == "retriever, both, float32, 1 workers" and workers["peak_mib"] == 0
    assert row["part"] == "speed" and row["system"] == "retriever, both, float32"
    assert 100 < row["peak_mib"] < 4000


def test_positives_of_training_pairs_are_texts(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps({"query": "q", "positive": f"text {n}"}) + "\n" for n in range(5))
    assert list(read_texts(str(path), 3)) == ["text 0", "text 1", "text 2"]


def test_plain_transformers_find_the_vectors_of_sentence_transformers(parent: Path, tiny_texts: list[str]) -> None:
    batches: Any = KINDS["transformers"](EncoderSystem("t", "transformers", str(parent)))(tiny_texts)
    expected = SentenceTransformer(str(parent), device="cpu").encode(tiny_texts, normalize_embeddings=True)
    np.testing.assert_allclose(np.concatenate(batches), expected, atol=1e-5)


def test_the_stand_in_of_a_splade_has_the_parents_trunk_and_as_many_terms(
    parent: Path, tiny_texts: list[str], tmp_path: Path
) -> None:
    model: Any = SparseEncoder(save_splade(str(parent), tmp_path / "splade", tiny_texts), device="cpu")
    weights = model.encode(tiny_texts, convert_to_sparse_tensor=False)
    assert (weights > 0).sum().item() == pytest.approx(200 // 10 * len(tiny_texts), abs=2)
    peer: Any = SentenceTransformer(str(parent), device="cpu")
    trunk = peer[0].auto_model
    batch = BertTokenizer.from_pretrained(parent)(tiny_texts[:2], padding=True, truncation=True, return_tensors="pt")
    assert isinstance(trunk, BertModel)
    with torch.inference_mode():
        found = model[0].auto_model.bert(**batch).last_hidden_state
        torch.testing.assert_close(found, trunk(**batch).last_hidden_state)


def test_the_control_is_as_large_as_the_active_experts(head_encoder: Path, tmp_path: Path) -> None:
    original = load_model(head_encoder)
    control = load_model(Path(save_control(str(head_encoder), tmp_path / "control")))
    shape = control.config.head_expert_shape
    assert (shape.routed, shape.active, shape.intermediate) == (1, 1, 2 * 48)
    assert flops(control.config, [9], sparse=True) == pytest.approx(flops(original.config, [9], sparse=True), rel=0.01)
    # With the router undecided, the original mixes its first four experts evenly, which is what the control does.
    experts, dense = original.sparse_head.experts, control.sparse_head.experts
    assert experts is not None and dense is not None
    experts.router.data.zero_()
    x = torch.randn(20, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(dense(x)[0], experts(x)[0], atol=0.05, rtol=0.05)


def test_the_control_of_shared_experts(sharing_encoder: Path, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    changed = load_model(sharing_encoder)
    assert changed.sparse_head.experts is not None
    with torch.no_grad():
        for value in changed.sparse_head.experts.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.2)
        changed.sparse_head.experts.router.zero_()  # all tokens go to the first expert, which the control takes
    folder = save_encoder(changed, AutoTokenizer.from_pretrained(sharing_encoder), tmp_path / "changed", "float32")
    control = load_model(Path(save_control(str(folder), tmp_path / "control")))
    assert control.config.head_expert_shape == (1, 0, 1, 32, 3 * 24)
    x = torch.randn(20, 32, generator=generator)
    with torch.inference_mode():
        assert control.sparse_head.experts is not None
        torch.testing.assert_close(control.sparse_head.experts(x)[0], changed.sparse_head.experts(x)[0])
    # The same parameters meet a token but for those of the router and the routed expert's own bias of the output.
    mine, dense = (MoEEncoder(path).parameters for path in (folder, tmp_path / "control"))
    assert mine.active is not None and dense.active is not None and mine.total is not None
    assert mine.active - dense.active == 4 * 32
    assert mine.total - mine.active == 4 * (2 * 24 * 32 + 24 + 32)


@pytest.mark.usefixtures("one_thread")  # the counter does not see what other threads do
@pytest.mark.parametrize("folder", ["head_encoder", "sharing_encoder"])
def test_operations_are_those_that_torch_counts(
    folder: str, tiny_texts: list[str], request: pytest.FixtureRequest
) -> None:
    encoder = MoEEncoder(request.getfixturevalue(folder), runtime=RuntimeConfig(precision="float32"))
    network: Any = encoder.network
    network.requires_grad_(False)  # the counter's hooks cannot take gradients in inference mode
    texts = [text for text in tiny_texts if text and "Москва" not in text] * 2  # that one is not read
    for sparse in (False, True):
        # The counter does not know torch's fused attention.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            encoder.encode_documents(texts, sparse=sparse)
        counted = counter.get_total_flops()
        assert flops(encoder.config, count_tokens(encoder, texts), sparse=sparse) == pytest.approx(counted, rel=0.05)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_the_profile_shares_the_whole_time_out_and_leaves_the_encoder_as_it_was(
    head_encoder: Path, tiny_texts: list[str], precision: str
) -> None:
    encoder = MoEEncoder(head_encoder, runtime=RuntimeConfig(precision=precision))
    before = encoder.encode_documents(tiny_texts)
    tiled = precision == "int8" and isinstance(encoder.network, TiledNetwork)  # its kernels take a layer at once
    dense, both = profile_encoding(encoder, tiny_texts)
    for found in (dense, both):
        assert sum(found.parts.values()) == pytest.approx(1)
        layers = {"attention", "attention: matmuls", "feed-forward", "feed-forward: matmuls"}
        if tiled:
            layers = {"attention and feed-forward"}
        assert {"tokeniser", "embeddings"} | layers <= found.parts.keys()
        assert 0 < found.share < 1 < found.peak
    head = {"vocabulary head: matmuls", "experts: matmuls", "head transform: matmuls"}
    assert ({"vocabulary head", "head transform"} if tiled else head) <= both.parts.keys() - dense.parts.keys()
    after = encoder.encode_documents(tiny_texts)
    assert before.dense is not None and after.dense is not None
    np.testing.assert_array_equal(before.dense, after.dense)
    assert not hasattr(torch.bmm, "__wrapped__")
    assert not hasattr(TextReader.tokenise, "__wrapped__")


def test_cores_are_given_back() -> None:
    before, threads = os.sched_getaffinity(0), torch.get_num_threads()
    with on_cores(1) as count:
        assert count == 1 == torch.get_num_threads() == len(os.sched_getaffinity(0))
    assert os.sched_getaffinity(0) == before and torch.get_num_threads() == threads
    with (
        pytest.raises(UserError, match=f"4096 threads are asked for, and there are {len(before)} processor cores"),
        on_cores(4096),
    ):
        pass


def test_what_cannot_be_compared(tiny_encoder_folder: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    for options, message in (
        (["--views", "dense,both,none"], "view 'none' is unknown; choose among dense, sparse, both"),
        (["--splade", "stand-in"], "made from the dense parent; name it with --parent"),
        (["--precisions", "int4"], "precision 'int4' is unknown"),
        (["-e", "none", "--precisions", "auto"], "none: not an encoder of ours"),
    ):
        result = bench(tiny_corpus, "-e", tiny_encoder_folder, *options)
        assert result.exit_code == 1 and message in result.stderr, result.output
    with pytest.raises(UserError, match="whose only experts are the sparse head's"):
        save_control(str(tiny_encoder_folder), tmp_path / "control")
    with pytest.raises(UserError, match="documents 0 and block 50"):
        EncodeBench(documents=0)
