"""Document frequencies of tokens: what the index counts, and the weights that queries get from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pytest

from retriever.encoder.moe.encoder import MoEEncoder
from retriever.encoder.runtime import RuntimeConfig
from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.network.model import RetrieverModel
from retriever.search.retriever import Retriever
from retriever.types import Document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from scipy.sparse import csr_matrix

    from retriever.types import TermStatistics
    from tests.conftest import Parent

Counting: TypeAlias = "Callable[[Iterable[Document]], list[int]]"
VOCAB = 200


@pytest.fixture
def encoder(tiny_encoder_folder: Path) -> MoEEncoder:
    return MoEEncoder(tiny_encoder_folder, runtime=RuntimeConfig(precision="float32"))


@pytest.fixture
def documents(tiny_texts: list[str]) -> list[Document]:
    read = [text for text in tiny_texts if "Москва" not in text]  # that one the tokeniser cannot read: it has no tokens
    return [Document(f"d{number}", text, title="the moon" * (number % 2)) for number, text in enumerate(read)]


def add(writer: FolderWriter, encoder: MoEEncoder, documents: Sequence[Document]) -> None:
    writer.add(documents, encoder.encode_documents([document.contents for document in documents]))


@pytest.fixture
def network(tiny_encoder_folder: Path) -> RetrieverModel:
    return RetrieverModel.from_pretrained(tiny_encoder_folder)


@pytest.fixture
def naive(network: RetrieverModel, tiny_parent: Parent) -> Counting:
    """Return what counts, in a loop, in how many documents each term is the stem of a token."""
    stems = network.sparse_head.stem.tolist()

    def count(documents: Iterable[Document]) -> list[int]:
        found = [0] * VOCAB
        for document in documents:
            tokens = tiny_parent.tokenizer.encode(document.contents, add_special_tokens=False)
            for stem in {stems[token] for token in tokens} - {-1}:
                found[stem] += 1
        return found

    return count


def counted(folder: Path) -> tuple[int, list[int]]:
    with FolderReader.open(folder) as reader:
        statistics = reader.token_statistics
        everything = statistics.document_frequency(np.arange(VOCAB, dtype=np.int32)).tolist()
        assert statistics.document_frequency(np.array([70, 7, 70], np.int32)).tolist() == [
            everything[term] for term in (70, 7, 70)
        ]
        return statistics.documents, everything


def test_document_frequencies(naive: Counting, encoder: MoEEncoder, documents: list[Document], tmp_path: Path) -> None:
    """Exact after adding, after deleting and replacing, and after compaction."""
    folder = tmp_path / "index"
    texts = [document for document in documents if document.contents.strip()]
    with FolderWriter.create(folder, IndexSettings(encoder.identity)) as writer:
        for start in range(0, len(documents), 7):
            add(writer, encoder, documents[start : start + 7])
            writer.commit({})
    before = naive(texts)
    assert max(before) > 10 and before.count(0) > 0
    assert counted(folder) == (len(texts), before)
    changed = Document("d3", "moon moon yeast")
    with FolderWriter.open(folder) as writer:
        writer.delete(["d0", "d1"])
        add(writer, encoder, [changed])
        writer.commit({})
    live = [changed, *(document for document in texts if document.doc_id not in ("d0", "d1", "d3"))]
    after = naive(live)
    assert after != before
    assert counted(folder) == (len(live), after)
    with FolderWriter.open(folder) as writer:
        writer.compact()
    assert counted(folder) == (len(live), after)


def test_search_weighs_queries_by_them(
    naive: Counting, network: RetrieverModel, encoder: MoEEncoder, documents: list[Document], tmp_path: Path
) -> None:
    """Scores of the sparse leg by the formula: count, idf of prior and index, learned factor, stored weight."""
    folder = tmp_path / "index"
    with FolderWriter.create(folder, IndexSettings(encoder.identity)) as writer:
        add(writer, encoder, documents)
        writer.commit({})
    frequency = naive(documents)
    number = sum(bool(document.contents.strip()) for document in documents)
    stored = encoder.encode_documents([document.contents for document in documents]).sparse
    assert stored is not None
    fraction = network.lexical.fraction
    for mode in ("lexical", "encoder"):
        chosen = encoder.with_query_mode(mode)
        query = chosen.encode_queries(["moon moon yeast"]).sparse
        assert query is not None
        weights = np.zeros(VOCAB)
        for term, weight in zip(query.indices, query.data, strict=True):
            prior = float(fraction[term])
            blended = (frequency[term] + 300 * prior) / (number + 300)
            weights[term] = weight * np.log1p(1 / blended) / np.log1p(1 / prior)
        if mode == "lexical":
            moon = encoder.vocabulary.index("moon")
            blended = (frequency[moon] + 300 * float(fraction[moon])) / (number + 300)
            assert weights[moon] == pytest.approx(2 * np.log(1 + 1 / blended), rel=1e-5)  # the factor is 1 at the start
        expected = dict(zip((document.doc_id for document in documents), stored @ weights, strict=True))
        with Retriever.open(folder, chosen) as retriever:
            hits = retriever.search("moon moon yeast", 20, mode="sparse")
            assert len(hits) >= 5
            for hit in hits:
                assert hit.score == pytest.approx(expected[hit.doc_id], rel=5e-3, abs=0.02)  # impacts are rounded


class Interrupted(MoEEncoder):
    """Lets something happen just before a query is weighed."""

    def adapt(self, terms: csr_matrix, statistics: TermStatistics) -> csr_matrix:
        self.meanwhile()
        return super().adapt(terms, statistics)

    def meanwhile(self) -> None:
        """Do nothing."""


def test_a_query_keeps_its_statistics_while_the_index_is_reopened(
    tiny_encoder_folder: Path, documents: list[Document], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Interrupted(tiny_encoder_folder, runtime=RuntimeConfig(precision="float32"))
    folder = tmp_path / "index"
    with FolderWriter.create(folder, IndexSettings(encoder.identity)) as writer:
        add(writer, encoder, documents)
        writer.commit({})
    with Retriever.open(folder, encoder) as retriever:
        before = retriever.search("moon moon yeast", 5, mode="sparse")
    with Retriever.open(folder, encoder) as retriever:

        def change() -> None:
            with FolderWriter.open(folder) as writer:
                writer.delete([before[0].doc_id])
                writer.commit({})
            assert retriever.reopen()

        monkeypatch.setattr(encoder, "meanwhile", change)
        assert retriever.search("moon moon yeast", 5, mode="sparse") == before  # of the commit that it began with
        monkeypatch.undo()
        after = retriever.search("moon moon yeast", 5, mode="sparse")
    assert before[0].doc_id not in [hit.doc_id for hit in after] and after[0].doc_id == before[1].doc_id
