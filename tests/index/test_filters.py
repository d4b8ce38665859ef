"""Filters against a plain evaluator and against brute force, on every leg."""

from __future__ import annotations

import operator
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.index.filters import AllOf, AnyOf, Condition, Not, OneOf, Ordered, Value, parse_filter
from retriever.search.fusion.fusion import fuse
from retriever.search.modes import CANDIDATES
from retriever.search.retriever import MODES, Retriever
from retriever.testing import SeededEncoder
from retriever.types import Document, Encoded, MetadataValue, Query, Ranking, UserError

os.environ.setdefault("OMP_NUM_THREADS", "1")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
DIM, VOCAB, COUNT = 16, 30, 300
ENCODER = SeededEncoder(DIM, VOCAB, VOCAB)
ORDERS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
NUMBERS = [0, -0.0, 1, 1.5, -2, 7, 2020, 1e300, 2**60]
LARGE = [2**53, 2**53 + 1, float(2**53), -(2**53) - 1, 2**63 - 1, 2**63, -(2**63), 10**25, 10**400, 0.1, 19.99, 1e25]
WORDS = ["en", "fr", "true", "TRUE", "7", "a b", "é", "😀", "", "In", "\uffff"]
MOMENTS = [
    "2025-02-03T12:45:46Z",
    "2025-02-03T12:45:46+00:00",
    "2025-02-03 13:45:46+01:00",
    "2025-02-03T12:45:46.000001Z",
    "2025-02-03T12:45",
    "2025-02-03",
    "2025-02-04T00:30:00+0130",
    "2024-02-29",
    "0001-01-01",
    "9999-12-31T23:59:59Z",
    "2024-12",
]
TEXTS = ["unknown", "", "2025-02-30", "5 days", "2025 or so"]


def add(writer: FolderWriter, documents: Sequence[Document]) -> None:
    writer.add(documents, ENCODER.encode_documents([document.text for document in documents]))


def metadata(random: np.random.Generator) -> dict[str, MetadataValue]:
    def one(values: Sequence[Any]) -> Any:
        return values[int(random.integers(len(values)))]

    found: dict[str, MetadataValue] = {
        "number": one(NUMBERS),
        "large": one(LARGE) if random.integers(2) else [one(LARGE), one(LARGE)],
        "word": one(WORDS),
        "flag": bool(random.integers(2)),
        "list": [one(WORDS), one(WORDS)],
        "two words": one(NUMBERS),
        "mixed": one(WORDS) if random.integers(2) else [1, "7", 2020, None],
        "any": one([True, False, 1, "1", "True", 2**53 + 1, "2025-02-03"]),
        "at": one([*MOMENTS, *TEXTS]) if random.integers(2) else [one([*MOMENTS, *TEXTS]), one(MOMENTS)],
        "deep": {"x": 1},
    }
    return {name: value for name, value in found.items() if random.random() < 0.8}


def moment(text: str) -> tuple[datetime, datetime] | None:
    """Return when a moment begins and when it has ended, by the standard library."""
    if text in ("2025", "2024-12"):
        return datetime(int(text[:4]), int(text[5:] or 1), 1, tzinfo=UTC), datetime(
            2025 + (text == "2025"), 1, 1, tzinfo=UTC
        )
    try:
        start = datetime.fromisoformat(text)
    except ValueError:
        return None
    start = start if start.tzinfo else start.replace(tzinfo=UTC)
    return start, start + (timedelta(1) if len(text) == 10 else timedelta.resolution)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def kinds_of(model: Mapping[str, Document]) -> dict[str, set[str]]:
    """Return the kinds of values that each field holds."""
    kinds: dict[str, set[str]] = {"id": {"text"}}
    for document in model.values():
        for field in document.metadata:
            for value in values_of(document, field):
                held = kinds.setdefault(field, set())
                held.add("number" if is_number(value) else "truth" if isinstance(value, bool) else "text")
                if isinstance(value, str) and moment(value):
                    held.add("moment")
    return kinds


def evaluate(condition: Condition, document: Document, kinds: Mapping[str, set[str]]) -> bool:
    """Say whether a filter holds, from its definition."""
    if isinstance(condition, AllOf):
        return all(evaluate(part, document, kinds) for part in condition.parts)
    if isinstance(condition, AnyOf):
        return any(evaluate(part, document, kinds) for part in condition.parts)
    if isinstance(condition, Not):
        return not evaluate(condition.part, document, kinds)
    values = values_of(document, condition.field)
    held = kinds[condition.field]
    if isinstance(condition, OneOf):
        return any(compare("=", value, wanted, held, values) for wanted in condition.values for value in values)
    return any(compare(condition.order, value, condition.value, held, values) for value in values)


def compare(order: str, value: MetadataValue, wanted: Value, held: set[str], among: Sequence[MetadataValue]) -> bool:
    if wanted.number is not None and "number" in held:
        return is_number(value) and bool(ORDERS[order](value, wanted.number))  # Python's int and float compare exactly
    if isinstance(value, bool):
        word = {"0": "false", "1": "true"}.get(wanted.text, wanted.text.lower())
        return word in ("true", "false") and bool(ORDERS[order](str(value).lower(), word))
    if not isinstance(value, str):
        return False
    span, mine = (moment(wanted.text), moment(value)) if "moment" in held else (None, None)
    if span and mine:
        at = mine[0]
        return {
            "=": span[0] <= at < span[1],
            "<": at < span[0],
            "<=": at < span[1],
            ">": at >= span[1],
            ">=": at >= span[0],
        }[order]
    if span and order != "=":  # as text, where there is nothing better
        dated = any(moment(other) for other in among if isinstance(other, str))
        return value[:1] in set("0123456789") and not dated and bool(ORDERS[order](value, wanted.text))
    if order == "=" and not wanted.quoted and wanted.text.lower() in ("true", "false"):
        word = wanted.text.lower()
        return value in (wanted.text, word, word.upper(), word.capitalize())
    return bool(ORDERS[order](value, wanted.text))


def values_of(document: Document, field: str) -> list[MetadataValue]:
    if field == "id":
        return [document.doc_id]
    found = document.metadata.get(field)
    values = found if isinstance(found, list) else [found]
    return [value for value in values if isinstance(value, str | int | float)]


@pytest.fixture(scope="module")
def model() -> dict[str, Document]:
    random = np.random.default_rng(5)
    return {f"{n}": Document(f"{n}", f"river number{n}", metadata=metadata(random)) for n in range(COUNT)}


@pytest.fixture(scope="module")
def kinds(model: dict[str, Document]) -> dict[str, set[str]]:
    return kinds_of(model)


@pytest.fixture(scope="module")
def retriever(model: dict[str, Document], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Retriever]:
    """Open an index of several segments, with deleted documents and replaced ones that had other metadata."""
    folder = tmp_path_factory.mktemp("filters") / "index"
    documents = list(model.values())
    with FolderWriter.create(folder, IndexSettings(ENCODER.identity)) as writer:
        add(writer, [document._replace(metadata={"number": 7, "word": "old"}) for document in documents[::3]])
        add(writer, [Document(f"x{n}", "river", metadata={"number": 7, "flag": True}) for n in range(20)])
        writer.commit()
        for start in range(0, COUNT, 100):
            add(writer, documents[start : start + 100])
            writer.commit()
        writer.delete(f"x{n}" for n in range(20))
        writer.commit()
    with Retriever.open(folder, ENCODER) as opened:
        yield opened


FIELDS = ["number", "large", "word", "flag", "list", "two words", "mixed", "any", "at", "id"]
VALUES = st.one_of(
    st.sampled_from([str(number + step) for number in LARGE if isinstance(number, int) for step in (-1, 0, 1)]),
    st.sampled_from(["9007199254740993.0", "1e25", "1e400", "-1e400", "0.1", "0.10", "19.99", "19.990000000000002"]),
    st.integers(-(2**70), 2**70).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(str),
    st.sampled_from(["True", "FALSE", "tRUE", "'true'", "'True'", "1", "0", "yes"]),
    st.sampled_from([f'"{text}"' for text in [*MOMENTS, *TEXTS, "2025"]]),
    st.sampled_from([text for text in MOMENTS if " " not in text]),
    st.sampled_from(["0", "-0.0", "1", "1.50", "-2", "+7", "2020", "1e300", "1152921504606846977", ".5"]),
    st.sampled_from(["en", "fr", "true", "false", "é", "'7'", '"a b"', "'2020'", "'in'", "''", "😀".join("''")]),
)
CONDITIONS = st.one_of(
    st.tuples(st.sampled_from(FIELDS), st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), VALUES).map(
        lambda parts: f'"{parts[0]}"{parts[1]}{parts[2]}'
    ),
    st.tuples(st.sampled_from(FIELDS), st.sampled_from(["in", "NOT in"]), st.lists(VALUES, min_size=1, max_size=3)).map(
        lambda parts: f'"{parts[0]}" {parts[1]} ({", ".join(parts[2])})'
    ),
)
FILTERS = st.recursive(
    CONDITIONS,
    lambda inner: st.one_of(
        inner.map(lambda text: f"not {text}"),
        inner.map(lambda text: f"( {text} )"),
        st.tuples(inner, st.sampled_from([" and ", " or ", " AND "]), inner).map("".join),
    ),
    max_leaves=6,
)


@settings(max_examples=120, deadline=None)
@given(text=FILTERS)
def test_random_filters(
    retriever: Retriever, model: dict[str, Document], kinds: dict[str, set[str]], text: str
) -> None:
    condition = parse_filter(text)
    wanted = {doc_id for doc_id, document in model.items() if evaluate(condition, document, kinds)}
    try:
        selection = retriever.reader.select(text)
    except UserError as error:
        said = re.search(r"'(.+?)' holds (text|.*which '(.*)' can never be)", str(error))
        assert said is not None, error
        assert "compares numbers" in str(error) if said[2] == "text" else "text" not in kinds[said[1]]
        return
    assert isinstance(retriever.reader, FolderReader)
    assert {hit.doc_id for hit in retriever.reader.bm25("river", 1_000, selection)} == wanted
    query = np.ones((1, DIM), np.float32)
    assert {hit.doc_id for hit in retriever.reader.dense(query, 1_000, selection)[0]} == wanted


@pytest.mark.parametrize("text", ["number >= 1 and not word = en", "id in (1, 2, 299, x1)", "number = 1e9", "not id=5"])
@pytest.mark.parametrize("mode", MODES)
def test_searching_within_a_filter(
    retriever: Retriever, model: dict[str, Document], kinds: dict[str, set[str]], text: str, mode: str
) -> None:
    condition = parse_filter(text)
    kept = {i for i, document in model.items() if evaluate(condition, document, kinds)}
    for query in ("river number7", "number12 number13"):
        for top_k in (1, 5, 1_000):
            hits = retriever.search(query, top_k, mode=mode, filter=text)
            [ranked] = retriever.rank([Query("q", query)], top_k, mode=mode, filter=text)
            assert [hit.doc_id for hit in hits] == [hit.doc_id for hit in ranked.ranking]
            if mode == "hybrid":
                assert {hit.doc_id for hit in hits} <= kept
                assert len(hits) == min(top_k, len(kept))
            else:
                every = retriever.search(query, 1_000, mode=mode)
                wanted = [hit for hit in every if hit.doc_id in kept][:top_k]
                assert [hit.doc_id for hit in hits] == [hit.doc_id for hit in wanted]
                assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in wanted])


class Large(NamedTuple):
    """An index of 12,000 documents: readers by FAISS type, the share of each document, and whole rankings.

    queries: (12, DIM), with `exact`, the ranking of each; legs: those of the words "w3".
    """

    readers: Mapping[str, FolderReader]
    shares: Mapping[str, float]
    queries: NDArray[np.float32]
    exact: Sequence[Ranking]
    legs: Mapping[str, Ranking]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Large:
    """Make them; the share of a document is below x with probability x."""
    random = np.random.default_rng(3)
    centres = random.standard_normal((100, DIM))
    vectors = centres[random.integers(0, 100, 12_000)] + 0.3 * random.standard_normal((12_000, DIM))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    shares = {f"d{n:05d}": share for n, share in enumerate(random.random(12_000).tolist())}
    documents = [
        Document(doc_id, f"river w{n % 7}", metadata={"share": share})
        for n, (doc_id, share) in enumerate(shares.items())
    ]
    sparse = csr_matrix(np.where(random.random((12_000, VOCAB)) < 0.2, random.random((12_000, VOCAB)), 0))
    folder = tmp_path_factory.mktemp("large") / "index"
    readers = {}
    with FolderWriter.create(folder, IndexSettings(ENCODER.identity)) as writer:
        for start in range(0, 12_000, 3_000):
            part = slice(start, start + 3_000)
            writer.add(documents[part], Encoded(vectors[part], sparse[part], np.zeros(3_000, bool)))
            writer.commit()
        for kind in ("flat", "hnsw", "ivf"):
            writer.commit(dense_type=kind)
            readers[kind] = FolderReader.open(folder)
    flat, asked = readers["flat"], ENCODER.encode_queries(["w3"])
    assert flat.rows.vectors is not None and asked.dense is not None and asked.sparse is not None
    queries = flat.rows.vectors[np.arange(0, 12_000, 1_000)] + np.float32(0.05)
    legs = {
        "bm25": flat.bm25("w3", 12_000),
        "sparse": flat.sparse(asked.sparse, 12_000),
        "dense": flat.dense(asked.dense, 12_000)[0],
    }
    return Large(readers, shares, queries, flat.dense(queries, 12_000), legs)


@pytest.mark.parametrize("share", [0.5, 0.05, 0.005, 0.0])
@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_against_brute_force(large: Large, kind: str, share: float) -> None:
    reader = large.readers[kind]
    selection = reader.select(f"share < {share}")
    kept = {doc_id for doc_id, its in large.shares.items() if its < share}
    assert abs(len(kept) / 12_000 - share) < 0.02 and selection.rows.sum() == len(kept)
    for hits, ranking in zip(reader.dense(large.queries, 10, selection), large.exact, strict=True):
        assert hits == [hit for hit in ranking if hit.doc_id in kept][:10]
    within = {leg: [hit for hit in ranking if hit.doc_id in kept][:CANDIDATES] for leg, ranking in large.legs.items()}
    assert reader.bm25("w3", 10, selection) == within["bm25"][:10]
    asked = ENCODER.encode_queries(["w3"]).sparse
    assert asked is not None
    assert reader.sparse(asked, 10, selection) == within["sparse"][:10]
    with Retriever(reader.share(), ENCODER) as retriever:
        [(_, fused)] = retriever.rank([Query("q", "w3")], 10, mode="hybrid", filter=f"share < {share}")
    # With many rows to choose from, hnsw and ivf may miss some of the thousand candidates of a query far from all.
    missed = set(fuse(within).ranking[:10]) - set(fused)
    assert len(missed) <= (1 if kind != "flat" and share == 0.5 else 0)


def test_the_tree() -> None:
    assert parse_filter("a=1 or b = x AND not (c<'2' or d not in (e,5))") == AnyOf(
        (
            OneOf("a", (Value("1", 1.0),)),
            AllOf(
                (
                    OneOf("b", (Value("x"),)),
                    Not(
                        AnyOf(
                            (Ordered("c", "<", Value("2", quoted=True)), Not(OneOf("d", (Value("e"), Value("5", 5.0)))))
                        )
                    ),
                )
            ),
        )
    )
    assert parse_filter(r"""'a \'b\\' != "\"" """) == Not(OneOf("a 'b\\", (Value('"', quoted=True),)))
    assert parse_filter("day >= 2020-01-01") == Ordered("day", ">=", Value("2020-01-01"))
    assert parse_filter("x = nan and y = 1_0") == AllOf((OneOf("x", (Value("nan"),)), OneOf("y", (Value("1_0"),))))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "found the end at character 1, allowed: a field"),
        ("year", "found the end at character 5, allowed: =, !="),
        ("year >> 3", "found '>' at character 7, allowed: a number"),
        ("year = 1 lang = en", "found 'lang' at character 10, allowed: and, or, or the end"),
        ("(year = 1", "found the end at character 10, allowed: and, or, \\)"),
        ("year = 1)", r"found '\)' at character 9"),
        ("year in 3", r"found '3' at character 9, allowed: \( and values"),
        ("year in (3", r"found the end at character 11, allowed: a comma"),
        ("year in ()", r"found '\)' at character 10, allowed: a number"),
        ("year not 3", "found '3' at character 10, allowed: in;"),
        ("year = 'x", "a quote that is never closed at character 8"),
        ("year = x*", r"found '\*' at character 9"),
        ("not", "found the end at character 4"),
        ("a = in", "found 'in' at character 5"),
        ("(" * 200 + "a=1" + ")" * 200, "at most 100"),
    ],
)
def test_what_cannot_be_read(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        parse_filter(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [5, True, ["year = 1"], {"year": 1}])
def test_what_is_no_text(retriever: Retriever, value: Any) -> None:
    with pytest.raises(UserError, match=r"^filter is .*, need a text such as"):
        retriever.search("bread", filter=value)


def test_fields_that_are_not_there(retriever: Retriever) -> None:
    for text in ("lang = en", "not lang < 3", "word = en or lang in (1)", "deep = 1"):
        with pytest.raises(
            UserError, match=r"no field '(lang|deep)'; its fields are id, any, at, flag, large, list, mixed, number"
        ):
            retriever.search("river", filter=text)
        with pytest.raises(UserError, match="no field"):
            retriever.rank([], filter=text)
    with pytest.raises(UserError, match=r"'word' holds text, and > 3 compares numbers; write word > '3'"):
        retriever.search("river", filter="word > 3")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("number = many", "'number' holds numbers, which 'many' can never be; write a number, without quotes"),
        ("number in (7, '7')", "'number' holds numbers, which '7' can never be"),
        ("not large < x", "'large' holds numbers, which 'x' can never be"),
        ("flag = yes", "'flag' holds true and false, which 'yes' can never be; write true or false"),
        ("flag = 2", "'flag' holds true and false, which '2' can never be"),
        ("id > 5", "'id' holds text, and > 5 compares numbers; write id > '5' to compare it in alphabetical order"),
        (f"number = {'9' * 5000}", "a number of 5000 digits; 4000 are compared at most"),
    ],
)
def test_a_value_that_a_field_can_never_have(retriever: Retriever, text: str, says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)) as caught:
        retriever.search("river", filter=text)
    assert len(str(caught.value)) < 200


def test_an_index_of_rounded_numbers_and_truth_values_among_texts(tmp_path: Path) -> None:
    """An index that was made before numbers were exact answers as it did, and exactly for what is added to it."""
    folder = shutil.copytree(Path(__file__).parents[1] / "data" / "index-rounded-numbers", tmp_path / "index")
    with FolderWriter.open(folder) as writer:
        added: dict[str, MetadataValue] = {
            "post": 2**53 + 1,
            "flag": True,
            "at": "2025-02-03T13:45:46+01:00",
            "price": 0.1,
        }
        writer.add([Document("n", "bread new", metadata=added)], None)
        writer.commit()
    with FolderReader.open(folder) as reader:
        found = {
            text: "".join(sorted(hit.doc_id for hit in reader.bm25("bread", 10, reader.select(text))))
            for text in (
                f"post = {2**53 + 1}",
                f"post > {2**53}",
                "post < 8",
                "flag = True",
                "flag != true",
                "at = 2025-02-03T12:45:46Z",
                "at >= 2025-02-04",
                "price = 0.1",
            )
        }
    # a holds 2**53, b 2**53 + 1, both as 2**53.
    assert list(found.values()) == ["abn", "n", "c", "acn", "b", "an", "b", "bn"]
