"""The sections of a report that every evaluation has: effectiveness, differences, precision, costs, examples."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from retriever.eval.report.page import NOTHING, Cell, Row, Section, figure, html_table, paragraph
from retriever.eval.report.results import SIGNIFICANT
from retriever.eval.report.svg import Point, Series, difference_bars, line_plot, scatter_plot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from retriever.eval.report.results import DatasetResult, Difference, Example, ExampleHit, Results, SystemResult

__all__ = [
    "cost_section",
    "difference_section",
    "effectiveness_section",
    "example_section",
    "precision_section",
]

RECALLS = [place / 10 for place in range(11)]


def effectiveness_section(results: Results) -> Section:
    """Return a table of systems by data sets for each measure, the best and the significant differences marked."""
    baselines = ", ".join(dict.fromkeys(dataset.baseline for dataset in results.datasets))
    body = paragraph(
        f"Means over all judged queries; the best of each column is bold. ▲ and ▼ mark a difference from {baselines} "
        f"that is unlikely to be chance (paired randomisation test, p < {SIGNIFICANT} after Holm's correction for the "
        "systems of a data set); the pointer shows it with its 95 % interval."
    )
    return Section("effectiveness", "Effectiveness", body + "".join(_table(results, name) for name in results.measures))


def _table(results: Results, measure: str) -> str:
    columns = [{system.name: system for system in dataset.systems} for dataset in results.datasets]
    best = [max(system.mean[measure] for system in column.values()) for column in columns]
    means = results.means(measure)
    several = len(columns) > 1
    rows: list[list[Cell | str]] = []
    for name in results.system_names:
        row: list[Cell | str] = [name]
        for column, top in zip(columns, best, strict=True):
            row.append(_value(column[name], measure, top) if name in column else NOTHING)
        if several:
            mean = means.get(name)
            top = max(means.values(), default=0.0)
            row.append(NOTHING if mean is None else Cell(f"{mean:.4f}", "best" if mean == top else ""))
        rows.append(row)
    names = [*(dataset.name for dataset in results.datasets), *(["mean"] if several else [])]
    if results.datasets_are_rows:
        columns_of = [row[1:] for row in rows]
        return html_table(
            [measure, *results.system_names], [[name, *cells] for name, *cells in zip(names, *columns_of, strict=True)]
        )
    return html_table([measure, *names], rows)


def _value(system: SystemResult, measure: str, best: float) -> Cell:
    value = system.mean[measure]
    found = system.differences.get(measure)
    tip = _difference(found) if found else "the baseline"
    if system.queries_missing:
        tip += f"; {system.queries_missing} queries have no hits and count as 0"
    return Cell(f"{value:.4f}", "best" if value == best else "", tip, system.mark(measure))


def _difference(found: Difference) -> str:
    return f"{found.difference:+.4f}, 95 % interval {found.low:+.4f} to {found.high:+.4f}, p {_p(found.p)}"


def _p(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def difference_section(results: Results, values: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Section:
    """Return each system beside the baseline, query by query; `values` are those of the first measure."""
    measure = results.measures[0]
    body = paragraph(
        f"{measure} of each query minus the baseline's: one bar a query, sorted; "
        "a bar over half of the height is a difference of 1."
    )
    for dataset in results.datasets:
        before = values[dataset.name][dataset.baseline]
        pictures = ""
        rows: list[Row] = []
        for system in dataset.systems:
            if measure not in system.differences:
                continue
            found = system.differences[measure]
            after = values[dataset.name][system.name]
            bars = difference_bars([after[query_id] - before[query_id] for query_id in before], system.name)
            pictures += figure(bars, system.name, f"{found.wins} better, {found.ties} equal, {found.losses} worse")
            rows.append(
                [
                    system.name,
                    Cell(f"{found.difference:+.4f}", "", "", system.mark(measure)),
                    f"{found.low:+.4f} to {found.high:+.4f}",
                    _p(found.p),
                    f"{found.effect_size:+.2f}",
                ]
            )
        if rows:
            header = ["system", f"difference in {measure}", "95 % interval", "p", "effect size"]
            body += f"<h3>{escape(dataset.name)}, against {escape(dataset.baseline)}</h3>"
            body += f'<div class="tiles">{pictures}</div>' + html_table(header, rows)
    return Section("differences", "Query by query", body if "<h3>" in body else "")


def precision_section(results: Results) -> Section:
    """Return interpolated precision against recall for each data set."""
    pictures = ""
    for dataset in results.datasets:
        lines = [Series(system.name, [*zip(RECALLS, system.precision, strict=True)]) for system in dataset.systems]
        pictures += figure(line_plot(lines, "recall", "precision"), dataset.name)
    text = "Interpolated precision, as trec_eval has it: the highest precision at this recall or a later one."
    return Section("precision", "Precision and recall", paragraph(text) + f'<div class="row">{pictures}</div>')


def cost_section(results: Results) -> Section:
    """Return effectiveness against latency and size, and the tables behind them."""
    measure = results.measures[0]
    means = results.means(measure)
    names = [name for name in results.system_names if name in means]
    body = paragraph(
        f"Mean {measure} over the data sets against what a system costs. Latency is the median time of a query run "
        "alone: its encoding, legs and fusion one after the other (a search runs the legs side by side), with warm "
        "caches. The size is that of the index's parts that the mode reads: Lucene with texts, terms and impacts, and "
        "for vectors the rows and FAISS."
    )
    latency = [Point(name, _mean(results, name, _p50), means[name], i) for i, name in enumerate(names)]
    size = [Point(name, _mean(results, name, _bytes) / 1024, means[name], i) for i, name in enumerate(names)]
    pictures = ""
    if names:
        pictures += figure(scatter_plot(latency, "median milliseconds a query", measure, logarithmic=True), "Latency")
        pictures += figure(scatter_plot(size, "KiB a document", measure), "Size")
    body += f'<div class="row">{pictures}</div>'
    body += "<h3>Latency and size</h3>" + "".join(_latency_table(dataset) for dataset in results.datasets)
    return Section("costs", "Costs", body + _sparse_table(results) + _parameter_table(results) + _size_table(results))


def _p50(system: SystemResult) -> float:
    return system.latency["total"].p50


def _bytes(system: SystemResult) -> float:
    return system.bytes_per_document


def _mean(results: Results, name: str, of: Callable[[SystemResult], float]) -> float:
    found = [of(system) for d in results.datasets for system in d.systems if system.name == name]
    return sum(found) / len(found)


def _latency_table(dataset: DatasetResult) -> str:
    # Each system has its parts in order; the one with most of them comes first, so that its order is the table's.
    longest_first = sorted(dataset.systems, key=lambda system: -len(system.latency))
    found = dict.fromkeys(part for system in longest_first for part in system.latency)
    legs = [part for part in found if part not in ("encoding", "fusion", "total")]
    parts = [part for part in ("encoding", *legs, "fusion") if part in found]
    rows = []
    for system in dataset.systems:
        total = system.latency["total"]
        row = [system.name, f"{total.p50:.1f}", f"{total.p95:.1f}", f"{total.p99:.1f}"]
        row += [f"{system.latency[part].p50:.1f}" if part in system.latency else NOTHING for part in parts]
        rows.append([*row, f"{system.bytes_per_document:,.0f}"])
    queries = dataset.systems[0].latency["total"].queries
    header = ["system", "median", "95 %", "99 %", *parts, "bytes a document"]
    return html_table(header, rows, f"{dataset.name}: milliseconds over {queries} queries; of the parts, the median")


def _sparse_table(results: Results) -> str:
    rows: list[Row] = [
        [
            dataset.name,
            Cell(costs.encoder, "text"),
            Cell(costs.query_mode, "text"),
            f"{costs.terms_per_query:.1f}",
            f"{costs.terms_per_document:.1f}",
            f"{costs.flops:.2f}",
        ]
        for dataset in results.datasets
        for costs in dataset.costs
    ]
    header = ["data set", "encoder", "query mode", "terms a query", "terms a document", "FLOPS"]
    text = "FLOPS: the expected number of multiplications of a query with a document (SPLADE, Formal et al. 2021)."
    return "<h3>Sparse terms</h3>" + paragraph(text, "soft") + html_table(header, rows) if rows else ""


def _parameter_table(results: Results) -> str:
    rows = [
        [e.label, f"{e.active_parameters / 1e6:.1f} M", f"{e.total_parameters / 1e6:.1f} M"]
        for e in results.encoders
        if e.active_parameters is not None and e.total_parameters is not None
    ]
    text = "Active parameters are those that one token meets: not the experts that it is not sent to."
    header = ["encoder", "active parameters", "all parameters"]
    return "<h3>Parameters</h3>" + paragraph(text, "soft") + html_table(header, rows) if rows else ""


def _size_table(results: Results) -> str:
    rows: list[Row] = []
    for dataset in results.datasets:
        for index in dataset.indexes:
            sizes = [*index.sizes.values(), sum(index.sizes.values())]
            shares = [f"{size / max(dataset.documents, 1):,.0f}" for size in sizes]
            rows.append([dataset.name, Cell(index.encoder, "text"), *shares])
    parts = list(results.datasets[0].indexes[0].sizes)
    return "<h3>Bytes a document</h3>" + html_table(["data set", "encoder", *parts, "together"], rows)


def example_section(results: Results) -> Section:
    """Return the queries that gain and lose most, with the first hits of both systems side by side."""
    body = ""
    for dataset in results.datasets:
        if dataset.examples:
            body += f"<h3>{escape(dataset.name)}: {escape(dataset.examples_of)} against {escape(dataset.baseline)}</h3>"
            body += "".join(_example(dataset, example, results.measures[0]) for example in dataset.examples)
    text = (
        "The queries that gain and lose most, for the best system of each data set. The number before a hit is its "
        "grade: green is relevant, red judged not relevant, a dash not judged."
    )
    return Section("examples", "What changes", paragraph(text) + body if body else "")


def _example(dataset: DatasetResult, example: Example, measure: str) -> str:
    gain = example.value > example.baseline_value
    change = f"{measure} {example.baseline_value:.3f} → {example.value:.3f}"
    return (
        f'<div class="query {"gain" if gain else "loss"}"><p><b>{escape(example.text)}</b> '
        f'<span class="soft">{escape(example.query_id)} · {change}</span></p><div class="pair">'
        f"{_hits(dataset.baseline, example.baseline_hits)}{_hits(dataset.examples_of, example.hits)}</div></div>"
    )


def _hits(name: str, hits: Sequence[ExampleHit]) -> str:
    items = "".join(
        f'<li title="{escape(hit.doc_id)}">{_grade(hit.grade)}{escape(hit.title or hit.doc_id)}</li>' for hit in hits
    )
    return f"<div><h4>{escape(name)}</h4><ol>{items}</ol></div>"


def _grade(grade: int | None) -> str:
    kind = "" if grade is None else " relevant" if grade > 0 else " not"
    return f'<span class="grade{kind}">{NOTHING if grade is None else grade}</span>'
