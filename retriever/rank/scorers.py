"""Models that score texts for a query, by name: cross-encoders of sentence-transformers, and any function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from retriever.functions import check_function_name, function_named
from retriever.lazy import lazy
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CROSS_ENCODER", "SCORERS", "CrossEncoderScorer", "Scorer", "registered_scorer", "scorer_named"]

Scorer: TypeAlias = Callable[[str, Sequence[str]], Sequence[float]]
"""Scores n texts for a query, higher is better. For the pairwise stage, from 0 to 1, of "one text [SEP] the other"."""
CROSS_ENCODER = "cross-encoder"
SCORERS: dict[str, Scorer] = {}
"""Functions that pipelines may name."""


@contextmanager
def registered_scorer(name: str, scorer: Scorer) -> Iterator[None]:
    """Let pipelines call a function by name, for the time of a `with` block.

    >>> with registered_scorer("shortest", lambda query, texts: [-len(text) for text in texts]):
    ...     scorer_named("shortest")("any", ["ab", "a"])
    [-2, -1]
    """
    if name in SCORERS or name.startswith(CROSS_ENCODER):
        raise ValueError(f"a scorer cannot be called {name!r}: taken")
    SCORERS[name] = scorer
    try:
        yield
    finally:
        del SCORERS[name]


def scorer_named(name: str) -> Scorer:
    """Return the scorer of a name; raise UserError for an unknown one.

    A model is loaded, and a module with a function imported, with the first text.
    """
    kind, colon, model = name.partition(":")
    if kind == CROSS_ENCODER and colon and model:
        return CrossEncoderScorer(model)
    if name in SCORERS:
        return SCORERS[name]
    if kind and model:
        return FunctionScorer(check_function_name(name))
    known = ", ".join([f"{CROSS_ENCODER}:NAME (a folder or hub name)", "MODULE:FUNCTION", *SCORERS])
    raise UserError(f"no scorer is called {name!r}; there are {known}")


class FunctionScorer:
    """A function of the user's own, "module:function"."""

    def __init__(self, name: str) -> None:
        self.name = name

    @lazy
    def _function(self) -> Scorer:
        return function_named(self.name)

    def __call__(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        """Return its scores of texts (n,)."""
        return self._function(query, texts)


class CrossEncoderScorer:
    """A `sentence_transformers.CrossEncoder` with one output."""

    def __init__(self, name: str) -> None:
        self.name = name

    @lazy
    def _model(self) -> Any:
        from sentence_transformers import CrossEncoder

        try:
            model = CrossEncoder(self.name)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{self.name}: cannot be loaded ({reason}); give a folder or hub name") from None
        if model.num_labels != 1:
            raise UserError(f"{self.name}: has {model.num_labels} outputs, need 1, the relevance; give another model")
        return model

    @property
    def separator(self) -> str:
        """Return what stands between two texts that are compared."""
        separator: str | None = self._model.tokenizer.sep_token
        return f" {separator or '[SEP]'} "

    def __call__(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return the scores of texts (n,), as the model's `rank` gives them."""
        return self._predict(query, texts)

    def probabilities(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return them from 0 to 1."""
        from torch.nn import Sigmoid

        return self._predict(query, texts, activation_fn=Sigmoid())

    def _predict(self, query: str, texts: Sequence[str], **how: Any) -> list[float]:
        pairs = [(query, text) for text in texts]
        scores: list[float] = self._model.predict(pairs, show_progress_bar=False, **how).tolist()
        return scores
