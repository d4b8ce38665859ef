"""The two ways of making sparse terms of queries, and their weights for a collection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from retriever.encoder.moe.encoder import MoEEncoder
from retriever.encoder.runtime import RuntimeConfig
from retriever.network.checkpoint import write_weights
from retriever.network.model import RetrieverModel
from retriever.types import UserError
from tests.helpers.encodings import change_config, read

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
