"""Long documents from corpus to hit: indexing, resuming, changing and searching an index of chunks."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from scipy.sparse import csr_matrix

from retriever.cli.main import cli
from retriever.encoder.base import EncoderBase
from retriever.index import FolderReader
from retriever.indexing.build import IndexingConfig, build_index, holds
from retriever.indexing.writer import IndexWriter, add_corpus
from retriever.search.retriever import MODES, Retriever
from retriever.types import Document, Encoded, EncoderIdentity, Hit, Query, UserError

os.environ.setdefault("OMP_NUM_THREADS", "1")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
DIM, VOCAB = 8, 40
ANIMALS = ["otter", "heron", "badger", "falcon", "lizard", "turtle", "walrus", "magpie", "jackal", "beaver"]
CHUNKED = IndexingConfig(batch=20, commit_every_documents=10, chunk=True, chunk_tokens=12, chunk_overlap=4)


class Stub(EncoderBase):
    """Encodes a text by its words, notes it, and fails instead of the batch after `limit` texts."""

    def __init__(self, limit: int | None = None) -> None:
        self.identity = EncoderIdentity("stub", "a" * 64, DIM, VOCAB)
        self.vocabulary: Sequence[str] = [*ANIMALS, *(f"term{n}" for n in range(VOCAB - len(ANIMALS)))]
        self.seen: list[str] = []
        self._limit = limit

    def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        if self._limit is not None and len(self.seen) + len(texts) > self._limit:
            raise RuntimeError("stopped")
        self.seen += texts
        counts = np.array([[text.count(animal) for animal in ANIMALS] for text in texts], np.float32)
        terms = np.pad(counts.reshape(len(texts), len(ANIMALS)), ((0, 0), (0, VOCAB - len(ANIMALS))))
        vectors = terms @ np.random.default_rng(0).standard_normal((VOCAB, DIM)).astype(np.float32)
        vectors[:, 0] += 0.01
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return Encoded(vectors if dense else None, csr_matrix(terms) if sparse else None, np.zeros(len(texts), bool))

    encode_queries = encode_documents


def document(number: int, sentences: int = 9) -> Document:
    """Return a document with an animal in each of its sentences, all but the last one the same."""
    common, last = ANIMALS[number % 5], ANIMALS[5 + number % 5]
    lines = [f"A {common} was seen at place {n} once." for n in range(sentences - 1)]
    return Document(f"d{number}", " ".join([*lines, f"Then came the {last} of year {number}."]), "Zoo", {"n": number})


def write(path: Path, documents: Sequence[Document]) -> Path:
    lines = [{"_id": d.doc_id, "title": d.title, "text": d.text, **d.metadata} for d in documents]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write(tmp_path / "corpus.jsonl", [document(n) for n in range(30)])


@pytest.fixture
def folder(corpus: Path, tmp_path: Path) -> Path:
    build_index(corpus, tmp_path / "index", encoder=Stub(), config=CHUNKED)
    return tmp_path / "index"


def content(folder: Path) -> object:
    query = Stub().encode_queries(["the turtle and the otter"])
    assert query.dense is not None and query.sparse is not None
    with FolderReader.open(folder) as reader:
        return (
            reader.stored(f"d{n}" for n in range(40)),
            reader.bm25("turtle otter", 100),
            reader.sparse(query.sparse, 100),
            reader.dense(query.dense, 100),
            (reader.num_documents, reader.num_chunks),
        )


def check_hit(hit: Hit, found: Document) -> None:
    """A hit is the document; each leg's score is that of its best chunk; every chunk is a part of the text."""
    assert (hit.text, hit.title, dict(hit.metadata)) == (found.text, found.title, dict(found.metadata))
    assert 1 <= len({chunk.start for chunk in hit.chunks}) == len(hit.chunks) <= 3
    for chunk in hit.chunks:
        assert chunk.text == hit.text[chunk.start : chunk.end] and chunk.scores.keys() <= {"bm25", "sparse", "dense"}
    for leg, part in hit.parts.items():
        assert max(chunk.scores.get(leg, 0) for chunk in hit.chunks) == pytest.approx(part.score, abs=1e-4)


@pytest.mark.parametrize("mode", [*MODES, "dense+sparse"])
def test_a_hit_is_a_document_with_its_best_chunks(folder: Path, mode: str) -> None:
    with Retriever.open(folder, Stub()) as retriever:
        hits = retriever.search("turtle", 4, mode=mode, explain=True)
        assert [hit.doc_id for hit in hits] == ["d0", "d10", "d15", "d20"], "equal documents, in the order of their ids"
        for hit in hits:
            check_hit(hit, document(int(hit.doc_id[1:])))
            assert "turtle" in hit.chunks[0].text and hit.chunks[0].start > 0
            for leg in {"bm25", "sparse"} & hit.parts.keys():
                terms = [match for match in hit.terms if match.leg == leg]
                assert sum(match.contribution for match in terms) == pytest.approx(hit.parts[leg].score, abs=1e-4)
        [query_ranking] = retriever.rank([Query("q", "turtle")], 4, mode=mode)
        assert [hit.doc_id for hit in query_ranking.ranking] == [hit.doc_id for hit in hits]
        assert [hit.doc_id for hit in retriever.search("turtle", 9, mode=mode, filter="n > 15")] == [
            "d20",
            "d25",
        ] or mode not in (
            "bm25",
            "sparse",
        )
        everything = retriever.search("otter heron badger falcon lizard", 30, mode=mode)
        assert {hit.doc_id for hit in everything} == {f"d{n}" for n in range(30)}, "each once"


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("backend", ["two-step", "postings"])
def test_every_sparse_back_end_ranks_documents(folder: Path, backend: str) -> None:
    with Retriever.open(folder, Stub()) as lucene, Retriever.open(folder, Stub(), sparse_backend=backend) as other:
        for top_k in (1, 5, 30):
            wanted, found = (r.search("otter turtle", top_k, mode="sparse") for r in (lucene, other))
            assert [(hit.doc_id, hit.chunks) for hit in found] == [(hit.doc_id, hit.chunks) for hit in wanted]


def test_whole_documents_have_no_chunks(corpus: Path, tmp_path: Path) -> None:
    report = build_index(corpus, tmp_path / "whole", encoder=Stub(), config=IndexingConfig())
    assert (report.documents, report.chunks) == (30, 30)
    with Retriever.open(tmp_path / "whole", Stub()) as retriever:
        assert all(hit.chunks == () for hit in retriever.search("turtle"))


@pytest.mark.parametrize("limit", [0, 25, 110, 250])
def test_resuming_is_not_interrupting(corpus: Path, folder: Path, tmp_path: Path, limit: int) -> None:
    whole, first, second = Stub(), Stub(limit), Stub()
    build_index(corpus, tmp_path / "whole", encoder=whole, config=CHUNKED)
    with pytest.raises(RuntimeError):
        build_index(corpus, tmp_path / "again", encoder=first, config=CHUNKED)
    with FolderReader.open(tmp_path / "again") as reader:
        committed = reader.num_chunks
        assert committed <= limit and (limit < 110 or committed > 0)
    report = build_index(corpus, tmp_path / "again", encoder=second, config=CHUNKED, resume=True)
    assert (report.documents, report.chunks) == (30, len(whole.seen)) and report.chunks > 100
    assert second.seen == whole.seen[committed:], "what was committed is not encoded again"
    assert content(tmp_path / "again") == content(folder) == content(tmp_path / "whole")


def test_resuming_with_other_chunks_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        build_index(corpus, tmp_path / "index", encoder=Stub(70), config=CHUNKED)
    for config in (IndexingConfig(batch=20), IndexingConfig(batch=20, chunk=True)):
        with pytest.raises(
            UserError, match="begun with chunking by 12 tokens with an overlap of 4, cannot continue with "
        ):
            build_index(corpus, tmp_path / "index", encoder=Stub(), config=config, resume=True)


def test_changes_follow_the_chunking_of_the_index(folder: Path, corpus: Path, tmp_path: Path) -> None:
    """Add, update, delete and compact: the end is the index that is built of the result."""
    new = [document(30), document(4)._replace(text="Short."), document(5, 40), document(6)._replace(text="")]
    with IndexWriter.open(folder, Stub()) as writer:
        assert writer.add(new[:2]) == 2
        assert writer.delete(["d1", "d2", "unknown"]) == 2
        writer.commit()
    report = add_corpus(folder, write(tmp_path / "more.jsonl", new[2:]), encoder=Stub())
    assert (report.added, report.updated, report.documents) == (0, 2, 29)
    model = {f"d{n}": document(n) for n in range(30)} | {found.doc_id: found for found in new}
    final = [found for doc_id, found in model.items() if doc_id not in ("d1", "d2")]
    build_index(write(tmp_path / "final.jsonl", final), tmp_path / "final", encoder=Stub(), config=CHUNKED)
    before = content(folder)
    with IndexWriter.open(folder) as writer:
        assert writer.compact("hnsw") > 0
    after, wanted = content(folder), content(tmp_path / "final")
    assert after == wanted
    assert before[0] == wanted[0] and before[2:] == wanted[2:], "BM25 counts the dead until they are merged away"  # type: ignore[index]
    with FolderReader.open(folder) as reader:
        assert len(reader.stored(["d5"])["d5"].chunks) > 20 and reader.commit_data.mark.rows == reader.num_chunks
        assert reader.stored(["d4"])["d4"].chunks == [(0, 6)] and reader.commit_data.empty == 0


def test_an_unchanged_index_is_recognised(folder: Path, corpus: Path) -> None:
    from retriever.corpus.corpus import open_corpus, survey

    found = survey(open_corpus(corpus))
    assert holds(folder, found)
    with IndexWriter.open(folder, Stub()) as writer:
        writer.add([document(3)])
        writer.commit()
    assert not holds(folder, found)


def test_memory_follows_the_chunks_of_a_batch_not_the_length_of_documents(tmp_path: Path) -> None:
    batches: list[int] = []

    class Counting(Stub):
        def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
            batches.append(len(texts))
            return super().encode_documents(texts, dense=dense, sparse=sparse)

    corpus = write(tmp_path / "c.jsonl", [document(n, 60) for n in range(20)])
    build_index(corpus, tmp_path / "i", encoder=Counting(), config=CHUNKED)
    assert batches == [60] * 20, "each document has more chunks than a batch is made of"


def call(*args: object) -> Result:
    result = CliRunner().invoke(cli, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output
    return result


def test_commands(corpus: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    options = ("--index", index, "--encoder", "none", "--quiet", "--chunk-tokens", 24)
    assert call("index", corpus, *options).stdout.startswith("30 documents in 150 chunks (0 without text, ")
    assert "\nchunks     150, 5.0 a document, by 24 tokens with an overlap of 4\n" in call("info", index).stdout + "\n"
    info = json.loads(call("info", index, "--json").stdout)
    assert (info["documents"], info["chunks"], info["chunking"]) == (30, 150, {"tokens": 24, "overlap": 4})
    shown = call("search", index, "turtle", "-k", 1).stdout.splitlines()
    assert shown[1].endswith(" | characters 272-303 of 303") and shown[2].endswith("Then came the turtle of year 0.")
    [hit] = map(json.loads, call("search", index, "turtle", "-k", 1, "--json", "--explain").stdout.splitlines())
    assert hit["chunks"][0]["text"] == hit["text"][272:303] and list(hit["chunks"][0]) == [
        "start",
        "end",
        "text",
        "scores",
    ]
    assert hit["terms"][0]["term"] == "turtl" and hit["chunks"][0]["scores"] == {"bm25": hit["parts"]["bm25"]["score"]}
    more = write(tmp_path / "more.jsonl", [document(0)._replace(text="A turtle."), document(99)])
    assert "1 added, 1 updated" in call("add", index, more, "--quiet").stdout
    assert "1 deleted" in call("delete", index, "d5").stdout
    assert call("compact", index).stdout.startswith("10 dead rows dropped; ")
    assert "as they were committed" in call("verify", index).stdout
    shown = call("search", index, "turtle", "-k", 1).stdout.splitlines()
    assert shown[1].endswith(" | characters 0-9 of 9") and shown[2].endswith("A turtle.")


def test_chunks_that_the_encoder_cannot_read_leave_no_folder(
    corpus: Path, tmp_path: Path, tiny_encoder_folder: Path
) -> None:
    options = ("--encoder", str(tiny_encoder_folder), "--chunk-tokens", "100", "--quiet")
    result = CliRunner().invoke(cli, ["index", str(corpus), "--index", str(tmp_path / "i"), *options])
    assert result.exit_code == 1 and "need at most 62" in result.stderr and not (tmp_path / "i").exists()
    call("index", corpus, "--index", tmp_path / "i", "--encoder", tiny_encoder_folder, "--chunk", "--quiet")
    with Retriever.open(tmp_path / "i") as retriever:
        assert retriever.reader.commit_data.truncated == 0 and retriever.reader.num_chunks > 60
        for mode in MODES:
            for hit in retriever.search("turtle at place 3", 5, mode=mode):
                check_hit(hit, document(int(hit.doc_id[1:])))
