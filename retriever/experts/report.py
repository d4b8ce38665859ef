"""What each expert of an encoder does: how much it is used, on which tokens, in which part of a corpus.

Typical tokens are those of highest pointwise mutual information with the expert (Church and Hanks 1990): how many times
more often, in powers of two, the expert gets the token than if the router did not look.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.corpus.corpus import open_corpus
from retriever.encoder.spec import parse_spec
from retriever.experts.routing_stats import choice_counts, entropy, expert_load, pointwise_mutual_information, together
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from retriever.network.model import RetrieverModel
    from retriever.types import Document

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

__all__ = [
    "ExpertProfile",
    "ExpertsReport",
    "LayerReport",
    "Typical",
    "VocabularyReport",
    "experts_report",
]

CONTEXT = 3
MISSING = "(none)"


class Typical(NamedTuple):
    """A token, or a value of a metadata field, that an expert gets `count` times, and its information in bits.

    before, after: the text around one such token.
    """

    name: str
    pmi: float
    count: int  # type: ignore[assignment]  # a tuple has a method of this name, which nobody calls
    before: str = ""
    after: str = ""


class ExpertProfile(NamedTuple):
    """Experts that every token takes together (mostly one; slices of a copy until training makes them differ).

    load: their share of all choices in the layer. tokens, values: the most typical first.
    """

    experts: tuple[int, ...]
    load: float
    tokens: tuple[Typical, ...]
    values: tuple[Typical, ...]


class LayerReport(NamedTuple):
    """One MoE layer: each routed expert's share of the choices, and two entropies in bits, of at most log2(experts).

    load_entropy: of that share: high when all are used. token_entropy: of the router's probabilities, mean over the
    tokens: low when the router is sure. layer: its number in the trunk, or "sparse head".
    """

    layer: str
    load: tuple[float, ...]
    load_entropy: float
    token_entropy: float
    profiles: tuple[ExpertProfile, ...]


class VocabularyReport(NamedTuple):
    """The clusters of terms that the sparse head computes for a token; least, most: terms of one."""

    experts: int
    per_token: int
    least: int
    most: int


class ExpertsReport(NamedTuple):
    """The MoE layers of an encoder on a sample of a corpus; active: routed experts that a token meets in the last.

    vocabulary: its vocabulary experts, None where every token computes all terms.
    """

    encoder: str
    corpus: str
    documents: int
    tokens: int
    active: int
    field: str
    layers: tuple[LayerReport, ...]
    vocabulary: VocabularyReport | None = None


def experts_report(
    encoder: str,
    corpus: str | Path,
    *,
    documents: int = 300,
    top: int = 20,
    min_count: int = 10,
    field: str = "",
    seed: int = 0,
    progress: bool = False,
) -> ExpertsReport:
    """Route a random sample of a corpus through an encoder folder and report on each MoE layer.

    top: tokens per expert. min_count: how often an expert must have got a token to be listed with it.
    field: a metadata field, such as a topic, whose values are then related to the experts, too.

    Raises:
        UserError: an encoder without MoE layers, a bad record, or a field that no document has.
    """
    model, tokenizer = _load(encoder)
    chosen = _sample(corpus, documents, seed)
    values = _values(corpus, chosen, field)
    traces = list(_routed(model, tokenizer, chosen, progress))
    token_ids = np.concatenate([trace.token_ids for trace in traces])
    lengths = [len(trace.token_ids) for trace in traces]
    places = np.repeat(np.arange(len(traces)), lengths)  # (n,), the text of each token
    vocabulary = [tokenizer.id_to_token(i) or "" for i in range(tokenizer.get_vocab_size())]
    names, value_ids = np.unique(np.array(values), return_inverse=True)
    layers = []
    for place, (layer, routed) in enumerate(model.config.expert_layers):
        expert_ids = np.concatenate([trace.expert_ids[place] for trace in traces])  # (n, active)
        counts = choice_counts(token_ids, expert_ids, len(vocabulary), routed)
        by_value = choice_counts(value_ids[places], expert_ids, len(names), routed)
        load = expert_load(expert_ids, routed)
        profiles = []
        for group in together(counts):
            row = list(group)
            typical = _typical(counts, row, vocabulary, top, min_count)
            around = [_context(one, vocabulary, token_ids, places, (expert_ids == row[0]).any(1)) for one in typical]
            fields = _typical(by_value, row, names.tolist(), top, min_count) if field else ()
            profiles.append(ExpertProfile(group, float(load[row].sum()), tuple(around), tuple(fields)))
        token_entropy = float(np.mean(np.concatenate([trace.entropies[place] for trace in traces])))
        layers.append(LayerReport(layer, tuple(load.tolist()), float(entropy(load)), token_entropy, tuple(profiles)))
    return ExpertsReport(
        encoder=encoder,
        corpus=str(corpus),
        documents=len(chosen),
        tokens=len(token_ids),
        active=traces[0].expert_ids[-1].shape[1],
        field=field,
        layers=tuple(layers),
        vocabulary=_vocabulary(model),
    )


def _vocabulary(model: RetrieverModel) -> VocabularyReport | None:
    experts = model.sparse_head.vocabulary
    if experts is None:
        return None
    cluster = experts.cluster.numpy()
    sizes = np.bincount(cluster[cluster >= 0], minlength=len(experts.router))
    return VocabularyReport(len(sizes), experts.limits.per_token, int(sizes.min()), int(sizes.max()))


class _Trace(NamedTuple):
    """Where the tokens (n,) of one text went: for each MoE layer expert ids (n, active) and entropies (n,)."""

    token_ids: Ints
    expert_ids: list[Ints]
    entropies: list[Floats]


def _load(spec: str) -> tuple[RetrieverModel, Tokenizer]:
    from tokenizers import Tokenizer

    from retriever.network.folder import load_model

    found = parse_spec(spec)
    if not found.own:
        raise UserError(f"{spec}: has no experts; give an encoder folder with MoE layers, or 'default'")
    folder = found.folder()
    model = load_model(folder)
    if not model.config.expert_layers:
        raise UserError(f"{spec}: has no experts; give an encoder with MoE layers, as `retriever upcycle` makes them")
    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(model.config.max_length)
    return model, tokenizer


def _sample(corpus: str | Path, size: int, seed: int) -> list[Document]:
    """Return random documents with text, in the order of the corpus (reservoir sampling, Vitter 1985)."""
    rng = random.Random(seed)
    kept: dict[int, tuple[int, Document]] = {}
    seen = 0
    for record in open_corpus(corpus):
        if record.document is None:
            raise UserError(f"{record.source}: {record.problem}")
        if not record.document.contents:
            continue
        slot = seen if seen < size else rng.randrange(seen + 1)
        if slot < size:
            kept[slot] = (seen, record.document)
        seen += 1
    if not kept:
        raise UserError(f"{corpus}: no document with text; give a corpus with at least one")
    return [document for _, document in sorted(kept.values(), key=lambda pair: pair[0])]


def _values(corpus: str | Path, documents: Sequence[Document], field: str) -> list[str]:
    """Return each document's value of the field."""
    found = {name for document in documents for name in document.metadata}
    if field and field not in found:
        raise UserError(f"{corpus}: no field {field!r}; its documents have {', '.join(sorted(found)) or 'none'}")
    return [str(document.metadata.get(field, MISSING)) for document in documents]


def _routed(
    model: RetrieverModel, tokenizer: Tokenizer, documents: Sequence[Document], progress: bool
) -> Iterator[_Trace]:
    """Yield where each document's tokens went; one text at a time keeps the tokens in their order."""
    import torch
    from tqdm import tqdm

    for document in tqdm(documents, desc="route", unit=" docs", file=sys.stderr, disable=not progress):
        ids = tokenizer.encode(model.config.document_prompt + document.contents).ids
        with torch.inference_mode():
            routings = model(torch.tensor([ids]), dense=False).routings
        probabilities = [routing.logits.double().softmax(-1).numpy() for routing in routings]
        yield _Trace(
            np.array(ids), [routing.expert_ids.numpy() for routing in routings], [entropy(p) for p in probabilities]
        )


def _typical(counts: Ints, group: list[int], names: Sequence[str], top: int, min_count: int) -> list[Typical]:
    """Return what is most typical of a group of experts; among equals the more frequent first."""
    column = group[0]
    information: list[float] = np.round(pointwise_mutual_information(counts)[:, column], 9).tolist()  # equals tie
    often: list[int] = counts[:, column].tolist()
    listed = [i for i, found in enumerate(information) if found > 0 and often[i] >= min_count]
    best = sorted(listed, key=lambda i: (-information[i], -often[i], names[i]))[:top]
    return [Typical(names[i], information[i], often[i]) for i in best]


def _context(typical: Typical, vocabulary: list[str], token_ids: Ints, places: Ints, chosen: Ints) -> Typical:
    """Add the text around the first token of this name that the expert got; chosen: bool (n,)."""
    at = int(np.flatnonzero(chosen & (token_ids == vocabulary.index(typical.name)))[0])
    text = np.flatnonzero(places == places[at])
    first, last = int(text[0]) + 1, int(text[-1])  # without [CLS] and [SEP]
    start, end = max(first, at - CONTEXT), min(last, at + 1 + CONTEXT)
    while start > first and _is_piece(vocabulary[token_ids[start]]):
        start -= 1
    while end < last and _is_piece(vocabulary[token_ids[end]]):
        end += 1
    before = _joined([vocabulary[i] for i in token_ids[start:at]]).lstrip()
    space = "" if _is_piece(typical.name) else " "
    return typical._replace(before=before + space, after=_joined([vocabulary[i] for i in token_ids[at + 1 : end]]))


def _is_piece(token: str) -> bool:
    """Return whether a token continues the word before it (WordPiece's ##)."""
    return token.startswith("##")


def _joined(tokens: Sequence[str]) -> str:
    """Return tokens as text, with the space that stands before the first."""
    return "".join(token[2:] if _is_piece(token) else f" {token}" for token in tokens)
