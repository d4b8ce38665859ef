"""Filters of collections find what they find in the folder, and Qdrant's conditions what `satisfies` says of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retriever import Document, Retriever, UserError, build_index
from retriever.qdrant.filters import satisfies
from retriever.qdrant.points import filter_values
from retriever.qdrant.push import push

pytestmark = pytest.mark.lucene
VALUES: list[Any] = [
    1, 2, 2.5, -0.0, 10**20, 10**20 + 1, -(10**25), 2**53 + 1, True, False, "true", "FALSE", "1", "abc", "abd", "ü",
    "2025-02-03", "2025-02-03T12:45:46Z", "2025-02-03T12:45:46.5Z", "2025-02-03T13:45:46+01:00", "2024", "2025-02",
    "20 apples", ["abc", "2025"], [1, 10**20], [], None, {"x": 1}, [True, 3], "",
]  # fmt: skip
FIELDS = ["year", "mixed", "when", "odd name.x-y", "id"]
LITERALS = [
    "1", "2.5", "0", "-0.0", "100000000000000000000", "100000000000000000001", "1e300", "-3e24", "9007199254740993",
    "true", "false", "'true'", "abc", "'abc'", "'1'", "2025-02-03", "'2025-02-03T12:45:46Z'", "2024", "'2025-02'", "20",
    "'z'", "'2025-02-03T12:45:46.250Z'", "d3", "'20 apples'",
]  # fmt: skip


def documents() -> list[Document]:
    """Return documents with every value in a field of many kinds, and in fields of fewer."""
    made = []
    for n, value in enumerate(VALUES):
        metadata = {"mixed": value, "odd name.x-y": VALUES[(5 * n + 1) % len(VALUES)]}
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            metadata["year"] = value
        if isinstance(value, str) and value[:2] == "20" and "apples" not in value:
            metadata["when"] = value
        made.append(Document(f"d{n}", "text", metadata=metadata))
    return made


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Retriever, Retriever]]:
    """Return the same documents in a folder and in a collection."""
    folder = tmp_path_factory.mktemp("filters") / "index"
    build_index(documents(), folder, encoder="none")
    push(folder, f"qdrant-edge:{folder}-edge")
    with Retriever.open(folder) as one, Retriever.open(f"qdrant-edge:{folder}-edge") as other:
        yield one, other


def quoted(field: str) -> str:
    return f'"{field}"' if " " in field else field


NAMES, SIGNS = st.sampled_from(FIELDS).map(quoted), st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
WRITTEN = st.sampled_from(LITERALS)
LEAVES = st.one_of(
    st.builds("{} {} {}".format, NAMES, SIGNS, WRITTEN),
    st.builds("{} {} ({}, {})".format, NAMES, st.sampled_from(["in", "not in"]), WRITTEN, WRITTEN),
)
FILTERS = st.recursive(
    LEAVES,
    lambda part: st.one_of(
        st.builds("({}) and ({})".format, part, part),
        st.builds("({}) or ({})".format, part, part),
        st.builds("not ({})".format, part),
    ),
    max_leaves=4,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FILTERS)
def test_random_filters(pair: tuple[Retriever, Retriever], text: str) -> None:
    def found(retriever: Retriever) -> list[str] | str:
        try:
            return sorted(retriever.reader.selected_ids(retriever.reader.select(text)))
        except UserError as error:
            return str(error)

    folder, collection = pair
    assert found(collection) == found(folder)
    if not isinstance(found(folder), str):
        hits = [index.search("text", 50, mode="bm25", filter=text) for index in pair]
        assert [hit.doc_id for hit in hits[0]] == [hit.doc_id for hit in hits[1]]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FILTERS)
def test_our_check_is_what_qdrant_does(pair: tuple[Retriever, Retriever], text: str) -> None:
    reader = pair[1].reader
    try:
        within = reader.select(text).within
    except UserError:
        return
    expected = [
        one.doc_id for one in documents() if satisfies({"id": one.doc_id, **filter_values(one.metadata)}, within)
    ]
    assert reader.selected_ids(reader.select(text)._replace(check=None)) == sorted(expected)
