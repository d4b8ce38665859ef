"""sentence-transformers models as encoders, compared with the models' own encode output on tiny models made here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding
from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder, SparseStaticEmbedding, SpladePooling
from transformers import BertConfig, BertForMaskedLM, BertModel, BertTokenizer

from retriever.encoder.load import load_encoder
from retriever.encoder.sentence_transformers import SentenceTransformersEncoder
from retriever.types import Encoder, UserError
from tests.helpers.warm import WarmPython

ROOT = Path(__file__).parents[2]
SENTENCES = "bread rises because yeast eats sugar the moon pulls sea water query passage : trees make wood of air"
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(SENTENCES.split())]
DIM, PADDED_VOCAB, LIMIT = 16, 32, 12
TEXTS = ["bread rises because yeast eats sugar", "", "the moon", " \n\t ", "water " * 30, "sea"]
PROMPTS = {"query": "query : ", "document": "passage : "}


def save_bert(
    folder: Path, kind: Callable[[BertConfig], Any], seed: int, bias: float | None = None, vocab: int = PADDED_VOCAB
) -> str:
    """Save a random tiny BERT; its vocabulary is padded, as that of many public models is."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=vocab,
        hidden_size=DIM,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    model = kind(config)
    if bias is not None:
        model.cls.predictions.bias.data.fill_(bias)
    model.save_pretrained(folder)
    BertTokenizer(vocab={token: i for i, token in enumerate(TOKENS)}, model_max_length=LIMIT).save_pretrained(folder)
    return str(folder)


def save_sparse(folder: Path, bias: float, seed: int = 1) -> Path:
    base = save_bert(folder.with_name(folder.name + "-base"), BertForMaskedLM, seed, bias)
    modules = [Transformer(base, transformer_task="fill-mask"), SpladePooling(pooling_strategy="max")]
    SparseEncoder(modules=modules, prompts=PROMPTS, device="cpu").save(str(folder), create_model_card=False)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def dense(folder: Path) -> Path:
    base = save_bert(folder / "dense-base", BertModel, 0)
    modules = [Transformer(base), Pooling(DIM, pooling_mode="mean")]
    SentenceTransformer(modules=modules, prompts=PROMPTS, device="cpu").save(
        str(folder / "dense"), create_model_card=False
    )
    return folder / "dense"


@pytest.fixture(scope="module")
def sparse(folder: Path) -> Path:
    return save_sparse(folder / "sparse", bias=-4.0)


@pytest.fixture(scope="module")
def both(dense: Path, sparse: Path) -> SentenceTransformersEncoder:
    return SentenceTransformersEncoder(f"st:{dense}+{sparse}")


def filled() -> list[int]:
    return [i for i, text in enumerate(TEXTS) if text.strip()]


@pytest.mark.parametrize("task", ["query", "document"])
def test_equals_the_models_own_output_with_their_prompts(
    both: SentenceTransformersEncoder, dense: Path, sparse: Path, task: str
) -> None:
    found = both.encode_queries(TEXTS) if task == "query" else both.encode_documents(TEXTS)
    assert found.dense is not None and found.sparse is not None
    # The oracle knows nothing of encode_query, and reads one text at a time.
    vectors, terms = SentenceTransformer(str(dense), device="cpu"), SparseEncoder(str(sparse), device="cpu")
    for i in filled():
        text = PROMPTS[task] + TEXTS[i]
        vector = vectors.encode(text, prompt="")
        np.testing.assert_allclose(found.dense[i], vector / np.linalg.norm(vector), atol=1e-5)
        weights = terms.encode(text, prompt="", convert_to_sparse_tensor=False).numpy()
        np.testing.assert_allclose(found.sparse[i].toarray()[0], weights, atol=1e-5)
    assert found.dense.dtype == found.sparse.dtype == np.float32
    assert found.dense.shape == (len(TEXTS), DIM) and found.sparse.shape == (len(TEXTS), PADDED_VOCAB)
    assert found.sparse.has_sorted_indices and (found.sparse.data > 0).all()
    for i in set(range(len(TEXTS))) - set(filled()):
        assert not found.dense[i].any() and not found.sparse[i].nnz


def test_prompts_of_queries_and_documents_differ(both: SentenceTransformersEncoder) -> None:
    query, document = both.encode_queries(["bread"]), both.encode_documents(["bread"])
    assert query.dense is not None and document.dense is not None
    assert np.abs(query.dense - document.dense).max() > 1e-3


def test_truncation_counts_prompt_and_special_tokens(both: SentenceTransformersEncoder) -> None:
    room = LIMIT - 2 - len(PROMPTS["query"].split())
    found = both.encode_queries(["sea " * room, "sea " * (room + 1), ""])
    assert found.truncated.tolist() == [False, True, False]


@pytest.mark.parametrize("texts", [[], [""], [" ", ""]])
def test_nothing_to_encode(both: SentenceTransformersEncoder, texts: list[str]) -> None:
    found = both.encode_documents(texts)
    assert found.dense is not None and found.sparse is not None
    assert found.dense.shape == (len(texts), DIM) and not found.dense.any()
    assert found.sparse.shape == (len(texts), PADDED_VOCAB) and found.sparse.nnz == 0
    assert found.truncated.tolist() == [False] * len(texts)


def test_one_view_alone(dense: Path, sparse: Path, both: SentenceTransformersEncoder) -> None:
    only_dense, only_sparse = load_encoder(f"st:{dense}"), load_encoder(f"st:+{sparse}")
    assert isinstance(only_dense, Encoder) and isinstance(only_sparse, Encoder)
    expected, found = both.encode_documents(TEXTS), only_dense.encode_documents(TEXTS)
    assert expected.dense is not None and found.dense is not None and found.sparse is None
    np.testing.assert_allclose(found.dense, expected.dense, atol=1e-6)
    assert only_dense.identity[2:] == (DIM, 0) and not only_dense.vocabulary
    found = only_sparse.encode_documents(TEXTS)
    assert expected.sparse is not None and found.sparse is not None and found.dense is None
    assert abs(found.sparse - expected.sparse).max() < 1e-6
    assert only_sparse.identity[2:] == (0, PADDED_VOCAB)
    for encode in (both.encode_documents, both.encode_queries):
        complete, one, other = encode(TEXTS), encode(TEXTS, sparse=False), encode(TEXTS, dense=False)
        assert complete.dense is not None and one.dense is not None and one.sparse is None
        np.testing.assert_array_equal(one.dense, complete.dense)
        assert complete.sparse is not None and other.sparse is not None and other.dense is None
        np.testing.assert_array_equal(other.sparse.toarray(), complete.sparse.toarray())


def test_vocabulary_is_the_tokenizers(both: SentenceTransformersEncoder) -> None:
    assert list(both.vocabulary) == TOKENS + [""] * (PADDED_VOCAB - len(TOKENS))


def test_dimensions_of_an_autoencoder_are_numbers(folder: Path) -> None:
    base = save_bert(folder / "csr-base", BertModel, 5)
    modules = [Transformer(base), Pooling(DIM, pooling_mode="mean"), SparseAutoEncoder(DIM, hidden_dim=40, k=8)]
    SparseEncoder(modules=modules, device="cpu").save(str(folder / "csr"), create_model_card=False)
    encoder = SentenceTransformersEncoder(f"st:+{folder / 'csr'}")
    assert list(encoder.vocabulary) == [str(i) for i in range(40)]


def test_queries_without_a_network(folder: Path) -> None:
    base = save_bert(folder / "router-base", BertForMaskedLM, 1, -4.0, len(TOKENS))
    documents = [Transformer(base, transformer_task="fill-mask"), SpladePooling(pooling_strategy="max")]
    table = torch.linspace(0.1, 2.0, len(TOKENS))
    queries = SparseStaticEmbedding(tokenizer=documents[0].tokenizer, weight=table)
    router = Router.for_query_document(query_modules=[queries], document_modules=documents)
    SparseEncoder(modules=[router], device="cpu").save(str(folder / "router"), create_model_card=False)
    encoder = SentenceTransformersEncoder(f"st:+{folder / 'router'}")
    found, words = encoder.encode_queries(["sea bread sea", ""]).sparse, [TOKENS.index("bread"), TOKENS.index("sea")]
    assert found is not None and found.indptr.tolist() == [0, 2, 2]
    assert found.indices.tolist() == words
    np.testing.assert_allclose(found.data, table[words], rtol=1e-6)


def test_static_vectors_have_no_limit(folder: Path, dense: Path) -> None:
    tokenizer = SentenceTransformer(str(dense), device="cpu").tokenizer.backend_tokenizer
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu")
    model.save(str(folder / "static"), create_model_card=False)
    encoder = SentenceTransformersEncoder(f"st:{folder / 'static'}")
    found = encoder.encode_documents(["sea " * 1000, ""])
    assert encoder.identity.dense_dim == 8 and found.dense is not None
    np.testing.assert_allclose(np.linalg.norm(found.dense, axis=1), [1, 0], atol=1e-6)
    assert not found.truncated.any()


def test_half_precision_models_run_in_single_precision(folder: Path, dense: Path) -> None:
    model = SentenceTransformer(str(dense), device="cpu", model_kwargs={"dtype": torch.float16})
    model.save(str(folder / "half"), create_model_card=False)
    found = load_encoder(f"st:{folder / 'half'}").encode_documents(["the moon pulls the sea"]).dense
    assert found is not None and abs(np.linalg.norm(found) - 1) < 1e-6


@pytest.mark.processes
def test_identity_is_stable_across_processes(
    both: SentenceTransformersEncoder, dense: Path, sparse: Path, warm: WarmPython
) -> None:
    assert both.identity.name == f"st:{dense.resolve()}+{sparse.resolve()}"
    code = (
        "import sys; from retriever.encoder.load import load_encoder; print(load_encoder(sys.argv[1]).identity.sha256)"
    )
    process = warm("-c", code, f"st:{dense.name}+{sparse.name}", cwd=dense.parent)
    # Nothing but the digest is on stdout, and relative folders name the same encoder.
    assert process.stdout.strip() == both.identity.sha256


def test_loading_the_name_of_an_identity_gives_the_same_encoder(both: SentenceTransformersEncoder) -> None:
    assert load_encoder(both.identity.name).identity == both.identity


@pytest.mark.parametrize("change", ["weights", "prompt", "pooling"])
def test_identity_changes_with_what_changes_the_vectors(folder: Path, dense: Path, change: str) -> None:
    before = load_encoder(f"st:{dense}").identity
    copy = folder / f"dense-{change}"
    shutil.copytree(dense, copy)
    if change == "weights":
        model = SentenceTransformer(str(dense), device="cpu")
        next(model.parameters()).data[6, 0] += 1e-3
        model.save(str(copy), create_model_card=False)
    elif change == "prompt":
        edit(copy / "config_sentence_transformers.json", prompts={"query": "q ", "document": "passage : "})
    else:
        edit(copy / "1_Pooling" / "config.json", pooling_mode="cls")
    assert load_encoder(f"st:{copy}").identity.sha256 != before.sha256


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_plus_sign_in_the_name_of_a_folder(folder: Path, dense: Path, sparse: Path) -> None:
    odd = folder / "c++"
    shutil.copytree(dense, odd)
    assert load_encoder(f"st:{odd}").identity.vocab_size == 0
    identity = load_encoder(f"st:{odd}+{sparse}").identity
    assert (identity.dense_dim, identity.vocab_size) == (DIM, PADDED_VOCAB)


def refusal(spec: str) -> str:
    with pytest.raises(UserError) as caught:
        load_encoder(spec)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_no_name(dense: Path) -> None:
    assert "names no model" in refusal("st:")
    for spec in ("st:+", f"st:{dense}+"):
        assert "no such model folder" in refusal(spec)


def test_folder_missing(folder: Path, dense: Path) -> None:
    missing = folder / "missing"
    assert str(missing) in refusal(f"st:{missing}") and "no such model folder" in refusal(f"st:{missing}")
    assert str(missing) in refusal(f"st:{dense}+{missing}")
    assert "no such model folder" in refusal("st:./missing")
    assert "no such model folder" in refusal("st:missing")
    (folder / "file").write_text("")
    assert "no such model folder" in refusal(f"st:{folder / 'file'}")


def test_not_a_sentence_transformers_model(folder: Path, dense: Path) -> None:
    assert "modules.json is missing" in refusal(f"st:{folder / 'dense-base'}")
    assert "modules.json is missing" in refusal(f"st:{dense}+{folder / 'dense-base'}")


def test_models_of_the_other_kind(dense: Path, sparse: Path) -> None:
    assert "found a SparseEncoder, need a SentenceTransformer" in refusal(f"st:{sparse}")
    assert "found a SentenceTransformer, need a SparseEncoder" in refusal(f"st:{dense}+{dense}")


def test_damaged_models(folder: Path, dense: Path) -> None:
    damaged = folder / "damaged"
    shutil.copytree(dense, damaged)
    (damaged / "model.safetensors").write_bytes(b"nonsense")
    assert "cannot load this SentenceTransformer" in refusal(f"st:{damaged}")
    (damaged / "config_sentence_transformers.json").write_text("[]")
    assert "damaged" in refusal(f"st:{damaged}")


@pytest.mark.parametrize("bias", [-1000.0, 1000.0])
def test_sparse_heads_that_were_never_trained(folder: Path, bias: float) -> None:
    model = save_sparse(folder / f"untrained{bias:+.0f}".replace("+", ""), bias)
    terms = 0 if bias < 0 else PADDED_VOCAB
    assert f"{terms} of {PADDED_VOCAB} terms" in refusal(f"st:+{model}")


def test_hub_not_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = refusal("st:nobody/no-such-model-of-theirs")
    assert "nobody/no-such-model-of-theirs" in message and "hub" in message
