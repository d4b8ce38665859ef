"""The command that cuts a dense trunk into experts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from retriever.cli.options import quiet_option
from retriever.network.checkpoint import STORAGE, WEIGHT_FILES

if TYPE_CHECKING:
    from retriever.network.model import RetrieverModel
    from retriever.train.experts.carve import CarvedLayer

__all__ = ["carve"]


@click.command()
@click.argument("base")
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="The encoder folder to make.")
@click.option(
    "--config",
    required=True,
    type=click.Path(path_type=Path),
    help="Settings of a training run: its texts are read, without their labels.",
)
@click.option(
    "--texts", type=click.IntRange(min=10), default=2000, show_default=True, help="Pairs of --config to read."
)
@click.option("--experts", type=int, help="Experts of a layer, of which a token meets one; 0: prune, for comparison.")
@click.option("--shared-experts", type=int, help="Experts that every token meets beside it.")
@click.option("--neurons", type=int, help="Neurons of each; a quarter of the layer's by default.")
@click.option("--steps", type=int, help="Steps in which each layer alone learns what the parent's gives.")
@click.option(
    "--steps-together", type=click.IntRange(min=0), default=100, show_default=True, help="Steps of all layers then."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--storage", type=click.Choice(STORAGE), default="int8", show_default=True)
@quiet_option
def carve(
    base: str,
    output: Path,
    config: Path,
    texts: int,
    neurons: int | None,
    steps_together: int,
    storage: str,
    quiet: bool,
    **settings: Any,
) -> None:
    """Cut the feed-forward layers of BASE (an encoder folder, "default", or a BERT-shaped checkpoint) into experts.

    By default a token then meets half of each layer's neurons, so that both views take less time. The layers learn to
    give what BASE's give, first each alone, then together; no labels are needed. Heads stay as they are.

    \b
    Example:
      retriever carve default --config configs/train/default.yaml --output my-carved
    """
    from tokenizers import Tokenizer
    from tqdm import tqdm

    from retriever.network.folder import load_model, new_folder
    from retriever.train.experts.carve import CarveConfig, carve_trunk
    from retriever.train.experts.distil import distil
    from retriever.train.experts.vocabulary_experts import example_tokens
    from retriever.train.settings import load_train_config

    run = load_train_config(config)
    given = {name: value for name, value in settings.items() if value is not None}
    with new_folder(output) as folder, TemporaryDirectory() as scratch:
        source = _encoder(base, Path(scratch))
        parent = load_model(source)
        carving = CarveConfig(**given, neurons=neurons or parent.config.intermediate_size // 4)
        tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        read = example_tokens(run, tokenizer, texts)
        model = carve_trunk(parent, read, carving, done=_quiet if quiet else _say)
        with tqdm(total=steps_together, desc="all layers", disable=True if quiet else None) as bar:

            def step(error: float, cosine: float) -> None:
                bar.set_postfix_str(f"error {error:.4f}, cosine {cosine:.4f}", refresh=False)
                bar.update()

            distil(model, parent, read, steps=steps_together, seed=carving.seed, done=step)
        _write(model, source, folder, storage)
    click.echo(f"{output}: a token meets {_active(model)} of {parent.config.intermediate_size} neurons of a layer")


def _encoder(base: str, scratch: Path) -> Path:
    """Return the folder of an encoder of ours: that of `base`, or one made of a checkpoint, without experts."""
    from retriever.encoder.spec import parse_spec
    from retriever.network.checkpoint import MODEL_TYPE, local_folder
    from retriever.network.folder import save_encoder
    from retriever.network.upcycle import UpcycleConfig, upcycle_checkpoint

    spec = parse_spec(base)
    folder = spec.folder() if spec.kind == "default" else local_folder(base)
    settings = folder / "config.json"
    if settings.is_file() and MODEL_TYPE in settings.read_text(encoding="utf-8", errors="replace"):
        return folder
    made = upcycle_checkpoint(base, UpcycleConfig(moe_layers=()))
    return save_encoder(made.model, made.tokenizer, scratch / "upcycled", "float32")


def _write(model: RetrieverModel, source: Path, folder: Path, storage: str) -> None:
    """Write an encoder folder as `source` is, with another network."""
    from retriever.network.checkpoint import write_weights

    shutil.copytree(source, folder, dirs_exist_ok=True)
    for name in WEIGHT_FILES:
        (folder / name).unlink(missing_ok=True)
    settings = model.config.to_dict() | {"architectures": [type(model).__name__]}
    (folder / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    write_weights(model.state_dict(), folder, storage)


def _say(layer: CarvedLayer) -> None:
    load = " ".join(f"{share:.2f}" for share in layer.load)
    click.echo(f"layer {layer.layer}: error {layer.before:.4f}, trained {layer.after:.4f}; load {load}", err=True)


def _quiet(_: CarvedLayer) -> None:
    pass


def _active(model: RetrieverModel) -> int:
    config, shape = model.config, model.config.expert_shape
    return shape.intermediate * (shape.active + shape.shared) if config.moe_layers else config.intermediate_size
