"""The report of `bench search`: speeds and ratios from query times, as JSON and as text."""

from __future__ import annotations

import json
from statistics import quantiles
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.bench.search.task import SHOWN, Answers, Built
from retriever.eval.exact_recall import exact_recall
from retriever.experiments.environment import environment
from retriever.files import atomic_file
from retriever.search.leg import LEGS
from retriever.search.modes import CANDIDATES, HYBRID
from retriever.tables import human_bytes, table
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Key", "SearchSpeed", "SizeReport", "read_reports", "speeds_of", "text_of", "title_of", "write_reports"]

RECORDS = "bench-search.json"
OURS = "retriever"
EXACT = {"sparse": (OURS, "lucene"), "dense": ("faiss", "flat")}
"""Whose hits, one query at a time, are the exact ones."""
SAME_LEG = {"flat": "dense", "hnsw": "dense", "lucene": "sparse", "two-step": "sparse"}
"""What leg of ours a leg of another system is compared with, if not one of its name."""
Key = tuple[str, str, int, int]
"""System, leg, top_k, threads."""


class SearchSpeed(NamedTuple):
    """One leg of one system, retrieving `top_k` hits `threads` queries at a time; milliseconds, queries per second.

    ratio: p50 over that of our own leg; for hybrid over that of the slowest leg that gives it its candidates.
    overlap: share of the exact first ten hits that are found. None where what it takes was not measured.
    """

    system: str
    leg: str
    top_k: int
    threads: int
    p50: float
    p95: float
    per_second: float
    ratio: float | None
    overlap: float | None


class SizeReport(NamedTuple):
    """What was measured at one size: of each system what indexing took, of each leg how fast it answers.

    noise_of: of how many real documents these are copies with noise; 0 for real ones.
    """

    documents: int
    built: dict[str, Built]
    speeds: list[SearchSpeed]
    noise_of: int = 0


def speeds_of(answers: Mapping[Key, Sequence[Answers]]) -> list[SearchSpeed]:
    """Return what the blocks of answers of each leg amount to."""
    times = {key: [ms for part in parts for ms in part.milliseconds] for key, parts in answers.items()}
    p50 = {key: _percentile(values, 50) for key, values in times.items()}
    speeds = []
    for key, parts in answers.items():
        _, leg, top_k, threads = key
        if leg == HYBRID:
            peers = [p50[one] for one in p50 if one[0] == OURS and one[1] in LEGS and one[2:] == (CANDIDATES, threads)]
        else:
            peers = [p50[one] for one in p50 if one == (OURS, SAME_LEG.get(leg, leg), top_k, threads)]
        truth = EXACT.get(SAME_LEG.get(leg, leg), ("", ""))
        exact = answers.get((*truth, top_k, 1), answers.get((*truth, top_k, threads)))
        speeds.append(
            SearchSpeed(
                *key,
                p50[key],
                _percentile(times[key], 95),
                len(times[key]) / sum(part.seconds for part in parts),
                p50[key] / max(peers) if peers else None,
                None if exact is None else exact_recall(_ids(parts), _ids(exact), SHOWN),
            )
        )
    return speeds


def _percentile(values: Sequence[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


def _ids(answers: Sequence[Answers]) -> list[list[str]]:
    return [ids for part in answers for ids in part.ids]


def read_reports(folder: Path, settings: Mapping[str, Any]) -> dict[int, SizeReport]:
    """Return the sizes that were measured before with the same settings; raise UserError for other records."""
    path = folder / RECORDS
    if not path.exists():
        return {}
    try:
        records = json.loads(path.read_bytes())
        if records["settings"] != settings:
            raise UserError(f"{path}: measured with other settings ({records['settings']}); choose another --output")
        reports = [
            SizeReport(
                record["documents"],
                {name: Built(**built) for name, built in record["built"].items()},
                [SearchSpeed(**speed) for speed in record["speeds"]],
                record.get("noise_of", 0),
            )
            for record in records["sizes"]
        ]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not the records of this command ({error}); remove it") from None
    return {report.documents: report for report in reports}


def write_reports(folder: Path, settings: Mapping[str, Any], reports: Sequence[SizeReport]) -> None:
    """Write bench-search.json and bench-search.md."""
    sizes = [
        {
            "documents": report.documents,
            "built": {name: built._asdict() for name, built in report.built.items()},
            "speeds": [speed._asdict() for speed in report.speeds],
            "noise_of": report.noise_of,
        }
        for report in reports
    ]
    records = {"settings": settings, "environment": environment(), "sizes": sizes}
    for name, text in (
        (RECORDS, json.dumps(records, indent=1)),
        (
            "bench-search.md",
            "\n\n".join(f"## {title_of(report)}\n\n```\n{text_of(report)}\n```" for report in reports),
        ),
    ):
        with atomic_file(folder / name) as file:
            file.write((text + "\n").encode())


def title_of(report: SizeReport) -> str:
    """Return what was measured, in a few words."""
    made = f", copies of {report.noise_of:,} with noise" if report.noise_of else ""
    return f"{report.documents:,} documents{made}"


def text_of(report: SizeReport) -> str:
    """Return two tables: what indexing took, and how fast each leg answers."""
    built = [
        [
            name,
            f"{report.documents / one.seconds:.0f}",
            human_bytes(one.size_bytes / report.documents),
            f"{one.peak_mib:.0f}",
            f"{one.open_s:.2f}",
            f"{one.private_mib:.0f}",
            f"{one.mapped_mib:.0f}",
        ]
        for name, one in report.built.items()
    ]
    speeds = [
        [
            f"{one.system} {one.leg}",
            str(one.top_k),
            str(one.threads),
            f"{one.p50:.2f}",
            f"{one.p95:.2f}",
            f"{one.per_second:.1f}",
            _shown(one.ratio),
            _shown(one.overlap),
        ]
        for one in sorted(report.speeds, key=lambda one: (one.threads, one.top_k, one.leg, one.system))
    ]
    return "\n\n".join(
        (
            table(["system", "documents/s", "a document", "peak MiB", "open s", "private MiB", "mapped MiB"], built),
            table(["leg", "top_k", "threads", "p50 ms", "p95 ms", "queries/s", "ratio", "overlap@10"], speeds),
        )
    )


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
