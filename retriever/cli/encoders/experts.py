"""The commands that look into an encoder's experts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retriever.cli.options import json_option, quiet_option

if TYPE_CHECKING:
    from retriever.experts.report import ExpertsReport
    from retriever.network.vocabulary_clusters import VocabularyClusters

__all__ = ["experts"]

SHOWN = 8


@click.group()
def experts() -> None:
    """Look into the experts of an encoder.

    \b
    Example:
      retriever experts report default nfcorpus --output report
    """


@experts.command("report")
@click.argument("encoder")
@click.argument("corpus")
@click.option(
    "--documents", type=click.IntRange(min=1), default=200, show_default=True, help="Random sample of CORPUS."
)
@click.option("--field", default="", metavar="F", help="A metadata field to relate to the experts, such as a topic.")
@click.option("--top", type=click.IntRange(min=1), default=20, show_default=True, help="Tokens for each expert.")
@click.option("--min-count", type=click.IntRange(min=1), default=10, show_default=True, help="Rarer ones are left out.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Folder for experts.html and experts.json.")
@json_option
@quiet_option
def experts_report_command(
    encoder: str,
    corpus: str,
    documents: int,
    field: str,
    top: int,
    min_count: int,
    seed: int,
    output: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Show what each expert of ENCODER (a folder, hub name or "default") does on a sample of CORPUS.

    Per MoE layer: the experts' load, its entropy and the router's (bits), and the tokens most typical of each expert,
    by pointwise mutual information.

    \b
    Example:
      retriever experts report default nfcorpus --output report
    """
    from retriever.experts.html import experts_html
    from retriever.experts.report import experts_report
    from retriever.files import atomic_file

    found = experts_report(
        encoder,
        corpus,
        documents=documents,
        top=top,
        min_count=min_count,
        field=field,
        seed=seed,
        progress=not quiet,
    )
    records = _records(found)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        with atomic_file(output / "experts.html") as file:
            file.write(experts_html(found).encode())
        with atomic_file(output / "experts.json") as file:
            file.write((json.dumps(records, indent=1, ensure_ascii=False) + "\n").encode())
        click.echo(f"{output / 'experts.html'}", err=True)
    if as_json:
        for record in records:
            click.echo(json.dumps(record, ensure_ascii=False))
    else:
        _show(found)


@experts.command("cluster")
@click.argument("encoder")
@click.option("--clusters", type=click.IntRange(min=1), default=256, show_default=True, help="Vocabulary experts.")
@click.option(
    "--per-token", type=click.IntRange(min=1), default=16, show_default=True, help="Clusters that a token computes."
)
@click.option(
    "--per-text", type=click.IntRange(min=0), default=256, show_default=True, help="And of all tokens of a short text."
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Settings of a training run: cluster by what tokens of its texts say, and train the router on them.",
)
@click.option(
    "--examples", type=click.IntRange(min=1), default=4000, show_default=True, help="Pairs of --config to read."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="Folder of the new encoder.")
def experts_cluster_command(
    encoder: str,
    clusters: int,
    per_token: int,
    per_text: int,
    config: Path | None,
    examples: int,
    seed: int,
    output: Path,
) -> None:
    """Cut the vocabulary of ENCODER (a folder, hub name or "default") into experts, of which a token computes a few.

    With --config, terms are clustered by which tokens give them their largest weight in a text, and the router learns
    these: no labels are needed, and about ten minutes. Without it, terms are clustered by their weights, and the
    clusters' centres choose, which needs twice as many clusters a token, at a loss. The cluster of a token's own term
    is always among the chosen.

    \b
    Example:
      retriever experts cluster default --per-token 8 --config configs/train/default.yaml --output my-encoder
    """
    from retriever.encoder.spec import parse_spec
    from retriever.network.reach import Reach
    from retriever.network.vocabulary_clusters import save_with_clusters
    from retriever.types import UserError

    spec = parse_spec(encoder)
    if not spec.own:
        raise UserError(f"{encoder}: has no sparse head; give an encoder folder, or 'default'")
    source = spec.folder()
    found = _trained_clusters(source, config, examples, clusters, seed) if config else _clusters(source, clusters, seed)
    click.echo(save_with_clusters(source, found, reach=Reach(per_token, per_text), output=output))


def _clusters(source: Path, clusters: int, seed: int) -> VocabularyClusters:
    from retriever.network.folder import load_model
    from retriever.network.vocabulary_clusters import cluster_vocabulary

    return cluster_vocabulary(load_model(source), clusters, seed=seed)


def _trained_clusters(source: Path, config: Path, examples: int, clusters: int, seed: int) -> VocabularyClusters:
    from tokenizers import Tokenizer
    from tqdm import tqdm

    from retriever.network.folder import load_model
    from retriever.train.experts.vocabulary_experts import TEXTS, example_tokens, joined, train_vocabulary_experts, wins
    from retriever.train.settings import load_train_config

    model = load_model(source)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts = example_tokens(load_train_config(config), tokenizer, examples)
    parts = tqdm(wins(model, texts), "reading texts", total=-(-len(texts) // TEXTS), disable=None)
    return train_vocabulary_experts(model, joined(list(parts)), clusters=clusters, seed=seed)


def _records(report: ExpertsReport) -> list[dict[str, object]]:
    """Return one record for each expert, or experts that act as one, of each layer."""
    return [
        {
            "encoder": report.encoder,
            "corpus": report.corpus,
            "layer": layer.layer,
            "load_entropy": layer.load_entropy,
            "token_entropy": layer.token_entropy,
            "experts": list(profile.experts),
            "load": profile.load,
            "tokens": [token._asdict() for token in profile.tokens],
            "values": [{"name": one.name, "pmi": one.pmi, "count": one.count} for one in profile.values],
        }
        for layer in report.layers
        for profile in layer.profiles
    ]


def _show(report: ExpertsReport) -> None:
    from retriever.experts.html import expert_name, layer_name
    from retriever.tables import table

    most = max(len(layer.load) for layer in report.layers)
    layers = [
        [
            layer.layer,
            *(f"{share:.3f}" for share in layer.load),
            *[""] * (most - len(layer.load)),
            f"{layer.load_entropy:.2f}",
            f"{layer.token_entropy:.2f}",
        ]
        for layer in report.layers
    ]
    columns = [f"e{expert}" for expert in range(most)]
    experts = "1 routed expert" if report.active == 1 else f"{report.active} routed experts"
    click.echo(f"{report.tokens} tokens of {report.documents} documents, {experts} for each")
    if report.vocabulary is not None:
        found, per_token, least, most = report.vocabulary
        click.echo(f"{found} vocabulary experts of {least} to {most} terms, {per_token} for each token")
    click.echo(table(["layer", *columns, "H(load)", "H(router)"], layers))
    for layer in report.layers:
        click.echo(f"\n{layer_name(layer)}")
        for profile in layer.profiles:
            typical = [one.name for one in (*profile.values[:2], *profile.tokens[:SHOWN])]
            click.echo(f"  {expert_name(profile):<6} {profile.load:6.1%}  {' '.join(typical) or 'nothing stands out'}")
