"""The documentation of the running Python as a corpus: real text that is on every machine."""

from __future__ import annotations

import ast
import sys
import sysconfig
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.corpus.corpus import Corpus
from retriever.corpus.formats import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DEMO_QUERIES", "python_documentation"]

DEMO_QUERIES = (
    "count how often each word occurs",
    "temporary folder that is deleted afterwards",
    "read a table with comma separated values",
    "heapq.merge",
)

LEFT_OUT = {
    "distutils",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "turtledemo",
}
SHORTEST = 60
LARGEST_MODULE = 12
"""Documented names taken from one module: a sample of all modules tells more than all of a few large ones."""


def python_documentation() -> Corpus:
    """Return the docstrings of public modules, classes and functions of the standard library.

    The sources are parsed, never imported. A document's id is the dotted name, its title the first line of code,
    its metadata `kind` and `module`.
    """
    return Corpus("the running Python's documentation", _rows)


def _rows() -> Iterator[Row]:
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        if parts[0].split(".")[0] not in sys.stdlib_module_names or LEFT_OUT.intersection(parts):
            continue
        name = ".".join(part for part in parts if part != "__init__")
        if any(part.startswith("_") for part in name.split(".")):
            continue
        yield from _module_rows(path, name)


def _module_rows(path: Path, module: str) -> Iterator[Row]:
    source = path.read_text(encoding="utf-8", errors="replace")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sources of the standard library may hold invalid escapes
        tree = ast.parse(source)
    lines = source.split("\n")  # not splitlines, which counts form feeds that the parser passes over
    seen: set[str] = set()
    for name, node in _documented(tree, module):
        text = ast.get_docstring(node) or ""
        if len(text) < SHORTEST or name in seen:
            continue
        seen.add(name)
        kind = {ast.Module: "module", ast.ClassDef: "class"}.get(type(node), "function")
        title = name if isinstance(node, ast.Module) else f"{name}: {lines[node.lineno - 1].strip().rstrip(':')}"
        where = f"{path}:{getattr(node, 'lineno', 1)}"
        yield Row(where, {"_id": name, "title": title, "text": text, "kind": kind, "module": module}, None)
        if len(seen) == LARGEST_MODULE:
            return


def _documented(
    node: ast.Module | ast.ClassDef, name: str
) -> Iterator[tuple[str, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield dotted names and nodes of a module or class and the public things in it."""
    yield name, node
    for child in node.body:
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from _documented(child, f"{name}.{child.name}")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            yield f"{name}.{child.name}", child
