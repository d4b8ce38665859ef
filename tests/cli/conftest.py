"""One index and two encoders for the tests of faults, which change neither."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.faults import TINY, index, run


@pytest.fixture(scope="session")
def tiny_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an index of the tiny corpus without an encoder."""
    folder = tmp_path_factory.mktemp("tiny") / "index"
    result = run(*index(TINY, folder))
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make tiny encoders: "good", "other" (other weights) and "mixed" (with the tokenizer of a larger vocabulary)."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    from retriever.network.folder import save_encoder
    from retriever.network.upcycle import UpcycleConfig, upcycle

    folder = tmp_path_factory.mktemp("encoders")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "bread", "water", "yeast"]
    for seed, name in enumerate(("good", "other")):
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=len(words),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=32,
        )
        tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)})
        model = upcycle(BertModel(config), tokenizer, UpcycleConfig(num_experts=2))
        save_encoder(model, tokenizer, folder / name, "float32")
    shutil.copytree(folder / "good", folder / "mixed")
    BertTokenizer(vocab={word: i for i, word in enumerate([*words, "moon"])}).save_pretrained(folder / "mixed")
    return folder
