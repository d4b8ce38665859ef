from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from retriever import Retriever, UserError
from retriever.integrations.common import opened
from retriever.remote.client import RemoteRetriever

EXTRAS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
ADAPTERS = {
    "langchain": ("langchain", "langchain_core"),
    "llama_index": ("llama-index", "llama_index"),
    "haystack": ("haystack", "haystack"),
    "pyterrier": ("pyterrier", "pyterrier"),
    "txtai": ("txtai", "txtai"),
}
"""Modules, their extras, and the package that each of them is an adapter for."""


@pytest.mark.parametrize("module", ADAPTERS)
def test_a_missing_framework_is_one_line_that_names_the_extra(module: str) -> None:
    extra, package = ADAPTERS[module]
    assert extra in EXTRAS
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from retriever import UserError\n"
        f"try: import retriever.integrations.{module}\n"
        "except UserError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.count("\n") == 1 and f"pip install 'hybrid-retriever[{extra}]'" in done.stdout, done.stderr


def test_the_adapters_wait_to_be_imported() -> None:
    packages = [*(package for _, package in ADAPTERS.values()), "ranx", "mteb"]
    program = (
        "import sys, retriever, retriever.integrations, retriever.integrations.runs, retriever.integrations.common\n"
        f"print([name for name in {packages} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr


def test_a_client_of_a_server_needs_neither_java_nor_numbers() -> None:
    program = (
        "import sys\nfrom retriever import AsyncRetriever, RemoteRetriever\n"
        "print([name for name in ('numpy', 'torch', 'faiss', 'jnius', 'retriever.search') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr


def test_what_adapters_search_is_opened_from_all_that_names_it(small_index: Path) -> None:
    for named in (str(small_index), small_index):
        found = opened(named)
        assert isinstance(found, Retriever)
        assert found.search("how do vaccines work", mode="bm25")[0].doc_id == "d03"
        assert opened(found) is found, "what is open is not opened again"
        found.close()
    with pytest.raises(UserError, match="no such index folder"):
        opened(small_index / "none")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9"):
        remote = opened("http://127.0.0.1:9")
        assert isinstance(remote, RemoteRetriever)
        remote.search("anything")
