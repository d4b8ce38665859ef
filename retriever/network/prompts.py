"""Prompts: how many tokens of a text are one's, and those that the cards of well-known models ask for."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

__all__ = ["Prompts", "known_prompts", "lacking_prompts", "prompt_tokens", "prompts_notice"]


class Prompts(NamedTuple):
    """What is put before a query, and before a document."""

    query: str
    document: str


SENTENCE = Prompts("Represent this sentence for searching relevant passages: ", "")
KNOWN = {
    r"bge-(small|base|large)-en(-v1\.5)?": SENTENCE,
    r"bge-(small|base|large)-zh(-v1\.5)?": Prompts("为这个句子生成表示以用于检索相关文章：", ""),  # noqa: RUF001  # as it stands in its card
    r"(multilingual-)?e5-(small|base|large)(-v2|-unsupervised)?": Prompts("query: ", "passage: "),
    r"(snowflake-)?arctic-embed-[a-z]+(-v1\.5)?": SENTENCE,
    r"(snowflake-)?arctic-embed-[a-z]+-v2\.0": Prompts("query: ", ""),
    r"mdbr-leaf-ir": SENTENCE,
    r"mxbai-embed-\w+-v\d|uae-large-v\d": SENTENCE,
    r"nomic-embed-text-v\d(\.\d)?(-moe)?": Prompts("search_query: ", "search_document: "),
}
"""By the last part of a model's name, in small letters."""


def prompt_tokens(tokens: Sequence[str]) -> int:
    """Return how many of the tokens of a prompt alone it has before a text.

    SentencePiece marks where words begin by a sign: of a prompt that ends in a space it makes a token of its own, which
    before a text is the sign of the text's first word.

    >>> prompt_tokens(["▁query", ":", "▁"])
    2
    """
    return len(tokens) - (list(tokens[-1:]) == ["▁"])


def known_prompts(base: str, folder: Path) -> Prompts | None:
    """Return the prompts of a model that is known by what it is called, or by what its config.json calls itself."""
    try:
        itself = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("_name_or_path")
    except (OSError, ValueError, AttributeError):
        itself = None
    for name in (base, str(itself or "")):
        # "intfloat/e5-small-v2", "models--intfloat--e5-small-v2", "BAAI_bge-small-en"
        last = re.split(r"[/\\_]|--", name.rstrip("/\\").lower())[-1]
        found = next((prompts for pattern, prompts in KNOWN.items() if re.fullmatch(pattern, last)), None)
        if found is not None:
            return found
    return None


def lacking_prompts(
    base: str, folder: Path, settings: Mapping[str, Any], given: Collection[str] = ()
) -> dict[str, str]:
    """Return the prompts by which a known model was trained and which are not used, by their names; {} elsewhere.

    settings: the prompts that are used, `query_prompt` and `document_prompt`; given: those that the user chose.
    """
    known = known_prompts(base, folder)
    if known is None:
        return {}
    names = zip(("query_prompt", "document_prompt"), known, strict=True)
    return {name: text for name, text in names if text and not settings[name] and name not in given}


def prompts_notice(base: str, way_out: str) -> str:
    """Return what to tell the user of a model without its prompts."""
    return f"{base}: its folder states no prompt, but models of this name were trained with one; give {way_out}"
