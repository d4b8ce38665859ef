"""The sections of a report that only some evaluations have: published figures, diagnostics, growing collections."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from retriever.eval.data.registry import entry
from retriever.eval.report.page import NOTHING, Cell, Section, figure, html_table, paragraph
from retriever.eval.report.svg import Series, line_plot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retriever.eval.report.results import DatasetResult, Results

__all__ = ["diagnostics_section", "published_section", "scale_plot", "scale_section"]


def published_section(results: Results) -> Section:
    """Return what others published of these data sets, beside our own figures."""
    body = "".join(_published(dataset, results.measures) for dataset in results.datasets)
    text = "Figures that others published for the same data set and split, beside those measured here."
    return Section("published", "Published figures", paragraph(text) + body if body else "")


def _published(dataset: DatasetResult, measures: Sequence[str]) -> str:
    known = entry(dataset.name)
    figures = [one for one in known.figures if one.measure in measures] if known else []
    if known is None or known.split != dataset.split or not figures:
        return ""
    rows: list[list[Cell | str]] = []
    for system in dataset.systems:
        ours = [Cell(f"{system.mean[name]:.4f}", "best") for name in measures]
        rows.append([Cell(system.name, "best"), *ours, Cell("here", "text")])
    for label in dict.fromkeys(one.label for one in figures):
        of_label = {one.measure: one for one in figures if one.label == label}
        first = next(iter(of_label.values()))
        values = [f"{of_label[name].value:.4f}" if name in of_label else NOTHING for name in measures]
        remark = f"; not comparable: {first.not_comparable}" if first.not_comparable else ""
        rows.append([Cell(label, "fold"), *values, Cell(first.source + remark, "text fold")])
    return f"<h3>{escape(dataset.name)}</h3>" + html_table(["system", *measures, "source"], rows)


def diagnostics_section(records: Sequence[dict[str, Any]]) -> Section:
    """Return how often each system prefers the text that answers, for each bias (see `retriever diagnose`)."""
    body = ""
    for dataset in dict.fromkeys(record["dataset"] for record in records):
        of_set = [record for record in records if record["dataset"] == dataset]
        systems = list(dict.fromkeys(record["system"] for record in of_set))
        rows: list[list[Cell | str]] = []
        for bias in dict.fromkeys(record["bias"] for record in of_set):
            of_bias = {record["system"]: record for record in of_set if record["bias"] == bias}
            rows.append([str(bias), *(_share(of_bias[system]) if system in of_bias else NOTHING for system in systems)])
        body += html_table(["bias", *map(str, systems)], rows, str(dataset))
    text = (
        "Pairs of texts, made from the collection, of which one answers and the other only looks as if: the share of "
        "pairs in which the system prefers the one that answers. 1 is best, 0.5 chance; the pointer shows the interval."
    )
    return Section("diagnostics", "Diagnostics", paragraph(text) + body if body else "")


def _share(record: dict[str, Any]) -> Cell:
    interval = f"{record['low']:.2f} to {record['high']:.2f}" if "low" in record and "high" in record else ""
    return Cell(f"{record['value']:.2f}", "", f"{interval}, {record.get('pairs', '?')} pairs")


def scale_plot(lines: Sequence[Series]) -> str:
    """Return nDCG@10 of systems against the number of passages added, as SVG."""
    return line_plot(lines, "passages added", "nDCG@10", y_from_zero=False, even_steps=True)


def scale_section(records: Sequence[dict[str, Any]]) -> Section:
    """Return effectiveness as passages that answer nothing are added to the collection (see `retriever scale`)."""
    pictures = tables = ""
    for dataset in dict.fromkeys(record["dataset"] for record in records):
        of_set = [record for record in records if record["dataset"] == dataset]
        sizes = sorted({record["distractors"] for record in of_set})
        found = {(record["system"], record["distractors"]): record["value"] for record in of_set}
        systems = list(dict.fromkeys(record["system"] for record in of_set))
        lines = [
            Series(str(system), [(size, found[system, size]) for size in sizes if (system, size) in found])
            for system in systems
        ]
        pictures += figure(scale_plot(lines), str(dataset))
        rows = [
            [str(system), *(f"{found[system, size]:.4f}" if (system, size) in found else NOTHING for size in sizes)]
            for system in systems
        ]
        tables += html_table(["system", *(f"{size:,}" for size in sizes)], rows, f"{dataset}, passages added")
    text = "nDCG@10 as passages from elsewhere are added, none of them an answer."
    body = paragraph(text) + f'<div class="row">{pictures}</div>{tables}' if records else ""
    return Section("scale", "Growing collections", body)
