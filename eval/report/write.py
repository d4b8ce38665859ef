"""An evaluation as one HTML file for people: tables, pictures, examples, settings; no script, no other file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retriever.eval.report.extras import diagnostics_section, published_section, scale_section
from retriever.eval.report.page import NOTHING, Cell, Row, Section, html_table, page, paragraph
from retriever.eval.report.parts import (
    cost_section,
    difference_section,
    effectiveness_section,
    example_section,
    precision_section,
)
from retriever.eval.report.results import read_per_query, read_results
from retriever.files import atomic_file, file_errors
from retriever.types import UserError

if TYPE_CHECKING:
    from retriever.eval.report.results import Results

__all__ = ["REPORT", "write_report"]

REPORT = "report.html"


def write_report(folder: str | Path) -> Path:
    """Write report.html into a folder that has the results of an evaluation, and return its path.

    diagnostics.json and scale.json are shown where the folder has them.

    Raises:
        UserError: the results are missing or cannot be read.
    """
    folder = Path(folder)
    results = read_results(folder)
    sections = [
        effectiveness_section(results),
        difference_section(results, read_per_query(folder, results.measures[0])),
        precision_section(results),
        cost_section(results),
        published_section(results),
        diagnostics_section(_records(folder / "diagnostics.json", {"dataset", "system", "bias", "value"})),
        scale_section(_records(folder / "scale.json", {"dataset", "system", "distractors", "value"})),
        example_section(results),
        _settings_section(results),
    ]
    names = ", ".join(dataset.name for dataset in results.datasets)
    count = len(results.system_names)
    subtitle = (
        f"{count} system{'s' if count > 1 else ''} on {names} · measured {results.created.replace('T', ' ')[:16]} UTC"
        f" · retriever {results.environment.get('hybrid-retriever', '')}"
    )
    document = page("Retrieval evaluation", subtitle, [section for section in sections if section.body])
    path = folder / REPORT
    with atomic_file(path) as stream:
        stream.write(document.encode(errors="replace"))
    return path


def _records(path: Path, keys: set[str]) -> list[dict[str, Any]]:
    """Return the flat records of a JSON file, each with these keys; none where it is not there."""
    if not path.exists():
        return []
    with file_errors(path, "read"):
        text = path.read_text(encoding="utf-8", errors="replace")
    try:
        records = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); make it again, or remove it") from None
    if not isinstance(records, list) or not all(isinstance(one, dict) and keys <= one.keys() for one in records):
        raise UserError(f"{path}: need a list of records with {', '.join(sorted(keys))}; make it again, or remove it")
    return records


def _settings_section(results: Results) -> Section:
    """Return everything that is needed to measure the same again."""
    body = paragraph("All of this, and the figures with all their digits, is in results.json beside this file.", "soft")
    shown = {"baseline": results.baseline, "measures": results.measures, **results.settings}
    rows: list[Row] = [[name.replace("_", " "), Cell(_shown(value), "text fold")] for name, value in shown.items()]
    body += html_table(["setting", "value"], rows)
    body += "<h3>Data sets</h3>" + _dataset_table(results) + "<h3>Encoders</h3>" + _encoder_table(results)
    body += "<h3>Indexes</h3>" + _index_table(results)
    versions: list[Row] = [[name, Cell(version, "text")] for name, version in results.environment.items()]
    body += "<h3>Versions</h3>" + html_table(["part", "version"], versions)
    if results.notes:
        items = "".join(paragraph(note) for note in results.notes)
        body += f"<h3>Notes</h3>{items}"
    return Section("settings", "Settings and versions", body)


def _dataset_table(results: Results) -> str:
    rows: list[Row] = [
        [
            dataset.name,
            Cell(dataset.split, "text"),
            f"{dataset.documents:,}",
            f"{dataset.queries_judged:,}",
            Cell(_yes(dataset.exclude_self), "text"),
            Cell(dataset.corpus_sha256[:16], "text", dataset.corpus_sha256),
            Cell(dataset.source, "text fold"),
        ]
        for dataset in results.datasets
    ]
    header = ["data set", "split", "documents", "judged queries", "query itself dropped", "corpus sha256", "source"]
    return html_table(header, rows)


def _encoder_table(results: Results) -> str:
    rows: list[Row] = [
        [
            encoder.label,
            Cell(encoder.sha256[:16] or NOTHING, "text", encoder.sha256),
            str(encoder.dense_dim),
            f"{encoder.vocab_size:,}",
            Cell(encoder.precision or NOTHING, "text"),
            Cell(encoder.name, "text fold"),
        ]
        for encoder in results.encoders
    ]
    return html_table(["encoder", "sha256", "dimensions", "terms", "precision", "name"], rows)


def _index_table(results: Results) -> str:
    rows: list[Row] = [
        [
            dataset.name,
            Cell(index.encoder, "text"),
            Cell(f"{index.analyzer}, k1 {index.k1}, b {index.b}", "text"),
            Cell(index.dense_type, "text"),
            str(index.impact_scale),
            str(index.commit),
            f"{index.truncated:,}",
            NOTHING if index.seconds is None else f"{index.seconds:,.0f} s",
            Cell(_fusion(index.fusion), "text fold"),
        ]
        for dataset in results.datasets
        for index in dataset.indexes
    ]
    header = ["data set", "encoder", "BM25", "FAISS", "impact scale", "commit", "texts cut off", "built in", "fusion"]
    return html_table(header, rows)


def _fusion(values: Any) -> str:
    weights = ", ".join(f"{leg} {weight:g}" for leg, weight in values["weights"].items())
    return f"{values['method']} ({weights}), {values['normalisation']}"


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or NOTHING
    return _yes(value) if isinstance(value, bool) else str(value)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
