"""The stage that scores the first hits with the learned model of the index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from retriever.rank.learned import DEPTH, ListModel, features, stored_model
from retriever.rank.stage import Stage, on_top
from retriever.types import UserError

if TYPE_CHECKING:
    from retriever.rank.stage import Budget
    from retriever.search.steps import Found, SearchAt

__all__ = ["Rescore"]


@dataclass(frozen=True)
class Rescore(Stage):
    """Scores the first `depth` hits by what every list before it says of them, with a model that `tune --model` learnt.

    model: from Python, in place of the one that is stored in the index.
    """

    name: ClassVar[str] = "rescore"
    cost: ClassVar[str] = "no network; a weighted sum and some trees for each of depth hits"

    depth: int = DEPTH
    model: ListModel | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.depth >= 1, "depth", "1 or more")

    @property
    def reads(self) -> int:
        """Return its depth."""
        return self.depth

    def run(self, found: Found, at: SearchAt, budget: Budget) -> Found:
        """Return the ranking, the first hits of it by the model's scores."""
        model = self.model or stored_model(at.view.reader.commit_data.note)
        missing = [name for name in model.lists if name not in found.lists]
        if missing:
            raise UserError(
                f"rescore: the model reads {missing[0]}, there are {', '.join(found.lists)}; "
                f"search with {model.pipeline!r} before it"
            )
        ids = [hit.doc_id for hit in found.ranking[: self.depth]]
        scores = model.score(features(found.lists, model.lists, ids)).tolist() if ids else []
        return found._replace(ranking=on_top(dict(zip(ids, scores, strict=True)), found.ranking))
