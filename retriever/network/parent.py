"""The checkpoint that is upcycled, checked before it is converted.

A part that has no place in the encoder would be left out and the vectors be others than promised; weights without a
tokeniser of theirs would fail only when the first text is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from retriever.network.sentence_folder import read_sentence_folder
from retriever.types import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from retriever.network.sentence_folder import Behind

__all__ = ["SHAPES", "Parent", "first_position", "load_parent"]

SHAPES = ("bert", "xlm-roberta", "roberta", "camembert")
"""Kinds of models (model_type) of BERT's shape: they differ in their tokenisers, and in where positions start."""
HEADS = ("pooler.", "cls.", "lm_head.", "embeddings.position_ids")
"""Weights that no vector of a text depends on; a checkpoint may lack them."""
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")


class Parent(NamedTuple):
    """A checkpoint that can be upcycled, and what its folder says of it.

    settings: fields of RetrieverConfig, length, pooling and prompts; behind: what stands behind the pooling, None for
    nothing; listed: whether sentence-transformers can run the folder as it is.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    settings: dict[str, Any]
    behind: Behind | None = None
    listed: bool = False


def load_parent(base: str, folder: Path) -> Parent:
    """Load a checkpoint in float32 and check it; `base` is what the user calls it.

    Raises:
        UserError: it cannot be loaded, or a module, the tokeniser or the weights cannot become an encoder of ours.
    """
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer

    trunk, listed, settings, behind = read_sentence_folder(base, folder)
    try:
        model, found = AutoModel.from_pretrained(trunk, dtype=torch.float32, output_loading_info=True)
        if not any((trunk / name).is_file() for name in TOKENIZER_FILES):
            raise UserError(
                f"{base}: has no tokenizer ({' or '.join(TOKENIZER_FILES)}); put its own beside the weights"
            )
        tokenizer = AutoTokenizer.from_pretrained(trunk)
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"{base}: cannot load this checkpoint ({reason}); give a folder or a hub name") from None
    _check_weights(base, model, [str(name) for name in found["missing_keys"]])
    _check_vocabulary(base, model, tokenizer)
    if behind is not None and behind.weight.shape[1] != model.config.hidden_size:
        raise UserError(
            f"{base}: its Dense module reads {behind.weight.shape[1]} numbers, the network gives "
            f"{model.config.hidden_size}; copy or save the model again"
        )
    return Parent(model, tokenizer, settings, behind, listed)


def first_position(shape: PreTrainedConfig) -> int:
    """Return the row of the first token's position: RoBERTa's kind counts from the one after padding's."""
    return 0 if shape.model_type == "bert" else int(shape.pad_token_id) + 1


def _check_weights(base: str, model: torch.nn.Module, missing: list[str]) -> None:
    lacking = [name for name in missing if not any(head in name for head in HEADS)]
    if lacking:
        raise UserError(
            f"{base}: the weights lack {lacking[0]} (and {len(lacking) - 1} more), which would stay random; "
            "get the whole checkpoint again"
        )
    for name, value in model.named_parameters():
        if not torch.isfinite(value).all():
            raise UserError(f"{base}: the weights {name} hold numbers that are not finite; get the checkpoint again")


def _check_vocabulary(base: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let rows beyond the tokeniser's terms be (they are cut), and refuse too few."""
    rows, last = model.config.vocab_size, max(tokenizer.get_vocab().values(), default=-1)
    if last >= rows:
        raise UserError(
            f"{base}: the tokenizer knows {len(tokenizer)} terms but the weights {rows}: they are of another "
            "vocabulary; put the tokenizer that the weights were trained with beside them"
        )
    if last + 1 != len(tokenizer):
        raise UserError(
            f"{base}: the tokenizer numbers its {len(tokenizer)} terms up to {last}, with gaps; give a checkpoint "
            f"whose terms are numbered without gaps, or use it as it is with --encoder st:{base}"
        )
