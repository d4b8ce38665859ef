"""What an evaluation found, with everything needed to repeat it: records, results.json and per-query values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.eval.data.dataset import ASKED_IN
from retriever.files import atomic_file, file_errors
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retriever.eval.evaluator import Evaluation

__all__ = [
    "PER_QUERY",
    "RESULTS",
    "SIGNIFICANT",
    "DatasetResult",
    "Difference",
    "EncoderResult",
    "Example",
    "ExampleHit",
    "IndexResult",
    "Percentiles",
    "Results",
    "SparseCosts",
    "SystemResult",
    "read_per_query",
    "read_results",
    "results_json",
    "write_per_query",
    "write_results",
]

MOST_COLUMNS = 4
RESULTS, PER_QUERY = "results.json", "per-query.parquet"
FORMAT, VERSION = "retriever-results", 1
SIGNIFICANT = 0.05


class Percentiles(NamedTuple):
    """Latency in milliseconds over `queries` queries that were searched one at a time."""

    p50: float
    p95: float
    p99: float
    queries: int


class Difference(NamedTuple):
    """A system against the baseline in one measure: mean difference, its 95 % interval, wins, ties and losses.

    p: two-sided paired randomisation test, corrected by Holm over the systems of the data set.
    """

    difference: float
    low: float
    high: float
    p: float
    effect_size: float
    wins: int
    ties: int
    losses: int


class SystemResult(NamedTuple):
    """One system on one data set. A system is a mode of search, with an encoder and a query mode where it has them.

    latency: part -> percentiles; the parts are "encoding", each leg, "fusion" and "total", their sum query by query.
    bytes_per_document: of the parts of the index that the mode reads. precision: interpolated, at recall 0, 0.1, ... 1.
    differences: measure -> difference from the baseline; none for the baseline itself.
    """

    name: str
    encoder: str
    query_mode: str
    mode: str
    mean: Mapping[str, float]
    queries_missing: int
    queries_ignored: int
    latency: Mapping[str, Percentiles]
    bytes_per_document: float
    precision: Sequence[float]
    differences: Mapping[str, Difference]

    def mark(self, measure: str) -> str:
        """Return "+" or "-" where the system differs from the baseline by more than chance, "" elsewhere."""
        found = self.differences.get(measure)
        if found is None or not found.p < SIGNIFICANT:
            return ""
        return "+" if found.difference > 0 else "-"


class SparseCosts(NamedTuple):
    """How dense the sparse view is: mean terms per query and per document, and FLOPS.

    flops: the expected number of multiplications of a query with a document, sum over terms of p_query * p_document
    (Formal et al. 2021, SPLADE).
    """

    encoder: str
    query_mode: str
    terms_per_query: float
    terms_per_document: float
    flops: float


class IndexResult(NamedTuple):
    """One index: bytes per part, how BM25 reads and scores, how impacts and vectors are stored, how legs are fused.

    seconds: how long it took to build, None where it was there already.
    """

    encoder: str
    folder: str
    commit: int
    sizes: Mapping[str, int]
    analyzer: str
    k1: float
    b: float
    impact_scale: int
    dense_type: str
    truncated: int
    fusion: Mapping[str, Any]
    seconds: float | None


class ExampleHit(NamedTuple):
    """A hit as the report shows it; grade is None without a judgement."""

    doc_id: str
    title: str
    grade: int | None


class Example(NamedTuple):
    """A query that gains or loses much: its values of the first measure and the first hits of both systems."""

    query_id: str
    text: str
    baseline_value: float
    value: float
    baseline_hits: Sequence[ExampleHit]
    hits: Sequence[ExampleHit]


class DatasetResult(NamedTuple):
    """One data set; the examples compare `examples_of`, the best system on it, with the baseline."""

    name: str
    source: str
    split: str
    exclude_self: bool
    documents: int
    queries_judged: int
    corpus_sha256: str
    indexes: Sequence[IndexResult]
    costs: Sequence[SparseCosts]
    systems: Sequence[SystemResult]
    baseline: str
    examples_of: str
    examples: Sequence[Example]


class EncoderResult(NamedTuple):
    """One encoder; parameter counts are None where they are not known, active ones are those that a token meets."""

    label: str
    name: str
    sha256: str
    dense_dim: int
    vocab_size: int
    precision: str
    active_parameters: int | None
    total_parameters: int | None


class Results(NamedTuple):
    """Everything that one evaluation found; settings and environment are flat mappings for people and machines."""

    created: str
    seconds: float
    measures: Sequence[str]
    baseline: str
    settings: Mapping[str, Any]
    environment: Mapping[str, str]
    encoders: Sequence[EncoderResult]
    datasets: Sequence[DatasetResult]
    notes: Sequence[str]

    @property
    def system_names(self) -> list[str]:
        """Return every system once, in the order of the first data set that has it."""
        return list(dict.fromkeys(system.name for dataset in self.datasets for system in dataset.systems))

    @property
    def datasets_are_rows(self) -> bool:
        """Say whether tables have a row for each data set, as there are more of them than fit side by side."""
        return len(self.datasets) > MOST_COLUMNS

    @property
    def crossed(self) -> dict[tuple[str, str], DatasetResult]:
        """Return the data sets by whose queries they were asked and whose documents they have; {} unless these vary."""
        pairs = {asked: dataset for dataset in self.datasets if (asked := asked_pair(dataset.name)) is not None}
        several = all(len({pair[side] for pair in pairs}) > 1 for side in (0, 1))
        return pairs if several and len(pairs) == len(self.datasets) else {}

    def means(self, measure: str) -> dict[str, float]:
        """Return the mean over the data sets of each system that was measured on all of them."""
        values = {
            name: [s.mean[measure] for dataset in self.datasets for s in dataset.systems if s.name == name]
            for name in self.system_names
        }
        return {name: sum(of) / len(of) for name, of in values.items() if len(of) == len(self.datasets)}


def asked_pair(name: str) -> tuple[str, str] | None:
    """Return whose queries and whose documents a data set has that is asked by the queries of another one.

    >>> asked_pair("xquad-de in xquad-en"), asked_pair("xquad-en")
    (('xquad-de', 'xquad-en'), None)
    """
    queries, _, documents = name.rpartition(ASKED_IN)
    return (queries, documents) if queries else None


def results_json(results: Results, indent: int | None = None) -> str:
    """Return the results as one JSON object; numbers that are not finite become null."""
    return json.dumps(_plain({"format": FORMAT, "version": VERSION} | results._asdict()), indent=indent)


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not (abs(value) < float("inf")):
        return None
    return value


def write_results(folder: Path, results: Results) -> None:
    """Write results.json into a folder."""
    with atomic_file(folder / RESULTS) as stream:
        stream.write((results_json(results, indent=1) + "\n").encode())


def read_results(folder: Path) -> Results:
    """Read results.json of a folder; raise UserError where it is missing or of another kind."""
    path = folder / RESULTS
    if not path.exists():
        raise UserError(
            f"{path}: no such file; give a folder that `retriever evaluate --dataset ... --output FOLDER` made"
        )
    with file_errors(path, "read"):
        text = path.read_text(encoding="utf-8", errors="replace")
    try:
        values = json.loads(text)
        if (values.pop("format"), values.pop("version")) != (FORMAT, VERSION):
            raise ValueError("another format or version")
        values["encoders"] = [EncoderResult(**encoder) for encoder in values["encoders"]]
        values["datasets"] = [_dataset(dataset) for dataset in values["datasets"]]
        return Results(**values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: not results that this version reads ({error}); make them again with "
            "`retriever evaluate --dataset ... --output FOLDER`"
        ) from None


def _dataset(values: dict[str, Any]) -> DatasetResult:
    values["indexes"] = [IndexResult(**index) for index in values["indexes"]]
    values["costs"] = [SparseCosts(**costs) for costs in values["costs"]]
    values["systems"] = [_system(system) for system in values["systems"]]
    values["examples"] = [_example(example) for example in values["examples"]]
    return DatasetResult(**values)


def _system(values: dict[str, Any]) -> SystemResult:
    values["latency"] = {part: Percentiles(**found) for part, found in values["latency"].items()}
    for name, found in values["differences"].items():
        # JSON has no NaN and no infinity: one query has no interval, equal differences an infinite effect.
        numbers: dict[str, Any] = {key: float("nan") if value is None else value for key, value in found.items()}
        values["differences"][name] = Difference(**numbers)
    return SystemResult(**values)


def _example(values: dict[str, Any]) -> Example:
    for key in ("baseline_hits", "hits"):
        values[key] = [ExampleHit(**hit) for hit in values[key]]
    return Example(**values)


def write_per_query(folder: Path, evaluations: Mapping[str, Mapping[str, Evaluation]]) -> None:
    """Write each query's values as Parquet: dataset, system, query_id and a column for each measure."""
    import pyarrow
    import pyarrow.parquet

    rows = [
        {"dataset": dataset, "system": system, "query_id": query_id} | values
        for dataset, systems in evaluations.items()
        for system, evaluation in systems.items()
        for query_id, values in evaluation.per_query.items()
    ]
    with atomic_file(folder / PER_QUERY) as stream:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)


def read_per_query(folder: Path, measure: str) -> dict[str, dict[str, dict[str, float]]]:
    """Return the values of one measure: dataset -> system -> query_id -> value."""
    import pyarrow
    import pyarrow.parquet

    path = folder / PER_QUERY
    try:
        with file_errors(path, "read"):
            table = pyarrow.parquet.read_table(path, columns=["dataset", "system", "query_id", measure])
    except pyarrow.ArrowException as error:
        raise UserError(f"{path}: cannot be read ({error}); evaluate again") from None
    found: dict[str, dict[str, dict[str, float]]] = {}
    for dataset, system, query_id, value in zip(*(column.to_pylist() for column in table.columns), strict=True):
        found.setdefault(dataset, {}).setdefault(system, {})[query_id] = value
    return found
