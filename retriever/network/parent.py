"""The checkpoint that is upcycled: checked before it is converted, and compared with what was made of it.

A part that has no place in the encoder, such as a Dense layer behind the pooling, would be left out and the vectors be
others than promised; weights without a tokeniser of theirs would fail only when the first text is read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from retriever.network.packing import pack
from retriever.types import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from retriever.network.model import RetrieverModel

__all__ = ["SHAPES", "Parent", "check_equal", "first_position", "load_parent", "sentence_settings"]

LONGEST = 1_000_000
"""Tokenisers without a limit of their own write a huge number."""
PROMISED = 1e-5
"""By how much a number of the dense view may differ from the parent's."""
SHAPES = ("bert", "xlm-roberta", "roberta", "camembert")
"""Kinds of models (model_type) of BERT's shape: they differ in their tokenisers, and in where positions start."""
HEADS = ("pooler.", "cls.", "lm_head.", "embeddings.position_ids")
"""Weights that no vector of a text depends on; a checkpoint may lack them."""
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")
POOLINGS = {"cls": "cls", "cls_token": "cls", "mean": "mean", "mean_tokens": "mean"}
KEPT_MODULES = ("Transformer", "Pooling", "Normalize", "Dropout")
"""Modules of sentence-transformers that the encoder has in one form or another; dropout is for training."""
TEXTS = (
    "Trees make wood.",
    "how do vaccines work",
    "The river froze in January, and nobody crossed the bridge.",
    "A",
    "2024-05-17: +3.5 % (about 12,000 units)",
    "https://example.org/path?q=a&b=c#top",
    "Café naïve Zürich Łódź",
    "ALL CAPITALS, THEN lower",
    "H2SO4 reacts with NaOH to Na2SO4 and water",
    "def area(r): return 3.14159 * r ** 2",
    "what is the capital of France?",
    "“Quoted” — with dashes… and 'signs'",
    "antidisestablishmentarianism",
    "東京 Москва αβγ",
    "   white   space\tand\nlines   ",
    "sugar sugar sugar sugar",
    "The patient was given 5 mg of the drug twice daily for two weeks.",
    "Who wrote it, when, and why was it lost for so long?",
    "One sentence. Another one! A third? And a fourth; with more.",
    "a long text goes on and on, beyond what most networks read, " * 60,
)
"""Texts of many kinds, one longer than most encoders read."""


class Parent(NamedTuple):
    """A checkpoint that can be upcycled, and what its folder says of it: length, pooling, prompts."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    settings: dict[str, Any]


def load_parent(base: str, folder: Path) -> Parent:
    """Load a checkpoint in float32 and check it; `base` is what the user calls it.

    Raises:
        UserError: it cannot be loaded, or a module, the tokeniser or the weights cannot become an encoder of ours.
    """
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer

    settings = sentence_settings(base, folder)
    trunk = _trunk_folder(base, folder)
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
    return Parent(model, tokenizer, settings)


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


def _modules(base: str, folder: Path) -> list[dict[str, Any]]:
    """Return the modules of a sentence-transformers folder, none for a plain checkpoint."""
    found = _read(folder / "modules.json")
    if not isinstance(found, list) or not all(isinstance(module, dict) for module in found):
        if found == {}:
            return []
        raise UserError(f"{base}: modules.json is damaged (no list of modules); copy or save the model again")
    return found


def _kind(module: dict[str, Any]) -> str:
    return str(module.get("type", "")).rpartition(".")[2]


def _trunk_folder(base: str, folder: Path) -> Path:
    paths = [str(module.get("path", "")) for module in _modules(base, folder) if _kind(module) == "Transformer"]
    return folder / paths[0] if paths else folder


def sentence_settings(base: str, folder: Path) -> dict[str, Any]:
    """Read length, pooling and prompts from the folder of a sentence-transformers model, old layout or new.

    Raises:
        UserError: it has a module or a setting that our encoder has no place for; names it, and the way out.
    """
    modules = _modules(base, folder)
    way_out = f"which the encoder made of it would leave out; use it as it is with --encoder st:{base}"
    for module in modules:
        if _kind(module) not in KEPT_MODULES:
            raise UserError(f"{base}: has a {_kind(module)} module ({module.get('path')}), {way_out}")
    for kind in ("Transformer", "Pooling"):
        number = sum(_kind(module) == kind for module in modules)
        if modules and number != 1:
            raise UserError(f"{base}: has {number} {kind} modules, need one; use it as it is with --encoder st:{base}")
    sentence = _read(folder / "config_sentence_transformers.json")
    if sentence.get("truncate_dim"):
        raise UserError(f"{base}: cuts its vectors to {sentence['truncate_dim']} numbers (truncate_dim), {way_out}")
    trunk = _trunk_folder(base, folder)
    settings: dict[str, Any] = {}
    length = _read(trunk / "sentence_bert_config.json").get("max_seq_length")
    length = length or _read(trunk / "tokenizer_config.json").get("model_max_length")
    if isinstance(length, int) and length < LONGEST:
        settings["max_length"] = length
    prompts = sentence.get("prompts") or {}
    settings["query_prompt"] = prompts.get("query") or ""
    settings["document_prompt"] = prompts.get("document") or prompts.get("passage") or ""
    path = next((str(module["path"]) for module in modules if _kind(module) == "Pooling"), "1_Pooling")
    settings["pooling"] = _pooling(base, _read(folder / path / "config.json"), prompted=any(prompts.values()))
    return settings


def _pooling(base: str, pooling: dict[str, Any], *, prompted: bool) -> str:
    old = [name.removeprefix("pooling_mode_") for name, on in pooling.items() if "pooling_mode_" in name and on is True]
    found = pooling.get("pooling_mode") or "+".join(old) or "mean"
    if isinstance(found, list):
        found = "+".join(map(str, found))
    if found not in POOLINGS:
        raise UserError(
            f"{base}: pools by {found!r}; the dense head knows the mean of the tokens and [CLS]; "
            f"use it as it is with --encoder st:{base}"
        )
    if prompted and pooling.get("include_prompt") is False:
        raise UserError(
            f"{base}: leaves the prompt out of the pooling (include_prompt), which our encoder does not; "
            f"use it as it is with --encoder st:{base}"
        )
    return POOLINGS[found]


def check_equal(base: str, folder: Path, parent: Parent, model: RetrieverModel) -> None:
    """Compare the dense view of twenty texts with the parent's.

    The parent is run by sentence-transformers where the folder is one of theirs, else as a plain network.

    Raises:
        UserError: a number differs by more than 1e-5.
    """
    settings = {"truncation": True, "max_length": model.config.max_length}
    ids = [parent.tokenizer(text, **settings)["input_ids"] for text in TEXTS]
    if _modules(base, folder):
        from sentence_transformers import SentenceTransformer

        pipeline = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
        pipeline.max_seq_length = model.config.max_length  # more than there are positions may stand in the folder
        expected = pipeline.encode(list(TEXTS), prompt="", convert_to_tensor=True, show_progress_bar=False)
    else:
        expected = torch.stack([_plain_vector(parent, text) for text in ids])
    expected = torch.nn.functional.normalize(expected.float(), dim=-1)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    with torch.inference_mode():
        dense = model.encode(pack([ids[i] for i in order]), sparse=False).dense
    assert dense is not None
    largest = float((dense - expected[order]).abs().max())
    if not largest <= PROMISED:
        raise UserError(
            f"{base}: the encoder made of it differs from it by {largest:.1e} on twenty texts, {PROMISED:.0e} is "
            f"promised: something in it has no place in ours; use it as it is with --encoder st:{base}"
        )


def _plain_vector(parent: Parent, ids: list[int]) -> Tensor:
    with torch.inference_mode():
        states: Tensor = parent.model(torch.tensor([ids])).last_hidden_state[0]  # (tokens, hidden)
    return states[0] if parent.settings["pooling"] == "cls" else states.mean(0)


def _read(path: Path) -> Any:
    """Return the values of a JSON file, {} if it is not there."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        raise UserError(f"{path}: damaged (no JSON); copy or save the model again") from None
