"""Folders that are no encoder, or a damaged one, and runtimes that cannot be: one line that says so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from retriever.encoder.moe.encoder import MoEEncoder
from retriever.encoder.runtime import RuntimeConfig
from retriever.network.checkpoint import read_weights, write_weights
from retriever.types import UserError
from tests.helpers.encodings import PRECISIONS, change_config

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_device_that_is_not_there(tiny_encoder_folder: Path) -> None:
    with pytest.raises(UserError, match=r"device 'cuda:77' cannot be used \(.+\); use 'cpu'"):
        MoEEncoder(tiny_encoder_folder, runtime=RuntimeConfig(device="cuda:77", precision="float32"))


def test_identity_follows_the_files(folder: Path) -> None:
    before = MoEEncoder(folder).identity
    assert (before.name, before.dense_dim, before.vocab_size) == (str(folder.resolve()), 32, 200)
    assert MoEEncoder(folder, runtime=RuntimeConfig(precision="bfloat16")).identity == before
    change_config(folder, max_length=10)
    assert MoEEncoder(folder).identity.sha256 != before.sha256


def change_stem(folder: Path, value: int) -> None:
    state = read_weights(folder)
    assert state is not None
    state["sparse_head.stem"][5] = value
    write_weights(state, folder)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (lambda f: (f / "config.json").write_text("{"), "config.json"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x"), "damaged"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json"),
        (lambda f: change_config(f, model_type="bert"), "found a 'bert' model"),
        (lambda f: change_config(f, model_type="nothing"), "found a 'nothing' model"),
        (lambda f: change_config(f, vocab_size=100), "do not fit"),
        (lambda f: change_config(f, hidden_size=48), "do not fit"),
        (lambda f: change_config(f, num_hidden_layers=3), "do not fit"),
        (lambda f: change_config(f, num_hidden_layers="two"), "config.json"),
        (lambda f: change_config(f, max_length=65), "max_length"),
        (lambda f: change_config(f, max_length=2), "max_length"),
        (lambda f: change_config(f, pooling="sum"), "pooling is 'sum'"),
        (lambda f: change_config(f, sparse_layers=[3]), "sparse_layers"),
        (lambda f: change_config(f, sparse_layers=[]), "sparse_layers"),
        (lambda f: change_config(f, experts_per_token=9), "allowed are 1 to 8"),
        (lambda f: change_stem(f, 2**20), "allowed are -1 to"),
    ],
)
def test_damaged_folders(folder: Path, damage: Callable[[Path], object], words: str) -> None:
    damage(folder)
    with pytest.raises(UserError, match=words) as caught:
        MoEEncoder(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_tokenizer_of_another_vocabulary(folder: Path) -> None:
    from transformers import BertTokenizer

    terms = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "moon"]
    BertTokenizer(vocab={term: i for i, term in enumerate(terms)}).save_pretrained(folder)
    with pytest.raises(UserError, match="the tokenizer knows 6 terms but the weights 200"):
        MoEEncoder(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"precision": "float8"},
        {"tokens_per_batch": 0},
        {"window": 0},
        {"device": "toaster"},
        {"precision": "int8", "device": "cuda"},
        {"precision": "float16"},
    ],
)
def test_impossible_runtimes(tiny_encoder_folder: Path, values: dict[str, object]) -> None:
    with pytest.raises(UserError, match="|".join(values)):
        MoEEncoder(tiny_encoder_folder, runtime=RuntimeConfig(**values))  # type: ignore[arg-type]


def test_auto_takes_one_of_the_precisions(tiny_encoder_folder: Path) -> None:
    assert MoEEncoder(tiny_encoder_folder).precision in PRECISIONS
