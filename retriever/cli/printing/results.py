"""What a person sees of an evaluation of several systems: tables of systems by data sets, as plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from retriever.eval.report.results import SIGNIFICANT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retriever.eval.report.results import Results, SystemResult

__all__ = ["marks_text", "results_text"]

BOLD, PLAIN = "\x1b[1m", "\x1b[0m"


class Cell(NamedTuple):
    """One figure, whether it is the best of its column, and how it differs from the baseline: "+", "-" or ""."""

    text: str
    best: bool = False
    mark: str = ""


def results_text(results: Results, *, bold: bool = False) -> str:
    """Return a table of systems by measures for one data set, or else by data sets for each measure.

    Many data sets have a row each; where all were asked in the words of each other, a system has a table.

    bold: print the best of each column in bold letters, for a terminal.
    """
    if len(results.datasets) == 1:
        [dataset] = results.datasets
        columns = {measure: _column(dataset.systems, measure) for measure in results.measures}
        tables = [_table("mode", results.system_names, columns, bold)]
    elif results.crossed:
        tables = [
            _crossed(results, measure, system, bold) for measure in results.measures for system in results.system_names
        ]
    else:
        tables = [_of_measure(results, measure, bold) for measure in results.measures]
    return "\n\n".join(tables)


def marks_text(results: Results) -> str:
    """Return what the marks behind the figures mean, "" where there are none."""
    systems = [system for dataset in results.datasets for system in dataset.systems]
    if not any(system.mark(measure) for system in systems for measure in results.measures):
        return ""
    names = ", ".join(dict.fromkeys(dataset.baseline for dataset in results.datasets))
    return f"+ or -: differs from {names} (paired randomisation test, Holm over the systems, p < {SIGNIFICANT})"


def _of_measure(results: Results, measure: str, bold: bool) -> str:
    columns = {dataset.name: _column(dataset.systems, measure) for dataset in results.datasets}
    means = results.means(measure)
    best = max(means.values(), default=0.0)
    columns["mean"] = {name: Cell(f"{mean:.4f}", mean == best) for name, mean in means.items()}
    if results.datasets_are_rows:
        rows = {
            name: {of: cells[name] for of, cells in columns.items() if name in cells} for name in results.system_names
        }
        return _table(measure, list(columns), rows, bold)
    return _table(measure, results.system_names, columns, bold)


def _crossed(results: Results, measure: str, system: str, bold: bool) -> str:
    """Return a table of one system: a row for each data set of queries, a column for each of documents."""
    columns: dict[str, dict[str, Cell]] = {}
    for (queries, documents), dataset in results.crossed.items():
        for found in dataset.systems:
            if found.name == system:
                columns.setdefault(documents, {})[queries] = Cell(
                    f"{found.mean[measure]:.4f}", mark=found.mark(measure)
                )
    asked = list(dict.fromkeys(queries for queries, _ in results.crossed))
    return _table(f"{system}, {measure}: queries of", asked, columns, bold)


def _column(systems: Sequence[SystemResult], measure: str) -> dict[str, Cell]:
    best = max(system.mean[measure] for system in systems)
    return {
        system.name: Cell(f"{system.mean[measure]:.4f}", system.mean[measure] == best, system.mark(measure))
        for system in systems
    }


def _table(title: str, names: Sequence[str], columns: dict[str, dict[str, Cell]], bold: bool) -> str:
    """Return columns under their names; figures stand under each other, marks behind them."""
    marked = any(cell.mark for column in columns.values() for cell in column.values())
    first = max(map(len, [title, *names]))
    widths = {name: max(len(name), 6) for name in columns}
    gap = " " if marked else ""
    lines = ["  ".join([title.ljust(first), *(name.rjust(widths[name]) + gap for name in columns)]).rstrip()]
    for row in names:
        cells = []
        for name, column in columns.items():
            cell = column.get(row, Cell("-"))
            text = cell.text.rjust(widths[name]) + (cell.mark or gap)
            cells.append(f"{BOLD}{text}{PLAIN}" if bold and cell.best else text)
        lines.append("  ".join([row.ljust(first), *cells]).rstrip())
    return "\n".join(lines)
