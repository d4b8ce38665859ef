from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retriever.encoder.load import load_encoder
from retriever.integrations.mteb import MtebEncoder
from retriever.types import UserError

pytestmark = pytest.mark.filterwarnings("ignore")  # of mteb, where it is installed


class Prompt(StrEnum):
    """As mteb has it."""

    query = "query"
    document = "document"


@pytest.fixture(scope="module")
def encoder(tiny_encoder_folder: Path) -> MtebEncoder:
    return MtebEncoder(str(tiny_encoder_folder), None, device="cpu")


def test_batches_are_encoded_by_their_kind(
    encoder: MtebEncoder, tiny_encoder_folder: Path, tiny_texts: list[str]
) -> None:
    batches = [{"text": tiny_texts[:7], "body": ["not this"] * 7}, {"text": tiny_texts[7:]}]
    where: dict[str, Any] = {"task_metadata": None, "hf_split": "test", "hf_subset": "default"}
    ours = load_encoder(str(tiny_encoder_folder))
    queries = encoder.encode(batches, prompt_type=Prompt.query, batch_size=3, **where)
    np.testing.assert_array_equal(queries, ours.encode_queries(tiny_texts).dense)
    for prompt in (Prompt.document, None):
        documents = encoder.encode(iter(batches), prompt_type=prompt, **where)
        np.testing.assert_array_equal(documents, ours.encode_documents(tiny_texts).dense)


def test_similarities(encoder: MtebEncoder) -> None:
    left, right = np.eye(3, 4, dtype=np.float32), np.arange(12, dtype=np.float32).reshape(3, 4)
    expected = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in right.tolist()] for x in left.tolist()]
    assert encoder.similarity(left, right).tolist() == expected
    assert encoder.similarity(left[0], right).tolist() == expected[:1]
    assert encoder.similarity_pairwise(left, right).tolist() == [row[i] for i, row in enumerate(expected)]


def test_an_encoder_without_a_dense_view() -> None:
    with pytest.raises(UserError, match="none: has no dense view"):
        MtebEncoder("none")


def test_mteb_takes_it(encoder: MtebEncoder) -> None:
    pytest.importorskip("mteb", reason="mteb is an extra")
    from mteb.models.models_protocols import EncoderProtocol

    assert isinstance(encoder, EncoderProtocol)
    assert encoder.mteb_model_meta.embed_dim == encoder.encoder.identity.dense_dim
    assert encoder.mteb_model_meta.revision == encoder.encoder.identity.sha256[:12]
