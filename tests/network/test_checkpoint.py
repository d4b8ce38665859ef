"""Weights on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel

from retriever.network.checkpoint import (
    SCALE,
    add_weights,
    dequantise_rows,
    quantise_rows,
    read_values,
    read_weights,
    stored_shapes,
    write_weights,
)
from retriever.network.folder import load_model, save_encoder
from retriever.network.model import RetrieverConfig, RetrieverModel, pack
from retriever.network.upcycle import UpcycleConfig, upcycle
from retriever.types import UserError

if TYPE_CHECKING:
    import numpy as np

    from tests.conftest import Parent


@pytest.fixture
def model(tiny_parent: Parent) -> RetrieverModel:
    return upcycle(tiny_parent.model, tiny_parent.tokenizer, UpcycleConfig(shared_experts=1))


@settings(deadline=None)
@given(arrays("float32", (3, 2, 5), elements=st.floats(-1e6, 1e6, width=32)))
def test_int8_is_within_half_a_step(values: np.ndarray) -> None:
    matrix = torch.from_numpy(values)
    stored, scale = quantise_rows(matrix)
    assert stored.dtype == torch.int8 and stored.shape == matrix.shape
    assert scale.shape == (3, 2)
    error = (dequantise_rows(stored, scale) - matrix).abs()
    assert (error <= scale.unsqueeze(-1) * 0.50001).all()
    assert stored.abs().max() <= 127


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_added_weights_stand_beside_the_others_or_in_their_place(tmp_path: Path, storage: str) -> None:
    """The large file is not written again; a matrix that was compact takes its scales with it."""
    first = {"kept": torch.randn(4, 8), "replaced": torch.randn(4, 8), "flags": torch.tensor([1, 0])}
    write_weights(first, tmp_path, storage)
    before = (tmp_path / "model.safetensors").read_bytes()
    added = {"replaced": torch.randn(2, 8), "cluster": torch.tensor([3, -1], dtype=torch.int32)}
    add_weights(tmp_path, {"gone": torch.zeros(3, 3)})
    add_weights(tmp_path, added)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    found = read_weights(tmp_path)
    assert found is not None and set(found) == {"kept", "replaced", "flags", "cluster"}
    for name, value in (first | added).items():
        torch.testing.assert_close(found[name], value, atol=0.03, rtol=0)
    shapes = stored_shapes(tmp_path)
    assert {name: shapes[name] for name in found} == {name: tuple(value.shape) for name, value in found.items()}
    assert ("replaced" + SCALE in shapes) == (storage == "int8")
    assert read_values(tmp_path, ["cluster"])["cluster"].tolist() == [3, -1]
    assert read_values(tmp_path, ["replaced"])["replaced"].shape == (2, 8)


@pytest.mark.parametrize(("storage", "bytes_per_weight"), [("float32", 4), ("float16", 2), ("int8", 1)])
def test_size_and_round_trip(model: RetrieverModel, tmp_path: Path, storage: str, bytes_per_weight: int) -> None:
    state = model.state_dict()
    write_weights(state, tmp_path, storage)
    weights = sum(value.numel() for value in state.values())
    assert (tmp_path / "model.safetensors").stat().st_size < weights * bytes_per_weight * 1.35 + 16_384
    restored = read_weights(tmp_path)
    assert restored is not None and set(restored) == set(state)
    for name, value in state.items():
        assert restored[name].shape == value.shape and restored[name].dtype == value.dtype
        if storage == "float32" or value.ndim < 2:
            assert torch.equal(restored[name], value)
        else:
            limit = float(value.abs().max()) / 254 * 1.01 if value.numel() else 0.0
            torch.testing.assert_close(restored[name], value, rtol=1e-3, atol=limit)


def test_mixed_storage_keeps_what_the_dense_view_is_sensitive_to(model: RetrieverModel, tmp_path: Path) -> None:
    write_weights(model.state_dict(), tmp_path, "mixed")
    kinds = {name: value.dtype for name, value in load_file(tmp_path / "model.safetensors").items()}
    halves = {name for name, kind in kinds.items() if kind == torch.float16}
    assert halves and all("attention." in name or "feed_forward.up" in name for name in halves)
    assert kinds["embeddings.word.weight"] == torch.int8


def test_unknown_storage_is_refused(model: RetrieverModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'int4' is unknown; choose one of float32, float16, int8"):
        write_weights(model.state_dict(), tmp_path, "int4")


@pytest.mark.parametrize("storage", ["float32", "float16", "int8", "mixed"])
def test_auto_model_loads_a_saved_encoder(
    model: RetrieverModel, tiny_parent: Parent, tmp_path: Path, storage: str
) -> None:
    folder = save_encoder(model, tiny_parent.tokenizer, tmp_path / "new" / "encoder", storage)
    loaded = AutoModel.from_pretrained(folder)
    loaded.train(False)
    assert isinstance(loaded, RetrieverModel)
    assert isinstance(AutoConfig.from_pretrained(folder), RetrieverConfig)
    stored = read_weights(folder)
    assert stored is not None
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, stored[name]), name
    packed = pack([[2, 7, 8, 3]])
    with torch.inference_mode():
        found, expected = loaded.encode(packed), model.encode(packed)
    tolerance = 1e-6 if storage == "float32" else 0.05
    torch.testing.assert_close(found.dense, expected.dense, rtol=0, atol=tolerance)
    torch.testing.assert_close(found.sparse, expected.sparse, rtol=0, atol=tolerance)


def test_a_saved_encoder_is_saved_again(tiny_encoder_folder: Path, tiny_parent: Parent, tmp_path: Path) -> None:
    loaded = AutoModel.from_pretrained(tiny_encoder_folder)
    save_encoder(loaded, tiny_parent.tokenizer, tmp_path / "copy", "float32")
    first, second = read_weights(tiny_encoder_folder), read_weights(tmp_path / "copy")
    assert first is not None and second is not None and set(first) == set(second)
    assert all(torch.equal(first[name], second[name]) for name in first)
    name = "tokenizer.json"
    assert (tmp_path / "copy" / name).read_bytes() == (tiny_encoder_folder / name).read_bytes()


def test_a_folder_that_is_not_empty_is_left_alone(model: RetrieverModel, tiny_parent: Parent, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        save_encoder(model, tiny_parent.tokenizer, tmp_path, "int8")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_in_the_way_is_a_user_error(model: RetrieverModel, tiny_parent: Parent, tmp_path: Path) -> None:
    (tmp_path / "encoder").write_text("mine")
    with pytest.raises(UserError, match="encoder"):
        save_encoder(model, tiny_parent.tokenizer, tmp_path / "encoder", "int8")
    assert (tmp_path / "encoder").read_text() == "mine"


def test_an_empty_folder_is_filled(model: RetrieverModel, tiny_parent: Parent, tmp_path: Path) -> None:
    (tmp_path / "encoder").mkdir()
    save_encoder(model, tiny_parent.tokenizer, tmp_path / "encoder", "int8")
    assert (tmp_path / "encoder" / "config.json").is_file()


def test_a_failure_leaves_nothing_behind(
    model: RetrieverModel, tiny_parent: Parent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("retriever.network.folder.write_weights", fail)
    with pytest.raises(OSError, match="No space"):
        save_encoder(model, tiny_parent.tokenizer, tmp_path / "encoder", "int8")
    assert list(tmp_path.iterdir()) == []


def test_missing_and_damaged_weights(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    assert read_weights(tmp_path) is None
    content = (tiny_encoder_folder / "model.safetensors").read_bytes()
    for damaged in (b"", b"not weights", content[:1000], content[:-10]):
        (tmp_path / "model.safetensors").write_bytes(damaged)
        with pytest.raises(UserError, match=r"model\.safetensors: damaged weights file"):
            read_weights(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vocab_size", None),
        ("layer_norm_eps", None),
        ("hidden_act", []),
        ("hidden_act", "x"),
        ("max_terms", 10**30),
        ("num_attention_heads", 12),  # 32 numbers would be split among 16 heads, with room for 12
    ],
)
def test_impossible_settings_are_refused(name: str, value: object, tiny_encoder_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_encoder_folder, tmp_path / "encoder")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {name: value}))
    with pytest.raises(UserError, match="impossible settings"):
        load_model(folder)
