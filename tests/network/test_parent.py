"""A checkpoint is checked before it is upcycled, and what was made of it is compared with it."""

from __future__ import annotations

import copy
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import BertModel

from retriever.encoder.moe.encoder import MoEEncoder
from retriever.network.folder import save_encoder
from retriever.network.upcycle import UpcycleConfig, upcycle_checkpoint
from retriever.types import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Parent


def saved(parent: Parent, folder: Path, model: Any = None) -> Path:
    (parent.model if model is None else model).save_pretrained(folder)
    parent.tokenizer.save_pretrained(folder)
    return folder


def resized(parent: Parent, rows: int) -> Any:
    """Return the parent with so many word embeddings, the new ones random."""
    config = copy.deepcopy(parent.model.config)
    config.vocab_size = rows
    model = BertModel(config)
    state = parent.model.state_dict()
    words = "embeddings.word_embeddings.weight"
    kept = min(rows, len(state[words]))
    model.load_state_dict(state | {words: torch.cat([state[words][:kept], torch.randn(rows - kept, 32)])})
    return model


def test_padded_rows_are_cut_and_the_encoder_works(tiny_parent: Parent, tmp_path: Path) -> None:
    plain, _, *_ = upcycle_checkpoint(str(saved(tiny_parent, tmp_path / "plain")), UpcycleConfig())
    padded = saved(tiny_parent, tmp_path / "padded", resized(tiny_parent, 208))
    model, tokenizer, *_ = upcycle_checkpoint(str(padded), UpcycleConfig())
    assert model.config.vocab_size == len(tokenizer) == 200
    for name, value in plain.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    encoder = MoEEncoder(save_encoder(model, tokenizer, tmp_path / "made", "float32"))
    assert encoder.encode_documents(["trees"]).sparse is not None


def test_what_does_not_fit_is_refused_before_anything_is_made(tiny_parent: Parent, tmp_path: Path) -> None:
    broken: Any = copy.deepcopy(tiny_parent.model)  # torch types members as Tensor or Module
    broken.encoder.layer[0].output.dense.weight.data[3, 5] = float("inf")
    bare = saved(tiny_parent, tmp_path / "bare")
    for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json"):
        (bare / name).unlink(missing_ok=True)
    cut = saved(tiny_parent, tmp_path / "cut")
    weights = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    damaged = shutil.copytree(saved(tiny_parent, tmp_path / "whole"), tmp_path / "damaged")
    (damaged / "modules.json").write_text("[")
    for folder, words in (
        (saved(tiny_parent, tmp_path / "short", resized(tiny_parent, 190)), "knows 200 terms but the weights 190"),
        (saved(tiny_parent, tmp_path / "broken", broken), r"layer\.0\.output\.dense\.weight hold numbers that are not"),
        (bare, "has no tokenizer"),
        (cut, "cannot load this checkpoint"),
        (damaged, r"modules\.json: damaged"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            upcycle_checkpoint(str(folder), UpcycleConfig())
        assert "\n" not in str(caught.value)


def test_an_encoder_that_differs_from_its_parent_is_refused(tiny_parent: Parent, tmp_path: Path) -> None:
    from retriever.network.parent import load_parent
    from retriever.network.parent_vectors import ParentVectors
    from retriever.network.upcycle import upcycle

    folder = saved(tiny_parent, tmp_path / "base")
    parent = load_parent("base", folder)
    model = upcycle(parent.model, parent.tokenizer, UpcycleConfig(), parent.settings)
    vectors = ParentVectors("base", folder, parent, max_length=model.config.max_length)
    assert 0 < vectors.check(model) < 1e-5 and vectors.least_cosine(model) > 0.999999
    with torch.no_grad():
        model.embeddings.norm.weight[0] += 0.1
    with pytest.raises(UserError, match=r"differs from it by .* on twenty texts, 1e-05 is promised"):
        vectors.check(model)
