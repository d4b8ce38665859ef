"""The report: a page by itself, every figure in its place, nothing of the data taken for HTML."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from retriever.eval.evaluator import Evaluation
from retriever.eval.report.results import (
    DatasetResult,
    Difference,
    EncoderResult,
    Example,
    ExampleHit,
    IndexResult,
    Percentiles,
    Results,
    SparseCosts,
    SystemResult,
    read_per_query,
    read_results,
    results_json,
    write_per_query,
    write_results,
)
from retriever.eval.report.write import write_report
from retriever.types import UserError

VOID = {"meta", "path", "circle", "polyline"}


class Page(HTMLParser):
    """Checks that tags close in order, and keeps what the tests look for."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def system(name: str, value: float, difference: Difference | None = None) -> SystemResult:
    latency = {part: Percentiles(2.0, 5.0, 9.0, 4) for part in ("encoding", "dense", "total")}
    return SystemResult(
        name=name,
        encoder="tiny",
        query_mode="",
        mode="dense",
        mean={"nDCG@10": value},
        queries_missing=1,
        queries_ignored=0,
        latency=latency,
        bytes_per_document=2048.0,
        precision=[value] * 11,
        differences={} if difference is None else {"nDCG@10": difference},
    )


def dataset(name: str) -> DatasetResult:
    hits = [ExampleHit("d1", "An <i>odd</i> title", 2), ExampleHit("d2", "", None), ExampleHit("d3", "No", 0)]
    return DatasetResult(
        name=name,
        source="/data/<set>",
        split="test",
        exclude_self=True,
        documents=10,
        queries_judged=2,
        corpus_sha256="ab" * 32,
        indexes=[
            IndexResult(
                encoder="tiny",
                folder="/index",
                commit=1,
                sizes={"lucene": 100, "rows": 50, "dense": 0},
                analyzer="english",
                k1=0.9,
                b=0.4,
                impact_scale=100,
                dense_type="flat",
                truncated=0,
                fusion={"method": "rrf", "weights": {"bm25": 0.5}, "normalisation": "max"},
                seconds=None,
            )
        ],
        costs=[SparseCosts("tiny", "encoder", 12.5, 100.0, 3.25)],
        systems=[
            system("bm25", 0.25),
            system("x<y", 0.5, Difference(0.25, 0.1, 0.4, 0.01, float("inf"), 2, 0, 0)),
            system("worse", 0.125, Difference(-0.125, -0.2, -0.1, 0.5, -0.5, 0, 1, 1)),
        ],
        baseline="bm25",
        examples_of="x<y",
        examples=[Example("q1", "a <script>query</script>", 0.0, 1.0, [], hits)],
    )


@pytest.fixture
def results() -> Results:
    return Results(
        created="2026-01-02T03:04:05+00:00",
        seconds=1.5,
        measures=["nDCG@10"],
        baseline="bm25",
        settings={"top_k": 1000, "modes": ["bm25", "dense"], "fresh": False},
        environment={"Python": "3.11", "Java": "21"},
        encoders=[EncoderResult("tiny", "/models/tiny", "cd" * 32, 8, 20, "int8", 1_500_000, 2_000_000)],
        datasets=[dataset("one"), dataset("two")],
        notes=["none has no sparse leg"],
    )


@pytest.fixture
def folder(results: Results, tmp_path: Path) -> Path:
    values = {"bm25": (0.0, 0.5), "x<y": (0.25, 0.75), "worse": (0.0, 0.25)}
    evaluations = {
        name: Evaluation(
            {"nDCG@10": sum(pair) / 2}, {f"q{n}": {"nDCG@10": value} for n, value in enumerate(pair, 1)}, 2, 0, 0
        )
        for name, pair in values.items()
    }
    write_results(tmp_path, results)
    write_per_query(tmp_path, {"one": evaluations, "two": evaluations})
    return tmp_path


def page(folder: Path) -> Page:
    parsed = Page()
    parsed.feed(write_report(folder).read_text(encoding="utf-8"))
    assert parsed.open == []
    return parsed


def test_results_are_read_as_they_were_written(results: Results, folder: Path) -> None:
    back = read_results(folder)
    assert json.loads(results_json(back)) == json.loads(results_json(results))
    assert back.datasets[0].systems[1].differences["nDCG@10"].wins == 2
    assert back.datasets[0].examples[0].hits[0] == ExampleHit("d1", "An <i>odd</i> title", 2)
    assert read_per_query(folder, "nDCG@10")["two"]["x<y"] == {"q1": 0.25, "q2": 0.75}


def test_marks_and_means(results: Results) -> None:
    marks = [one.mark("nDCG@10") for one in results.datasets[0].systems]
    assert marks == ["", "+", ""], "the baseline, a significant difference, one that may be chance"
    assert results.means("nDCG@10") == {"bm25": 0.25, "x<y": 0.5, "worse": 0.125}
    fewer = results._replace(datasets=[results.datasets[0], results.datasets[1]._replace(systems=[system("bm25", 1)])])
    assert fewer.means("nDCG@10") == {"bm25": 0.625}, "a mean over some of the sets would not compare"


def test_the_page_stands_by_itself(folder: Path) -> None:
    parsed = page(folder)
    names = [tag for tag, _ in parsed.tags]
    assert "script" not in names and "link" not in names and "img" not in names
    assert not re.search(r"(src|href)=.(https?:)?//|@import|url\(", (folder / "report.html").read_text())
    anchors = [attrs["href"] for tag, attrs in parsed.tags if tag == "a"]
    identifiers = {f"#{attrs['id']}" for tag, attrs in parsed.tags if tag == "section"}
    assert set(anchors) == identifiers and len(anchors) == len(identifiers) == 6


def test_what_is_on_the_page(folder: Path) -> None:
    text = page(folder).text
    for wanted in ("a <script>query</script>", "An <i>odd</i> title", "x<y", "0.5000", "+0.2500", "12.5", "3.25"):
        assert any(wanted in part for part in text), wanted
    assert "none has no sparse leg" in text and "1.5 M" in text and "rrf (bm25 0.5), max" in text
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert html.count('class="best" title="+0.2500') == 2, "the best of each set, with its difference"
    assert html.count('<span class="mark up">▲</span>') == 4, (
        "in the table and in the list of differences, of both sets"
    )
    assert [html.count(f'"grade{kind}"') for kind in (" relevant", " not", "")] == [2, 2, 2]
    assert len(re.findall("<svg", html)) == 2 * 2 + 2 + 2, "bars, curves, and two kinds of cost"


def test_sections_of_other_measurements(folder: Path) -> None:
    (folder / "diagnostics.json").write_text(
        json.dumps([{"dataset": "one", "system": "bm25", "bias": "brevity", "pairs": 9, "value": 0.5, "low": 0.2}])
    )
    (folder / "scale.json").write_text(
        json.dumps([{"dataset": "one", "system": "dense", "distractors": n, "value": 0.3} for n in (0, 5000)])
    )
    text = page(folder).text
    assert {"Diagnostics", "brevity", "Growing collections", "5,000", "0.3000"} <= set(text)


def test_published_figures_stand_beside_ours(results: Results, folder: Path) -> None:
    assert "Published figures" not in page(folder).text, "nothing is known of these sets"
    known = results._replace(datasets=[dataset("nfcorpus")._replace(examples=[], systems=[system("bm25", 0.25)])])
    write_results(folder, known)
    one = Evaluation({"nDCG@10": 0.25}, {"q1": {"nDCG@10": 0.25}}, 1, 0, 0)
    write_per_query(folder, {"nfcorpus": {"bm25": one}})
    text = page(folder).text
    assert {"Published figures", "here", "0.3218"} <= set(text), "BM25's published figure on NFCorpus"
    write_results(folder, known._replace(datasets=[known.datasets[0]._replace(split="dev")]))
    assert "Published figures" not in page(folder).text, "they are of the test split"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "retriever-results", "version": 99}'])
def test_results_that_cannot_be_read(folder: Path, content: str) -> None:
    (folder / "results.json").write_text(content)
    with pytest.raises(UserError, match=r"results\.json: not results.*evaluate"):
        write_report(folder)


def test_missing_files(folder: Path, tmp_path: Path) -> None:
    (folder / "per-query.parquet").write_bytes(b"not parquet")
    with pytest.raises(UserError, match=r"per-query\.parquet: cannot be read"):
        write_report(folder)
    (folder / "per-query.parquet").unlink()
    with pytest.raises(UserError, match=r"per-query\.parquet"):
        write_report(folder)
    with pytest.raises(UserError, match=r"results\.json"):
        write_report(tmp_path / "nothing")


def test_records_that_cannot_be_read(folder: Path) -> None:
    for content in ("{", "{}", "[1]", '[{"dataset": "one"}]'):
        (folder / "scale.json").write_text(content)
        with pytest.raises(UserError, match=r"scale\.json"):
            write_report(folder)
