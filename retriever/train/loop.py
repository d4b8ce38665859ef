"""The training run: transformers' Trainer with our objective, data streams and parameter groups."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import IterableDataset
from transformers import AutoTokenizer, Trainer, TrainerCallback, TrainingArguments

from retriever.checkpoint import load_model, local_folder, save_encoder
from retriever.encoder import frame_ids
from retriever.lexical import token_counts
from retriever.train.data import batches, stream
from retriever.train.losses import quadratic_warmup
from retriever.train.objective import Batch, Collator, Objective, Outcome
from retriever.train.states import StateCache
from retriever.train.topics import by_topic
from retriever.types import UserError
from retriever.upcycle import UpcycleConfig, upcycle_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase, TrainerControl, TrainerState

    from retriever.model import RetrieverModel
    from retriever.moe import Routing
    from retriever.train.data import Example, SourceConfig
    from retriever.train.settings import TrainConfig

__all__ = ["train"]

MOST_TERMS = 0.25
"""A sparse view with more than this share of the vocabulary in every document has collapsed."""
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
    if output.exists():
        raise UserError(f"{output}: exists already; give another output, or remove it first")
    checkpoints = sorted(run.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    if checkpoints and not resume:
        raise UserError(f"{run}: holds an unfinished run; go on with --resume, or remove it first")
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
        disable_tqdm=not progress,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        ddp_find_unused_parameters=True,
        accelerator_config={"dispatch_batches": False, "split_batches": False},
    )
    model, tokenizer = _start(config)
    model.train()
    _freeze(model, config)
    parent, cache = None, None
    if config.frozen_layers == model.config.num_hidden_layers:
        cache = StateCache(Path(config.states) if config.states else run / "states", model.config.hidden_size)
    else:
        parent, _ = _start(config)  # the dense view before training
        parent.requires_grad_(False).to(device=arguments.device)
        if config.precision == "bfloat16":
            parent.set_precision("bfloat16")
    fast = tokenizer.backend_tokenizer
    fast.no_truncation()
    fast.no_padding()
    _count_documents(model, fast, config)
    collate = Collator(fast, model.config.vocab_size, frame_ids(fast), config)
    trainer = _Trainer(
        config,
        model=Objective(model, config, parent, cache),
        args=arguments,
        train_dataset=_Batches(config),
        data_collator=lambda items: {"batch": collate(items[0])},
        callbacks=[_Watch(run / "log.jsonl")],
    )
    trainer.train(resume_from_checkpoint=str(checkpoints[-1]) if checkpoints else None)
    if trainer.is_world_process_zero():
        model.train(False)
        save_encoder(model.float(), tokenizer, output, config.storage)
    return output


def _start(config: TrainConfig) -> tuple[RetrieverModel, PreTrainedTokenizerBase]:
    """Load the encoder to go on with, or upcycle a dense checkpoint."""
    folder = local_folder(config.base)
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if kind == "retriever-moe":
        return load_model(folder), AutoTokenizer.from_pretrained(folder)
    from retriever.config import from_mapping

    return upcycle_checkpoint(config.base, from_mapping(UpcycleConfig, config.upcycle, "upcycle"))


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

    def __init__(self, config: TrainConfig) -> None:
        self._config = config

    def __iter__(self) -> Iterator[list[Example]]:
        import random

        config = self._config
        chooser = random.Random(config.seed)
        sources = [batches(stream([source], seed=config.seed), config.batch) for source in config.sources]
        weights = [source.weight for source in config.sources]
        while True:
            [place] = chooser.choices(range(len(sources)), weights)
            yield next(sources[place])


class _Trainer(Trainer):
    """Weighs the parts of the loss by the step, and groups the parameters by how fast they may learn."""

    def __init__(self, config: TrainConfig, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._settings = config
        self.sums: dict[str, float] = defaultdict(float)
        self.seen: Tensor | float = 0.0
        self.active: Tensor | float = 0.0
        self.batches = 0
        self.loads: list[Counter[int]] = []

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the weighted sum of the parts."""
        batch: Batch = inputs["batch"]
        outcome: Outcome = model(batch)
        weights = self._weights()
        loss = torch.stack([weights[name] * part for name, part in outcome.losses.items() if weights[name]]).sum()
        self._note(outcome)
        return (loss, outcome) if return_outputs else loss

    def _weights(self) -> dict[str, float]:
        config: TrainConfig = self._settings
        losses, step = config.losses, self.state.global_step
        warm = quadratic_warmup(step, losses.flops_warmup)
        left = 1 - step / config.steps
        return {
            "contrastive_dense": losses.contrastive_dense,
            "contrastive_lexical": losses.contrastive,
            "contrastive_encoder": losses.contrastive,
            "contrastive_fused": losses.contrastive,
            "distillation_dense": losses.fused_distillation * losses.contrastive_dense,
            "distillation_lexical": losses.fused_distillation,
            "distillation_encoder": losses.fused_distillation,
            "anchor": losses.anchor,
            "matryoshka": losses.matryoshka,
            "teacher": losses.teacher,
            "margin": losses.margin,
            "flops_query": losses.flops_query * warm,
            "flops_document": losses.flops_document * warm,
            "load_balancing": losses.load_balancing * left,
            "router_z": losses.router_z * left,
        }

    def _note(self, outcome: Outcome) -> None:
        for name, value in (outcome.losses | outcome.figures).items():
            self.sums[name] += float(value.detach())
        self.seen = self.seen + outcome.seen
        self.active = self.active + outcome.active
        self.batches += 1
        for layer, routing in enumerate(outcome.routings):
            if layer == len(self.loads):
                self.loads.append(Counter())
            self.loads[layer].update(routing.expert_ids.flatten().tolist())

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the means since the last line."""
        if self.batches and "loss" in logs:
            logs = logs | self._figures()
        super().log(logs, *args, **kwargs)

    def _figures(self) -> dict[str, float]:
        assert isinstance(self.seen, torch.Tensor) and isinstance(self.active, torch.Tensor)
        figures = {name: round(value / self.batches, 4) for name, value in self.sums.items()}
        share = self.active[self.seen > 0] / self.seen[self.seen > 0]
        figures["dead_terms"] = round(float((share == 0).float().mean()), 4)  # of those that were looked at
        figures["saturated_terms"] = int((share > 0.5).sum())
        for layer, load in enumerate(self.loads):
            shares = [count / load.total() for count in load.values()]
            entropy = -sum(share * math.log(share) for share in shares) / math.log(max(len(shares), 2))
            figures[f"expert_load_max_{layer}"] = round(max(shares), 4)
            figures[f"expert_entropy_{layer}"] = round(entropy, 4)
        figures["dropped_tokens"] = 0  # by construction: experts have no capacity
        terms, vocab = figures["document_terms"], len(self.seen)
        if terms < 1 or terms > MOST_TERMS * vocab:
            raise UserError(
                f"the sparse view collapsed: {terms:.0f} expanded terms a document, sensible are 1 to "
                f"{MOST_TERMS * vocab:.0f}; "
                + ("lower" if terms < 1 else "raise")
                + " losses.flops_document, or lower the learning rates"
            )
        self.sums.clear()
        self.loads.clear()
        self.seen, self.active, self.batches = 0.0, 0.0, 0
        return figures

    def create_optimizer(self, model: Any = None) -> Any:
        """Give each kind of parameter its learning rate."""
        if self.optimizer is None:
            objective: Objective = self.model
            config = objective.settings
            rates = {
                "trunk": config.learning_rate,
                "experts": config.expert_learning_rate,
                "head": config.head_learning_rate,
                "terms": config.term_learning_rate,
            }
            groups: dict[str, list[Tensor]] = defaultdict(list)
            for name, value in objective.named_parameters():
                if value.requires_grad:
                    groups[_kind(name)].append(value)
            self.optimizer = torch.optim.AdamW(
                [
                    {"params": values, "lr": rates[kind], "weight_decay": 0.0 if kind == "terms" else 0.01}
                    for kind, values in groups.items()
                ],
                betas=(0.9, 0.98),
            )
        return self.optimizer


def _kind(name: str) -> str:
    """Name the group of a parameter."""
    if "lexical." in name or name.endswith(("sparse_head.scale", "sparse_head.bias", "log_sparse_scale")):
        return "terms"
    if "sparse_head." in name:
        return "head"
    return "experts" if name.endswith(("_proj", "router")) or "proj" in name or "_bias" in name else "trunk"


class _Watch(TrainerCallback):
    """Writes each line of the log to a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Append the line."""
        if state.is_world_process_zero and logs:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step} | logs) + "\n")
