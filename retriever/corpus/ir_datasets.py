"""Corpora of ir_datasets: the documents of an id such as "beir/nfcorpus" as rows."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from retriever.corpus.formats import Row
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ir_errors", "load_ir", "read_ir"]


def load_ir(name: str) -> Any:
    """Return the data set that ir_datasets calls `name`; raise UserError if it knows none, or is not installed."""
    try:
        import ir_datasets
    except ModuleNotFoundError:
        raise UserError(
            f"ir:{name}: the library ir_datasets is missing: pip install 'hybrid-retriever[ir-datasets]'"
        ) from None
    try:
        return ir_datasets.load(name)
    except KeyError:
        raise UserError(
            f"ir:{name}: ir_datasets knows no such data set; give an id of its catalogue, such as ir:beir/scifact/test"
        ) from None


@contextmanager
def ir_errors(name: str) -> Iterator[None]:
    """Turn what ir_datasets raises while it fetches or reads its files into one UserError."""
    try:
        yield
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"ir:{name}: cannot be loaded ({reason}); it needs the network, or its files in place"
        ) from None


def read_ir(name: str) -> Iterator[Row]:
    """Yield the documents: the text is the field `text`, or what ir_datasets takes for it where there is none."""
    dataset = load_ir(name)
    if not dataset.has_docs():
        raise UserError(f"ir:{name}: has no documents; give the id of a corpus")
    with ir_errors(name):
        for number, document in enumerate(dataset.docs_iter(), start=1):
            fields = {key: value for key, value in document._asdict().items() if isinstance(value, str | int | float)}
            yield Row(f"ir:{name}:document {number}", {"text": document.default_text()} | fields)
