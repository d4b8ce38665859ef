"""One split of a data set, put together and checked, wherever it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retriever.eval.data.qrels import collect
from retriever.eval.data.registry import entry
from retriever.types import Qrels, Query, UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from retriever.eval.data.qrels import Judgement


__all__ = ["ASKED_IN", "Dataset", "asked_by", "judged"]


ASKED_IN = " in "
"""What joins the name of the data set that the queries are of and that of the documents."""


class Dataset(NamedTuple):
    """One split of a data set: `queries` are the judged ones in file order.

    corpus: what `open_corpus` takes: a file, or the name of a corpus that a library fetches.
    exclude_self: a document whose id is the query's own is no hit (ArguAna, where the queries stand in the corpus).
    """

    name: str
    corpus: Path | str
    queries: list[Query]
    qrels: Qrels
    exclude_self: bool = False


def asked_by(dataset: Dataset, other: Dataset) -> Dataset:
    """Return a data set with the queries of another one, whose ids are the same: the same questions in its language.

    Raises:
        UserError: the other has not all of its queries.
    """
    texts = {query.query_id: query.text for query in other.queries}
    missing = [query.query_id for query in dataset.queries if query.query_id not in texts]
    if missing:
        raise UserError(
            f"{other.name}: has no judged query {missing[0]!r}, as {dataset.name} has ({len(missing)} such queries); "
            "take queries from a data set of the same questions"
        )
    queries = [Query(query.query_id, texts[query.query_id]) for query in dataset.queries]
    return dataset._replace(name=f"{other.name}{ASKED_IN}{dataset.name}", queries=queries)


def judged(
    name: str,
    corpus: Path | str,
    queries: Iterable[Query],
    found: Iterable[Judgement],
    source: str,
    exclude_self: bool | None = None,
) -> Dataset:
    """Put a data set together; raise UserError for judgements of a query that is not there.

    source: where the judgements come from, for messages. exclude_self: as the registry says for None.
    """
    by_id = {query.query_id: query for query in queries}
    wheres: dict[str, str] = {}

    def noted() -> Iterable[Judgement]:
        for judgement in found:
            if judgement.query_id not in by_id:
                wheres.setdefault(judgement.query_id, judgement.where)
            yield judgement

    qrels = collect(source, noted())
    if wheres:
        query_id, where = next(iter(wheres.items()))
        raise UserError(
            f"{where}: query {query_id!r} is not among the queries of {name};"
            f" add it there or drop its judgements ({len(wheres)} such queries)"
        )
    if exclude_self is None:
        known = entry(name)
        exclude_self = known is not None and known.exclude_self
    return Dataset(name, corpus, [query for query in by_id.values() if query.query_id in qrels], qrels, exclude_self)
