"""From texts to the ids of tokens that the network reads, without the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.network.prompts import prompt_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retriever.encoder.vocabulary.lexicon import Lexicon
    from retriever.types import BoolArray

__all__ = ["ReadableTexts", "TextReader", "Tokens"]


class Tokens(NamedTuple):
    """Token ids of one text: all its own, and those that the network reads (prompt, special tokens, maybe a part)."""

    own: list[int]
    read: list[int]
    truncated: bool


class ReadableTexts(NamedTuple):
    """Texts with "" for those that cannot be read, and which these are."""

    texts: Sequence[str]
    unread: BoolArray


class TextReader:
    """Tokenises texts as the network reads them: behind a prompt, in a frame, cut off where it has no more places."""

    def __init__(self, lexicon: Lexicon, settings: Mapping[str, Any]) -> None:
        """Take the tokeniser, and all settings of the encoder folder."""
        self._lexicon, self._settings = lexicon, settings
        self.document_prompt, self.query_prompt = settings["document_prompt"], settings["query_prompt"]

    def prompt_tokens(self, prompt: str) -> int:
        """Return how many tokens a prompt has."""
        lexicon = self._lexicon
        return prompt_tokens([lexicon.vocabulary[one] for one in lexicon.token_ids([prompt])[0]]) if prompt else 0

    def readable(self, texts: Sequence[str]) -> ReadableTexts:
        """Empty the texts whose script the vocabulary does not have: their views would say nothing, confidently."""
        unread = self._lexicon.readability.unread(texts)
        if not unread.any():
            return ReadableTexts(texts, unread)
        return ReadableTexts(["" if skip else text for text, skip in zip(texts, unread, strict=True)], unread)

    def tokenise(self, texts: Sequence[str], prompt: str) -> list[Tokens]:
        """Return each text's tokens; a text without any is not read."""
        lexicon, room = self._lexicon, self._settings["max_length"] - 2
        own = lexicon.token_ids(texts)
        full = lexicon.token_ids(texts, prompt) if prompt else own
        return [
            Tokens(ids, [lexicon.opening, *read[:room], lexicon.closing] if ids else [], len(read) > room)
            for ids, read in zip(own, full, strict=True)
        ]

    def read(self, text: str, prompt: str) -> list[int]:
        """Return the ids of the tokens that the network reads of one text, frame included; none of an unread one."""
        return self.tokenise(self.readable([text]).texts, prompt)[0].read
