"""The training run: transformers' Trainer with our objective, data streams and parameter groups."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import IterableDataset
from transformers import AutoTokenizer, PrinterCallback, TrainingArguments

from retriever.checkpoint import load_model, local_folder, save_encoder
from retriever.config import from_mapping
from retriever.encoder import frame_ids
from retriever.lexical import token_counts
from retriever.model import RetrieverConfig
from retriever.train.data import batches, stream
from retriever.train.objective import Collator, Objective
from retriever.train.progress import LogFile, Progress
from retriever.train.states import StateCache
from retriever.train.topics import by_topic
from retriever.train.trainer import ObjectiveTrainer
from retriever.types import UserError
from retriever.upcycle import UpcycleConfig, upcycle_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedTokenizerBase

    from retriever.model import RetrieverModel
    from retriever.train.data import Example, SourceConfig
    from retriever.train.settings import TrainConfig

__all__ = ["train"]

FRACTION_PASSAGES = 20_000
"""Passages of the sources whose tokens give the first document frequencies."""


def train(config: TrainConfig, *, resume: bool = False, progress: bool = True) -> Path:
    """Train an encoder and return its folder.

    Checkpoints and log.jsonl stand in OUTPUT.run; `resume` goes on from the last checkpoint there, with the examples
    that come next. The result for a seed is the same on the same machine and number of processes.

    Raises:
        UserError: a wrong setting, data that cannot be used, an output that exists, or a sparse view that collapsed.
    """
    output, run = Path(config.output), Path(config.output + ".run")
    if find_spec("accelerate") is None:
        raise UserError("training needs accelerate, which is not installed; run pip install 'hybrid-retriever[train]'")
    if output.exists():
        raise UserError(f"{output}: exists already; give another output, or remove it first")
    checkpoint = _last_checkpoint(run)
    if checkpoint and not resume:
        raise UserError(f"{run}: holds an unfinished run; go on with --resume, or remove it first")
    if resume and not checkpoint:
        raise UserError(f"{run}: holds no checkpoint to go on from; leave --resume out")
    done = _steps_of(checkpoint) if checkpoint else 0
    model, tokenizer = _start(config)
    _check(model, config)
    arguments = TrainingArguments(
        output_dir=str(run),
        max_steps=config.steps,
        per_device_train_batch_size=1,  # an item of the data set is a whole batch
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        lr_scheduler_type="linear",
        weight_decay=0.01,
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
    model.train()
    _freeze(model, config)
    parent, cache = None, None
    if config.frozen_layers == model.config.num_hidden_layers:
        folder = Path(config.states) if config.states else run / "states"
        cache = StateCache(folder, model.config.hidden_size, arguments.process_index)
    else:
        parent = _parent(config).to(device=arguments.device)  # type: ignore[call-arg]  # wrapped without a type
    fast = tokenizer.backend_tokenizer
    fast.no_truncation()
    fast.no_padding()
    _count_documents(model, fast, config)
    collate = Collator(fast, model.config.vocab_size, frame_ids(fast), config)
    trainer = ObjectiveTrainer(
        config,
        model=Objective(model, config, parent, cache),
        args=arguments,
        train_dataset=_Batches(config, skip=done * arguments.world_size),
        data_collator=lambda items: {"batch": collate(items[0])},
        callbacks=[LogFile(run / "log.jsonl"), *([Progress()] if progress else [])],
    )
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        if cache is not None:
            cache.close()
    if trainer.is_world_process_zero():
        model.train(False)
        save_encoder(model.float(), tokenizer, output, config.storage)
    return output


def _last_checkpoint(run: Path) -> Path | None:
    """Return the last whole checkpoint of a run; its state is the last file that is written of one."""
    found = [path for path in run.glob("checkpoint-*") if (path / "trainer_state.json").is_file()]
    return max(found, key=_steps_of, default=None)


def _steps_of(checkpoint: Path) -> int:
    """Return how many steps a checkpoint's name says were made."""
    return int(checkpoint.name.partition("-")[2])


def _start(config: TrainConfig) -> tuple[RetrieverModel, PreTrainedTokenizerBase]:
    """Load the encoder to go on with, or upcycle a dense checkpoint."""
    folder = local_folder(config.base)
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder}: no model here (config.json is missing); give an encoder or a checkpoint as base")
    if json.loads(path.read_text(encoding="utf-8")).get("model_type") == RetrieverConfig.model_type:
        if config.upcycle:
            raise UserError(f"{folder}: is an encoder already; leave `upcycle` out, or give a dense checkpoint as base")
        return load_model(folder), AutoTokenizer.from_pretrained(folder)
    return upcycle_checkpoint(config.base, from_mapping(UpcycleConfig, config.upcycle, "upcycle"))


def _parent(config: TrainConfig) -> RetrieverModel:
    """Return the network that the dense view is held to: where training starts, or the dense checkpoint's function."""
    exact = {"reinit_fraction": 0.0} if config.upcycle.get("reinit_fraction") else {}
    parent, _ = _start(replace(config, upcycle=config.upcycle | exact))
    parent.requires_grad_(False)
    return parent.set_precision(config.precision)


def _check(model: RetrieverModel, config: TrainConfig) -> None:
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
    if any(dim > shape.hidden_size for dim in config.matryoshka_dims) and config.losses.matryoshka:
        raise UserError(f"matryoshka_dims are {list(config.matryoshka_dims)}, the base has {shape.hidden_size}")
    if config.states and config.frozen_layers < shape.num_hidden_layers:
        raise UserError(
            f"states is {config.states!r}, but states are kept of a frozen trunk alone; "
            f"set frozen_layers to {shape.num_hidden_layers}, or leave states out"
        )


def _freeze(model: RetrieverModel, config: TrainConfig) -> None:
    """Leave the embeddings, which are the sparse head's decoder, too, and the first layers as they are."""
    model.embeddings.requires_grad_(False)
    for layer in model.layers[: config.frozen_layers]:
        layer.requires_grad_(False)


def _count_documents(model: RetrieverModel, tokenizer: Any, config: TrainConfig) -> None:
    """Set the share of passages with each term from the first passages of the mixture."""
    passages = [example.positive for example in islice(stream(config.sources, seed=config.seed), FRACTION_PASSAGES)]
    ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(passages, add_special_tokens=False)]
    frequency = torch.from_numpy((token_counts(ids, model.config.vocab_size) > 0).sum(0)).flatten()
    model.lexical.fraction.copy_((frequency + 0.5) / (len(passages) + 1))


def _stream(source: SourceConfig, config: TrainConfig) -> Iterator[Example]:
    examples = stream([source], seed=config.seed)
    if config.topic_window == 0:
        return examples
    return by_topic(examples, config.batch, config.topic_window, config.seed)


class _Batches(IterableDataset):  # type: ignore[type-arg]
    """An endless stream of batches, each from one source, so that its passages are hard for each other's queries."""

    def __init__(self, config: TrainConfig, skip: int) -> None:
        """Leave out the first `skip` batches."""
        self._config = config
        self._skip = skip

    def __iter__(self) -> Iterator[list[Example]]:
        return islice(self._all(), self._skip, None)

    def _all(self) -> Iterator[list[Example]]:
        config = self._config
        chooser = random.Random(config.seed)
        sources = [batches(_stream(source, config), config.batch) for source in config.sources]
        weights = [source.weight for source in config.sources]
        while True:
            [place] = chooser.choices(range(len(sources)), weights)
            yield next(sources[place])
