"""The recipes of configs/train/ with other parents: run for some steps on small networks of their parents' shapes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import retriever.train.loop
from retriever.encoder.moe.encoder import MoEEncoder
from retriever.encoder.moe.passes import Wanted
from retriever.encoder.runtime import RuntimeConfig
from retriever.train.data.examples import SourceConfig
from retriever.train.loop import rehearse, train
from retriever.train.settings import load_train_config
from tests.conftest import Parent
from tests.helpers.sentence_folders import IDENTITY, Shape, folder_of

if TYPE_CHECKING:
    from retriever.train.settings import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch
CONFIGS = Path(__file__).parents[2] / "configs" / "train"
SENTENCE = "Represent this sentence for searching relevant passages: "
SHAPES = {
    "leaf-ir": (6, Shape("mean", [(64, True, IDENTITY), "unit"], prompts={"query": SENTENCE})),
    "bge-small": (12, Shape("cls")),
    "arctic-embed-s": (12, Shape("cls", prompts={"query": SENTENCE})),
    "e5-small-v2": (12, Shape("mean")),
}
TEXTS = ["what do cats eat", "trees make wood and wood makes paper", "the river froze"]


def deep(parent: Parent, layers: int) -> Parent:
    """Return a random network with so many layers, its other sizes those of `parent`."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(3)
    config = BertConfig(
        **(parent.model.config.to_dict() | {"num_hidden_layers": layers, "max_position_embeddings": 128})
    )
    model = BertModel(config)
    model.train(False)
    return Parent(model, parent.tokenizer)


@pytest.fixture(scope="module")
def pairs(tiny_texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    texts = [text for text in tiny_texts if text.strip()]
    lines = [json.dumps({"query": " ".join(text.split()[:6]), "positive": text}) for text in texts]
    path.write_text("\n".join(lines))
    return path


def recipe(name: str, pairs: Path, folder: Path, base: Path, **changes: Any) -> TrainConfig:
    """Return the recipe with a small base and few examples of few tokens."""
    config = load_train_config(CONFIGS / f"{name}.yaml", base=str(base), output=str(folder / "made"), steps=2)
    head = config.upcycle | {"head_intermediate_size": 16}
    changes = {"batch": 4, "topic_window": 8, "document_tokens": 40, "query_tokens": 100} | changes
    states = str(folder / "states")
    return replace(config, sources=(SourceConfig(str(pairs)),), upcycle=head, states=states, warmup_steps=1, **changes)


@pytest.mark.parametrize("name", SHAPES)
def test_a_recipe_keeps_its_parents_vectors_and_prompts(
    name: str, tiny_parent: Parent, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers import SentenceTransformer

    monkeypatch.setenv("RETRIEVER_DATA", str(tmp_path))
    monkeypatch.setattr(retriever.train.loop, "FRACTION_PASSAGES", 20)
    layers, shape = SHAPES[name]
    parent = folder_of(shape, deep(tiny_parent, layers), tmp_path, max_length=128)
    config = recipe(name, pairs, tmp_path, parent)
    rehearsed = rehearse(config)
    assert rehearsed.parameters.keys() == {"head", "terms"}, "the trunk and what is behind it stay the parent's"
    encoder = MoEEncoder(train(config, progress=False), runtime=RuntimeConfig(precision="float32"))
    prompts = {"e5-small-v2": ("query: ", "passage: ")}.get(name, (SENTENCE, ""))
    assert (encoder.config.query_prompt, encoder.config.document_prompt) == prompts
    model = SentenceTransformer(str(parent), device="cpu")
    for encode, prompt in zip((encoder.encode_queries, encoder.encode_documents), prompts, strict=True):
        expected = model.encode(TEXTS, prompt=prompt, normalize_embeddings=True)
        found = encode(TEXTS).dense
        assert found is not None
        # Stored in int8 and float16: the whole network differs a little from its parent.
        assert (found * expected).sum(1).min() > 0.995
        assert found.shape == (len(TEXTS), 64 if name == "leaf-ir" else 32)


def test_training_reads_what_searching_reads(
    request: pytest.FixtureRequest, tiny_parent: Parent, pairs: Path, tmp_path: Path
) -> None:
    """Vectors of a batch are those of the encoder, prompts in and out of the pooling, from the cache and anew."""
    import torch

    from retriever.encoder.vocabulary.lexicon import frame_ids
    from retriever.network.folder import save_encoder
    from retriever.network.prompts import Prompts
    from retriever.network.upcycle import UpcycleConfig, upcycle_checkpoint
    from retriever.train.data.examples import Example
    from retriever.train.objective import Collator
    from retriever.train.states import StateCache

    prompts = {"query": "make wood of this: ", "document": "text, "}
    shape = Shape("mean", [(48, True, IDENTITY), "unit"], prompts=prompts, include_prompt=False)
    made = upcycle_checkpoint(str(folder_of(shape, tiny_parent, tmp_path)), UpcycleConfig())
    encoder = MoEEncoder(
        save_encoder(made.model, made.tokenizer, tmp_path / "ours", "float32"),
        runtime=RuntimeConfig(precision="float32"),
    )
    config = load_train_config_of(pairs, tmp_path)
    fast = made.tokenizer.backend_tokenizer
    fast.no_truncation()
    fast.no_padding()
    stem = made.model.sparse_head.stem.numpy()
    collate = Collator(fast, stem, frame_ids(fast), config, Prompts(prompts["query"], prompts["document"]))
    batch = collate([Example(text, text, (), (), "", "") for text in TEXTS])
    cache = StateCache(tmp_path / "states", made.model.config.hidden_size)
    request.addfinalizer(cache.close)
    for texts, encode in ((batch.queries, encoder.encode_queries), (batch.documents, encoder.encode_documents)):
        expected = encode(TEXTS)
        for _ in range(2):  # computed, then read
            states = cache.states(made.model, texts.tokens, texts.prompt)
            assert expected.dense is not None
            np.testing.assert_allclose(states.dense.numpy(), expected.dense, atol=2e-3)
            with torch.no_grad():
                words, read = made.model.embeddings.word.weight, states.packed
                head = made.model.sparse_head(states.hidden, read.groups, words, token_ids=read.input_ids)[0]
            found = head[torch.tensor(states.order).argsort()].numpy()
            prompt = prompts["query" if texts is batch.queries else "document"]
            wanted = Wanted(dense=False, expand=True, counts=False, most=encoder.config.max_terms)
            views = encoder.passes.encode(TEXTS, prompt, wanted).encoded.sparse
            assert views is not None
            np.testing.assert_allclose(found, views.toarray(), atol=0.02)


def load_train_config_of(pairs: Path, folder: Path) -> TrainConfig:
    path = folder / "own.yaml"
    path.write_text(f"base: b\noutput: o\nsources: [{{path: {pairs}}}]\nquery_tokens: 48\ndocument_tokens: 48\n")
    return load_train_config(path)


def test_a_file_is_like_another(tmp_path: Path) -> None:
    from retriever.types import UserError

    (tmp_path / "one.yaml").write_text("base: b\noutput: o\nsources: [{path: p}]\nupcycle: {num_experts: 8}\nsteps: 7")
    (tmp_path / "two.yaml").write_text("like: one.yaml\noutput: other\nupcycle: {granularity: 1}\n")
    found = load_train_config(tmp_path / "two.yaml")
    assert (found.base, found.output, found.steps, found.upcycle) == ("b", "other", 7, {"granularity": 1})
    (tmp_path / "three.yaml").write_text("like: two.yaml\n")
    (tmp_path / "four.yaml").write_text("like: [one.yaml]\n")
    (tmp_path / "five.yaml").write_text("like: none.yaml\n")
    for name, words in (("three", "name that one"), ("four", "need the name of a file"), ("five", "no such")):
        with pytest.raises(UserError, match=words):
            load_train_config(tmp_path / f"{name}.yaml")
