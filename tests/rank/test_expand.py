"""Query expansion and document expansion by functions, against the formulas written out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from retriever.cli.main import cli
from retriever.functions import function_named
from retriever.index.verify import verify_folder
from retriever.indexing.build import IndexingConfig, build_index
from retriever.indexing.writer import IndexWriter
from retriever.rank import Expand, Pipeline, Rerank
from retriever.search.retriever import Retriever
from retriever.testing import SeededEncoder
from retriever.types import Document, UserError

SCALE = IndexingConfig().impact_scale
pytestmark = pytest.mark.filterwarnings("ignore")
MODULE = """
print("imported")
NUMBER = 7

def more(query, texts):
    return [query.upper(), "bread " * len(texts)]

def longest(query, texts):
    return [len(text) for text in texts]

def questions(texts):
    return [["zebra" if "bread" in text else "", "unicorn"] for text in texts]

def few(texts):
    return texts[1:]
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Write a module into the working folder."""
    (tmp_path / "mine_for_tests.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("mine_for_tests", None)


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_it_is_its_formula(weight: float, retriever: Retriever, documents: dict[str, str], queries: list[str]) -> None:
    given: list[tuple[str, list[str]]] = []
    added = [documents["d7"], documents["d9"]]

    def function(query: str, texts: Sequence[str]) -> list[str]:
        given.append((query, list(texts)))
        return [*added, "  "]

    text = queries[0]
    encoded = SeededEncoder().encode_documents(list(documents.values()))
    assert encoded.dense is not None and encoded.sparse is not None
    asked, more = SeededEncoder().encode_queries([text]), SeededEncoder().encode_queries(added)
    assert asked.dense is not None and more.dense is not None and asked.sparse is not None and more.sparse is not None
    moved = asked.dense[0] + weight * more.dense.mean(0)
    own, others = asked.sparse.toarray()[0], more.sparse.toarray().sum(0)
    terms = own + weight * own.sum() * others / others.sum()
    impacts = np.round(encoded.sparse.toarray() * SCALE) / SCALE
    wanted = {"dense": encoded.dense @ (moved / np.linalg.norm(moved)), "sparse": impacts @ terms}
    for leg, scores in wanted.items():
        pipeline = Pipeline(leg, (Expand(function, documents=2, weight=weight),))
        hits = retriever.search(text, 30, pipeline=pipeline)
        by_id = dict(zip(documents, scores.tolist(), strict=True))
        assert [hit.score for hit in hits] == pytest.approx([by_id[hit.doc_id] for hit in hits], abs=0.03)
        assert given[-1] == (text, [documents[hit.doc_id] for hit in retriever.search(text, 2, mode=leg)])
    words = Pipeline("bm25", (Expand(lambda query, _: query, weight=1),))
    doubled, once = retriever.search(text, 5, pipeline=words), retriever.search(text, 5, mode="bm25")
    assert [hit.doc_id for hit in doubled] == [hit.doc_id for hit in once]
    assert [hit.score for hit in doubled] == pytest.approx([2 * hit.score for hit in once], rel=1e-4)


def test_nothing_added_changes_nothing_and_what_is_added_is_said(retriever: Retriever, queries: list[str]) -> None:
    plain = retriever.search(queries[0], 5)
    nothing = retriever.search(queries[0], 5, pipeline=Pipeline("hybrid", (Expand(lambda *_: ["", " "]),)))
    assert [hit.doc_id for hit in nothing] == [hit.doc_id for hit in plain]
    text = plain[3].text
    hits = retriever.search(
        queries[0], 5, pipeline=Pipeline("hybrid", (Expand(lambda *_: text, weight=5),)), explain=True
    )
    assert hits[0].doc_id == plain[3].doc_id
    assert {match.leg for match in hits[0].stages[0].matches} == {"bm25", "sparse"}
    with pytest.raises(UserError, match="expand: the function gave int, need a text or a list of texts; return one"):
        retriever.search("x", pipeline=Pipeline("hybrid", (Expand(lambda *_: 7),)))


def constant(value: Any, query: str, texts: Sequence[str]) -> list[Any]:
    return [value] * len(texts)


def test_functions_are_imported_when_they_are_needed(
    mine: Path, retriever: Retriever, queries: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = Pipeline.parse("hybrid > expand(mine_for_tests:more, 2) > rerank(mine_for_tests:longest)")
    assert all(stage.loads for stage in pipeline.stages)  # so no request may name them
    assert not capsys.readouterr().out and "mine_for_tests" not in sys.modules
    hits = retriever.search(queries[0], 20, pipeline=pipeline)
    assert [len(hit.text) for hit in hits] == sorted((len(hit.text) for hit in hits), reverse=True)
    assert capsys.readouterr().out == "imported\n" and "" not in sys.path[:1]
    assert isinstance(pipeline.stages[1], Rerank) and str(pipeline) == str(Pipeline.parse(str(pipeline)))
    for name, fault in (
        ("mine_for_tests:nothing", "mine_for_tests has nothing of that name; give the name of a function"),
        ("mine_for_tests:NUMBER", "mine_for_tests has int, which cannot be called"),
        ("no_such_module:f", r"no_such_module cannot be imported \(ModuleNotFoundError: No module named"),
    ):
        with pytest.raises(UserError, match=fault):
            retriever.search("x", pipeline=Pipeline("hybrid", (Expand(name),)))
    with pytest.raises(UserError, match="cannot be read; write it as module:function"):
        Pipeline.parse("hybrid > expand(shout)")
    assert function_named("os.path:join")("a", "b") == "a/b"
    with pytest.raises(UserError, match=r"function 'os.path:join': failed \(TypeError: .*\); try it by itself"):
        function_named("os.path:join")(5)
    for value, fault in ((float("nan"), "gave NaN"), ("x", "need a number for each text")):
        scored = Rerank(partial(constant, value))
        with pytest.raises(UserError, match=fault):
            retriever.search(queries[0], pipeline=Pipeline("hybrid", (scored,)))


def test_documents_are_found_by_what_a_function_adds(mine: Path) -> None:
    (mine / "docs.jsonl").write_text('{"id": "a", "text": "bread and salt"}\n{"id": "b", "text": "the sea"}\n')

    def call(*args: str) -> str:
        result = CliRunner().invoke(cli, [*args])
        assert result.exit_code == 0, (result.output, result.exception)
        return result.stdout

    call("index", "docs.jsonl", "--index", "index", "-e", "none", "--expand", "mine_for_tests:questions", "-q")
    (mine / "more.jsonl").write_text('{"id": "c", "text": "more bread"}\n{"id": "a", "text": "no bread"}\n')
    call("add", "index", "more.jsonl", "--expand", "mine_for_tests:questions", "-q")
    with IndexWriter.open("index") as writer:
        writer.add([Document("d", "plain", expansion="zebra"), Document("e", "plain")])
        writer.commit()
    assert not verify_folder(mine / "index").damages
    with Retriever.open("index") as retriever:
        hits = retriever.search("zebra", mode="bm25", explain=True)
        shown = {"d": "plain", "a": "no bread", "c": "more bread"}
        assert {hit.doc_id: hit.text for hit in hits} == shown and hits[0].doc_id == "d"
        assert all("zebra" not in hit.text and not hit.metadata and hit.terms for hit in hits)
        assert {hit.doc_id for hit in retriever.search("unicorn", mode="bm25")} == {"a", "b", "c"}
        assert retriever.documents(["c"])["c"].expansion == "zebra unicorn"
    with IndexWriter.open("index") as writer:
        writer.compact()
    with Retriever.open("index") as retriever:
        assert {hit.doc_id for hit in retriever.search("zebra", mode="bm25")} == set(shown)


def test_expansions_count_as_text(tmp_path: Path) -> None:
    """A document with an expansion is scored, in every leg, as one whose text has it at its end."""
    texts = {"a": "bread and salt", "b": "the sea has water", "c": "salt water"}
    names = {text: name for name, text in texts.items()}
    more = dict.fromkeys(texts, "stars") | {"b": "moon and stars"}
    build_index(
        [Document(name, text) for name, text in texts.items()],
        tmp_path / "one",
        encoder=SeededEncoder(),
        config=IndexingConfig(expand=lambda given: [more[names[text]] for text in given]),
    )
    whole = [Document(name, f"{text} {more[name]}") for name, text in texts.items()]
    build_index(whole, tmp_path / "other", encoder=SeededEncoder())
    with (
        Retriever.open(tmp_path / "one", SeededEncoder()) as one,
        Retriever.open(tmp_path / "other", SeededEncoder()) as other,
    ):
        for mode in ("bm25", "sparse", "dense", "hybrid"):
            found, wanted = one.search("moon water", mode=mode), other.search("moon water", mode=mode)
            assert [(hit.doc_id, hit.score) for hit in found] == [(hit.doc_id, hit.score) for hit in wanted]
        assert [hit.text for hit in found] == [texts[hit.doc_id] for hit in found]


@pytest.mark.parametrize(
    ("answer", "fault"),
    [(["x"], "gave 1 answers for 2 texts"), ([1, 2], "gave int for a text, need a text or a list")],
)
def test_what_is_no_expansion(answer: list[object], fault: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=fault):
        build_index(
            [Document("a", "b"), Document("c", "d")],
            tmp_path / "index",
            encoder="none",
            config=IndexingConfig(expand=lambda _: answer),
        )
