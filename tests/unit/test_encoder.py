"""The runtime of our own encoder: batching, views, truncation and folders that are not encoders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import retriever.encoder
from retriever.encoder import MoEEncoder, NoEncoder, RuntimeConfig, batches, load_encoder
from retriever.model import RetrieverModel, pack
from retriever.types import Encoded, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PRECISIONS = [precision for precision in retriever.encoder.PRECISIONS if precision != "auto"]


@pytest.fixture
def folder(tiny_encoder_folder: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny encoder that a test may damage."""
    return Path(shutil.copytree(tiny_encoder_folder, tmp_path / "encoder"))


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def assert_rows_equal(left: Encoded, left_rows: Sequence[int], right: Encoded, right_rows: Sequence[int]) -> None:
    """Compare both views of some rows, bit by bit."""
    assert left.dense is not None and right.dense is not None
    np.testing.assert_array_equal(left.dense[left_rows], right.dense[right_rows])
    assert left.sparse is not None and right.sparse is not None
    one, other = left.sparse[left_rows], right.sparse[right_rows]
    for array in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(one, array), getattr(other, array))
    np.testing.assert_array_equal(left.truncated[left_rows], right.truncated[right_rows])


def join(parts: list[Encoded]) -> Encoded:
    from scipy.sparse import vstack

    dense = np.concatenate([part.dense for part in parts if part.dense is not None])
    return Encoded(
        dense,
        vstack([part.sparse for part in parts if part.sparse is not None]).tocsr(),
        np.concatenate([p.truncated for p in parts]),
    )


def assert_batch_does_not_matter(encoder: MoEEncoder, texts: list[str]) -> None:
    """Encode each text alone, all at once, shuffled and among very long neighbours."""
    together = encoder.encode_documents(texts)
    everything = list(range(len(texts)))
    assert_rows_equal(join([encoder.encode_documents([text]) for text in texts]), everything, together, everything)
    order = np.random.default_rng(0).permutation(len(texts)).tolist()
    assert_rows_equal(encoder.encode_documents([texts[i] for i in order]), everything, together, order)
    long = ("yeast flour dough bread " * 500)[:10_000]
    assert_rows_equal(
        encoder.encode_documents([long] * 5 + texts + [long] * 5), [i + 5 for i in everything], together, everything
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_text_does_not_depend_on_its_batch(tiny_encoder_folder: Path, tiny_texts: list[str], precision: str) -> None:
    encoder = MoEEncoder(tiny_encoder_folder, runtime=RuntimeConfig(precision=precision, tokens_per_batch=300))
    assert_batch_does_not_matter(encoder, [*tiny_texts, "a", "the moon", tiny_texts[0]])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_real_passage_does_not_depend_on_its_batch(
    real_encoder_folder: Path, real_texts: list[str], precision: str
) -> None:
    encoder = MoEEncoder(real_encoder_folder, runtime=RuntimeConfig(precision=precision))
    # Mostly short ones, to be quick, and some that fill the encoder.
    assert_batch_does_not_matter(encoder, [text[: 2000 if i % 10 == 0 else 120] for i, text in enumerate(real_texts)])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_views_are_the_networks(tiny_encoder_folder: Path, tiny_texts: list[str], precision: str) -> None:
    """The oracle is the network in float32 on texts framed by hand, its positive weights the sparse row."""
    encoder = MoEEncoder(tiny_encoder_folder, runtime=RuntimeConfig(precision=precision))
    tiny_texts = [text for text in tiny_texts if text.strip()]
    encoded = encoder.encode_documents(tiny_texts)
    model = RetrieverModel.from_pretrained(tiny_encoder_folder)
    model.train(False)
    assert encoded.dense is not None and encoded.sparse is not None
    for i, text in enumerate(tiny_texts):
        tokens = encoder._tokenizer.encode(text).ids
        tokens = [*tokens[: model.config.max_length - 1], 3] if len(tokens) > model.config.max_length else tokens
        with torch.inference_mode():
            out = model.encode(pack([tokens]))
        assert out.dense is not None and out.sparse is not None
        if precision == "float32":
            np.testing.assert_allclose(encoded.dense[i], out.dense[0], atol=1e-6)
            np.testing.assert_allclose(encoded.sparse[i].toarray()[0], out.sparse[0], atol=1e-5)
        else:
            assert encoded.dense[i] @ out.dense[0].numpy() > 0.97
    assert 0 < encoded.sparse.nnz < encoded.sparse.shape[0] * 190


def test_truncation_is_counted(folder: Path) -> None:
    change_config(folder, max_length=8)
    encoder = MoEEncoder(folder)
    # Every word of this text is one token; [CLS] and [SEP] take two of the eight places.
    texts = [" ".join(["the"] * count) for count in (1, 5, 6, 7, 1000)]
    encoded = encoder.encode_documents(texts)
    assert encoded.truncated.tolist() == [False, False, False, True, True]
    assert_rows_equal(encoded, [2, 2], Encoded(encoded.dense, encoded.sparse, np.zeros(5, dtype=np.bool_)), [2, 2])
    assert encoded.dense is not None
    np.testing.assert_array_equal(encoded.dense[2], encoded.dense[3])


def test_prompts_go_before_the_text(folder: Path) -> None:
    change_config(folder, query_prompt="the moon ", document_prompt="flour ")
    encoder, plain = MoEEncoder(folder), MoEEncoder(folder)
    plain.config.query_prompt = plain.config.document_prompt = ""
    assert_rows_equal(encoder.encode_queries(["yeast"]), [0], plain.encode_queries(["the moon yeast"]), [0])
    assert_rows_equal(encoder.encode_documents(["yeast"]), [0], plain.encode_documents(["flour yeast"]), [0])
    empty = encoder.encode_queries(["  "])
    assert empty.dense is not None and not empty.dense.any()


def test_max_terms_keeps_the_heaviest(folder: Path, tiny_texts: list[str]) -> None:
    full = MoEEncoder(folder).encode_documents(tiny_texts).sparse
    change_config(folder, max_terms=3)
    cut = MoEEncoder(folder).encode_documents(tiny_texts).sparse
    assert full is not None and cut is not None
    for i in range(len(tiny_texts)):
        row = full[i].toarray()[0]
        heaviest = sorted(np.flatnonzero(row), key=lambda term: (-row[term], term))[:3]
        assert cut[i].indices.tolist() == sorted(heaviest)
        assert cut[i].data.tolist() == [row[term] for term in sorted(heaviest)]


def test_windows_make_no_difference(tiny_encoder_folder: Path, tiny_texts: list[str]) -> None:
    one = MoEEncoder(tiny_encoder_folder, runtime=RuntimeConfig(window=3, tokens_per_batch=1))
    other = MoEEncoder(tiny_encoder_folder)
    rows = list(range(len(tiny_texts)))
    assert_rows_equal(one.encode_documents(tiny_texts), rows, other.encode_documents(tiny_texts), rows)


@pytest.mark.parametrize("text", ["\ud800 moon", "\udcff", "\x00\x01", "🙂 moon", "月", "\u200b", "​" * 3, "a" * 5000])
def test_odd_texts(tiny_encoder_folder: Path, text: str) -> None:
    encoded = MoEEncoder(tiny_encoder_folder).encode_documents([text])
    assert encoded.dense is not None and encoded.sparse is not None
    assert np.isfinite(encoded.dense).all() and np.isfinite(encoded.sparse.data).all()


@given(st.lists(st.integers(0, 60)), st.integers(1, 200))
def test_batches(lengths: list[int], budget: int) -> None:
    found = list(batches(lengths, budget))
    assert sorted(i for batch in found for i in batch) == [i for i, length in enumerate(lengths) if length]
    for batch in found:
        sizes = [lengths[i] for i in batch]
        assert sizes == sorted(sizes)
        assert sum(sizes) <= budget or len(batch) == 1


def test_identity_follows_the_files(folder: Path) -> None:
    before = MoEEncoder(folder).identity
    assert (before.name, before.dense_dim, before.vocab_size) == (str(folder.resolve()), 32, 200)
    assert MoEEncoder(folder, runtime=RuntimeConfig(precision="bfloat16")).identity == before
    change_config(folder, max_length=10)
    assert MoEEncoder(folder).identity.sha256 != before.sha256


def test_load_encoder_knows_the_names(tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(load_encoder("none"), NoEncoder)
    monkeypatch.setattr(retriever.encoder, "default_encoder_path", lambda: tiny_encoder_folder)
    assert load_encoder().identity.name == "default"
    monkeypatch.setattr(retriever.encoder, "default_encoder_path", lambda: tiny_encoder_folder / "missing")
    with pytest.raises(UserError, match="default encoder is not there; build it"):
        load_encoder()


@pytest.mark.parametrize("spec", ["", "no-such-folder", "./a/b", "/no/such/folder", "a/b/c"])
def test_names_that_are_nothing(spec: str) -> None:
    with pytest.raises(UserError, match=r"no such|no encoder here|is empty"):
        load_encoder(spec)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "encoder").write_text("x")
    with pytest.raises(UserError, match="no such folder"):
        load_encoder(str(tmp_path / "encoder"))


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
        (lambda f: change_config(f, pooling="max"), "pooling is 'max'"),
        (lambda f: change_config(f, sparse_layers=[3]), "sparse_layers"),
        (lambda f: change_config(f, sparse_layers=[]), "sparse_layers"),
        (lambda f: change_config(f, experts_per_token=9), "allowed are 1 to 8"),
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
    ],
)
def test_impossible_runtimes(tiny_encoder_folder: Path, values: dict[str, object]) -> None:
    with pytest.raises(UserError, match="|".join(values)):
        MoEEncoder(tiny_encoder_folder, runtime=RuntimeConfig(**values))  # type: ignore[arg-type]


def test_auto_takes_one_of_the_precisions(tiny_encoder_folder: Path) -> None:
    assert MoEEncoder(tiny_encoder_folder).precision in PRECISIONS
