"""Measure a named experiment again and compare it with what it should find."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retriever.encoder.load import load_encoder
from retriever.encoder.runtime import RuntimeConfig
from retriever.experiments.experiment import ExperimentConfig, run_experiment
from retriever.experiments.reproduce import check
from retriever.search.fusion.fusion import FusionConfig
from retriever.types import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from retriever.experiments.reproduce import Check, Reproduction

__all__ = ["dataset_of", "reproduce"]


def dataset_of(experiment: Reproduction, data: Path | None) -> str | None:
    """Return what the experiment measures on: a folder of `data`, or the hub's where that is None; None for neither."""
    if data is None:
        return experiment.hub or None
    if not data.is_dir():
        raise UserError(f"{data}: no such folder; give the folder that holds the data sets")
    folder = data / experiment.dataset
    return str(folder) if folder.is_dir() else None


def reproduce(experiment: Reproduction, dataset: str, *, progress: bool = False) -> list[Check]:
    """Measure the experiment on its data set; indexes are made once and cached, as `run_experiment` does.

    Everything is searched again: a ranking cached by an earlier version could not drift. Hybrid search fuses by the
    default, whatever the index was tuned to.
    """
    config = ExperimentConfig(
        split=experiment.split,
        modes=tuple(experiment.expected),
        query_modes=(experiment.query_mode,) if experiment.query_mode else (),
        measures=experiment.measures,
        fusion=FusionConfig(),
        fresh=True,
    )
    encoder = load_encoder(experiment.encoder, RuntimeConfig(precision=experiment.precision))
    found = run_experiment([dataset], [encoder], config=config, progress=progress)
    [evaluations] = found.evaluations.values()
    missing = [mode for mode in experiment.expected if mode not in evaluations]
    if missing:
        raise UserError(f"{experiment.name}: {found.results.notes[0]}")
    return check(experiment, evaluations)
