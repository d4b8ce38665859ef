"""Folders of sentence-transformers models of every shape, written by sentence-transformers itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.conftest import Parent

__all__ = ["IDENTITY", "PROMPTS", "SHAPES", "TANH", "Shape", "folder_of"]

IDENTITY, TANH = torch.nn.Identity(), torch.nn.Tanh()


class Shape(NamedTuple):
    """A folder's modules behind the network: size, bias and activation of Dense layers, Normalize by "unit"."""

    pooling: str = "mean"
    behind: Sequence[tuple[int, bool, Any] | str] = ("unit",)
    prompts: dict[str, str] | None = None
    include_prompt: bool = True
    truncate_dim: int | None = None


PROMPTS = {"query": "make wood of this: ", "document": "text, "}
SHAPES = {
    "like leaf-ir": Shape(behind=[(48, True, IDENTITY), "unit"], prompts={"query": "find the wood for trees: "}),
    "like bge-small": Shape("cls"),
    "like e5-small": Shape(prompts={"query": "query: ", "document": "passage: "}),
    "maximum, never of unit length": Shape("max", []),
    "two Dense layers": Shape(behind=[(48, True, IDENTITY), (20, False, IDENTITY)], prompts=PROMPTS),
    "tanh behind a fold": Shape("cls", [(40, True, IDENTITY), (24, True, TANH), "unit"]),
    "unit length, then Dense": Shape(behind=["unit", (40, False, IDENTITY), "unit"]),
    "root of the length": Shape("mean_sqrt_len_tokens", []),
    "cut": Shape(truncate_dim=12, prompts=PROMPTS),
    "Dense, cut": Shape("max", [(48, True, IDENTITY), "unit"], truncate_dim=20),
    "cut beyond its end": Shape(truncate_dim=64),
    "prompt left out of the mean": Shape(prompts=PROMPTS, include_prompt=False),
    "prompt left out of the maximum": Shape("max", [(48, True, TANH)], prompts=PROMPTS, include_prompt=False),
    "prompt left out, first token": Shape("cls", prompts=PROMPTS, include_prompt=False),
}


def folder_of(shape: Shape, parent: Parent, folder: Path, *, max_length: int = 48) -> Path:
    """Write a model as sentence-transformers does; parent: 32 wide."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    parent.model.save_pretrained(folder / "base")
    parent.tokenizer.save_pretrained(folder / "base")
    size = 32
    pooling: Any = shape.pooling
    modules: list[Any] = [Transformer(str(folder / "base"), max_seq_length=max_length)]
    modules.append(Pooling(size, pooling_mode=pooling, include_prompt=shape.include_prompt))
    torch.manual_seed(5)
    for module in shape.behind:
        if isinstance(module, str):
            modules.append(Normalize())
            continue
        out, bias, activation = module
        modules.append(Dense(size, out, bias=bias, activation_function=activation))
        size = out
    model = SentenceTransformer(
        modules=modules, device="cpu", truncate_dim=shape.truncate_dim, prompts=shape.prompts and dict(shape.prompts)
    )
    model.save(str(folder / "st"))
    return folder / "st"
