"""The command that measures encoding: bench encode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retriever.cli.options import encoder_option, json_option
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from retriever.bench.encoding.encode import EncodeBench

__all__ = ["bench_encode_command"]


@click.command("encode")
@click.argument("corpus")
@encoder_option
@click.option("--parent", metavar="E", help="A sentence-transformers model (folder or hub name) to time beside ours.")
@click.option("--splade", metavar="E", help="A SparseEncoder to time; `stand-in` makes one as large as the parent.")
@click.option("--control", metavar="E", help="An encoder without experts; `stand-in` makes one of equal active size.")
@click.option("--documents", type=click.IntRange(min=1), default=400, show_default=True)
@click.option("--block", type=click.IntRange(min=1), default=50, show_default=True, help="Texts of one turn.")
@click.option("--precisions", default="float32,bfloat16,int8", show_default=True)
@click.option("--views", default="dense,sparse,both", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="Processor cores to use.  [default: all]")
@click.option("--workers", type=click.IntRange(min=0), default=0, help="Time ours in so many worker processes, too.")
@click.option("--speed/--no-speed", default=True, help="The table of systems; without, what follows alone.")
@click.option("--peak-memory", is_flag=True, help="Measure it too: each system again, in a process of its own.")
@click.option("--queries", type=click.Path(path_type=Path), help="A file of queries: the latency of one at a time.")
@click.option("--profile", is_flag=True, help="Where the time goes, and what share of the machine's peak that is.")
@click.option(
    "--memory",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Memory while N documents stream by, time by length.",
)
@click.option("--every", type=click.IntRange(min=1), default=10_000, show_default=True, help="Documents, for --memory.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="A JSON file of all that was measured.")
@json_option
def bench_encode_command(
    corpus: str,
    encoder: str,
    precisions: str,
    views: str,
    threads: int | None,
    speed: bool,
    queries: Path | None,
    profile: bool,
    memory: int,
    every: int,
    output: Path | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Encode the start of CORPUS with each system in turn: texts and tokens per second, beside the first system.

    CORPUS is as for `index`, or a JSONL file of training pairs, whose positives are encoded. --queries, --profile and
    --memory measure the encoder alone, in the last of the precisions.

    \b
    Example:
      retriever bench encode nfcorpus --parent all-MiniLM-L6-v2 --splade stand-in --control stand-in --threads 1
      retriever bench encode wiki.jsonl.gz --no-speed --memory 200000 --threads 1
    """
    from retriever.bench.encoding.encode import EncodeBench, on_cores
    from retriever.files import atomic_file

    config = EncodeBench(
        encoder=encoder, precisions=tuple(precisions.split(",")), views=tuple(views.split(",")), **settings
    )
    report: dict[str, Any] = {"corpus": corpus}
    with on_cores(threads) as cores:
        report["threads"] = cores
        if profile and cores > 1:
            raise UserError(f"--profile follows one thread, found {cores}; add --threads 1")
        parts = _parts(
            config, corpus, report, speed=speed, queries=queries, profile=profile, memory=memory, every=every
        )
        for part, records in parts:
            report[part] = []
            for record in records:
                report[part].append(record._asdict())
                if as_json:
                    click.echo(json.dumps({"part": part} | record._asdict()))
                elif part == "memory":
                    click.echo(f"{record.texts} texts: {record.resident_mib:.0f} MiB", err=True)
            if not as_json:
                click.echo(_table(part, report[part]))
    if output is not None:
        with atomic_file(output) as stream:
            stream.write((json.dumps(report, indent=1) + "\n").encode())


def _parts(
    config: EncodeBench,
    corpus: str,
    report: dict[str, Any],
    *,
    speed: bool,
    queries: Path | None,
    profile: bool,
    memory: int,
    every: int,
) -> Iterator[tuple[str, Iterable[Any]]]:
    """Yield the name of each requested part, and its records as they are measured."""
    from retriever.bench.encoding.cost import cost_by_length, memory_over_texts, query_latency
    from retriever.bench.encoding.encode import bench_encode, count_tokens, read_texts
    from retriever.bench.encoding.profile import profile_encoding
    from retriever.corpus.corpus import load_queries
    from retriever.encoder.load import load_own_encoder
    from retriever.encoder.runtime import RuntimeConfig
    from retriever.encoder.spec import parse_spec
    from retriever.experiments.environment import environment

    spec = parse_spec(config.encoder)
    if not spec.own:
        raise UserError(f"{config.encoder}: not an encoder of ours; name others with --parent and --splade")
    ours = load_own_encoder(spec, RuntimeConfig(precision=config.precisions[-1]))
    texts = list(read_texts(corpus, config.documents))
    if not texts:
        raise UserError(f"{corpus}: holds no documents; give another corpus")
    lengths = count_tokens(ours, texts)
    report |= {"texts": len(texts), "tokens": sum(lengths), "block": config.block, "environment": environment()}
    if speed:
        yield "speed", bench_encode(config, texts, sum(lengths))
    if queries is not None:
        yield "queries", query_latency(ours, [query.text for query in load_queries(queries)])
    if profile:
        yield "profile", profile_encoding(ours, texts)
    if memory:
        yield "memory", memory_over_texts(ours, read_texts(corpus, memory), every)
        yield "length", cost_by_length(ours, texts)


def _table(part: str, records: list[dict[str, Any]]) -> str:
    from retriever.tables import table

    if part == "profile":
        return "\n".join(_profile_text(record) for record in records)
    rows = [[_shown(name, value) for name, value in record.items()] for record in records]
    return table(list(records[0]), rows)


def _shown(name: str, value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2f}" if name.startswith(("ratio", "p", "micro")) and name != "peak_mib" else f"{value:.1f}"


def _profile_text(record: dict[str, Any]) -> str:
    parts = "\n".join(f"  {share:6.1%}  {part}" for part, share in record["parts"].items())
    return (
        f"{record['view']}, {record['precision']}: {record['tokens_per_second']:.0f} tokens/s, "
        f"{record['flops'] / 1e6:.1f} million operations a token, "
        f"{record['share']:.0%} of the {record['peak'] / 1e9:.0f} billion a second of one matrix product\n{parts}"
    )
