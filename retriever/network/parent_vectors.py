"""A parent's vectors of twenty texts, as queries and as documents, and how far an encoder's are from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from retriever.network.model import POOLING
from retriever.network.packing import pack
from retriever.network.prompts import prompt_tokens
from retriever.types import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from retriever.network.model import RetrieverModel
    from retriever.network.parent import Parent

__all__ = ["TEXTS", "ParentVectors"]

PROMISED = 1e-5
"""By how much a number of the dense view may differ from the parent's."""
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


class _Role(NamedTuple):
    """The texts as queries or as documents: token ids, how many of them are the prompt's, the parent's unit vectors."""

    ids: list[list[int]]
    prompt: int
    vectors: Tensor


class ParentVectors:
    """The parent's vectors of TEXTS with its prompts, by sentence-transformers where the folder is one of theirs."""

    def __init__(self, base: str, folder: Path, parent: Parent, *, max_length: int) -> None:
        """Encode the texts, of each the tokens that the encoder made of the parent will read.

        Raises:
            UserError: sentence-transformers cannot run the folder, or a prompt leaves no room for a text.
        """
        self._base = base
        prompts = dict.fromkeys((parent.settings["query_prompt"], parent.settings["document_prompt"]))
        self._roles = [_role(base, folder, parent, prompt, max_length) for prompt in prompts]

    def deviation(self, model: RetrieverModel) -> float:
        """Return the largest difference of a number of an encoder's vectors from the parent's."""
        pairs = [(_vectors(model, role), role.vectors) for role in self._roles]
        return max(float((found - expected).abs().max()) for found, expected in pairs)

    def least_cosine(self, model: RetrieverModel) -> float:
        """Return the smallest cosine of an encoder's vector of a text to the parent's."""
        pairs = [(_vectors(model, role), role.vectors) for role in self._roles]
        return min(float((found * expected).sum(1).min()) for found, expected in pairs)

    def check(self, model: RetrieverModel) -> float:
        """Return `deviation`.

        Raises:
            UserError: it is more than PROMISED.
        """
        largest = self.deviation(model)
        if not largest <= PROMISED:
            raise UserError(
                f"{self._base}: the encoder made of it differs from it by {largest:.1e} on twenty texts, "
                f"{PROMISED:.0e} is promised: something in it has no place in ours; "
                f"use it as it is with --encoder st:{self._base}"
            )
        return largest


def _role(base: str, folder: Path, parent: Parent, prompt: str, limit: int) -> _Role:
    alone = parent.tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]
    own = prompt_tokens(parent.tokenizer.convert_ids_to_tokens(alone)) if prompt else 0
    if own > limit - 3:
        raise UserError(
            f"{base}: the prompt {prompt[:40]!r} has {own} tokens, the network reads {limit} with two of its own; "
            "give a shorter one with --query-prompt or --document-prompt"
        )
    ids = [parent.tokenizer(prompt + text, truncation=True, max_length=limit)["input_ids"] for text in TEXTS]
    if parent.listed:
        expected = _run(base, folder, prompt, limit)
    else:
        expected = torch.stack([_plain_vector(parent, text) for text in ids])
    return _Role(ids, own, torch.nn.functional.normalize(expected.float(), dim=-1))


def _run(base: str, folder: Path, prompt: str, limit: int) -> Tensor:
    """Let sentence-transformers encode the texts."""
    from sentence_transformers import SentenceTransformer

    try:
        pipeline = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
        pipeline.max_seq_length = limit  # more than there are positions may stand in the folder
        found: Tensor = pipeline.encode(list(TEXTS), prompt=prompt, convert_to_tensor=True, show_progress_bar=False)
    except Exception as error:  # a model folder names its own classes, which raise what they like
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"{base}: sentence-transformers cannot run it ({reason}); copy or save the model again"
        ) from error
    return found


def _plain_vector(parent: Parent, ids: list[int]) -> Tensor:
    with torch.inference_mode():
        states: Tensor = parent.model(torch.tensor([ids])).last_hidden_state[0]  # (tokens, hidden)
    return POOLING[parent.settings["pooling"]](states[None])[0]


def _vectors(model: RetrieverModel, role: _Role) -> Tensor:
    """Return an encoder's dense view of the texts, in their order."""
    order = sorted(range(len(role.ids)), key=lambda i: len(role.ids[i]))
    with torch.inference_mode():
        dense = model.encode(pack([role.ids[i] for i in order]), sparse=False, prompt=role.prompt).dense
    assert dense is not None
    return dense[torch.tensor(order).argsort()]
