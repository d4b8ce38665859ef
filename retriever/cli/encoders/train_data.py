"""The commands that make training data: pseudo-queries, mine, score, holdout."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import click

from retriever.cli.options import index_encoder_option, mode_option, quiet_option

__all__ = ["holdout", "mine", "pseudo_queries", "score"]

output_option = click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path), help="The JSONL file to write (.gz: packed)."
)


@click.command()
@click.argument("pairs", type=click.Path(path_type=Path))
@click.option("--output", "-o", "folder", required=True, type=click.Path(path_type=Path), help="The BEIR folder.")
@click.option(
    "--percent",
    type=click.IntRange(1, 99),
    default=5,
    show_default=True,
    help="Share that is held out; training leaves 5 out.",
)
@click.option(
    "--distractors", type=click.IntRange(min=0), default=1000, show_default=True, help="Further passages, of each file."
)
@click.option("--distractor-corpus", "corpora", multiple=True, help="Another file of pairs, or a corpus, to take from.")
def holdout(pairs: Path, folder: Path, percent: int, distractors: int, corpora: tuple[str, ...]) -> None:
    """Make a BEIR folder of the passages of PAIRS that training holds out.

    PAIRS is a JSONL file (.gz too) of {"query", "positive"}. A passage is held out by the hash of its text, so that
    `retriever train` and this command agree on it. Questions that stand in the training split as well are left out.

    \b
    Example:
      retriever holdout medquad.jsonl.gz -o medquad-holdout --distractors 4000
    """
    from retriever.train.data.holdout import write_holdout

    report = write_holdout(pairs, folder, percent=percent, distractors=distractors, corpora=corpora)
    if report.seen:
        click.echo(f"left out {report.seen} questions that stand in the training split as well", err=True)
    click.echo(
        f"{report.questions} questions, {report.answers} answers and {report.distractors} distractors in {folder}"
    )


@click.command()
@click.argument("pairs", type=click.Path(path_type=Path))
@click.option(
    "--index",
    "folder",
    required=True,
    type=click.Path(path_type=Path),
    help="Index of the passages to mine among; made of those of PAIRS if it is not there.",
)
@output_option
@mode_option
@click.option("--negatives", type=click.IntRange(min=1), help="How many for each question.  [default: 8]")
@click.option("--depth", type=click.IntRange(min=1), help="The last rank to sample from.  [default: 100]")
@click.option("--first-rank", type=click.IntRange(min=1), help="The first rank to sample from.  [default: 10]")
@click.option("--teacher", metavar="E", help="An encoder that drops likely answers, such as st:MODEL.")
@click.option(
    "--margin", type=float, help="Drop what the teacher scores above this share of the positive.  [default: 0.95]"
)
@click.option("--seed", type=int, help="Of the sampling.  [default: 0]")
@index_encoder_option
@quiet_option
def mine(
    pairs: Path,
    folder: Path,
    output: Path,
    teacher: str | None,
    encoder: str | None,
    quiet: bool,
    **settings: Any,
) -> None:
    """Find hard negatives for PAIRS with an index, and drop likely answers among them.

    PAIRS is a JSONL file (.gz too) of {"query", "positive"[, "document"]}; its negatives and scores are replaced, other
    keys stay as they are. After an interruption, the same command continues where it stopped.

    \b
    Example:
      retriever mine pairs.jsonl --index passages -o mined.jsonl --teacher st:sentence-transformers/all-mpnet-base-v2
    """
    from retriever.config import resolve
    from retriever.encoder.load import load_encoder
    from retriever.search.retriever import Retriever
    from retriever.train.data.mining import MiningConfig, mine_pairs
    from retriever.train.data.passages import has_index, index_passages
    from retriever.train.data.scoring import load_teacher

    config = resolve(MiningConfig, None, **settings)
    judge = None if teacher is None else load_teacher(teacher)
    if not has_index(folder):
        index_passages(pairs, folder, load_encoder("default" if encoder is None else encoder), progress=not quiet)
    with Retriever.open(folder, encoder) as retriever:
        count = mine_pairs(pairs, output, retriever, config, judge, progress=not quiet)
    click.echo(f"{count} pairs in {output}")


@click.command()
@click.argument("pairs", type=click.Path(path_type=Path))
@output_option
@click.option(
    "--teacher",
    "teachers",
    metavar="E",
    multiple=True,
    required=True,
    help="bm25, or an encoder whose dense view scores, such as st:MODEL; several are an ensemble.",
)
@click.option(
    "--normalisation",
    type=click.Choice(["min-max", "z-score"]),
    default="min-max",
    show_default=True,
    help="Of each teacher's scores of a list, before several are averaged.",
)
@quiet_option
def score(pairs: Path, output: Path, teachers: tuple[str, ...], normalisation: str, quiet: bool) -> None:
    """Write teachers' scores of each question's passages, to distil from.

    PAIRS is a JSONL file (.gz too) of {"query", "positive"[, "negatives"]}; each line gets "scores": the positive's and
    then the negatives'. A score is the cosine, BM25 among all passages of the file, or the mean of several teachers.
    After an interruption, the same command continues where it stopped.

    \b
    Example:
      retriever score mined.jsonl -o scored.jsonl --teacher st:sentence-transformers/all-mpnet-base-v2 --teacher bm25
    """
    from retriever.train.data.scoring import score_pairs

    count = score_pairs(pairs, output, teachers, normalisation=normalisation, progress=not quiet)
    click.echo(f"{count} pairs in {output}")


@click.command("pseudo-queries")
@click.argument("corpus")
@output_option
@click.option("--keep-sentence", type=float, help="How often a sentence stays in its passage.  [default: 0.1]")
@click.option("--sample", type=click.IntRange(min=1), help="Documents that words are counted on.  [default: 10000]")
@click.option("--seed", type=int, help="Of what is drawn.  [default: 0]")
@quiet_option
def pseudo_queries(corpus: str, output: Path, quiet: bool, **settings: Any) -> None:
    """Make training pairs from CORPUS alone: titles, headings, salient phrases and sentences as queries.

    CORPUS is what `retriever index` takes. The pairs note their document and kind.

    \b
    Example:
      retriever pseudo-queries corpus.jsonl -o pairs.jsonl.gz
    """
    from tqdm import tqdm

    from retriever.config import resolve
    from retriever.corpus.corpus import open_corpus
    from retriever.files import atomic_file
    from retriever.streams import is_stream
    from retriever.train.data.pseudo_queries import PseudoQueryConfig
    from retriever.train.data.pseudo_queries import pseudo_queries as make

    config = resolve(PseudoQueryConfig, None, **settings)
    kinds: Counter[str] = Counter()
    with atomic_file(output, overwrite=False) as file:
        for pair in tqdm(make(open_corpus(corpus), config), unit=" pairs", file=sys.stderr, disable=quiet):
            file.write(json.dumps(pair._asdict(), ensure_ascii=False).encode() + b"\n")
            kinds[pair.kind] += 1
    shares = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    click.echo(f"{kinds.total()} pairs in {output}: {shares}", err=is_stream(output))
