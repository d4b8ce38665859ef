"""What a collection gives is what the folder gives that it was pushed from: hits, rankings, documents, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retriever import Retriever, UserError
from tests.qdrant.conftest import close_to
from tests.remote.conftest import listed
from tests.remote.test_contract import CALLS, FAULTS, again, name, timeless

pytestmark = pytest.mark.lucene


@pytest.mark.parametrize(("method", "args", "kwargs"), CALLS, ids=name)
def test_records_are_equal(
    collection: Retriever, library: Retriever, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    expected = listed(getattr(library, method)(*again(args), **kwargs))
    found = listed(getattr(collection, method)(*again(args), **kwargs))
    if method in ("search", "rank_pipeline"):
        found, expected = timeless(found), timeless(expected)
    # Stages put the scores of a few hits between 0 and 1: where these are near each other, so grows what was rounded.
    assert close_to(found, expected, 2e-5 if "pipeline" in kwargs else 2e-6), (found, expected)


@pytest.mark.parametrize(("method", "args", "kwargs"), FAULTS, ids=name)
def test_errors_are_equal(
    collection: Retriever,
    library: Retriever,
    folder: Path,
    method: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    with pytest.raises(UserError) as expected:
        listed(getattr(library, method)(*args, **kwargs))
    with pytest.raises(UserError) as found:
        listed(getattr(collection, method)(*args, **kwargs))
    assert str(found.value) == str(expected.value).replace(str(folder), str(collection.reader.path))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30), st.integers(1, 30))
def test_any_query(collection: Retriever, library: Retriever, query: str, top_k: int) -> None:
    def answer(search: Any) -> Any:
        try:
            return search(query, top_k, explain=True)
        except UserError as error:
            return str(error)

    assert close_to(answer(collection.search), answer(library.search))
