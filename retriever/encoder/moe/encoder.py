"""The runtime of our own encoders: texts in, both views out."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retriever.encoder.base import EncoderBase
from retriever.encoder.moe.networks import Networks
from retriever.encoder.moe.passes import Passes, QueryStates, Wanted
from retriever.encoder.moe.recent import RecentQueries
from retriever.encoder.moe.texts import TextReader
from retriever.encoder.runtime import RuntimeConfig
from retriever.encoder.vocabulary.lexicon import Lexicon
from retriever.lazy import lazy
from retriever.names import QUERY_MODES
from retriever.network.checkpoint import WEIGHT_FILES, read_settings, read_values
from retriever.network.parameters import count_parameters
from retriever.network.settings import DEFAULTS, expert_layers
from retriever.types import Encoded, EncodedByToken, EncoderIdentity, ExpertRoutes, Parameters, TokenExperts, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from scipy import sparse

    from retriever.encoder.moe.networks import Network
    from retriever.encoder.tokens import TokenEncoder
    from retriever.network.model import RetrieverConfig
    from retriever.types import FloatArray, TermSpan, TermStatistics

__all__ = [
    "MoEEncoder",
    "QueryStates",
    "folder_digest",
]

NORM, PROJECTION = "embeddings.norm.weight", "projection.bias"
"""Vectors of the network's width, and of the dense view's where a matrix behind the pooling gives it another one."""


def folder_digest(folder: Path, names: Sequence[str]) -> str:
    """Return the sha256 of the named files that exist, in order, each with its name."""
    digest = hashlib.sha256()
    for name in names:
        path = folder / name
        if path.is_file():
            digest.update(name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


class MoEEncoder(EncoderBase):
    """Runs an encoder folder; satisfies `Encoder`.

    query_mode: where the sparse view of a query comes from: "encoder", its tokens and the network's expansions of them,
    or "lexical", its tokens alone, which needs no network. Documents are the same for both.
    """

    query_modes = QUERY_MODES
    adapts = True

    def __init__(
        self, folder: str | Path, name: str | None = None, runtime: RuntimeConfig | None = None, *, lazy: bool = False
    ) -> None:
        """Load the folder; raise UserError where it is none of ours or its parts do not fit each other.

        lazy: load the network, and find out whether its weights fit, with the first text that needs it: where only
        lexical queries are encoded, torch is not even imported.
        """
        self._folder = Path(folder)
        self.runtime = runtime or RuntimeConfig()
        given = read_settings(self._folder)
        settings = self._settings = DEFAULTS | given
        self.lexicon = Lexicon(self._folder, settings["max_fraction"])
        self.vocabulary, self.languages = self.lexicon.vocabulary, self.lexicon.languages
        self.query_mode = given.get("query_mode", QUERY_MODES[0])
        self.identity = EncoderIdentity(
            name or str(self._folder.resolve()),
            folder_digest(self._folder, ("config.json", "tokenizer.json", *WEIGHT_FILES)),
            self._length(PROJECTION if given.get("dense_dim") else NORM),
            len(self.vocabulary),
        )
        # What follows is shared with `with_query_mode`.
        self._recent: RecentQueries[Encoded] = RecentQueries(self.runtime.recent_queries)
        self._recent_states: RecentQueries[QueryStates] = RecentQueries(self.runtime.recent_queries)
        self._reader = TextReader(self.lexicon, settings)
        self._networks = Networks(self._folder, self.identity.sha256, self.runtime)
        dense_dim = self.identity.dense_dim
        self.passes = Passes(self._reader, self.lexicon, self._networks, runtime=self.runtime, dense_dim=dense_dim)
        if not lazy:
            _ = self._networks.batched

    def _length(self, name: str) -> int:
        """Return the length of a vector among the weights."""
        return len(read_values(self._folder, [name])[name])

    @lazy
    def hidden_size(self) -> int:
        """Return the width of the network: how many numbers stand for a token."""
        return self._length(NORM)

    @property
    def folder(self) -> Path:
        """Return where it was loaded from."""
        return self._folder

    @property
    def precision(self) -> str:
        """Return the precision that the network runs in."""
        return self._networks.precision

    @property
    def network(self) -> Network:
        """Return what encodes packed batches; it is loaded now, if it was not yet."""
        return self._networks.batched

    @property
    def config(self) -> RetrieverConfig:
        """Return the sizes and limits of the network."""
        return self.network.config

    @property
    def parameters(self) -> Parameters:
        """Return the number of parameters; active ones are those that one token meets."""
        return count_parameters(self.config)

    @property
    def max_tokens(self) -> int:
        """Return how many tokens of a passage the network reads, beside its prompt and frame."""
        return self.config.max_length - 2 - self._reader.prompt_tokens(self.config.document_prompt)

    def token_starts(self, text: str) -> list[int]:
        """Return at which character of a text each of its tokens starts, ascending."""
        return self.lexicon.token_starts(text)

    def term_spans(self, text: str) -> list[TermSpan]:
        """Return the words of a text that stand for dimensions of the sparse view, ascending."""
        return self.lexicon.term_spans(text)

    def expert_routes(self, query: str) -> ExpertRoutes:
        """Return which experts the tokens of a query go to; no tokens of a query that is not read."""
        layers = expert_layers(self._settings)
        prompt = self._reader.query_prompt
        read = self._reader.read(query, prompt) if layers else []
        if not read:
            return ExpertRoutes(layers, ())
        chosen = self.passes.routes(read)
        tokens = [
            TokenExperts(self.vocabulary[read[place]], tuple(tuple(layer[place]) for layer in chosen))
            for place in range(1 + self._reader.prompt_tokens(prompt), len(read) - 1)
        ]
        return ExpertRoutes(layers, tuple(tokens))

    def with_query_mode(self, mode: str) -> Self:
        """Return this encoder, weights shared, with another query mode."""
        if mode not in QUERY_MODES:
            raise UserError(f"query mode {mode!r} is unknown; choose one of {', '.join(QUERY_MODES)}")
        return super().with_query_mode(mode)

    def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        """Encode n passages, in order; the sparse view counts the tokens of the whole text, cut off or not.

        A text in a language that the network does not read keeps its own words, and gets no vector and no expansions:
        on XQuAD hybrid search is better than BM25 with them in the five other languages of Latin script, and worse
        with its vectors in three of them.
        """
        return self.encode_by_token(texts, dense=dense, sparse=sparse).encoded

    def encode_by_token(
        self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True, projection: FloatArray | None = None
    ) -> EncodedByToken:
        """Encode n passages as `encode_documents` does, and with a projection their tokens, in the same pass.

        projection (hidden, dim): makes a vector of unit length of each token's last hidden state, those of the opening
        and closing token among them. A text that is not read has no tokens.
        """
        known = self._reader.readable(texts)
        foreign = self.lexicon.foreign(known.texts)
        most, least = self.config.max_terms, self.config.min_document_weight
        wanted = Wanted(dense, sparse and self._expands, sparse, most, least, projection)
        found = self.passes.encode(known.texts, self.config.document_prompt, wanted, foreign)
        encoded = found.encoded._replace(unread=known.unread | foreign)
        if encoded.tokens is not None:
            encoded = encoded._replace(sparse=self.lexicon.documents(encoded.tokens, encoded.sparse))
        return found._replace(encoded=encoded)

    @property
    def _expands(self) -> bool:
        """Say whether texts are given other terms than their own: else the vocabulary is never computed."""
        return bool(self._settings["max_terms"])

    def encode_queries(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        """Encode n queries, in order; without the dense view, lexical ones run no network.

        A query alone is remembered for some time (`RuntimeConfig.recent_queries`).
        """
        if len(texts) == 1:
            key = texts[0], dense, sparse, self.query_mode
            return self._recent.get(key, lambda: self._encode_queries(texts, dense, sparse))
        return self._encode_queries(texts, dense, sparse)

    def _encode_queries(self, texts: Sequence[str], dense: bool, sparse: bool) -> Encoded:
        known = self._reader.readable(texts)
        expand = sparse and self._expands and self.query_mode == "encoder"
        if sparse and not (dense or expand):
            counts = self.lexicon.counts(self.lexicon.token_ids(known.texts))
            none_cut = np.zeros(len(texts), dtype=np.bool_)
            return Encoded(None, self.lexicon.queries(counts, None), none_cut, unread=known.unread)
        wanted = Wanted(dense, expand, sparse, self._settings["max_terms"], self._settings["min_query_weight"])
        if self._networks.few is not None:
            encoded = self.passes.encode_few(
                self._networks.few, known.texts, wanted, lambda states: self._recent_states.keep(known.texts[0], states)
            )
        else:
            encoded = self.passes.encode(known.texts, self._reader.query_prompt, wanted).encoded
        encoded = encoded._replace(unread=known.unread)
        if encoded.tokens is None:
            return encoded
        return encoded._replace(sparse=self.lexicon.queries(encoded.tokens, encoded.sparse), tokens=None)

    def adapt(self, terms: sparse.csr_matrix, statistics: TermStatistics) -> sparse.csr_matrix:
        """Return query terms (n, vocab_size) weighted for the document frequencies of the collection searched."""
        return self.lexicon.adapt(terms, statistics, expanded=self.query_mode == "encoder")

    @lazy
    def token_encoder(self) -> TokenEncoder:
        """Return what gives a vector for each token of a text."""
        from retriever.encoder.tokens import ProjectedStates

        return ProjectedStates(self)

    def token_ids_read(self, text: str, *, query: bool) -> list[int]:
        """Return the ids of the tokens that the network reads of a text, its frame included."""
        return self._reader.read(text, self._reader.query_prompt if query else self._reader.document_prompt)

    def query_states(self, text: str) -> QueryStates:
        """Return the last hidden state of each token that the network reads of a query, and the ids of the tokens.

        They are at hand where the query was just encoded alone, by the network for queries.
        """
        return self._recent_states.get(text, lambda: self._query_states(text))

    def _query_states(self, text: str) -> QueryStates:
        read = self.token_ids_read(text, query=True)
        if not read:
            return QueryStates(np.zeros((0, self.hidden_size), np.float32), np.zeros(0, np.int32))
        return QueryStates(self.passes.states(read), np.array(read, np.int32))
