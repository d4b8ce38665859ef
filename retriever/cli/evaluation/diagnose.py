"""The commands that ask where a system is weak: diagnose and scale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retriever.cli.options import encoder_option, json_option, numbers, quiet_option, runtime_options

if TYPE_CHECKING:
    from retriever.encoder.runtime import RuntimeConfig

__all__ = ["diagnose", "scale"]


@click.command()
@click.argument("corpus")
@encoder_option
@runtime_options
@click.option("--modes", metavar="M,...", help="Each leg and hybrid by default; legs may be joined.")
@click.option("--pairs", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many a bias.")
@click.option("--documents", type=click.IntRange(min=1), default=5000, show_default=True, help="Read of CORPUS.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Folder for diagnostics.json and pairs.jsonl.")
@json_option
@quiet_option
def diagnose(
    corpus: str,
    encoder: str,
    runtime: RuntimeConfig,
    modes: str | None,
    pairs: int,
    documents: int,
    seed: int,
    output: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Ask by minimal pairs made from CORPUS whether each mode prefers the text that answers.

    Of two texts one answers the query, the other is short (brevity), matches early (position), in the same words
    (literal) or often (repetition), or does all of that (foil); "answer" has no such lure. not, and, or: whether the
    operator is obeyed. Entities: whether a text is told from one that names another entity. Shown is the share of
    pairs where the answering text wins, with its 95% interval: 1 is best, 0.5 a coin.

    \b
    Example:
      retriever diagnose nfcorpus --output report
    """
    from retriever.encoder.load import load_encoder
    from retriever.eval.pairs.minimal_pairs import SUITES
    from retriever.experiments.diagnose import diagnose as run_diagnose
    from retriever.files import atomic_file

    found = run_diagnose(
        corpus,
        load_encoder(encoder, runtime),
        None if modes is None else [mode.strip() for mode in modes.split(",")],
        pairs=pairs,
        documents=documents,
        seed=seed,
        progress=not quiet,
    )
    records = [score._asdict() for score in found.scores]
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        with atomic_file(output / "diagnostics.json") as file:
            file.write((json.dumps(records, indent=1) + "\n").encode())
        with atomic_file(output / "pairs.jsonl") as file:
            file.writelines((json.dumps(pair._asdict(), ensure_ascii=False) + "\n").encode() for pair in found.pairs)
    absent = [bias for bias in SUITES if bias not in {score.bias for score in found.scores}]
    if absent:
        click.echo(f"no pairs for {', '.join(absent)}: the texts do not hold what they need", err=True)
    if as_json:
        for record in records:
            click.echo(json.dumps(record))
    else:
        click.echo(_table(records))


def _table(records: list[dict[str, object]]) -> str:
    """Return a row for each bias and a column for each system."""
    from retriever.tables import table

    systems = list(dict.fromkeys(str(record["system"]) for record in records))
    rows: dict[str, list[str]] = {}
    for record in records:
        row = rows.setdefault(str(record["bias"]), [str(record["bias"]), str(record["pairs"])])
        row.append(f"{record['value']:.2f} [{record['low']:.2f}, {record['high']:.2f}]")
    return table(["bias", "pairs", *systems], list(rows.values()))


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option(
    "--distractors", required=True, multiple=True, type=click.Path(path_type=Path), help="JSONL of texts; repeatable."
)
@click.option("--sizes", default="0,1000,10000,50000,200000", show_default=True, help="How many distractors.")
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="Folder of the experiment.")
@click.option("--split", default="test", show_default=True)
@click.option("--modes", metavar="M,...", help="Each leg and hybrid by default; legs may be joined.")
@encoder_option
@runtime_options
@json_option
@quiet_option
def scale(
    dataset: Path,
    distractors: tuple[Path, ...],
    sizes: str,
    output: Path,
    split: str,
    modes: str | None,
    encoder: str,
    runtime: RuntimeConfig,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure nDCG@10 of each mode on the BEIR folder DATASET while distractors fill its index.

    The index in the output folder grows step by step; the same command continues after an interruption, and with larger
    sizes later. scale.json and scale.svg are written beside it.

    \b
    Example:
      retriever scale nfcorpus --distractors wiki.jsonl.gz --sizes 0,1000,10000 --output scale
    """
    from retriever.encoder.load import load_encoder
    from retriever.experiments.scale import measure_scale, plot_scale
    from retriever.tables import table

    points = measure_scale(
        dataset,
        distractors,
        numbers(sizes),
        output,
        load_encoder(encoder, runtime),
        None if modes is None else [mode.strip() for mode in modes.split(",")],
        split=split,
        progress=not quiet,
    )
    plot_scale(points, output / "scale.svg")
    click.echo(f"{output / 'scale.svg'}", err=True)
    if as_json:
        for point in points:
            click.echo(json.dumps(point._asdict()))
        return
    systems = list(dict.fromkeys(point.system for point in points))
    rows: dict[int, list[str]] = {}
    for point in points:
        rows.setdefault(point.distractors, [str(point.distractors)]).append(f"{point.value:.4f}")
    click.echo(table(["distractors", *systems], list(rows.values())))
