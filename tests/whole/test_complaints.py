"""What users of other systems complained of most lately, each as a test by its number in the list of complaints."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

from retriever.cli.main import cli
from retriever.encoder.load import load_encoder
from retriever.encoder.moe.encoder import MoEEncoder
from retriever.encoder.runtime import RuntimeConfig
from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.index.info import describe
from retriever.indexing.writer import IndexWriter
from retriever.search.legs.backends import SPARSE_BACKENDS, make_sparse_backend
from retriever.search.retriever import MODES, Retriever
from retriever.testing import SeededEncoder
from retriever.types import Document, Encoded, EncoderIdentity, Query, Ranking

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
WORDS = ["river", "stone", "bread", "winter", "garden", "paper"]
PAIRS = ("bm25+sparse", "bm25+dense", "dense+sparse")


def backends() -> list[str]:
    """Return the back ends of the sparse leg that can be used here."""
    from importlib.util import find_spec

    return [name for name in SPARSE_BACKENDS if name != "seismic" or find_spec("seismic") is not None]


def document(number: int, version: int = 0) -> Document:
    random = np.random.default_rng([number, version])
    return Document(f"d{number:02}", " ".join(random.choice(WORDS, 1 + number % 9)), metadata={"n": number})


def make(folder: Path, documents: Sequence[Document], encoder: SeededEncoder | None = None) -> Path:
    encoder = encoder or SeededEncoder()
    FolderWriter.create(folder, IndexSettings(encoder.identity)).close()
    with IndexWriter.open(folder, encoder) as writer:
        writer.add(documents)
        writer.commit()
    return folder


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an index of 60 documents whose encoder is a SeededEncoder."""
    return make(tmp_path_factory.mktemp("seeded") / "index", [document(number) for number in range(60)])


@pytest.fixture(scope="module")
def real(tiny_encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an index of 30 documents made by the command line with an encoder folder."""
    folder = tmp_path_factory.mktemp("real")
    lines = [
        {"_id": doc.doc_id, "text": f"{doc.text} the moon pulls water", **doc.metadata}
        for doc in map(document, range(30))
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    called = call("index", folder / "corpus.jsonl", "--index", folder / "index", "-e", tiny_encoder_folder, "-q")
    assert called.exit_code == 0, called.output
    return folder / "index"


def call(*args: object) -> Any:
    return CliRunner().invoke(cli, list(map(str, args)))


# 26 ------------------------------------------------------------------------------------------------------------------
def rankings(folder: Path) -> dict[tuple[str, str], Ranking]:
    queries = [Query(text, text) for text in ("river", "bread stone winter", "garden garden paper")]
    with Retriever.open(folder, SeededEncoder()) as retriever:
        found = retriever.rank_modes(queries, 100, modes=(*MODES, *PAIRS))
        return {(query_id, mode): ranking for query_id, by_mode in found for mode, ranking in by_mode.items()}


@settings(max_examples=8, deadline=None)
@given(
    history=st.lists(
        st.tuples(st.sampled_from(["add", "delete", "commit", "compact"]), st.sets(st.integers(0, 15), min_size=1)),
        max_size=6,
    )
)
def test_26_the_same_documents_after_different_histories_rank_alike(
    history: list[tuple[str, set[int]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("26")
    live = {number: document(number) for number in range(12)}
    changed = make(folder / "changed", list(live.values()))
    with IndexWriter.open(changed, SeededEncoder()) as writer:
        for version, (kind, numbers) in enumerate(history, 1):
            if kind == "add":
                new = {number: document(number, version) for number in numbers}
                writer.add(new.values())
                live |= new
            elif kind == "delete":
                writer.delete([f"d{number:02}" for number in numbers])
                live = {number: kept for number, kept in live.items() if number not in numbers}
            elif kind == "commit":
                writer.commit()
            else:
                writer.compact()
        writer.commit()
    fresh = rankings(make(folder / "fresh", list(live.values())))
    for key, ranking in rankings(changed).items():
        assert [hit.doc_id for hit in ranking] == [hit.doc_id for hit in fresh[key]], key
        assert [hit.score for hit in ranking] == pytest.approx([hit.score for hit in fresh[key]], rel=1e-5, abs=1e-6), (
            key
        )


# 27, 28 --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("backend", backends())
@pytest.mark.parametrize("where", ["n < 7", "n = 59", "n > 100"])
def test_27_a_filter_with_fewer_matches_than_asked_for_lets_nothing_else_in(
    seeded: Path, where: str, backend: str
) -> None:
    inside = {f"d{n:02}" for n in range(60) if {"n < 7": n < 7, "n = 59": n == 59, "n > 100": n > 100}[where]}
    with Retriever.open(seeded, SeededEncoder(), sparse_backend=backend) as retriever:
        for mode in (*MODES, *PAIRS):
            hits = retriever.search("river stone", 50, mode=mode, filter=where)
            [(_, ranked)] = retriever.rank([Query("q", "river stone")], 50, mode=mode, filter=where)
            assert {hit.doc_id for hit in hits} <= inside, mode
            assert [hit.doc_id for hit in hits] == [hit.doc_id for hit in ranked]
            if "dense" in mode or mode == "hybrid":  # a vector is near to every other, more or less
                assert {hit.doc_id for hit in hits} == inside, mode


def test_27_on_the_command_line(real: Path) -> None:
    for mode in MODES:
        called = call("search", real, "river moon", "-m", mode, "-k", 100, "--filter", "n <= 3", "--json")
        assert called.exit_code == 0, called.output
        found = [json.loads(line)["metadata"]["n"] for line in called.stdout.splitlines()]
        assert set(found) <= {0, 1, 2, 3} and len(set(found)) == len(found) > 0


@pytest.mark.parametrize("explain", [False, True])
def test_28_a_document_that_all_legs_find_appears_once_with_finite_scores(seeded: Path, explain: bool) -> None:
    text = document(17).text  # the document itself: every leg has it
    with Retriever.open(seeded, SeededEncoder()) as retriever:
        for mode in (*MODES, *PAIRS):
            hits = retriever.search(text, 60, mode=mode, explain=explain)
            assert len({hit.doc_id for hit in hits}) == len(hits)
            own = [hit for hit in hits if hit.doc_id == "d17"]
            assert len(own) == 1 and bool(own[0].terms) == (explain and mode != "dense")
            assert set(own[0].parts) == (set(retriever.legs) if mode == "hybrid" else set(mode.split("+")))
            scores = [hit.score for hit in hits]
            scores += [number for hit in hits for part in hit.parts.values() for number in part[1:]]
            assert all(map(math.isfinite, scores)), mode


# 29 ------------------------------------------------------------------------------------------------------------------
OFFLINE = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.bind", "socket.gethostbyname"):
        raise RuntimeError(f"{event} {arguments}")
sys.addaudithook(refuse)
import retriever
from retriever import Retriever
with Retriever.open(sys.argv[1]) as opened:
    for mode in ("bm25", "sparse", "dense", "hybrid"):
        print(mode, len(opened.search("river moon", 5, mode=mode)))
"""


@pytest.mark.processes
def test_29_import_and_search_without_network_key_or_variable(real: Path, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(real)],
        env={"PATH": os.environ["PATH"]},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["bm25 5", "sparse 5", "dense 5", "hybrid 5"]


# 30 ------------------------------------------------------------------------------------------------------------------
FOUR_GIB = 4 << 20
"""In KiB, as the peak resident set is told."""
INDEX_AND_SEARCH = """
import sys
import numpy as np
import torch
import faiss
from retriever import Retriever
from retriever.encoder.load import load_encoder
from retriever.indexing.build import build_index

def in_turn():
    vectors = np.random.default_rng(0).standard_normal((500, 64), dtype=np.float32)
    index = faiss.IndexFlatIP(64)
    index.add(vectors)
    exact = torch.from_numpy(vectors) @ torch.from_numpy(vectors[:20]).T
    found = index.search(vectors[:20], 5)[1]
    assert (found == exact.T.topk(5).indices.numpy()).all()

in_turn()
build_index(sys.argv[1], sys.argv[2], encoder=load_encoder(sys.argv[3]))
in_turn()
with Retriever.open(sys.argv[2]) as opened:
    for mode in ("dense", "sparse", "dense", "hybrid"):
        assert len(opened.search("statins and breast cancer", 10, mode=mode)) == 10
        in_turn()
# Not getrusage: its maximum counts the process that started this one, too.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(opened.reader.num_documents, status["VmHWM"].split()[0])
"""


@pytest.mark.slow
def test_30_both_views_of_nfcorpus_in_four_gib_with_torch_and_faiss_in_turn(
    real_encoder_folder: Path, tmp_path: Path
) -> None:
    """RETRIEVER_NFCORPUS=3633 takes all its documents.

    The resident memory counts: Java and torch reserve more addresses than that without ever using them.
    """
    if "RETRIEVER_DATA" not in os.environ:
        pytest.skip("RETRIEVER_DATA does not name the folder of real data")
    count = int(os.environ.get("RETRIEVER_NFCORPUS", "60"))
    corpus = Path(os.environ["RETRIEVER_DATA"]) / "eval" / "nfcorpus" / "corpus.jsonl"
    lines = corpus.read_text(encoding="utf-8").splitlines(keepends=True)[:count]
    (tmp_path / "corpus.jsonl").write_text("".join(lines), encoding="utf-8")
    program = [sys.executable, "-W", "ignore", "-c", INDEX_AND_SEARCH]
    places = [tmp_path / "corpus.jsonl", tmp_path / "index", real_encoder_folder]
    ended = subprocess.run([*program, *map(str, places)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    documents, peak = map(int, ended.stdout.split()[-2:])
    sys.stdout.write(f"{documents} documents, at most {peak / 2**20:.2f} GiB\n")
    assert documents == len(lines) and peak < FOUR_GIB


# 31 ------------------------------------------------------------------------------------------------------------------
class WithUnmatched(SeededEncoder):
    """Has one term more, which queries that begin with "zz" have alone and no document has."""

    def __init__(self) -> None:
        super().__init__()
        self.identity = EncoderIdentity("seeded", "6" * 64, 8, 51)
        self._inner = SeededEncoder()
        self.vocabulary = [*self._inner.vocabulary, "unmatched"]

    def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        found = self._inner.encode_documents(texts, dense=dense, sparse=sparse)
        if found.sparse is None:
            return found
        terms = np.zeros((len(texts), 51), np.float32)
        terms[:, :50] = found.sparse.toarray()
        for row, text in enumerate(texts):
            if text.startswith("zz"):
                terms[row] = [0] * 50 + [1]
        return found._replace(sparse=csr_matrix(terms))

    encode_queries = encode_documents


@pytest.mark.parametrize("backend", backends())
def test_31_a_batch_of_empty_unmatched_and_normal_queries_keeps_its_places(backend: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "index", [document(number) for number in range(40)], WithUnmatched())
    texts = ["", "river", "zzz", "   ", "stone paper", "zzz", "river", "\n", "!!!"]
    queries = [Query(f"q{number}", text) for number, text in enumerate(texts)]
    with Retriever.open(folder, WithUnmatched(), sparse_backend=backend) as retriever:
        for mode in (*MODES, *PAIRS):
            together = list(retriever.rank(queries, 10, mode=mode))
            assert [query_id for query_id, _ in together] == [query.query_id for query in queries]
            for (_, ranking), query in zip(together, queries, strict=True):
                [(_, alone)] = retriever.rank([query], 10, mode=mode)
                assert [hit.doc_id for hit in ranking] == [hit.doc_id for hit in alone], (mode, query)
                assert bool(ranking) == finds(query.text, mode), (mode, query)


def finds(text: str, mode: str) -> bool:
    """Say whether a mode finds something for a text: without a known word, only the dense leg; blank, none."""
    if not text.strip() or (text.startswith("zz") and not reads_vectors(mode)):
        return False
    return mode != "bm25" or text != "!!!"


def reads_vectors(mode: str) -> bool:
    return "dense" in mode or mode == "hybrid"


# 32, 33 --------------------------------------------------------------------------------------------------------------
def test_32_a_router_without_inference_on_queries_equals_sentence_transformers(tmp_path: Path) -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *(f"word{n}" for n in range(30))]
    torch.manual_seed(3)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokens), initializer_range=0.5, **sizes))
    model.cls.predictions.bias.data.fill_(-2.0)
    model.save_pretrained(tmp_path / "base")
    BertTokenizer(vocab={token: i for i, token in enumerate(tokens)}).save_pretrained(tmp_path / "base")
    documents = [Transformer(str(tmp_path / "base"), transformer_task="fill-mask"), SpladePooling("max")]
    table = torch.linspace(0.1, 2.0, len(tokens))
    queries = SparseStaticEmbedding(tokenizer=documents[0].tokenizer, weight=table)
    router = Router.for_query_document(query_modules=[queries], document_modules=documents)
    SparseEncoder(modules=[router], device="cpu").save(str(tmp_path / "router"), create_model_card=False)

    texts = ["river stone river", "bread", "paper garden winter stone", "unknown"]
    ours, theirs = load_encoder(f"st:+{tmp_path / 'router'}"), SparseEncoder(str(tmp_path / "router"), device="cpu")
    for found, expected in (
        (ours.encode_queries(texts).sparse, theirs.encode_query(texts)),
        (ours.encode_documents(texts).sparse, theirs.encode_document(texts)),
    ):
        assert found is not None and found.nnz
        np.testing.assert_allclose(found.toarray(), expected.to_dense().numpy(), atol=1e-5)
    query, text = ours.encode_queries(texts[:1]).sparse, ours.encode_documents(texts[:1]).sparse
    assert query is not None and text is not None and abs(query - text).max() > 0.01, "two paths"


def test_33_exported_views_equal_ours_term_for_term(
    tiny_encoder_folder: Path, tiny_texts: list[str], tmp_path: Path
) -> None:
    ours = MoEEncoder(tiny_encoder_folder, runtime=RuntimeConfig(precision="float32"))
    for view in ("dense", "sparse"):
        called = call("export", tiny_encoder_folder, "--view", view, "--output", tmp_path / view)
        assert called.exit_code == 0, called.output
    sparse = SparseEncoder(str(tmp_path / "sparse"), trust_remote_code=True)
    dense = SentenceTransformer(str(tmp_path / "dense"), trust_remote_code=True)
    for mine, terms, vectors in (
        (ours.encode_queries(tiny_texts), sparse.encode_query(tiny_texts), dense.encode_query(tiny_texts)),
        (ours.encode_documents(tiny_texts), sparse.encode_document(tiny_texts), dense.encode_document(tiny_texts)),
    ):
        assert mine.sparse is not None and mine.sparse.nnz
        for row, theirs in zip(mine.sparse.toarray(), sparse.decode(terms), strict=True):
            weights = {ours.vocabulary[int(i)]: float(row[i]) for i in np.flatnonzero(row)}
            assert dict(theirs) == pytest.approx(weights, abs=1e-5)  # type: ignore[arg-type]
        assert mine.dense is not None
        np.testing.assert_allclose(vectors, mine.dense, atol=1e-5)


# 34 ------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("backend", backends())
@pytest.mark.parametrize("vocabulary", [32_769, 250_002])
def test_34_large_vocabularies_score_right(vocabulary: int, backend: str, tmp_path: Path) -> None:
    """Terms on both sides of 2^15, 2^16 and the end: numbers kept in too few bits would meet in one term."""
    random = np.random.default_rng(vocabulary)
    edges = [0, 1, 32_767, 32_768, 65_535, 65_536, 131_072, vocabulary - 2, vocabulary - 1]
    terms = np.array(sorted({term for term in edges if term < vocabulary}))
    impacts = random.integers(0, 300, (80, len(terms))) * (random.random((80, len(terms))) < 0.5)
    weights = (impacts / 100).astype(np.float32)
    folder = tmp_path / "index"
    with FolderWriter.create(folder, IndexSettings(EncoderIdentity("stub", "0" * 64, 0, vocabulary))) as writer:
        documents = [Document(f"d{row:02}", "text") for row in range(len(weights))]
        writer.add(documents, Encoded(None, spread(weights, terms, vocabulary), np.zeros(len(weights), np.bool_)))
        writer.commit()
    with FolderReader.open(folder) as reader:
        searched = make_sparse_backend(backend, reader)
        for asked in np.concatenate([np.eye(len(terms), dtype=np.float32), random.random((1, len(terms)), np.float32)]):
            found = dict(searched.search(spread(asked[None], terms, vocabulary), len(weights)))
            exact = weights @ asked
            expected = {f"d{row:02}": float(exact[row]) for row in np.flatnonzero(exact > 0)}
            assert found == pytest.approx(expected, rel=1e-5)


def spread(weights: NDArray[np.float32], terms: NDArray[np.int64], vocabulary: int) -> csr_matrix:
    """Return (n, terms) weights as (n, vocabulary)."""
    rows, places = np.nonzero(weights)
    return csr_matrix((weights[rows, places], (rows, terms[places])), shape=(len(weights), vocabulary))


# 35 ------------------------------------------------------------------------------------------------------------------
def test_35_hits_are_sorted_and_more_than_there_are_can_be_asked_for(seeded: Path) -> None:
    with Retriever.open(seeded, SeededEncoder()) as retriever:
        for mode in (*MODES, *PAIRS):
            for top_k in (1, 60, 61, 100_000):
                hits = retriever.search("river stone bread", top_k, mode=mode)
                assert 0 < len(hits) <= min(top_k, 60) and [hit.rank for hit in hits] == [*range(1, len(hits) + 1)]
                assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.doc_id))
            if reads_vectors(mode):
                assert len(hits) == 60


def test_35_counts_are_right_after_deleting_and_opening_again(tmp_path: Path) -> None:
    folder = make(tmp_path / "index", [document(number) for number in range(20)])
    for gone, left in ((["d03", "d04", "absent"], 18), (["d03"], 18), ([f"d{n:02}" for n in range(20)], 0)):
        with IndexWriter.open(folder, SeededEncoder()) as writer:
            writer.delete(gone)
            writer.commit()
        with Retriever.open(folder, SeededEncoder()) as retriever:
            assert retriever.reader.num_documents == left
            assert len(retriever.search("river", 100, mode="dense")) == left
        assert describe(folder).documents == left
        told = call("info", folder, "--json")
        assert json.loads(told.stdout)["documents"] == left, told.output


QUERY = "river and moon water"
CASES: dict[str, tuple[list[str], list[str]]] = {
    "folder": (["INDEX", QUERY], ["OTHER", QUERY]),
    "query": (["INDEX", QUERY], ["INDEX", "paper"]),
    "queries": (["INDEX", "--queries", "QUERIES", "-o", "RUN"], ["INDEX", "--queries", "MORE", "-o", "RUN"]),
    "output": (["INDEX", "--queries", "QUERIES", "-o", "RUN"], ["INDEX", "--queries", "QUERIES", "-o", "RUN.jsonl"]),
    "tag": (
        ["INDEX", "--queries", "QUERIES", "-o", "RUN"],
        ["INDEX", "--queries", "QUERIES", "-o", "RUN", "--tag", "mine"],
    ),
    "quiet": (
        ["INDEX", "--queries", "QUERIES", "-o", "RUN"],
        ["INDEX", "--queries", "QUERIES", "-o", "RUN", "--quiet"],
    ),
    "mode": (["INDEX", QUERY], ["INDEX", QUERY, "--mode", "bm25"]),
    "top_k": (["INDEX", QUERY], ["INDEX", QUERY, "--top-k", "3"]),
    "filter": (["INDEX", QUERY], ["INDEX", QUERY, "--filter", "n < 4"]),
    "explain": (["INDEX", QUERY], ["INDEX", QUERY, "--explain"]),
    "verify": (["DAMAGED", QUERY, "-m", "bm25"], ["DAMAGED", QUERY, "-m", "bm25", "--verify"]),
    "fusion": (["INDEX", QUERY], ["INDEX", QUERY, "--fusion", "rrf"]),
    "weights": (["INDEX", QUERY], ["INDEX", QUERY, "--weights", "bm25=0.9,sparse=0.1"]),
    "normalisation": (["INDEX", QUERY], ["INDEX", QUERY, "--normalisation", "z-score"]),
    "encoder": (["INDEX", QUERY], ["INDEX", QUERY, "--encoder", "ANOTHER"]),
    "query_mode": (["INDEX", QUERY, "-m", "sparse"], ["INDEX", QUERY, "-m", "sparse", "--query-mode", "lexical"]),
    "quick": ([], []),
    "sparse_backend": (["WIDE", "--sparse-backend", "postings"], ["WIDE", "--sparse-backend", "two-step"]),
    "as_json": (["INDEX", QUERY], ["INDEX", QUERY, "--json"]),
    "like": (["INDEX", "--like", "d01"], ["INDEX", "--like", "d02"]),
    "pipeline": (["INDEX", QUERY], ["INDEX", QUERY, "--pipeline", "hybrid > mmr(0.1)"]),
    "feedback": (["INDEX", QUERY], ["INDEX", QUERY, "--feedback", "rm3"]),
    "rerank": ([], []),
    "cluster": ([], []),
    "replicas": ([], []),
    "hedge": ([], []),
    "partial": ([], []),
    "offset": (["INDEX", QUERY], ["INDEX", QUERY, "--offset", "2"]),
    "min_score": (["INDEX", QUERY], ["INDEX", QUERY, "--min-score", "0.85"]),
    "fields": (["INDEX", QUERY, "--json"], ["INDEX", QUERY, "--json", "--fields", ""]),
    "highlight": (["INDEX", QUERY], ["INDEX", QUERY, "--highlight"]),
}
"""For each argument and option of `search`: a call without it and one with it, which must not do the same."""


def parameters() -> list[str]:
    command = cli.commands["search"]
    return [str(parameter.name) for parameter in command.params if isinstance(parameter, click.Parameter)]


@pytest.mark.parametrize("name", parameters())
def test_35_every_option_of_search_changes_something(name: str, real: Path, tmp_path: Path) -> None:
    if name == "language":
        pytest.skip("it takes an index in several languages: tests/search/test_query_language.py")
    assert name in CASES, f"search has an option {name} that no case shows to change anything"
    if name == "quick":
        pytest.skip("it changes what is imported: tests/encoder/test_quick_queries.py")
    if name in ("cluster", "replicas", "hedge", "partial"):
        pytest.skip("it takes a sharded index and processes: tests/cluster/test_search.py")
    if name == "rerank":
        pytest.skip("it takes a cross-encoder: tests/rank/test_rerank.py")
    if name == "sparse_backend":
        differs_by_back_end(tmp_path)
        return
    places = {"INDEX": real, "QUERIES": tmp_path / "q.tsv", "MORE": tmp_path / "more.tsv", "RUN": tmp_path / "run.trec"}
    places |= {"RUN.jsonl": tmp_path / "run.jsonl", "ANOTHER": tmp_path / "none", "DAMAGED": tmp_path / "damaged"}
    places["OTHER"] = real.with_name("absent")
    places["QUERIES"].write_text("q1\triver\n")
    places["MORE"].write_text("q1\triver\nq2\tmoon\n")
    if name == "verify":
        damage(shutil.copytree(real, places["DAMAGED"]))

    def outcome(args: list[str]) -> tuple[int, str, str, str]:
        called = call("search", *(places.get(part, part) for part in args))
        assert called.exit_code in (0, 1), called.output
        runs = [path for path in (places["RUN"], places["RUN.jsonl"]) if path.exists()]
        written = "".join(path.name + path.read_text() for path in runs)
        for path in runs:
            path.unlink()
        said = re.sub(r"([^\r\n]*\|[^\r\n]*[\r\n]*)+", "a bar\n", called.stderr)  # with its speed
        return called.exit_code, called.stdout, said, written

    without, given = map(outcome, CASES[name])
    assert without[0] == 0, without
    assert without != given
    assert outcome(CASES[name][0]) == without, "it is the option that changes it"
    if name not in ("folder", "encoder", "verify"):
        assert given[0] == 0, given


def damage(folder: Path) -> None:
    """Change one byte of the vectors, which BM25 does not read."""
    [path] = (folder / "rows").glob("*vectors*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def differs_by_back_end(tmp_path: Path) -> None:
    """Two steps miss a document that has only the weakest of many query terms; the others are exact."""
    folder, vocabulary = tmp_path / "wide", 40
    terms = np.zeros((2, vocabulary), np.float32)
    terms[0, 0] = terms[1, vocabulary - 1] = 1
    query = csr_matrix(np.arange(vocabulary, 0, -1, dtype=np.float32)[None])
    with FolderWriter.create(folder, IndexSettings(EncoderIdentity("stub", "0" * 64, 0, vocabulary))) as writer:
        writer.add(
            [Document("strong", "a"), Document("weak", "b")], Encoded(None, csr_matrix(terms), np.zeros(2, bool))
        )
        writer.commit()
    with FolderReader.open(folder) as reader:
        found = {
            name: [hit.doc_id for hit in make_sparse_backend(name, reader).search(query, 2)] for name in backends()
        }
    assert found["postings"] == found["lucene"] == ["strong", "weak"] and found["two-step"] == ["strong"]
