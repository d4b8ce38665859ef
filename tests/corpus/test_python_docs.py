"""The documentation of the running Python as a corpus."""

from __future__ import annotations

import collections
import heapq
import inspect
import json
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from retriever.corpus.corpus import survey
from retriever.corpus.python_docs import DEMO_QUERIES, LARGEST_MODULE, SHORTEST, python_documentation
from retriever.types import Document


@pytest.fixture(scope="module")
def documents() -> dict[str, Document]:
    before = set(sys.modules)
    records = list(python_documentation())
    imported = {name.partition(".")[0] for name in set(sys.modules) - before}
    assert not imported & {"antigravity", "tkinter", "turtle", "this", "asyncio", "xmlrpc"}, "parsed, never imported"
    assert [record.problem for record in records if record.problem] == []
    found = {record.document.doc_id: record.document for record in records if record.document}
    assert len(found) == len(records), "ids are unique"
    return found


def test_it_is_a_sizeable_corpus_of_real_texts(documents: dict[str, Document]) -> None:
    assert len(documents) > 1_000
    assert all(len(document.text) >= SHORTEST and " " in document.text for document in documents.values())
    assert len({document.text for document in documents.values()}) > 0.8 * len(documents)
    assert len({document.metadata["module"] for document in documents.values()}) > 150
    assert {document.metadata["kind"] for document in documents.values()} == {"module", "class", "function"}
    assert max(Counter(str(document.metadata["module"]) for document in documents.values()).values()) <= LARGEST_MODULE


def test_ids_titles_and_texts_are_those_of_the_things(documents: dict[str, Document]) -> None:
    assert documents["heapq.merge"].text == inspect.getdoc(heapq.merge)
    assert documents["heapq.merge"].title.startswith("heapq.merge: def merge(")
    assert documents["heapq.merge"].metadata == {"kind": "function", "module": "heapq"}
    assert documents["collections.Counter"].text == inspect.getdoc(collections.Counter)
    assert documents["collections.Counter"].metadata["kind"] == "class"
    assert documents["json"].text == inspect.getdoc(json)
    assert (documents["json"].title, documents["json"].metadata["kind"]) == ("json", "module")
    for doc_id, document in documents.items():
        if document.metadata["kind"] != "module":
            name = doc_id.rpartition(".")[2]
            assert document.title.startswith(doc_id + ": ")
            assert f"def {name}" in document.title or f"class {name}" in document.title


def test_nothing_private_and_no_tests(documents: dict[str, Document]) -> None:
    for doc_id, document in documents.items():
        module = str(document.metadata["module"])
        assert doc_id == module or doc_id.startswith(module + ".")
        assert not any(part.startswith("_") for part in doc_id.split("."))
        assert module.split(".")[0] in sys.stdlib_module_names
        assert not {"test", "tests", "idlelib"} & set(module.split("."))


def test_the_queries_have_answers(documents: dict[str, Document]) -> None:
    assert "heapq.merge" in DEMO_QUERIES and "heapq.merge" in documents
    assert any("argparse" in doc_id for doc_id in documents)


def test_odd_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "A docstring that is long enough to be taken into the corpus of the demonstration."
    find = f'def find(a,\n         b):\n    """{text}"""\n'
    source = f'"""Module. {text}"""\n\x0c\nX = "\\d"\n\n\x0c{find}\n{find.replace("a,", "c,")}'
    (tmp_path / "abc.py").write_bytes(source.encode() + b"# caf\xe9\n")
    for name in ("foreign.py", "_abc.py"):
        (tmp_path / name).write_text(source)
    (tmp_path / "json" / "tests").mkdir(parents=True)
    method = f'  async def go(self):\n    """{text}"""\n  def short(self):\n    "Go."\n'
    (tmp_path / "json" / "__init__.py").write_text(f'class Reader:\n  """{text}"""\n{method}')
    (tmp_path / "json" / "tests" / "a.py").write_text(source)
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    corpus = python_documentation()
    assert survey(corpus) == survey(corpus)
    found = [record.document for record in corpus if record.document]
    assert [(document.doc_id, document.title) for document in found] == [
        ("abc", "abc"),
        ("abc.find", "abc.find: def find(a,"),
        ("json.Reader", "json.Reader: class Reader"),
        ("json.Reader.go", "json.Reader.go: async def go(self)"),
    ]
