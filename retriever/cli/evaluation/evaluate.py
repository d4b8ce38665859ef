"""The commands that measure effectiveness: evaluate and report."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retriever.cli.options import (
    fusion_from,
    fusion_options,
    json_option,
    query_modes_option,
    quiet_option,
    runtime_options,
)
from retriever.names import BASELINE, DEFAULT_MEASURES
from retriever.search.leg import LEGS
from retriever.search.modes import HYBRID

if TYPE_CHECKING:
    from retriever.encoder.runtime import RuntimeConfig
    from retriever.eval.evaluator import Evaluation
    from retriever.eval.report.results import Results
    from retriever.experiments.experiment import Experiment

__all__ = ["evaluate", "report"]


BETWEEN_MODES = re.compile(r",(?![^()]*\))")
"""Commas, but for those between the settings of a pipeline's stage."""


def _modes(_ctx: click.Context, _param: click.Parameter, modes: str) -> tuple[str, ...]:
    return tuple(mode.strip() for mode in BETWEEN_MODES.split(modes))


@click.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.argument("qrels", required=False, type=click.Path(path_type=Path))
@click.option("--measure", "-m", "measures", multiple=True, default=DEFAULT_MEASURES, show_default=True)
@click.option("--per-query", is_flag=True, help="Print each query's values too.")
@click.option("--dataset", "datasets", multiple=True, help="A data set, such as a BEIR folder: index, search, measure.")
@click.option("--split", default="test", show_default=True)
@click.option(
    "--queries-from",
    multiple=True,
    metavar="DATASET",
    help="Ask in the words of another data set of the same questions.",
)
@click.option("--language", metavar="L", help="Of the documents, as for `index`.  [default: the data set's, if known]")
@click.option("--index", "folder", type=click.Path(path_type=Path), help="Index of the one data set; made if missing.")
@click.option(
    "--modes",
    callback=_modes,
    default=",".join((*LEGS, HYBRID)),
    show_default=True,
    help="Legs, hybrid, legs joined as in dense+sparse, or pipelines as in 'hybrid > feedback'.",
)
@query_modes_option
@click.option("--top-k", "-k", type=int, default=1000, show_default=True, help="Depth of the runs.")
@click.option("--baseline", default=BASELINE, show_default=True, help="The system that the others are compared with.")
@click.option("--fresh", is_flag=True, help="Search again what an earlier evaluation searched.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Folder for report, results and runs.")
@fusion_options
@click.option(
    "--encoder",
    "-e",
    "encoders",
    multiple=True,
    metavar="E",
    help="As for `index`; several are compared.  [default: default]",
)
@runtime_options
@json_option
@quiet_option
def evaluate(
    run: Path | None,
    qrels: Path | None,
    per_query: bool,
    datasets: tuple[str, ...],
    folder: Path | None,
    output: Path | None,
    encoders: tuple[str, ...],
    runtime: RuntimeConfig,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Measure a RUN against QRELS, or whole data sets in several modes, with a report.

    Values are trec_eval's, or of another tool of ir-measures, which is named; means are over all judged queries.

    Of data sets, what is indexed and searched is cached under
    ~/.cache/retriever, so that measuring again with other weights takes seconds. With --json, one data set in the
    modes of one encoder gives a line for each mode, everything else gives one object: all of results.json.

    \b
    Example:
      retriever evaluate run.trec qrels.tsv -m nDCG@10 -m R@100
      retriever evaluate --dataset nfcorpus --modes bm25,hybrid
      retriever evaluate --dataset xquad-en --queries-from xquad-de --queries-from xquad-zh --encoder st:MODEL
      retriever evaluate --dataset nfcorpus --dataset cranfield --encoder default --encoder st:parent --output report
    """
    # The other options are the settings of ExperimentConfig, by their names, and those of its fusion.
    if not datasets:
        from retriever.eval.data.qrels import read_judgements
        from retriever.eval.data.runs import read_run
        from retriever.eval.evaluator import evaluate_run
        from retriever.eval.measures import needs_subtopics

        measures = settings["measures"]
        if run is None or qrels is None:
            raise click.UsageError("give RUN and QRELS, or --dataset FOLDER")
        judged = read_judgements(qrels, subtopics=needs_subtopics(measures))
        found_run = evaluate_run(read_run(run), judged.qrels, measures=measures, subtopics=judged.subtopics)
        _show({run.name: found_run}, "run", per_query, as_json)
        return
    from retriever.encoder.load import load_encoder
    from retriever.encoder.spec import parse_spec
    from retriever.experiments.experiment import ExperimentConfig, run_experiment

    if run is not None:
        raise click.UsageError("give RUN and QRELS, or --dataset FOLDER, not both")
    fusion = fusion_from(*(settings.pop(name) for name in ("fusion", "weights", "normalisation")))
    config = ExperimentConfig(fusion=fusion, **settings)
    # How to run is for the encoders of our own among several.
    loaded = [
        load_encoder(spec, None if len(encoders) > 1 and not parse_spec(spec).own else runtime)
        for spec in encoders or ("default",)
    ]
    found = run_experiment(datasets, loaded, config=config, folder=folder, output=output, progress=not quiet)
    for note in found.results.notes:
        click.echo(f"note: {note}", err=True)
    if output is not None:
        from retriever.eval.report.write import write_report

        write_report(output)
        click.echo(f"{output / 'report.html'}", err=True)
    if len(found.evaluations) == 1 and len(loaded) == 1:
        [evaluations] = found.evaluations.values()
        _show(evaluations, "mode", per_query, as_json, found.results)
    else:
        _show_experiment(found, per_query, as_json)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def report(folder: Path) -> None:
    """Write the HTML report of an evaluation again, from the results in FOLDER.

    Where FOLDER has diagnostics.json or scale.json, they are shown, too.

    \b
    Example:
      retriever report my-evaluation
    """
    from retriever.eval.report.write import write_report

    click.echo(write_report(folder))


def _show(
    results: dict[str, Evaluation], kind: str, per_query: bool, as_json: bool, compared: Results | None = None
) -> None:
    """Print evaluations by name; with JSON, one object a line, the mean of each name last."""
    from retriever.eval.evaluator import others_than_trec_eval
    from retriever.tables import table

    for name, result in results.items():
        for query_id, values in result.per_query.items() if per_query else ():
            if as_json:
                click.echo(json.dumps({kind: name, "query_id": query_id} | values))
            else:
                click.echo("\t".join([name, query_id, *(f"{value:.4f}" for value in values.values())]))
        if result.queries_missing:
            click.echo(f"{name}: {result.queries_missing} judged queries have no hits and count as 0", err=True)
        if result.queries_ignored:
            click.echo(f"{name}: {result.queries_ignored} queries without judgements are left out", err=True)
        if as_json:
            counts = {"queries_judged": result.queries_judged, "queries_missing": result.queries_missing}
            click.echo(json.dumps({kind: name, "mean": result.mean} | counts | {"tools": dict(result.tools)}))
    if others := others_than_trec_eval(next(iter(results.values())).tools):
        click.echo(others, err=True)
    if not as_json and compared is not None:
        _show_table(compared)
    elif not as_json:
        names = list(next(iter(results.values())).mean)
        rows = [[name, *(f"{result.mean[measure]:.4f}" for measure in names)] for name, result in results.items()]
        click.echo(table([kind, *names], rows))


def _show_experiment(found: Experiment, per_query: bool, as_json: bool) -> None:
    """Print a table of systems by data sets for each measure; with JSON, one object."""
    from retriever.eval.report.results import results_json

    if as_json:
        click.echo(results_json(found.results))
        return
    for dataset, systems in found.evaluations.items() if per_query else ():
        for system, evaluation in systems.items():
            for query_id, values in evaluation.per_query.items():
                click.echo("\t".join([dataset, system, query_id, *(f"{value:.4f}" for value in values.values())]))
    _show_table(found.results)


def _show_table(results: Results) -> None:
    from retriever.cli.printing.results import marks_text, results_text

    click.echo(results_text(results, bold=sys.stdout.isatty()))
    if marks := marks_text(results):
        click.echo(marks, err=True)
