"""Data sets through the whole system: index each once, search it in every way, measure, compare."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from retriever.encoder.load import load_encoder
from retriever.eval.data.dataset import Dataset, asked_by
from retriever.eval.data.datasets import load_dataset
from retriever.eval.evaluator import DEFAULT_MEASURES, evaluate_run
from retriever.eval.measures import parse_measures
from retriever.eval.report.results import DatasetResult, EncoderResult, Results, write_per_query, write_results
from retriever.experiments.dataset import MeasuredDataset, cache_folder
from retriever.experiments.environment import environment
from retriever.experiments.learning import warn_of_seen
from retriever.languages import analyzer_named
from retriever.names import BASELINE, QUERY_MODES
from retriever.rank.pipeline import pipeline_of
from retriever.ranking import separate_ties, without_self
from retriever.search.leg import LEGS
from retriever.search.modes import CANDIDATES, HYBRID, legs_named
from retriever.search.retriever import Retriever
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from retriever.eval.evaluator import Evaluation
    from retriever.search.fusion.fusion import FusionConfig
    from retriever.types import Encoder, Ranking

__all__ = ["Experiment", "ExperimentConfig", "cache_folder", "evaluate", "run_experiment"]


@dataclass(frozen=True)
class ExperimentConfig:
    """What to measure, of every data set with every encoder.

    modes: of search, or pipelines as in "hybrid > feedback". query_modes: how queries become sparse terms ("encoder",
    "lexical"); none for the encoder's own way. baseline: the system that the others are compared with; the first one
    where there is none of this name. fusion: None for what the index says, or else the default. fresh: search again
    what was searched before. language: of the documents, as `IndexingConfig` takes it; None for what is known of the
    data set, else English. queries_from: data sets of the same questions, in whose words each data set is asked.

    Raises:
        UserError: a mode, query mode or measure that does not exist, or top_k below 1.
    """

    split: str = "test"
    modes: tuple[str, ...] = field(default_factory=lambda: (*LEGS, HYBRID))
    query_modes: tuple[str, ...] = ()
    measures: tuple[str, ...] = DEFAULT_MEASURES
    top_k: int = 1000
    baseline: str = BASELINE
    fusion: FusionConfig | None = None
    fresh: bool = False
    language: str | None = None
    queries_from: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be done before anything is read."""
        if not self.modes:
            known = ", ".join((HYBRID, *LEGS))
            raise UserError(f"no mode is given; choose among {known}, or join legs as in dense+sparse")
        for mode in self.modes:
            if pipeline_of(mode) is None:
                legs_named(mode)
        for query_mode in self.query_modes:
            if query_mode not in QUERY_MODES:
                raise UserError(f"query mode {query_mode!r} is unknown; choose among {', '.join(QUERY_MODES)}")
        parse_measures(self.measures)
        if self.language is not None:
            analyzer_named(self.language)
        if self.top_k < 1:
            raise UserError(f"top_k is {self.top_k}; need 1 or more")


class Experiment(NamedTuple):
    """The results, and each query's values: data set -> system -> evaluation."""

    results: Results
    evaluations: dict[str, dict[str, Evaluation]]


def evaluate(
    dataset: str | Path | Dataset,
    system: str | Encoder | Retriever = "default",
    *,
    config: ExperimentConfig | None = None,
    folder: Path | None = None,
    output: Path | None = None,
    progress: bool = False,
) -> dict[str, Evaluation]:
    """Search one data set in several modes, and return the evaluation of each: mode -> `Evaluation`.

    dataset: as `load_dataset` takes it, such as a BEIR folder, or what that returns.
    system: an open index, which is searched as it stands, with its own fusion and query mode; or an encoder, as
    an object or as `load_encoder` takes it, with which the data set's corpus is indexed first.
    config: the split, modes, measures and depth.
    folder, output, progress: with an encoder, where its index is and where results go, as for `run_experiment`.

    Raises:
        UserError: bad input, an index of something else, or a mode in which the system cannot answer.
    """
    config = config or ExperimentConfig()
    if isinstance(system, Retriever):
        if folder is not None or output is not None or config.query_modes:
            raise UserError("folder, output and query_modes are for encoders, found an open index; leave them out")
        return _evaluate_index(_load(dataset, config), system, config)
    network = load_encoder(system) if isinstance(system, str) else system
    found = run_experiment([dataset], [network], config=config, folder=folder, output=output, progress=progress)
    [evaluations] = found.evaluations.values()
    if len(evaluations) < len(set(config.modes)):
        raise UserError(found.results.notes[0])
    return evaluations


def _load(dataset: str | Path | Dataset, config: ExperimentConfig) -> Dataset:
    return dataset if isinstance(dataset, Dataset) else load_dataset(dataset, config.split)


def _asked(
    datasets: Sequence[str | Path | Dataset], config: ExperimentConfig
) -> Iterator[tuple[str | Path | Dataset, Dataset]]:
    """Yield each data set as it was given and as it is asked: by its own queries, or by those of others."""
    others = [load_dataset(spec, config.split) for spec in config.queries_from]
    for dataset in datasets:
        data = _load(dataset, config)
        for asked in [asked_by(data, other) for other in others] or [data]:
            yield dataset, asked


def _evaluate_index(data: Dataset, retriever: Retriever, config: ExperimentConfig) -> dict[str, Evaluation]:
    """Search an open index in each mode and measure what it finds."""
    if config.fusion is not None:
        raise UserError("fusion is for encoders, an open index has its own; give it to Retriever.open")
    runs: dict[str, dict[str, Ranking]] = {mode: {} for mode in config.modes}
    pipelines = {mode: found for mode in runs if (found := pipeline_of(mode)) is not None}
    plans = {mode: retriever.plan(mode) for mode in runs if mode not in pipelines}
    legs = tuple(dict.fromkeys(leg for plan in plans.values() for leg in plan.legs))
    depth = max(config.top_k, CANDIDATES) + data.exclude_self
    for query_id, rankings in retriever.rank_legs(data.queries, depth, legs=legs) if plans else ():
        others = {leg: without_self(found, query_id, exclude=data.exclude_self) for leg, found in rankings.items()}
        for mode, plan in plans.items():
            runs[mode][query_id] = separate_ties(plan.fuse(others).ranking[: config.top_k])
    for mode, pipeline in pipelines.items():
        warn_of_seen(retriever, data, pipeline)
        for query_id, ranking, _, _ in retriever.rank_pipeline(
            data.queries, config.top_k, pipeline=pipeline, exclude_self=data.exclude_self
        ):
            runs[mode][query_id] = separate_ties(ranking)
    return {mode: evaluate_run(run, data.qrels, measures=config.measures) for mode, run in runs.items()}


def run_experiment(
    datasets: Sequence[str | Path | Dataset],
    encoders: Sequence[Encoder],
    *,
    config: ExperimentConfig | None = None,
    folder: Path | None = None,
    output: Path | None = None,
    progress: bool = False,
) -> Experiment:
    """Measure every system on every data set and compare it with the baseline.

    Each pair of data set and encoder has one index: `folder`, where there is one pair, or else one in `cache_folder()`
    named by corpus, encoder and precision; it is made if it is not there and finished if its making was interrupted.
    Rankings of the legs are cached, too, so that an evaluation with another fusion encodes and searches nothing.
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
    for dataset, data in _asked(datasets, config):
        source = str(data.corpus if isinstance(dataset, Dataset) else dataset)
        if data.name in evaluations:
            raise UserError(f"{source}: a second data set called {data.name}; give the folders different names")
        measured = MeasuredDataset(source, data, config, output, notes)
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
