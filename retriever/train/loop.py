"""The training run: transformers' Trainer with our objective, data streams and parameter groups."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from tqdm import tqdm
from transformers import AutoTokenizer, PrinterCallback, TrainingArguments

from retriever.config import from_mapping
from retriever.encoder.vocabulary.lexicon import frame_ids
from retriever.languages import folder_languages
from retriever.network.checkpoint import local_folder
from retriever.network.folder import load_model, save_encoder
from retriever.network.lexical import token_counts
from retriever.network.model import RetrieverConfig
from retriever.network.prompts import Prompts
from retriever.network.settings import dense_size
from retriever.network.upcycle import EXPANDED_TERMS, UpcycleConfig, upcycle_checkpoint
from retriever.train.data.examples import stream
from retriever.train.experts.router_start import cluster_rows
from retriever.train.mixture import Mixture
from retriever.train.objective import Collator, Objective
from retriever.train.progress import LogFile, Progress
from retriever.train.states import StateCache
from retriever.train.trainer import ObjectiveTrainer, parameter_groups
from retriever.types import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from retriever.network.model import RetrieverModel
    from retriever.train.settings import TrainConfig

__all__ = ["Rehearsal", "rehearse", "train"]

SETTINGS = "settings.json"
FREE = {"output", "states", "steps", "log_every", "save_every", "trained_share", "storage"}
"""Settings that may change when a run is continued."""

ROUTER_BATCHES = 12
"""Batches whose tokens are clustered where the router begins so: about 60,000 tokens by the recipe."""

FRACTION_PASSAGES = 20_000
"""Passages of the sources whose tokens give the first document frequencies."""


def train(config: TrainConfig, *, resume: bool = False, progress: bool = True) -> Path:
    """Train an encoder and return its folder.

    Checkpoints and log.jsonl stand in OUTPUT.run; `resume` continues from the last checkpoint there, with the examples
    that come next. The result for a seed is the same on the same machine and number of processes.

    Raises:
        UserError: a wrong setting, data that cannot be used, an output that exists, or a sparse view that collapsed.
    """
    output = Path(config.output)
    run = Path(f"{output}.run")  # beside it, also where the output is written with a slash behind it
    if find_spec("accelerate") is None:
        raise UserError("training needs accelerate, which is not installed; run pip install 'hybrid-retriever[train]'")
    checkpoint = _checkpoint(config, run, resume)
    done = _steps_of(checkpoint) if checkpoint else 0
    arguments = _arguments(config, run)
    parts = _prepare(config)
    cache = None
    if config.frozen_layers == parts.model.config.num_hidden_layers:
        folder = Path(config.states) if config.states else run / "states"
        cache = StateCache(folder, parts.model.config.hidden_size, arguments.process_index)
    parent = None if cache else _parent(config).to(device=arguments.device)  # type: ignore[call-arg]  # wrapped untyped
    objective = Objective(parts.model, config, parent, cache)
    objective.to(arguments.device)
    if config.head_router == "kmeans":
        _start_router(objective, parts.collate, config)
    start = {name: value.detach().clone() for name, value in parts.model.named_parameters() if value.requires_grad}
    trainer = ObjectiveTrainer(
        config,
        model=objective,
        args=arguments,
        train_dataset=Mixture(config, skip=done * arguments.world_size),
        data_collator=lambda items: {"batch": parts.collate(items[0])},
        callbacks=[LogFile(run / "log.jsonl"), *([Progress()] if progress else [])],
    )
    trainer.remove_callback(PrinterCallback)
    if trainer.is_world_process_zero():
        run.mkdir(parents=True, exist_ok=True)
        (run / SETTINGS).write_text(json.dumps(asdict(config)), encoding="utf-8")
    try:
        if done < config.steps:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        else:  # killed after the last step
            trainer._load_from_checkpoint(str(checkpoint))
    finally:
        if cache is not None:
            cache.close()
    if trainer.is_world_process_zero():
        parts.model.train(False)
        if config.trained_share < 1:
            _average(parts.model, start, config.trained_share)
        languages = folder_languages(local_folder(config.base))
        save_encoder(parts.model, parts.tokenizer, output, config.storage, languages=languages)
    return output


def _start_router(objective: Objective, collate: Collator, config: TrainConfig) -> None:
    """Begin the router of the sparse head's experts with clusters of the hidden states of the first batches."""
    experts = objective.model.sparse_head.experts
    assert experts is not None
    batches = islice(iter(Mixture(config, skip=0)), ROUTER_BATCHES)
    hidden = torch.cat([objective.hidden(collate(batch)) for batch in batches])
    with torch.no_grad():
        experts.router.copy_(cluster_rows(hidden, experts.shape.routed, config.seed))


def _average(model: RetrieverModel, start: dict[str, Tensor], share: float) -> None:
    """Move the parameters back towards where they started: `share` of the way that training took them remains."""
    values = dict(model.named_parameters())
    with torch.no_grad():
        for name, before in start.items():
            values[name].lerp_(before.to(values[name].device), 1 - share)


class Rehearsal(NamedTuple):
    """What a run would train, and its first batch: parameters by kind, sizes of the batch, losses and figures."""

    parameters: dict[str, int]
    frozen: int
    queries: int
    passages: int
    tokens: int
    figures: dict[str, float]


def rehearse(config: TrainConfig) -> Rehearsal:
    """Check all that `train` would, run its first batch without learning from it, and write nothing.

    Raises:
        UserError: as `train`.
    """
    parts = _prepare(config)
    objective = Objective(parts.model, config, None, None)
    batch = parts.collate(next(iter(Mixture(config, skip=0))))
    with torch.no_grad():
        outcome = objective(batch, 0)
    texts = batch.queries.tokens + batch.documents.tokens
    parameters = {kind: sum(map(torch.numel, values)) for kind, values in parameter_groups(objective).items()}
    return Rehearsal(
        parameters,
        sum(map(torch.numel, objective.parameters())) - sum(parameters.values()),
        len(batch.queries.tokens),
        len(batch.documents.tokens),
        sum(map(len, texts)),
        {name: round(float(value), 4) for name, value in (outcome.losses | outcome.figures).items()},
    )


class _Parts(NamedTuple):
    """The network, ready to be trained, and what makes batches for it."""

    model: RetrieverModel
    tokenizer: PreTrainedTokenizerBase
    collate: Collator


def _prepare(config: TrainConfig) -> _Parts:
    model, tokenizer, notice = _start(config)
    model.config.max_terms = model.config.max_terms or EXPANDED_TERMS  # what is trained is to be heard
    if notice:
        tqdm.write(notice, file=sys.stderr)
    _check(model, tokenizer, config)
    model.train()
    _freeze(model, config)
    fast = tokenizer.backend_tokenizer
    fast.no_truncation()
    fast.no_padding()
    _count_documents(model, fast, config)
    prompts = Prompts(model.config.query_prompt, model.config.document_prompt)
    stem = model.sparse_head.stem.numpy()
    return _Parts(model, tokenizer, Collator(fast, stem, frame_ids(fast), config, prompts))


def _arguments(config: TrainConfig, run: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(run),
        max_steps=config.steps,
        per_device_train_batch_size=1,  # an item of the data set is a whole batch
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        lr_scheduler_type="linear",
        max_grad_norm=1.0,
        bf16=config.precision == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        seed=config.seed,
        logging_steps=config.log_every,
        save_steps=config.save_every,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        ignore_data_skip=True,  # the data set skips what was used, without making batches of it
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        dataloader_num_workers=0,
        ddp_find_unused_parameters=True,
        accelerator_config={"dispatch_batches": False, "split_batches": False},
    )


def _refuse_another_run(run: Path, config: TrainConfig) -> None:
    """Go on with the settings that the run began with; `steps`, and what does not change the result, may differ."""
    path = run / SETTINGS
    begun = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    given = json.loads(json.dumps(asdict(config)))
    for name in sorted(set(begun) - FREE):
        if begun[name] != given.get(name):
            raise UserError(
                f"{run}: begun with {name} {begun[name]}, cannot continue with {given.get(name)}; give the same "
                "settings, or another output"
            )


def _checkpoint(config: TrainConfig, run: Path, resume: bool) -> Path | None:
    """Return the last whole checkpoint to continue from, None for a new run; refuse what is in the way."""
    if Path(config.output).exists():
        raise UserError(f"{config.output}: exists already; give another output, or remove it first")
    # A checkpoint's state is the last file of it that is written.
    found = [path for path in run.glob("checkpoint-*") if (path / "trainer_state.json").is_file()]
    checkpoint = max(found, key=_steps_of, default=None)
    if checkpoint and not resume:
        raise UserError(f"{run}: holds an unfinished run; continue it with --resume, or remove it first")
    if resume and not checkpoint:
        raise UserError(f"{run}: holds no checkpoint to continue from; leave --resume out")
    if checkpoint:
        _refuse_another_run(run, config)
    return checkpoint


def _steps_of(checkpoint: Path) -> int:
    """Return how many steps a checkpoint's name says were made."""
    return int(checkpoint.name.partition("-")[2])


class _Start(NamedTuple):
    """The network that training starts from, its tokeniser, and what the user should know of it, or None."""

    model: RetrieverModel
    tokenizer: PreTrainedTokenizerBase
    notice: str | None = None


def _start(config: TrainConfig) -> _Start:
    """Load the encoder to continue with, or upcycle a dense checkpoint."""
    folder = local_folder(config.base)
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder}: no model here (config.json is missing); give an encoder or a checkpoint as base")
    if json.loads(path.read_text(encoding="utf-8")).get("model_type") == RetrieverConfig.model_type:
        if config.upcycle:
            raise UserError(f"{folder}: is an encoder already; leave `upcycle` out, or give a dense checkpoint as base")
        return _Start(load_model(folder), AutoTokenizer.from_pretrained(folder))
    made = upcycle_checkpoint(config.base, from_mapping(UpcycleConfig, config.upcycle, "upcycle"))
    return _Start(made.model, made.tokenizer, made.notice)


def _parent(config: TrainConfig) -> RetrieverModel:
    """Return the network that the dense view is held to: where training starts, or the dense checkpoint's function."""
    exact = {"reinit_fraction": 0.0} if config.upcycle.get("reinit_fraction") else {}
    parent = _start(replace(config, upcycle=config.upcycle | exact)).model
    parent.requires_grad_(False)
    return parent.set_precision(config.precision)


def _check(model: RetrieverModel, tokenizer: PreTrainedTokenizerBase, config: TrainConfig) -> None:
    """Refuse settings that do not fit the network."""
    shape = model.config
    limits = {
        "frozen_layers": shape.num_hidden_layers,
        "query_tokens": shape.max_position_embeddings,
        "document_tokens": shape.max_position_embeddings,
    }
    for name, most in limits.items():
        if getattr(config, name) > most:
            raise UserError(f"{name} is {getattr(config, name)}, the base allows at most {most}")
    if config.head_router != "random" and not (shape.head_experts and config.upcycle):
        raise UserError(
            f"head_router is {config.head_router!r}, but the sparse head has no experts that begin in this run; "
            "set upcycle.head_experts, or leave head_router out"
        )
    size = dense_size(vars(shape))
    if any(dim > size for dim in config.matryoshka_dims) and config.losses.matryoshka:
        raise UserError(f"matryoshka_dims are {list(config.matryoshka_dims)}, the base has {size}")
    for name in ("query", "document"):
        room, prompt = getattr(config, f"{name}_tokens"), getattr(shape, f"{name}_prompt")
        if prompt and len(tokenizer(prompt)["input_ids"]) >= room:
            raise UserError(f"{name}_tokens is {room}, which {name}_prompt {prompt!r} fills; allow more")
    if config.states and config.frozen_layers < shape.num_hidden_layers:
        raise UserError(
            f"states is {config.states!r}, but states are stored of a frozen trunk alone; "
            f"set frozen_layers to {shape.num_hidden_layers}, or leave states out"
        )


def _freeze(model: RetrieverModel, config: TrainConfig) -> None:
    """Leave the embeddings, which are the sparse head's decoder, too, and the first layers as they are."""
    model.embeddings.requires_grad_(False)
    for layer in model.layers[: config.frozen_layers]:
        layer.requires_grad_(False)
    if model.projection is not None and config.frozen_layers == len(model.layers):  # the dense view is the parent's
        model.projection.requires_grad_(False)


def _count_documents(model: RetrieverModel, tokenizer: Any, config: TrainConfig) -> None:
    """Set the share of passages with each term from the first passages of the mixture."""
    passages = [example.positive for example in islice(stream(config.sources, seed=config.seed), FRACTION_PASSAGES)]
    ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(passages, add_special_tokens=False)]
    frequency = torch.from_numpy((token_counts(ids, model.sparse_head.stem.numpy()) > 0).sum(0)).flatten()
    model.lexical.fraction.copy_((frequency + 0.5) / (len(passages) + 1))
