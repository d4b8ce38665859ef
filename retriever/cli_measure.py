"""The commands that measure: evaluate and bench."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retriever.cli_options import (
    encoder_option,
    fusion_from,
    fusion_options,
    json_option,
    numbers,
    precision_option,
    quiet_option,
)

if TYPE_CHECKING:
    from retriever.eval.evaluator import Evaluation

__all__ = ["bench", "evaluate"]


@click.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.argument("qrels", required=False, type=click.Path(path_type=Path))
@click.option("--measure", "-m", "measures", multiple=True, default=("nDCG@10", "R@100"), show_default=True)
@click.option("--per-query", is_flag=True, help="Print each query's values too.")
@click.option("--dataset", type=click.Path(path_type=Path), help="A BEIR folder: index it, search it, measure.")
@click.option("--split", default="test", show_default=True)
@click.option("--index", "folder", type=click.Path(path_type=Path), help="Index of the data set; made if missing.")
@click.option("--modes", default="bm25,sparse,dense,hybrid", show_default=True)
@click.option("--top-k", "-k", type=int, default=1000, show_default=True, help="Depth of the runs.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Folder for the run files.")
@fusion_options
@encoder_option
@precision_option
@json_option
@quiet_option
def evaluate(
    run: Path | None,
    qrels: Path | None,
    measures: tuple[str, ...],
    per_query: bool,
    dataset: Path | None,
    split: str,
    folder: Path | None,
    modes: str,
    top_k: int,
    output: Path | None,
    fusion: str | None,
    weights: str | None,
    normalisation: str | None,
    encoder: str | None,
    precision: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure a RUN against QRELS, or a whole BEIR folder in several modes.

    Values are trec_eval's, means are over all judged queries.

    \b
    Example:
      retriever evaluate run.trec qrels.tsv -m nDCG@10 -m R@100
      retriever evaluate --dataset nfcorpus --modes bm25,hybrid
    """
    if dataset is None:
        from retriever.eval.datasets import read_qrels
        from retriever.eval.evaluator import evaluate_run
        from retriever.eval.runs import read_run

        if run is None or qrels is None:
            raise click.UsageError("give RUN and QRELS, or --dataset FOLDER")
        _show({run.name: evaluate_run(read_run(run), read_qrels(qrels), measures)}, "run", per_query, as_json)
        return
    from retriever.encoder import RuntimeConfig, load_encoder
    from retriever.experiment import evaluate_dataset

    if run is not None:
        raise click.UsageError("give RUN and QRELS, or --dataset FOLDER, not both")
    results = evaluate_dataset(
        dataset,
        load_encoder(encoder or "default", RuntimeConfig(precision=precision)),
        split=split,
        folder=folder,
        modes=[mode.strip() for mode in modes.split(",")],
        measures=measures,
        top_k=top_k,
        fusion=fusion_from(fusion, weights, normalisation),
        output=output,
        progress=not quiet,
    )
    _show(results, "mode", per_query, as_json)


def _show(results: dict[str, Evaluation], kind: str, per_query: bool, as_json: bool) -> None:
    """Print evaluations by name; with JSON, one object a line, the mean of each name last."""
    from retriever.render import table

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
            click.echo(json.dumps({kind: name, "mean": result.mean} | counts))
    if not as_json:
        names = list(next(iter(results.values())).mean)
        rows = [[name, *(f"{result.mean[measure]:.4f}" for measure in names)] for name, result in results.items()]
        click.echo(table([kind, *names], rows))


@click.group()
def bench() -> None:
    """Measure speed and memory.

    \b
    Example:
      retriever bench index wiki.jsonl.gz
    """


@bench.command("index")
@click.argument("corpus")
@click.option("--sizes", default="10000,100000", show_default=True, help="How many documents, one index each.")
@click.option("--dense-type", type=click.Choice(["auto", "flat", "hnsw", "ivf"]), default="flat", show_default=True)
def bench_index_command(corpus: str, sizes: str, dense_type: str) -> None:
    """Index the start of CORPUS with a stub encoder: documents per second and peak memory.

    \b
    Example:
      retriever bench index wiki.jsonl.gz --sizes 10000,100000
    """
    from retriever.bench import IndexingSpeed, bench_index
    from retriever.render import table

    rows = bench_index(corpus, numbers(sizes), dense_type)
    click.echo(
        table(
            IndexingSpeed._fields, [[str(v) if isinstance(v, int | str) else f"{v:.1f}" for v in row] for row in rows]
        )
    )


@bench.command("encode")
@click.argument("corpus")
@encoder_option
@click.option("--parent", help="A sentence-transformers model (folder or hub name) to time beside ours.")
@click.option("--documents", type=click.IntRange(min=1), default=400, show_default=True)
@click.option("--precisions", default="float32,bfloat16,int8", show_default=True)
def bench_encode_command(corpus: str, encoder: str | None, parent: str | None, documents: int, precisions: str) -> None:
    """Encode the start of CORPUS with each system in turn: documents per second.

    \b
    Example:
      retriever bench encode nfcorpus --parent sentence-transformers/all-MiniLM-L6-v2
    """
    from retriever.bench import EncodingSpeed, bench_encode
    from retriever.render import table

    speeds = bench_encode(corpus, encoder or "default", parent, documents, precisions.split(","))
    rows = [[speed.system, f"{speed.documents_per_second:.1f}", f"{speed.ratio:.2f}"] for speed in speeds]
    click.echo(table(EncodingSpeed._fields, rows))
