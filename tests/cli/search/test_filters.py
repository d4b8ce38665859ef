"""`search --filter` against a plain definition: what is drawn is the meaning; the command line gets one spelling."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retriever.cli.main import cli

COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
START = datetime(2025, 2, 3, tzinfo=UTC)
KINDS: dict[str, type] = {"year": int, "price": float, "free": bool, "topic": str, "tags": str, "at": datetime}
TOPICS = ["food", "city life", "in", "Zürich", 'say "so"', "no 5", "true or false", "a, b", "back\\slash"]


def document(number: int) -> dict[str, Any]:
    """Return a document whose fields have a value, several (tags), or are missing now and then."""
    fields: dict[str, Any] = {
        "year": 2010 + number % 9,
        "price": [0.5, 12.5, 3.0, 1e-3, 19.99][number % 5],
        "free": number % 3 == 0,
        "topic": TOPICS[number % len(TOPICS)],
        "tags": [TOPICS[number % 4], TOPICS[number % 7]],
        "at": START + timedelta(hours=7 * number),
    }
    return {name: value for place, (name, value) in enumerate(fields.items()) if (number + place) % 6}


DOCUMENTS = {f"d{number}": document(number) for number in range(40)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = tmp_path_factory.mktemp("filters") / "corpus.jsonl"
    written = (
        {"_id": name, "text": "river"} | {key: str(value) if key == "at" else value for key, value in fields.items()}
        for name, fields in DOCUMENTS.items()
    )
    corpus.write_text("".join(json.dumps(fields) + "\n" for fields in written))
    made = CliRunner().invoke(cli, ["index", str(corpus), "--index", str(corpus.parent / "i"), "-e", "none", "-q"])
    assert made.exit_code == 0, made.output
    return corpus.parent / "i"


class Comparison(NamedTuple):
    field: str
    sign: str
    value: Any


class Among(NamedTuple):
    field: str
    sign: str  # "in" or "not in"
    values: tuple[Any, ...]


class Joined(NamedTuple):
    how: str  # "and", "or", "not"
    parts: tuple[Any, ...]


def holds(condition: Comparison | Among | Joined, fields: dict[str, Any]) -> bool:
    """Say whether a condition holds for a document: the definition."""
    if isinstance(condition, Joined):
        parts = [holds(part, fields) for part in condition.parts]
        return not parts[0] if condition.how == "not" else all(parts) if condition.how == "and" else any(parts)
    wanted = condition.values if isinstance(condition, Among) else (condition.value,)
    own = fields.get(condition.field, [])
    values = own if isinstance(own, list) else [own]
    if condition.sign in ("in", "=", "not in", "!="):
        found = any(value == one for value in values for one in wanted)
        return found == (condition.sign in ("in", "="))
    return any(COMPARE[condition.sign](value, wanted[0]) for value in values)


def leaves(condition: Comparison | Among | Joined) -> list[Comparison | Among]:
    return [leaf for part in condition.parts for leaf in leaves(part)] if isinstance(condition, Joined) else [condition]


def odd(condition: Comparison | Among | Joined) -> list[tuple[str, Any]]:
    """Return the fields and values of other kinds than their fields'."""
    pairs = [
        (leaf.field, value)
        for leaf in leaves(condition)
        for value in (leaf.values if isinstance(leaf, Among) else [leaf.value])
    ]
    return [(field, value) for field, value in pairs if not fits(KINDS[field], value)]


def fits(kind: type, value: object) -> bool:
    if kind in (int, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return (kind is str and isinstance(value, str)) or type(value) is kind


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def spellings(value: Any) -> list[str]:
    """Return ways in which people write a value."""
    if isinstance(value, bool):
        return [str(value), str(value).lower(), str(value).upper()]
    if isinstance(value, int):
        return [str(value), f"{value:+}", f"{value}.0", f"{value}e0"]
    if isinstance(value, float):
        return [repr(value), f"{value:.20e}"]
    if isinstance(value, datetime):
        tokyo = value.astimezone(datetime.strptime("+0900", "%z").tzinfo)
        return [quoted(str(value)), f"{value:%Y-%m-%dT%H:%M:%S}Z", tokyo.isoformat(), f"{value:%Y-%m-%dT%H:%M}"]
    return [quoted(value), *([value] if value.isalpha() and value != "in" else [])]


def spelled(draw: Callable[..., Any], condition: Comparison | Among | Joined) -> str:
    """Write a condition as text."""
    if isinstance(condition, Joined):
        parts = [f"({spelled(draw, part)})" for part in condition.parts]
        how = draw(st.sampled_from([condition.how, condition.how.upper()]))
        return f"{how} {parts[0]}" if condition.how == "not" else f" {how} ".join(parts)
    values = condition.values if isinstance(condition, Among) else (condition.value,)
    texts = [draw(st.sampled_from(spellings(value))) for value in values]
    right = f"({', '.join(texts)})" if isinstance(condition, Among) else texts[0]
    return f"{condition.field} {condition.sign} {right}"


VALUES: dict[type, st.SearchStrategy[Any]] = {
    int: st.integers(2008, 2020),
    float: st.sampled_from([0.5, 12.5, 3, 0.001, 19.99, 19.990000000000002, -1]),
    bool: st.booleans(),
    str: st.sampled_from([*TOPICS, "none"]),
    datetime: st.integers(-9, 300).map(lambda hours: START + timedelta(hours=hours)),
}
ODD: dict[type, list[Any]] = {
    int: ["many", "2015"],
    float: ["cheap", START],
    bool: ["yes", 2, START],
    datetime: ["yesterday", 20250203, 1738540800, 12.5, True],
}


def values_of(field: str, strange: bool) -> st.SearchStrategy[Any]:
    kind = KINDS[field]
    return st.one_of(VALUES[kind], st.sampled_from(ODD[kind])) if strange and kind in ODD else VALUES[kind]


@st.composite
def conditions(draw: Callable[..., Any], strange: bool) -> Comparison | Among:
    field = draw(st.sampled_from(sorted(KINDS)))
    values = values_of(field, strange)
    if draw(st.booleans()):
        chosen = draw(st.lists(values, min_size=1, max_size=3))
        return Among(field, draw(st.sampled_from(["in", "not in"])), tuple(chosen))
    return Comparison(field, draw(st.sampled_from(sorted(COMPARE))), draw(values))


def trees(strange: bool) -> st.SearchStrategy[Any]:
    return st.recursive(
        conditions(strange),
        lambda inner: st.one_of(
            st.builds(Joined, st.just("not"), st.tuples(inner)),
            st.builds(Joined, st.sampled_from(["and", "or"]), st.tuples(inner, inner)),
        ),
        max_leaves=5,
    )


@pytest.mark.parametrize("strange", [False, True], ids=["values that fit", "values that cannot fit"])
def test_a_filter_finds_what_its_definition_says(folder: Path, strange: bool) -> None:
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(data=st.data())
    def tried(data: st.DataObject) -> None:
        condition = data.draw(trees(strange))
        text = spelled(data.draw, condition)
        command = ["search", str(folder), "river", "-m", "bm25", "-k", "99", "--json", "--filter", text]
        done = CliRunner().invoke(cli, command)
        if wrong := odd(condition):
            assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (1, "", 1), (text, done.output)
            assert any(f"{field!r} holds" in done.stderr for field, _ in wrong), (text, done.stderr)
            assert "can never be" in done.stderr
            return
        assert done.exit_code == 0, (text, done.output)
        found = {json.loads(line)["doc_id"] for line in done.stdout.splitlines()}
        assert found == {name for name, fields in DOCUMENTS.items() if holds(condition, fields)}, text

    tried()
