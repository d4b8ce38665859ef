"""Encoders by name, and the runtime of our own: texts in, both views out.

Texts are tokenised, sorted by length inside a window and batched by a token budget; the network sees no padding, so a
batch costs what its tokens cost, and a text's result does not depend on its neighbours.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

from retriever.encoder.base import EncoderBase
from retriever.encoder.moe.batches import (
    MIN_COST,
    TERMS_PER_COST,
    Views,
    batches,
    joined_expansions,
    joined_tokens,
    joined_vectors,
    top_terms,
)
from retriever.encoder.moe.recent import RecentQueries
from retriever.encoder.runtime import RuntimeConfig, fastest_precision
from retriever.encoder.views import unit
from retriever.encoder.vocabulary.lexicon import Lexicon
from retriever.lazy import lazy
from retriever.names import QUERY_MODES
from retriever.network.checkpoint import WEIGHT_FILES, read_settings, read_values
from retriever.network.folder import load_config, load_model
from retriever.network.parameters import count_parameters
from retriever.network.prompts import prompt_tokens
from retriever.network.settings import DEFAULTS, expert_layers
from retriever.processes import one_thread_after_fork, processors
from retriever.types import (
    Encoded,
    EncodedByToken,
    EncoderIdentity,
    ExpertRoutes,
    Parameters,
    TokenExperts,
    UserError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Self

    from numpy.typing import NDArray

    from retriever.encoder.tokens import TokenEncoder
    from retriever.network.int8.network import Int8Network
    from retriever.network.int8.query import QueryNetwork
    from retriever.network.int8.tiled import TiledNetwork
    from retriever.network.model import RetrieverConfig, RetrieverModel
    from retriever.network.packing import Packed
    from retriever.types import BoolArray, FloatArray, TermSpan, TermStatistics

__all__ = [
    "MoEEncoder",
    "QueryStates",
    "folder_digest",
]

NORM, PROJECTION = "embeddings.norm.weight", "projection.bias"
"""Vectors of the network's width, and of the dense view's where a matrix behind the pooling gives it another one."""
SMALLEST_BATCH = 256  # tokens; fewer are not spread over threads
QUERY_TOKENS = 128
"""Tokens of queries that go through the network together: weights that were read are used again."""


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


class Tokens(NamedTuple):
    """Token ids of one text: all its own, and those that the network reads (prompt, special tokens, maybe a part)."""

    own: list[int]
    read: list[int]
    truncated: bool


class ReadableTexts(NamedTuple):
    """Texts with "" for those that cannot be read, and which these are."""

    texts: Sequence[str]
    unread: BoolArray


class QueryStates(NamedTuple):
    """The last hidden states of a query's tokens, float32 (tokens, hidden), and their ids, int32 (tokens,)."""

    vectors: FloatArray
    ids: NDArray[np.int32]


class _Wanted(NamedTuple):
    """What is wanted of texts.

    least: weight of an expansion; projection: see `MoEEncoder.encode_by_token`; prompt: how many tokens of each text
    are its prompt's.
    """

    dense: bool
    expansions: bool
    least: float
    projection: FloatArray | None
    prompt: int


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
        self._folder, self._process = Path(folder), os.getpid()
        self.runtime = runtime or RuntimeConfig()
        settings = self._settings = read_settings(self._folder)
        self.lexicon = Lexicon(self._folder)
        self.vocabulary, self.languages = self.lexicon.vocabulary, self.lexicon.languages
        self.query_mode = settings.get("query_mode", QUERY_MODES[0])
        # Both are shared with `with_query_mode`.
        self._recent: RecentQueries[Encoded] = RecentQueries(self.runtime.recent_queries)
        self._recent_states: RecentQueries[QueryStates] = RecentQueries(self.runtime.recent_queries)
        self.identity = EncoderIdentity(
            name or str(self._folder.resolve()),
            folder_digest(self._folder, ("config.json", "tokenizer.json", *WEIGHT_FILES)),
            self._length(PROJECTION if settings.get("dense_dim") else NORM),
            len(self.vocabulary),
        )
        if not lazy:
            _ = self._model

    def _length(self, name: str) -> int:
        """Return the length of a vector among the weights."""
        return len(read_values(self._folder, [name])[name])

    @lazy
    def hidden_size(self) -> int:
        """Return the width of the network: how many numbers stand for a token."""
        return self._length(NORM)

    @lazy
    def _model(self) -> RetrieverModel | Int8Network | TiledNetwork:
        one_thread_after_fork()
        if self.precision == "int8":
            from retriever.network.int8.tiled import TiledNetwork, products_overflow, tiles_pay

            if self._query_network is not None and (tiles_pay() or products_overflow()):
                return TiledNetwork(self._query_network, load_config(self._folder))
            if products_overflow():
                raise UserError(
                    "precision 'int8': this processor has neither VNNI nor AMX, without which int8 products overflow; "
                    "use 'float32'"
                )
        model = load_model(self._folder)
        if self.precision == "int8":
            from retriever.network.int8.network import Int8Network

            return Int8Network(model)
        model.set_precision(self.precision)
        try:
            model.to(device=self.runtime.device)  # type: ignore[call-arg]
        except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is not there
            reason = str(error).splitlines()[0]
            raise UserError(f"device {self.runtime.device!r} cannot be used ({reason}); use 'cpu'") from None
        from retriever.network.batches import batch_independent

        if self.precision == "bfloat16" and self.runtime.device == "cpu" and not batch_independent(model):
            raise UserError(
                "precision 'bfloat16': on this processor a text's vector would depend on the texts beside it; "
                "use 'float32' or 'int8'"
            )
        return model

    @property
    def _threads(self) -> ThreadPoolExecutor | None:
        """Return what runs batches side by side; None in a forked process, where the threads stayed behind."""
        return self._started_threads if self._process == os.getpid() else None

    @lazy
    def _started_threads(self) -> ThreadPoolExecutor | None:
        from retriever.encoder.moe.threads import encoding_threads

        return encoding_threads() if self.runtime.device == "cpu" else None

    @lazy
    def _query_network(self) -> QueryNetwork | None:
        """Return what encodes queries in int8, without torch; None where the network for documents encodes them."""
        if self.runtime.device != "cpu" or not (self.precision == "int8" or self.runtime.quick_queries):
            return None
        from retriever.network.int8.weights import runs_alone

        if not runs_alone(self._folder):
            return None
        from retriever.network.int8.query import QueryNetwork

        return QueryNetwork(self._folder, self.identity.sha256)

    @lazy
    def precision(self) -> str:
        """Return the precision that the network runs in."""
        chosen = self.runtime.precision
        return fastest_precision(self.runtime.device) if chosen == "auto" else chosen

    @property
    def _least_cost(self) -> int:
        return max(MIN_COST, self.identity.vocab_size // TERMS_PER_COST) if self._expands else MIN_COST

    @property
    def _expands(self) -> bool:
        """Say whether texts are given other terms than their own: else the vocabulary is never computed."""
        return bool((DEFAULTS | self._settings)["max_terms"])

    @property
    def config(self) -> RetrieverConfig:
        """Return the sizes and limits of the network."""
        return self._model.config

    @property
    def parameters(self) -> Parameters:
        """Return the number of parameters; active ones are those that one token meets."""
        return count_parameters(self.config)

    @property
    def max_tokens(self) -> int:
        """Return how many tokens of a passage the network reads, beside its prompt and frame."""
        return self.config.max_length - 2 - self._prompt_tokens(self.config.document_prompt)

    def _prompt_tokens(self, prompt: str) -> int:
        """Return how many tokens a prompt has."""
        return prompt_tokens([self.vocabulary[one] for one in self.lexicon.token_ids([prompt])[0]]) if prompt else 0

    def token_starts(self, text: str) -> list[int]:
        """Return at which character of a text each of its tokens starts, ascending."""
        return self.lexicon.token_starts(text)

    def term_spans(self, text: str) -> list[TermSpan]:
        """Return the words of a text that stand for dimensions of the sparse view, ascending."""
        return self.lexicon.term_spans(text)

    def expert_routes(self, query: str) -> ExpertRoutes:
        """Return which experts the tokens of a query go to; no tokens of a query that is not read."""
        settings = DEFAULTS | self._settings
        layers = expert_layers(settings)
        [text] = self._tokenise(self._readable([query]).texts, settings["query_prompt"], settings["max_length"] - 2)
        if not layers or not text.read:
            return ExpertRoutes(layers, ())
        chosen = self._experts_of(text.read)
        tokens = [
            TokenExperts(self.vocabulary[text.read[place]], tuple(tuple(layer[place]) for layer in chosen))
            for place in range(1 + self._prompt_tokens(settings["query_prompt"]), len(text.read) - 1)
        ]
        return ExpertRoutes(layers, tuple(tokens))

    def _experts_of(self, token_ids: list[int]) -> list[list[list[int]]]:
        """Return for each MoE layer the experts of each token (n, active), by the network that encodes queries."""
        if self._query_network is not None:
            return [experts.tolist() for experts in self._query_network.routes(token_ids)]
        import torch

        with torch.inference_mode():
            routings = self._model.encode(self._packed([token_ids]), dense=False, sparse=True).routings
        return [routing.expert_ids.tolist() for routing in routings]

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
        known = self._readable(texts)
        foreign = self.lexicon.foreign(known.texts)
        found = self._encode(
            known.texts,
            self.config.document_prompt,
            dense=dense,
            expand=sparse and self._expands,
            count=sparse,
            least=self.config.min_document_weight,
            unread=foreign,
            projection=projection,
        )
        encoded = found.encoded._replace(unread=known.unread | foreign)
        if encoded.tokens is not None:
            encoded = encoded._replace(sparse=self.lexicon.documents(encoded.tokens, encoded.sparse))
        return found._replace(encoded=encoded)

    def encode_queries(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        """Encode n queries, in order; without the dense view, lexical ones run no network.

        A query alone is remembered for some time (`RuntimeConfig.recent_queries`).
        """
        if len(texts) == 1:
            key = texts[0], dense, sparse, self.query_mode
            return self._recent.get(key, lambda: self._encode_queries(texts, dense, sparse))
        return self._encode_queries(texts, dense, sparse)

    def _encode_queries(self, texts: Sequence[str], dense: bool, sparse: bool) -> Encoded:
        known = self._readable(texts)
        expand = sparse and self._expands and self.query_mode == "encoder"
        if sparse and not (dense or expand):
            counts = self.lexicon.counts(self.lexicon.token_ids(known.texts))
            none_cut = np.zeros(len(texts), dtype=np.bool_)
            return Encoded(None, self.lexicon.queries(counts, None), none_cut, unread=known.unread)
        if self._query_network is not None:
            encoded = self._encode_few(self._query_network, known.texts, dense=dense, expand=expand, count=sparse)
        else:
            prompt, least = self.config.query_prompt, self.config.min_query_weight
            encoded = self._encode(known.texts, prompt, dense=dense, expand=expand, count=sparse, least=least).encoded
        encoded = encoded._replace(unread=known.unread)
        if encoded.tokens is None:
            return encoded
        return encoded._replace(sparse=self.lexicon.queries(encoded.tokens, encoded.sparse), tokens=None)

    @lazy
    def token_encoder(self) -> TokenEncoder:
        """Return what gives a vector for each token of a text."""
        from retriever.encoder.tokens import ProjectedStates

        return ProjectedStates(self)

    @property
    def folder(self) -> Path:
        """Return where it was loaded from."""
        return self._folder

    def token_ids_read(self, text: str, *, query: bool) -> list[int]:
        """Return the ids of the tokens that the network reads of a text, its frame included."""
        return self._read(text, "query_prompt" if query else "document_prompt").read

    def _read(self, text: str, prompt: str) -> Tokens:
        """Tokenise one text without the network."""
        settings = DEFAULTS | self._settings
        return self._tokenise(self._readable([text]).texts, settings[prompt], settings["max_length"] - 2)[0]

    def query_states(self, text: str) -> QueryStates:
        """Return the last hidden state of each token that the network reads of a query, and the ids of the tokens.

        They are at hand where the query was just encoded alone, by the network for queries.
        """
        return self._recent_states.get(text, lambda: self._query_states(text))

    def _query_states(self, text: str) -> QueryStates:
        read = self._read(text, "query_prompt").read
        if not read:
            return QueryStates(np.zeros((0, self.hidden_size), np.float32), np.zeros(0, np.int32))
        if self._query_network is not None:
            states = self._query_network.encode([read], dense=False, sparse=False).states
        else:
            states = self._states([read])
        return QueryStates(states, np.array(read, np.int32))

    def _states(self, token_ids: list[list[int]]) -> FloatArray:
        import torch

        with torch.inference_mode():
            states = self._model.encode(self._packed(token_ids), dense=False, sparse=False).states
            assert states is not None
            found: FloatArray = states.float().cpu().numpy()
        return found

    def _packed(self, token_ids: list[list[int]]) -> Packed:
        from retriever.network.packing import pack

        packed, device = pack(token_ids), self.runtime.device
        return packed._replace(input_ids=packed.input_ids.to(device), positions=packed.positions.to(device))

    def _readable(self, texts: Sequence[str]) -> ReadableTexts:
        """Empty the texts whose script the vocabulary does not have: their views would say nothing, confidently."""
        unread = self.lexicon.readability.unread(texts)
        if not unread.any():
            return ReadableTexts(texts, unread)
        return ReadableTexts(["" if skip else text for text, skip in zip(texts, unread, strict=True)], unread)

    def adapt(self, terms: sparse.csr_matrix, statistics: TermStatistics) -> sparse.csr_matrix:
        """Return query terms (n, vocab_size) weighted for the document frequencies of the collection searched."""
        return self.lexicon.adapt(terms, statistics, expanded=self.query_mode == "encoder")

    def _encode(
        self,
        texts: Sequence[str],
        prompt: str,
        *,
        dense: bool,
        expand: bool,
        count: bool,
        least: float,
        unread: BoolArray | None = None,
        projection: FloatArray | None = None,
    ) -> EncodedByToken:
        """Return what is wanted: vectors, expansions in place of the sparse view, and how often tokens occur.

        least: weight of an expansion. unread: bool (n,), True for texts whose tokens are counted and go no further.
        projection: as in `encode_by_token`.
        """
        truncated = np.zeros(len(texts), dtype=np.bool_)
        counts = [self.lexicon.counts([])]
        views: list[Views] = []
        running: list[Callable[[], Views]] = []
        read = np.zeros(len(texts), np.int64)
        wanted = _Wanted(dense, expand, least, projection, self._prompt_tokens(prompt))
        for start in range(0, len(texts), self.runtime.window):
            # While one window is in the network, the next is tokenised.
            tokens = self._tokenise(texts[start : start + self.runtime.window], prompt, self.config.max_length - 2)
            if unread is not None:
                tokens = [
                    text._replace(read=[], truncated=False) if skip else text
                    for text, skip in zip(tokens, unread[start:], strict=False)
                ]
            if count:
                counts.append(self.lexicon.counts([text.own for text in tokens]))
            truncated[start : start + len(tokens)] = [text.truncated for text in tokens]
            runs = dense or expand or projection is not None
            lengths = [len(text.read) if runs else 0 for text in tokens]
            read[start : start + len(tokens)] = lengths
            started = [
                self._start([start + i for i in batch], [tokens[i].read for i in batch], wanted)
                for batch in batches(lengths, self._budget(sum(lengths)), self._least_cost)
            ]
            views += [result() for result in running]
            running = started
        views += [result() for result in running]
        encoded = Encoded(
            joined_vectors(views, len(texts), self.identity.dense_dim) if dense else None,
            joined_expansions(views, len(texts), self.identity.vocab_size) if expand else None,
            truncated,
            sparse.vstack(counts, format="csr") if count else None,
        )
        return EncodedByToken(encoded, None if projection is None else joined_tokens(views, read, projection.shape[1]))

    def _encode_few(
        self, network: QueryNetwork, texts: Sequence[str], *, dense: bool, expand: bool, count: bool
    ) -> Encoded:
        """Return what `_encode` does, of queries."""
        settings = DEFAULTS | self._settings
        tokens = self._tokenise(texts, settings["query_prompt"], settings["max_length"] - 2)
        lengths, kept = [len(text.read) for text in tokens], (settings["max_terms"], settings["min_query_weight"])
        prompt = self._prompt_tokens(settings["query_prompt"])

        def run(batch: list[int]) -> Views:
            found = network.encode([tokens[i].read for i in batch], dense=dense, sparse=expand, prompt=prompt)
            if len(texts) == 1:
                self._recent_states.keep(texts[0], QueryStates(found.states, np.array(tokens[0].read, np.int32)))
            return Views(batch, found.dense, None if found.sparse is None else top_terms(found.sparse, *kept))

        views = list(self._each(run, list(batches(lengths, QUERY_TOKENS))))
        return Encoded(
            joined_vectors(views, len(texts), self.identity.dense_dim) if dense else None,
            joined_expansions(views, len(texts), self.identity.vocab_size) if expand else None,
            np.array([text.truncated for text in tokens], np.bool_),
            self.lexicon.counts([text.own for text in tokens]) if count else None,
        )

    def _each(self, run: Callable[[list[int]], Views], parts: list[list[int]]) -> Iterable[Views]:
        """Run each of some batches of queries; several side by side, where there are processors for it."""
        workers = min(len(parts), processors())
        if workers < 2:
            return map(run, parts)
        with ThreadPoolExecutor(workers, "queries") as pool:
            return list(pool.map(run, parts))

    def _tokenise(self, texts: Sequence[str], prompt: str, room: int) -> list[Tokens]:
        """Return each text's tokens; a text without any is not read."""
        own = self.lexicon.token_ids(texts)
        full = self.lexicon.token_ids(texts, prompt) if prompt else own
        return [
            Tokens(ids, [self.lexicon.opening, *read[:room], self.lexicon.closing] if ids else [], len(read) > room)
            for ids, read in zip(own, full, strict=True)
        ]

    def _budget(self, tokens: int) -> int:
        """Return how many tokens of a window a batch may have: few enough for each thread to get one."""
        import torch

        threads = 1 if self._threads is None else torch.get_num_threads()
        return min(self.runtime.tokens_per_batch, max(SMALLEST_BATCH, -(-tokens // threads)))

    def _start(self, texts: list[int], token_ids: list[list[int]], wanted: _Wanted) -> Callable[[], Views]:
        """Begin a batch, if there are threads for it; return what gives its views."""
        if self._threads is not None:
            return self._threads.submit(self._run, texts, token_ids, wanted).result
        return partial(self._run, texts, token_ids, wanted)

    def _run(self, texts: list[int], token_ids: list[list[int]], wanted: _Wanted) -> Views:
        """Run one batch, sorted by length."""
        import torch

        with torch.inference_mode():
            packed = self._packed(token_ids)
            out = self._model.encode(packed, dense=wanted.dense, sparse=wanted.expansions, prompt=wanted.prompt)
            assert out.states is not None
            return Views(
                texts,
                None if out.dense is None else out.dense.cpu().numpy(),
                None
                if out.sparse is None
                else top_terms(out.sparse.cpu().numpy(), self.config.max_terms, wanted.least),
                None if wanted.projection is None else unit(out.states.float().cpu().numpy() @ wanted.projection),
            )
