"""The runtime of our own encoder: batching, views, truncation and folders that are not encoders."""

from __future__ import annotations

import json
import os
import shutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from retriever.encoder.load import NoEncoder, load_encoder
from retriever.encoder.moe.batches import batches
from retriever.encoder.moe.encoder import MoEEncoder
from retriever.encoder.moe.passes import Wanted
from retriever.encoder.runtime import PRECISIONS as PRECISIONS_OFFERED
from retriever.encoder.runtime import RuntimeConfig
from retriever.encoder.vocabulary.lexicon import Lexicon
from retriever.network.checkpoint import read_weights, write_weights
from retriever.network.model import RetrieverModel, pack
from retriever.types import Encoded, UserError
from tests.helpers.processor import OVERFLOWS, exact_int8

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

PRECISIONS = [precision for precision in PRECISIONS_OFFERED if precision not in ("auto", "float16")]


@pytest.fixture
def readable_texts(tiny_texts: list[str]) -> list[str]:
    """Return the tiny corpus without the text in scripts that the tiny tokeniser cannot read: it has no views."""
    return [text for text in tiny_texts if "Москва" not in text]


@pytest.fixture
def folder(tiny_encoder_folder: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny encoder that a test may damage."""
    return Path(shutil.copytree(tiny_encoder_folder, tmp_path / "encoder"))


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def assert_rows_equal(
    left: Encoded, left_rows: Sequence[int], right: Encoded, right_rows: Sequence[int], tolerance: float = 0.0
) -> None:
    """Compare both views of some rows, bit by bit unless a tolerance is given."""
    assert left.dense is not None and right.dense is not None
    np.testing.assert_allclose(left.dense[left_rows], right.dense[right_rows], rtol=0, atol=tolerance)
    assert left.sparse is not None and right.sparse is not None
    one, other = left.sparse[left_rows], right.sparse[right_rows]
    for array in ("indptr", "indices"):
        np.testing.assert_array_equal(getattr(one, array), getattr(other, array))
    np.testing.assert_allclose(one.data, other.data, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(left.truncated[left_rows], right.truncated[right_rows])


def join(parts: list[Encoded]) -> Encoded:
    from scipy.sparse import vstack

    dense = np.concatenate([part.dense for part in parts if part.dense is not None])
    return Encoded(
        dense,
        vstack([part.sparse for part in parts if part.sparse is not None]).tocsr(),
        np.concatenate([p.truncated for p in parts]),
    )


def read(encoder: MoEEncoder, texts: list[str], prompt: str = "") -> Encoded:
    """Return the expansions in place of the sparse view, and the counts of tokens."""
    least = encoder.config.min_document_weight
    wanted = Wanted(dense=True, expand=True, counts=True, most=encoder.config.max_terms, least=least)
    return encoder.passes.encode(texts, prompt, wanted).encoded


def assert_batch_does_not_matter(encoder: MoEEncoder, texts: list[str]) -> None:
    """Encode each text alone, all at once, and shuffled among very long neighbours."""
    together = encoder.encode_documents(texts)
    everything = list(range(len(texts)))
    assert_rows_equal(join([encoder.encode_documents([text]) for text in texts]), everything, together, everything)
    order = np.random.default_rng(0).permutation(len(texts)).tolist()
    long = ["yeast flour dough bread " * 400] * 4
    crowd = encoder.encode_documents([*long, *(texts[i] for i in order), *long])
    assert_rows_equal(crowd, [4 + i for i in everything], together, order)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_text_does_not_depend_on_its_batch(tiny_encoder_folder: Path, tiny_texts: list[str], precision: str) -> None:
    encoder = MoEEncoder(tiny_encoder_folder, runtime=RuntimeConfig(precision=precision, tokens_per_batch=300))
    assert_batch_does_not_matter(encoder, [*tiny_texts, "a", "the moon", tiny_texts[0]])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_real_passage_does_not_depend_on_its_batch(
    real_encoder_folder: Path, real_texts: list[str], precision: str
) -> None:
    encoder = MoEEncoder(real_encoder_folder, runtime=RuntimeConfig(precision=precision))
    # Mostly short ones, to be quick, and some that fill the encoder. They make batches from the shortest text alone to
    # full ones, which more texts (RETRIEVER_PASSAGES, at most 200) make no larger.
    count = int(os.environ.get("RETRIEVER_PASSAGES", "30"))
    texts = [text[: 2000 if i % 10 == 0 else 120] for i, text in enumerate(real_texts[:count])]
    assert_batch_does_not_matter(encoder, texts)


def test_a_device_that_is_not_there(tiny_encoder_folder: Path) -> None:
    with pytest.raises(UserError, match=r"device 'cuda:77' cannot be used \(.+\); use 'cpu'"):
        MoEEncoder(tiny_encoder_folder, runtime=RuntimeConfig(device="cuda:77", precision="float32"))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_views_are_the_networks(tiny_encoder_folder: Path, readable_texts: list[str], precision: str) -> None:
    """The oracle is the network in float32 on texts framed by hand: its expansions and the text's own tokens."""
    if precision == "int8" and not exact_int8():
        pytest.skip(OVERFLOWS)
    encoder = MoEEncoder(tiny_encoder_folder, runtime=RuntimeConfig(precision=precision))
    readable_texts = [text for text in readable_texts if text.strip()]
    encoded = encoder.encode_documents(readable_texts)
    model = RetrieverModel.from_pretrained(tiny_encoder_folder)
    model.train(False)
    assert encoded.dense is not None and encoded.sparse is not None
    for i, text in enumerate(readable_texts):
        tokens = encoder.lexicon.tokenizer.encode(text).ids
        own = torch.zeros(1, 200)
        for token in tokens[1:-1]:
            stem = int(model.sparse_head.stem[token])
            own[0, stem] += stem >= 0
        tokens = [*tokens[: model.config.max_length - 1], 3] if len(tokens) > model.config.max_length else tokens
        with torch.inference_mode():
            out = model.encode(pack([tokens]))
        assert out.dense is not None and out.sparse is not None
        if precision == "float32":
            np.testing.assert_allclose(encoded.dense[i], out.dense[0], atol=1e-6)
            expected = (out.sparse + model.lexical.documents(own)).detach()[0]
            np.testing.assert_allclose(encoded.sparse[i].toarray()[0], expected, atol=1e-5)
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
    plain = MoEEncoder(folder)
    change_config(folder, query_prompt="the moon ", document_prompt="flour ", prompt_in_terms=True)
    encoder = MoEEncoder(folder)
    for prompt, side in (("the moon ", "encode_queries"), ("flour ", "encode_documents")):
        found = getattr(encoder, side)(["yeast"])
        np.testing.assert_array_equal(found.dense, getattr(plain, side)([f"{prompt}yeast"]).dense)
        # The network expands the prompted text; the tokens that count are the text's own.
        expansions = read(plain, [f"{prompt}yeast"]).sparse
        own = read(plain, ["yeast"]).tokens
        prompted = read(encoder, ["yeast"], prompt)
        assert expansions is not None and prompted.sparse is not None
        assert own is not None and prompted.tokens is not None
        np.testing.assert_array_equal(prompted.sparse.toarray(), expansions.toarray())
        np.testing.assert_array_equal(prompted.tokens.toarray(), own.toarray())
    lexical, plainly = (each.with_query_mode("lexical").encode_queries(["yeast"]).sparse for each in (encoder, plain))
    assert lexical is not None and plainly is not None
    assert lexical.nnz > 0
    np.testing.assert_array_equal(lexical.toarray(), plainly.toarray())
    empty = encoder.encode_queries(["  "])
    assert empty.dense is not None and not empty.dense.any()


def test_light_expansions_are_left_out(folder: Path, readable_texts: list[str]) -> None:
    """Each side has a least weight of its own; a text's own words stay."""
    encoder = MoEEncoder(folder)
    full, asked = read(encoder, readable_texts).sparse, encoder.encode_queries(readable_texts).sparse
    assert full is not None and asked is not None
    least = float(np.median(full.data))
    change_config(folder, min_document_weight=least)
    cut = MoEEncoder(folder)
    found = read(cut, readable_texts).sparse
    assert found is not None
    np.testing.assert_array_equal(found.toarray(), np.where(full.toarray() >= least, full.toarray(), 0))
    unchanged = cut.encode_queries(readable_texts).sparse
    assert unchanged is not None
    np.testing.assert_array_equal(unchanged.toarray(), asked.toarray())
    change_config(folder, min_document_weight=0.0, min_query_weight=1e9)
    words = MoEEncoder(folder)
    own = words.with_query_mode("lexical").encode_queries(readable_texts).sparse
    alone, again = words.encode_queries(readable_texts).sparse, read(words, readable_texts).sparse
    assert own is not None and alone is not None and again is not None
    np.testing.assert_array_equal(alone.toarray(), own.toarray())
    np.testing.assert_array_equal(again.toarray(), full.toarray())


def test_max_terms_keeps_the_heaviest_expansions(folder: Path, readable_texts: list[str]) -> None:
    """The text's own tokens are kept whatever the limit: they come on top of the expansions."""
    full = read(MoEEncoder(folder), readable_texts).sparse
    change_config(folder, max_terms=3)
    encoder = MoEEncoder(folder)
    cut = read(encoder, readable_texts)
    assert full is not None and cut.sparse is not None and cut.tokens is not None
    for i in range(len(readable_texts)):
        row = full[i].toarray()[0]
        heaviest = sorted(np.flatnonzero(row), key=lambda term: (-row[term], term))[:3]
        assert cut.sparse[i].indices.tolist() == sorted(heaviest)
        assert cut.sparse[i].data.tolist() == [row[term] for term in sorted(heaviest)]
    view = encoder.encode_documents(readable_texts).sparse
    assert view is not None
    for i in range(len(readable_texts)):
        assert set(view[i].indices) == set(cut.sparse[i].indices) | set(cut.tokens[i].indices)


def test_tokens_beyond_the_length_count(folder: Path) -> None:
    """The network reads six tokens; the sparse view of documents and queries counts all."""
    change_config(folder, max_length=8)
    encoder = MoEEncoder(folder)
    word = {term: i for i, term in enumerate(encoder.vocabulary)}
    moon, texts = word["moon"], ["the " * 6, "the " * 6 + "moon moon moon"]
    found = encoder.encode_documents(texts)
    assert found.sparse is not None and found.tokens is not None and found.dense is not None
    np.testing.assert_array_equal(found.dense[0], found.dense[1])
    assert (found.tokens[0, moon], found.tokens[1, moon]) == (0, 3)
    # 9 tokens, 3 of them this one; the gain is 1.
    expected = 3 / (3 + 1.2 * (0.25 + 0.75 * 9 / 150))
    assert found.sparse[1, moon] - found.sparse[0, moon] == pytest.approx(expected, rel=1e-5)
    queries = encoder.with_query_mode("lexical").encode_queries(texts).sparse
    assert queries is not None
    np.testing.assert_allclose(queries[1, moon], 3 * encoder.lexicon.query_weight[moon], rtol=1e-6)


def test_lexical_queries_are_counts_times_weights(tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They need no sparse head, which is broken here."""
    encoder = MoEEncoder(tiny_encoder_folder, runtime=RuntimeConfig(precision="float32"))
    texts = ["the moon and the yeast", "", "flour [CLS] \u6708 the the the"]
    documents = encoder.encode_documents(["yeast"]).sparse
    lexical = encoder.with_query_mode("lexical")
    assert (encoder.query_mode, lexical.query_mode) == ("encoder", "lexical")
    monkeypatch.setitem(vars(encoder.network)["_modules"], "sparse_head", None)
    found = lexical.encode_queries(texts).sparse
    assert found is not None
    state = RetrieverModel.from_pretrained(tiny_encoder_folder)
    expected = np.zeros((3, 200))
    for row, text in enumerate(texts):
        for token in encoder.lexicon.tokenizer.encode(text, add_special_tokens=False).ids:
            stem = int(state.sparse_head.stem[token])
            if stem >= 0:
                factor = float(state.lexical.log_weight.detach()[stem].exp())
                expected[row, stem] += np.log(1 + 1 / float(state.lexical.fraction[stem])) * factor
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-5)
    assert found.has_sorted_indices and (found.data > 0).all() and found.dtype == np.float32
    monkeypatch.undo()
    again = lexical.encode_documents(["yeast"]).sparse  # documents are the same for both modes
    assert documents is not None and again is not None
    np.testing.assert_array_equal(documents.toarray(), again.toarray())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("mode", ["encoder", "lexical"])
def test_queries_do_not_depend_on_their_batch(
    tiny_encoder_folder: Path, tiny_texts: list[str], precision: str, mode: str
) -> None:
    encoder = MoEEncoder(tiny_encoder_folder, runtime=RuntimeConfig(precision, 300)).with_query_mode(mode)
    texts = [*(text[:60] for text in tiny_texts), "moon"]
    rows = list(range(len(texts)))
    alone = join([encoder.encode_queries([text]) for text in texts])
    # On several threads, the last bit of a float32 vector may follow from the batch.
    tolerance = 1e-6 if precision == "float32" else 0.0
    assert_rows_equal(alone, rows, encoder.encode_queries(texts), rows, tolerance)


def test_the_numpy_path_is_the_lexical_head(folder: Path, readable_texts: list[str]) -> None:
    """Documents and both kinds of queries, with every learned value drawn."""
    model = RetrieverModel.from_pretrained(folder)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        model.lexical.fraction.copy_(torch.rand(200, generator=generator).clamp_min(1e-4))
        model.lexical.log_weight.copy_(torch.randn(200, generator=generator) * 0.5)
        model.lexical.gain.fill_(1.7)
        model.lexical.expansion.fill_(0.35)
    write_weights(model.state_dict(), folder)
    encoder = MoEEncoder(folder, runtime=RuntimeConfig(precision="float32"))
    found = read(encoder, readable_texts)
    assert found.sparse is not None and found.tokens is not None
    own, expanded = torch.from_numpy(found.tokens.toarray()), torch.from_numpy(found.sparse.toarray())
    with torch.no_grad():
        pairs = [
            (encoder.encode_documents(readable_texts), expanded + model.lexical.documents(own)),
            (encoder.with_query_mode("encoder").encode_queries(readable_texts), model.lexical.queries(own, expanded)),
            (encoder.with_query_mode("lexical").encode_queries(readable_texts), model.lexical.queries(own)),
        ]
    for encoded, expected in pairs:
        assert encoded.sparse is not None
        np.testing.assert_allclose(encoded.sparse.toarray(), expected, rtol=2e-5, atol=1e-6)


def test_query_modes_by_name(folder: Path) -> None:
    assert MoEEncoder(folder).query_mode == "encoder"
    with pytest.raises(UserError, match="query mode 'magic' is unknown; choose one of encoder, lexical"):
        MoEEncoder(folder).with_query_mode("magic")
    change_config(folder, query_mode="lexical")
    assert MoEEncoder(folder).query_mode == "lexical"
    change_config(folder, query_mode="magic")
    with pytest.raises(UserError, match="query_mode is 'magic'"):
        MoEEncoder(folder)


def test_adapt_weighs_for_the_collection(tiny_encoder_folder: Path) -> None:
    """By hand: 300 documents of the training data stand beside those of the collection."""

    class Statistics:
        documents = 700

        def document_frequency(self, terms: NDArray[np.int32]) -> NDArray[np.int64]:
            return np.array([{60: 70, 61: 0}.get(int(term), 700) for term in terms])

    encoder = MoEEncoder(tiny_encoder_folder)
    encoder.lexicon.fraction = np.full(200, 0.2, np.float32)
    terms = csr_matrix((np.array([2, 3, 1], np.float32), ([0, 0, 1], [60, 61, 62])), shape=(2, 200))
    before = terms.copy()
    found = encoder.adapt(terms, Statistics()).toarray()
    start = np.log(1 + 1 / 0.2)
    assert found[0, 60] == pytest.approx(2 * np.log(1 + 1000 / (70 + 60)) / start, rel=1e-5)
    assert found[0, 61] == pytest.approx(3 * np.log(1 + 1000 / 60) / start, rel=1e-5)
    assert found[1, 62] == pytest.approx(np.log(1 + 1000 / 760) / start, rel=1e-5)
    assert np.count_nonzero(found) == 3
    np.testing.assert_array_equal(terms.toarray(), before.toarray())


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
    monkeypatch.setattr("retriever.encoder.spec.default_encoder_path", lambda: tiny_encoder_folder)
    assert load_encoder().identity.name == "default"
    monkeypatch.setattr("retriever.encoder.spec.default_encoder_path", lambda: tiny_encoder_folder / "missing")
    with pytest.raises(UserError, match="default encoder is not there, the installation is incomplete"):
        load_encoder()


@pytest.mark.parametrize("spec", ["", "no-such-folder", "./a/b", "/no/such/folder", "a/b/c"])
def test_names_that_are_nothing(spec: str) -> None:
    with pytest.raises(UserError, match=r"no such|no encoder here|is empty"):
        load_encoder(spec)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "encoder").write_text("x")
    with pytest.raises(UserError, match="no such folder"):
        load_encoder(str(tmp_path / "encoder"))


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


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.lists(
        st.one_of(
            st.sampled_from(
                [
                    "the",
                    "river",
                    " ",
                    "\n",
                    "\t",
                    "\r\n",
                    ".",
                    "..",
                    '"',
                    "-",
                    "]",
                    "[SEP]",
                    "[MASK]",
                    "a" * 120,
                    "\x1c",
                ]
            ),
            st.text("aehrtTHE09", min_size=15, max_size=110),
            st.sampled_from(["\x1c", "\u0301", "é", "東京", "\u200d", "😀", "\xa0", "\u2028", "İ", "ﬁ", "\ud800"]),
            st.text(max_size=3),
        )
    ).map("".join)
)
def test_a_text_has_the_same_tokens_in_pieces(
    tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    lexicon = load_lexicon(tiny_encoder_folder)
    monkeypatch.setattr("retriever.encoder.vocabulary.lexicon.PIECE", 2)
    whole = lexicon.tokenizer.encode(text.encode(errors="replace").decode(), add_special_tokens=False)
    assert lexicon.token_starts(text) == [start for start, _ in whole.offsets]


@cache
def load_lexicon(folder: Path) -> Lexicon:
    return Lexicon(folder)
