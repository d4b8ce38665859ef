"""Texts that documents are found by as well: a hook for doc2query and its like."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

from retriever.functions import function_named
from retriever.types import UserError

if TYPE_CHECKING:
    from retriever.corpus.corpus import NumberedDocument

__all__ = ["Expansion", "expanded", "expansion_of"]

Expansion: TypeAlias = Callable[[Sequence[str]], Sequence[Any]]
"""Gives for each of n texts a text, or a list of them, to be found by as well: questions that it answers, say."""
BATCH = 64
"""Texts that the function is given at once."""


def expansion_of(given: str | Callable[..., object] | None) -> Expansion | None:
    """Return a function, or that of "module:function"; raise UserError for one that cannot be imported."""
    return function_named(given) if isinstance(given, str) else given  # type: ignore[return-value]


def expanded(stream: Iterable[NumberedDocument], function: Expansion | None) -> Iterator[NumberedDocument]:
    """Yield documents with what a function makes of title and text as their `expansion` (doc2query, 1904.08375).

    Raises:
        UserError: the function does not give something for each text, or gives what is no text.
    """
    if function is None:
        yield from stream
        return
    waiting = iter(stream)
    while batch := list(islice(waiting, BATCH)):
        given = list(function([numbered.document._replace(expansion="").contents for numbered in batch]))
        if len(given) != len(batch):
            raise UserError(f"the expansion gave {len(given)} answers for {len(batch)} texts; need one for each")
        for numbered, answer in zip(batch, given, strict=True):
            yield numbered._replace(document=numbered.document._replace(expansion=_text(answer)))


def _text(answer: object) -> str:
    texts = [answer] if isinstance(answer, str) else answer
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"the expansion gave {type(answer).__name__} for a text, need a text or a list of texts")
    return " ".join(texts)
