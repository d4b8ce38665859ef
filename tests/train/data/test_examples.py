"""Streams of training examples: what comes out, in which order, and what never does."""

from __future__ import annotations

import gzip
import hashlib
import json
import tracemalloc
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever.train.data.examples import SourceConfig, batches, stream
from retriever.train.data.pairs import Example, held_out, normalised, read_pairs
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def write(path: Path, records: Iterable[dict[str, Any]]) -> SourceConfig:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    return SourceConfig(str(path))


def pairs(count: int, name: str = "a") -> list[dict[str, Any]]:
    return [{"query": f"{name} question {i}", "positive": f"{name} passage {i}"} for i in range(count)]


def example(positive: str, *negatives: str, query: str = "", document: str = "") -> Example:
    return Example(query or f"about {positive}", positive, negatives, None, "test", document)


def test_a_record_becomes_an_example_and_keeps_its_other_fields(tmp_path: Path) -> None:
    path = tmp_path / "some-pairs.jsonl.gz"
    fields = {"query": "q", "positive": "p", "negatives": ["n", "m"], "scores": [3, 2.5, -1], "document": "d", "pos": 7}
    write(path, [fields])
    [record] = read_pairs(path)
    assert record.example == Example("q", "p", ("n", "m"), (3.0, 2.5, -1.0), "some-pairs", "d")
    assert record.fields == fields
    assert record.where == f"{path}:1"


def test_negatives_may_be_a_string_of_json(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, [{"query": "q", "positive": "p", "negatives": '["n", "m"]'}])
    assert next(read_pairs(path)).example.negatives == ("n", "m")


def test_a_negative_that_is_the_positive_goes_with_its_score(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, [{"query": "q", "positive": "p", "negatives": ["n", "p", "m"], "scores": [4, 3, 2, 1]}])
    found = next(read_pairs(path)).example
    assert (found.negatives, found.scores) == (("n", "m"), (4.0, 3.0, 1.0))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[]", "need one JSON object"),
        ('{"query": "q"}', "need a text under 'positive', found the keys query"),
        ('{"query": 3, "positive": "p"}', "need a text under 'query', found a int"),
        ('{"query": " ", "positive": "p"}', "need a text under 'query', found an empty one"),
        ('{"query": "q", "positive": "p", "negatives": "n"}', "'negatives' is a string that is no JSON list"),
        ('{"query": "q", "positive": "p", "negatives": [""]}', "'negatives' is no list of texts"),
        ('{"query": "q", "positive": "p", "negatives": ["n"], "scores": [1]}', "found 1 scores, need 2"),
        ('{"query": "q", "positive": "p", "scores": [true]}', "'scores' is no list of numbers"),
        ('{"query": "q", "positive": "p", "scores": [NaN]}', "NaN"),
        ('{"query": "q", "positive": "p", "document": 5}', "'document' is a int"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"query": "q", "positive": "p"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        list(read_pairs(path))
    assert f"{path}:2: " in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(), st.integers(0, 100))
def test_held_out_is_the_documented_rule(text: str, percent: int) -> None:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    assert held_out(text, percent) == (int.from_bytes(digest[:4], "big") % 100 < percent)


def test_one_pass_gives_every_example_that_is_not_held_out_once(tmp_path: Path) -> None:
    sources = [write(tmp_path / f"{name}.jsonl", pairs(200, name)) for name in "ab"]
    found = list(stream(sources, endless=False, shuffle_buffer=16))
    wanted = [pair["positive"] for name in "ab" for pair in pairs(200, name) if not held_out(pair["positive"])]
    assert len(wanted) < 400
    assert sorted(item.positive for item in found) == sorted(wanted)
    assert {item.source for item in found} == {"a", "b"}


def test_held_out_passages_are_no_negatives_either(tmp_path: Path) -> None:
    passages = [f"passage {i}" for i in range(300)]
    kept = [text for text in passages if not held_out(text)]
    record = {"query": "q", "positive": kept[0], "negatives": passages[1:], "scores": list(range(300))}
    [found] = stream([write(tmp_path / "a.jsonl", [record])], endless=False)
    assert list(found.negatives) == kept[1:]
    assert found.scores == (0.0, *(float(passages.index(text)) for text in kept[1:]))
    [whole] = stream([write(tmp_path / "a.jsonl", [record])], endless=False, held_out_percent=0)
    assert list(whole.negatives) == passages[1:]


def test_the_seed_alone_decides_the_order_and_skip_goes_on_in_it(tmp_path: Path) -> None:
    sources = [write(tmp_path / f"{name}.jsonl", pairs(100, name)) for name in "ab"]
    first = list(islice(stream(sources, seed=3, shuffle_buffer=8), 500))
    assert list(islice(stream(sources, seed=3, shuffle_buffer=8), 500)) == first
    assert list(islice(stream(sources, seed=3, shuffle_buffer=8, skip=321), 179)) == first[321:]
    assert list(islice(stream(sources, seed=4, shuffle_buffer=8), 500)) != first


def test_an_endless_stream_has_every_example_in_each_round_in_another_order(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", pairs(50))
    size = sum(not held_out(pair["positive"]) for pair in pairs(50))
    found = [item.positive for item in islice(stream([source]), 2 * size)]
    rounds = found[:size], found[size:]
    assert set(rounds[0]) == set(rounds[1])
    assert len(set(rounds[0])) == size
    assert rounds[0] != rounds[1]


def test_weights_are_shares_of_the_mixture(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{name}.jsonl", pairs(size, name)) for name, size in (("a", 30), ("b", 300))]
    sources = [SourceConfig(files[0].path, 3.0), SourceConfig(files[1].path, 1.0)]
    shares = Counter(item.source for item in islice(stream(sources, seed=1), 4000))
    assert shares["a"] / 4000 == pytest.approx(0.75, abs=0.03)  # four standard deviations


def test_memory_is_bounded_by_the_buffer_not_by_the_file(tmp_path: Path) -> None:
    text = "x" * 1000
    source = write(tmp_path / "a.jsonl", ({"query": f"q{i}", "positive": f"{i} {text}"} for i in range(10_000)))
    tracemalloc.start()
    count = sum(1 for _ in stream([source], endless=False, shuffle_buffer=100))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count > 9000
    assert peak < 1_500_000  # the file has 10 MB, 100 examples 0.1 MB


def test_what_cannot_be_streamed_is_refused(tmp_path: Path) -> None:
    hidden = next(pair for pair in pairs(1000) if held_out(pair["positive"]))
    with pytest.raises(UserError, match="no example outside the held-out part"):
        next(stream([write(tmp_path / "a.jsonl", [hidden])]))
    with pytest.raises(UserError, match="at least one file"):
        stream([])
    with pytest.raises(UserError, match=r"the weight is 0.0, need a number above 0"):
        SourceConfig("a.jsonl", 0.0)
    with pytest.raises(UserError, match="give the path of a readable file"):
        next(stream([SourceConfig(str(tmp_path / "none.jsonl"))]))


def fair(batch: list[Example]) -> bool:
    """Say by comparing all pairs whether every passage of a batch is a fair negative of the others."""
    for i, one in enumerate(batch):
        for other in batch[:i]:
            if normalised(one.positive) == normalised(other.positive) or normalised(one.query) == normalised(
                other.query
            ):
                return False
            if one.document and normalised(one.document) == normalised(other.document):
                return False
        others = {normalised(text) for j, other in enumerate(batch) if j != i for text in other.negatives}
        if normalised(one.positive) in others:
            return False
    return True


few_texts = st.sampled_from(["A b", "a  B", "c", "d", "e", "f", "g", "h"])
some_examples = st.builds(
    Example,
    st.sampled_from([f"q{i}" for i in range(9)]),
    few_texts,
    st.lists(few_texts, max_size=2).map(tuple),
    st.none(),
    st.just("s"),
    st.sampled_from(["", "", "", "x", "y", "X"]),
)


@settings(deadline=None)
@given(st.lists(some_examples, max_size=60), st.integers(1, 6))
def test_batches_are_fair_and_lose_nothing(examples: list[Example], size: int) -> None:
    found = list(batches(iter(examples), size))
    assert all(0 < len(batch) <= size and fair(batch) for batch in found)
    assert Counter(item for batch in found for item in batch) == Counter(examples)


def test_batches_without_conflicts_keep_order_and_size() -> None:
    examples = [example(f"passage {i}") for i in range(7)]
    assert list(batches(examples, 3)) == [examples[:3], examples[3:6], examples[6:]]


def test_what_conflicts_comes_in_the_next_batch() -> None:
    one, same, third, fourth = example("p"), example("P ", query="other"), example("q"), example("r", "q")
    assert list(batches([one, same, third, fourth], 2)) == [[one, third], [same, fourth]]


def test_few_examples_wait_where_all_conflict() -> None:
    taken = 0

    def endless() -> Iterable[Example]:
        nonlocal taken
        while True:
            taken += 1
            yield example(f"p{taken}", document="the only one")

    assert [len(batch) for batch in islice(batches(endless(), 4), 20)] == [1] * 20
    assert taken <= 20 + 8 * 4 + 1


def test_batches_resume_after_any_number(tmp_path: Path) -> None:
    records = [pair | {"document": f"d{i % 7}"} for i, pair in enumerate(pairs(100))]
    source = write(tmp_path / "a.jsonl", records)
    whole = list(islice(batches(stream([source], seed=5), 6), 40))
    assert list(islice(batches(stream([source], seed=5), 6), 25, 40)) == whole[25:]
