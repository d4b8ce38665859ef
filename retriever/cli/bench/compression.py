"""The command that measures what smaller vectors and terms cost: bench compression."""

from __future__ import annotations

import json
from pathlib import Path

import click

from retriever.cli.options import encoder_option, json_option, quiet_option
from retriever.index.vectors.faiss_types import DENSE_TYPES

__all__ = ["compression"]


@click.command()
@click.argument("dataset")
@encoder_option
@click.option("--split", default="dev", show_default=True, help="The judgements to measure with.")
@click.option("--rows", default="float32,float16,int8", show_default=True, help="How vectors are stored.")
@click.option("--dense-types", default=",".join(DENSE_TYPES), show_default=True, help="FAISS types.")
@click.option("--impacts", default="100,8bits,7bits,6bits,4bits", show_default=True, help="Scales, or bits they fit.")
@click.option("--max-terms", default="all,192,128,64", show_default=True, help="Terms stored of a document.")
@click.option(
    "--vectors",
    type=click.IntRange(min=0),
    default=20_000,
    show_default=True,
    help="Also search so many near copies of the data set's vectors; 0 for none.",
)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Folder for compression.json and compression.md.")
@json_option
@quiet_option
def compression(
    dataset: str,
    encoder: str,
    split: str,
    rows: str,
    dense_types: str,
    impacts: str,
    max_terms: str,
    vectors: int,
    output: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Index DATASET in many ways: bytes a document, speed, recall against exact search, nDCG@10.

    The documents are encoded once and cached for the next time. Each way to store vectors, each scale and each number
    of terms is measured with the first of the others; last comes what an index does by default.

    \b
    Example:
      retriever bench compression nfcorpus --output report
    """
    from retriever.bench.compression.compression import bench_compression
    from retriever.bench.compression.encoding_cache import cached_encoding
    from retriever.bench.compression.plan import storage_names
    from retriever.bench.compression.report import compression_records, compression_text, write_compression
    from retriever.bench.compression.vectors import bench_vectors, near_copies
    from retriever.encoder.load import load_encoder
    from retriever.eval.data.datasets import load_dataset

    data, coder = load_dataset(dataset, split), load_encoder(encoder)
    names = storage_names(rows, dense_types, impacts, max_terms)
    indexes = compression_records(list(bench_compression(data, coder, names, progress=not quiet)))
    of_vectors = []
    if vectors:
        dense = cached_encoding(data, coder).encoded.dense
        queries = coder.encode_queries([query.text for query in data.queries], sparse=False).dense
        assert dense is not None and queries is not None
        copies = near_copies(dense, max(vectors, len(dense)))
        of_vectors = compression_records(list(bench_vectors(copies, queries, names.rows, names.dense_types)))
    title = f"Storage of {data.name} ({split}, {len(data.queries)} queries), encoder {coder.identity.name}"
    if output is not None:
        write_compression(output, title, indexes, of_vectors)
    for record in (*indexes, *of_vectors) if as_json else ():
        click.echo(json.dumps(record))
    if not as_json:
        click.echo(compression_text(indexes))
        if of_vectors:
            click.echo(f"\nVectors alone, {len(copies)} near copies of them:")
            click.echo(compression_text(of_vectors))
