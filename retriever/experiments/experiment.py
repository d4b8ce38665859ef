"""Data sets through the whole system: index each once, search it in every way, measure, compare."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from retriever.encoder.load import load_encoder
from retriever.eval.data.datasets import load_dataset
from retriever.eval.evaluator import DEFAULT_MEASURES
from retriever.eval.measures import parse_measures
from retriever.eval.report.results import DatasetResult, EncoderResult, Results, write_per_query, write_results
from retriever.experiments.dataset import MeasuredDataset, cache_folder
from retriever.experiments.environment import environment
from retriever.experiments.systems import QUERY_MODES
from retriever.search.leg import LEGS
from retriever.search.modes import CANDIDATES, HYBRID, legs_named
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from retriever.eval.evaluator import Evaluation
    from retriever.search.fusion import FusionConfig
    from retriever.types import Encoder

__all__ = ["Experiment", "ExperimentConfig", "cache_folder", "evaluate", "run_experiment"]


@dataclass(frozen=True)
class ExperimentConfig:
    """What to measure, of every data set with every encoder.

    modes: of search. query_modes: how queries become sparse terms ("encoder", "lexical"); none for the encoder's own
    way. baseline: the system that the others are compared with; the first one where there is none of this name.
    fusion: None for what the index says, or else the default. fresh: search again what was searched before.
    """

    split: str = "test"
    modes: tuple[str, ...] = field(default_factory=lambda: (*LEGS, HYBRID))
    query_modes: tuple[str, ...] = ()
    measures: tuple[str, ...] = DEFAULT_MEASURES
    top_k: int = 1000
    baseline: str = "bm25"
    fusion: FusionConfig | None = None
    fresh: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be done before anything is read."""
        if not self.modes:
            known = ", ".join((HYBRID, *LEGS))
            raise UserError(f"no mode is given; choose among {known}, or join legs as in dense+sparse")
        for mode in self.modes:
            legs_named(mode)
        for query_mode in self.query_modes:
            if query_mode not in QUERY_MODES:
                raise UserError(f"query mode {query_mode!r} is unknown; choose among {', '.join(QUERY_MODES)}")
        parse_measures(self.measures)
        if self.top_k < 1:
            raise UserError(f"top_k is {self.top_k}; need 1 or more")


class Experiment(NamedTuple):
    """The results, and each query's values: data set -> system -> evaluation."""

    results: Results
    evaluations: dict[str, dict[str, Evaluation]]


def evaluate(
    dataset: str | Path,
    encoder: str | Encoder = "default",
    *,
    config: ExperimentConfig | None = None,
    folder: Path | None = None,
    output: Path | None = None,
    progress: bool = False,
) -> dict[str, Evaluation]:
    """Index and search one data set with one encoder, and return the evaluation of each mode.

    dataset: as `load_dataset` takes it, such as a BEIR folder. encoder: an object, or a specification as `load_encoder`
    takes it. folder: of the index, see `run_experiment`, which several data sets and encoders need; output as there.

    Raises:
        UserError: bad input, an index of something else, or a mode in which the encoder cannot answer.
    """
    config = config or ExperimentConfig()
    network = load_encoder(encoder) if isinstance(encoder, str) else encoder
    found = run_experiment([dataset], [network], config, folder=folder, output=output, progress=progress)
    [evaluations] = found.evaluations.values()
    if len(evaluations) < len(set(config.modes)):
        raise UserError(found.results.notes[0])
    return evaluations


def run_experiment(
    datasets: Sequence[str | Path],
    encoders: Sequence[Encoder],
    config: ExperimentConfig | None = None,
    *,
    folder: Path | None = None,
    output: Path | None = None,
    progress: bool = False,
) -> Experiment:
    """Measure every system on every data set and compare it with the baseline.

    Each pair of data set and encoder has one index: `folder`, where there is one pair, or else one in `cache_folder()`
    named by corpus, encoder and precision; it is made if it is not there and finished if its making was interrupted.
    Rankings of the legs are kept, too, so that an evaluation with another fusion encodes and searches nothing.
    output: a folder that receives results.json, the values of each query and a TREC run per system.

    Raises:
        UserError: bad input, an index of something else, or nothing left to measure.
    """
    config = config or ExperimentConfig()
    started = time.monotonic()
    labels = _labels(encoders)
    if folder is not None and len(datasets) * len(encoders) != 1:
        raise UserError(f"{folder}: one index cannot serve several data sets or encoders; leave the folder out")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    found: list[DatasetResult] = []
    evaluations: dict[str, dict[str, Evaluation]] = {}
    notes: list[str] = []
    for dataset in datasets:
        data = load_dataset(dataset, config.split)
        if data.name in evaluations:
            raise UserError(f"{dataset}: a second data set called {data.name}; give the folders different names")
        measured = MeasuredDataset(str(dataset), data, config, output, notes)
        for label, encoder in labels.items():
            # Without views the hybrid is BM25: it must not pass for the hybrid of another encoder.
            rivals = sum(map(_has_views, encoders)) if _has_views(encoder) else len(encoders)
            measured.add(label, encoder, folder, several=rivals > 1, progress=progress)
        found.append(measured.result())
        evaluations[data.name] = measured.evaluations
    results = Results(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=time.monotonic() - started,
        measures=[str(measure) for measure in parse_measures(config.measures)],
        baseline=config.baseline,
        settings=_settings(config),
        environment=environment(),
        encoders=[_encoder_result(label, encoder) for label, encoder in labels.items()],
        datasets=found,
        notes=list(dict.fromkeys(notes)),
    )
    if output is not None:
        write_per_query(output, evaluations)
        write_results(output, results)
    return Experiment(results, evaluations)


def _labels(encoders: Sequence[Encoder]) -> dict[str, Encoder]:
    """Name encoders by the end of their names, or by whole names where these ends are the same; BM25 alone first."""
    short = [encoder.identity.name.rstrip("/").rpartition("/")[2] for encoder in encoders]
    counts = Counter(short)
    named = {
        end if counts[end] == 1 else encoder.identity.name: encoder
        for end, encoder in zip(short, encoders, strict=True)
    }
    if len(named) < len(encoders):
        raise UserError(f"encoders {', '.join(short)}: one is given twice; give each once")
    return dict(sorted(named.items(), key=lambda pair: _has_views(pair[1])))


def _has_views(encoder: Encoder) -> bool:
    return bool(encoder.identity.sha256)


def _encoder_result(label: str, encoder: Encoder) -> EncoderResult:
    return EncoderResult(label, *encoder.identity, encoder.precision, *encoder.parameters)


def _settings(config: ExperimentConfig) -> dict[str, object]:
    values = dataclasses.asdict(config)
    for name in ("fusion", "baseline", "measures"):  # each index has its fusion, the others stand by themselves
        del values[name]
    return values | {"candidates": CANDIDATES}
