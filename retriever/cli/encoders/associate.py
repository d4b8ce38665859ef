"""The command that teaches lexical queries what the network would add to them."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

__all__ = ["associate"]


@click.command()
@click.argument("encoder")
@click.option(
    "--config",
    required=True,
    type=click.Path(path_type=Path),
    help="Settings of a training run: the queries of its texts are read.",
)
@click.option("--examples", type=click.IntRange(min=1), default=20000, show_default=True, help="Pairs to read.")
@click.option("--per-term", type=click.IntRange(min=1), default=4, show_default=True, help="Others added for a word.")
@click.option(
    "--most-terms",
    type=click.IntRange(min=0),
    default=24,
    show_default=True,
    help="Of a query that the network expanded, the heaviest terms that are searched; 0: all.",
)
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="Folder of the new encoder.")
def associate(encoder: str, config: Path, examples: int, per_term: int, most_terms: int, output: Path) -> None:
    """Give ENCODER (a folder, hub name or "default") a table of what goes with each word.

    Queries in lexical mode are their own words; with the table these weigh, and bring along, what the network mostly
    makes of them, still without running it. Indexes stay as they are. No labels are needed, and about ten minutes.

    \b
    Example:
      retriever associate my-encoder --config configs/train/default.yaml --output my-encoder-2
    """
    from tokenizers import Tokenizer
    from tqdm import tqdm

    from retriever.encoder.spec import parse_spec
    from retriever.encoder.vocabulary.lexicon import frame_ids
    from retriever.encoder.vocabulary.query_terms import write_query_terms
    from retriever.network.checkpoint import QUERY_TERMS
    from retriever.network.folder import load_model, new_folder
    from retriever.train.associations import learn_associations, lone_terms
    from retriever.train.experts.vocabulary_experts import TEXTS, query_tokens, wins
    from retriever.train.settings import load_train_config
    from retriever.types import UserError

    spec = parse_spec(encoder)
    if not spec.own:
        raise UserError(f"{encoder}: has no sparse head; give an encoder folder, or 'default'")
    source = spec.folder()
    model = load_model(source)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    queries = query_tokens(load_train_config(config), tokenizer, examples)
    alone = lone_terms(model, frame_ids(tokenizer))
    parts = [
        tqdm(wins(model, texts), name, total=-(-len(texts) // TEXTS), disable=None)
        for texts, name in ((queries, "reading queries"), (alone, "reading words"))
    ]
    found = learn_associations(model, *parts, per_term=per_term, most=most_terms)
    with new_folder(output) as part:
        shutil.copytree(source, part, dirs_exist_ok=True)
        (part / QUERY_TERMS).unlink(missing_ok=True)
        write_query_terms(found, part)
    click.echo(output)
