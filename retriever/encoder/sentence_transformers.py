"""Models of sentence-transformers as encoders: a dense one, a sparse one, or one of each."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix

from retriever.encoder.base import EncoderBase
from retriever.encoder.spec import parse_spec
from retriever.encoder.vocabulary.readability import Readability
from retriever.network.prompts import Prompts, lacking_prompts, prompts_notice
from retriever.processes import one_thread_after_fork
from retriever.types import Encoded, EncoderIdentity, Parameters, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer, SparseEncoder

    from retriever.encoder.spec import SentenceTransformerNames
    from retriever.types import BoolArray, FloatArray

__all__ = ["SentenceTransformersEncoder"]

PROMPT_NAMES = {"query": ("query",), "document": ("document", "passage", "corpus")}
"""Where a model's prompt stands, the first that says something."""
SPARSE_BATCH = 8
"""A batch of SPLADE holds float32 (n, tokens, vocabulary): 0.5 GB at 8 texts of 512 tokens and 30,522 terms."""
PROBE = "Trees take up carbon dioxide from the air and store it as wood."


class SentenceTransformersEncoder(EncoderBase):
    """Runs "st:DENSE", "st:DENSE+SPARSE" or "st:+SPARSE" with the models' own prompts; satisfies `Encoder`.

    DENSE is a SentenceTransformer, SPARSE a SparseEncoder; each is a folder or a hub name.
    """

    def __init__(self, spec: str) -> None:
        """Load the models; raise UserError where one is missing, of the other kind, or gives no usable output."""
        from sentence_transformers import SentenceTransformer, SparseEncoder

        names = parse_spec(spec).models()
        self._dense: SentenceTransformer | None = None
        self._sparse: SparseEncoder | None = None
        self._prompts = Prompts("", "")  # of the dense model
        self.vocabulary: Sequence[str] = []
        dense_dim = 0
        digest = hashlib.sha256()
        if names.dense:
            self._dense = _load(names.dense, SentenceTransformer)
            self._prompts = _prompts(self._dense, names)
            dense_dim = _dense_dim(self._dense, names.dense)
            digest.update(b"dense" + _digest(self._dense, names.dense))
        if names.sparse:
            self._sparse = _load(names.sparse, SparseEncoder)
            self.vocabulary = _vocabulary(self._sparse, names.sparse)
            digest.update(b"sparse" + _digest(self._sparse, names.sparse))
        if self._dense is not None and self._prompts != tuple(
            self._dense.prompts.get(name) or "" for name in self._prompts._fields
        ):
            digest.update(repr(tuple(self._prompts)).encode())
        self.identity = EncoderIdentity(names.text, digest.hexdigest(), dense_dim, len(self.vocabulary))

    @property
    def parameters(self) -> Parameters:
        """Return the number of parameters of both models together."""
        models = [model for model in (self._dense, self._sparse) if model is not None]
        count = sum(value.numel() for model in models for value in model.parameters())
        return Parameters(count, count)

    def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        """Encode n passages, in order; only the models of the requested views are run."""
        return self._encode(texts, "document", dense, sparse)

    def encode_queries(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        """Encode n queries, in order; only the models of the requested views are run."""
        return self._encode(texts, "query", dense, sparse)

    def _encode(self, texts: Sequence[str], task: str, dense: bool, sparse: bool) -> Encoded:
        """Encode the texts that are not blank and can be read; a prompt alone would give the others a vector."""
        truncated = np.zeros(len(texts), dtype=np.bool_)
        unread = np.zeros(len(texts), dtype=np.bool_)
        blank = np.array([not text.strip() for text in texts], dtype=np.bool_)
        vectors: FloatArray | None = None
        terms: csr_matrix | None = None
        if dense and self._dense is not None:
            vectors = np.zeros((len(texts), self.identity.dense_dim), dtype=np.float32)
            skipped = _unread(self._dense, texts)
            unread |= skipped
            places = np.flatnonzero(~(blank | skipped)).tolist()
            if filled := [texts[i] for i in places]:
                prompt = getattr(self._prompts, task)
                vectors[places] = _vectors(self._dense, filled, task, prompt)
                truncated[places] |= _truncated(self._dense, filled, prompt)
        if sparse and self._sparse is not None:
            terms = _csr(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64), (len(texts), len(self.vocabulary)))
            skipped = _unread(self._sparse, texts)
            unread |= skipped
            places = np.flatnonzero(~(blank | skipped)).tolist()
            if filled := [texts[i] for i in places]:
                terms = _terms(self._sparse, filled, task, places, len(texts))
                truncated[places] |= _truncated(self._sparse, filled, _own_prompt(self._sparse, task))
        return Encoded(vectors, terms, truncated, unread=unread)


def _unread(model: SentenceTransformer | SparseEncoder, texts: Sequence[str]) -> BoolArray:
    """Return bool (n,): True where the model's tokeniser cannot read a text; all False if it has no such check."""
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None or all(text.isascii() for text in texts):
        return np.zeros(len(texts), dtype=np.bool_)
    own = copy.deepcopy(backend)  # the model's own cuts and pads
    own.no_truncation()
    own.no_padding()
    return Readability(own).unread(texts)


def _load(name: str, kind: type[Any]) -> Any:
    """Return the model `name` as a `kind`, in float32: half precision is slow on CPUs, its vectors not of unit length.

    sentence-transformers turns a model of another kind into an untrained one with no more than a warning: refused here.
    """
    import torch

    one_thread_after_fork()
    wanted = kind.__name__
    if not Path(name).is_dir() and (name.count("/") != 1 or name.startswith((".", "/", "~")) or Path(name).exists()):
        raise UserError(f"{name}: no such model folder; give a folder or a hub name (OWNER/MODEL) of a {wanted}")
    if _read(name, "modules.json") is None:
        if Path(name).is_dir():
            raise UserError(
                f"{name}: not a sentence-transformers model (modules.json is missing); "
                f"give the folder of a {wanted}, or name an encoder of ours without st:"
            )
        raise UserError(
            f"{name}: no such model folder, and the hub has no sentence-transformers model of this name "
            f"or cannot be reached; give the folder or the hub name of a {wanted}, or connect"
        )
    found = _model_type(name)
    if found != wanted:
        raise UserError(
            f"{name}: found a {found}, need a {wanted}; give st:DENSE+SPARSE, "
            "a SentenceTransformer before the plus sign and a SparseEncoder after it"
        )
    try:
        # What a checkpoint lacks, such as a pooler that nothing reads, is drawn at random, and is a part of the digest.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return kind(name, model_kwargs={"dtype": torch.float32}).eval()
    except Exception as error:  # a model folder names its own classes, which raise what they like
        raise UserError(f"{name}: cannot load this {wanted} ({_first_line(error)}); copy or save it again") from error


def _model_type(name: str) -> str:
    """Return the kind of model that was saved; only SentenceTransformers were, before the kind was noted down."""
    text = _read(name, "config_sentence_transformers.json") or b"{}"
    try:
        return str(json.loads(text).get("model_type", "SentenceTransformer"))
    except (ValueError, AttributeError):
        raise UserError(
            f"{name}/config_sentence_transformers.json: damaged (no JSON object); copy or save the model again"
        ) from None


def _read(name: str, file: str) -> bytes | None:
    """Return a file of the model, or None where it is missing (in the cache, without a network)."""
    if Path(name).is_dir():
        path = Path(name, file)
        return path.read_bytes() if path.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(name, file)).read_bytes()
    except EntryNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: no such model folder, and the hub did not give it ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _dense_dim(model: SentenceTransformer, name: str) -> int:
    """Return the length of the model's vectors, as seen on a probe."""
    vectors = _vectors(model, [PROBE], "document", "")
    if vectors.ndim != 2 or not np.isfinite(vectors).all() or not vectors.any():
        raise UserError(f"{name}: gives no usable vector for a plain sentence; its weights are damaged, copy it again")
    return int(vectors.shape[1])


def _vocabulary(model: SparseEncoder, name: str) -> list[str]:
    """Return the token of each dimension; "" for padding, the number where dimensions are not tokens (autoencoders).

    Raises:
        UserError: a probe has no term, or more than half of all: then the head is not a trained one.
    """
    from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder

    terms = _terms(model, [PROBE], "document", [0], 1)
    size = terms.shape[1]
    if not 0 < terms.nnz <= size / 2:
        raise UserError(
            f"{name}: gives a plain sentence {terms.nnz} of {size} terms, so it is no trained sparse model; "
            "give the checkpoint of a trained SparseEncoder"
        )
    if any(isinstance(module, SparseAutoEncoder) for module in model.modules()):
        return [str(i) for i in range(size)]
    tokens = {i: token for token, i in model.tokenizer.get_vocab().items()}
    return [tokens.get(i, "") for i in range(size)]


def _vectors(model: SentenceTransformer, texts: list[str], task: str, prompt: str) -> FloatArray:
    """Return float32 (n, dim), unit length."""
    encode = model.encode_query if task == "query" else model.encode_document
    found = encode(texts, prompt=prompt, normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(found, dtype=np.float32)


def _own_prompt(model: SentenceTransformer | SparseEncoder, task: str) -> str:
    """Return the prompt of a task that the model's folder states; "" for none."""
    return next((prompt for name in PROMPT_NAMES[task] if (prompt := model.prompts.get(name))), "")


def _prompts(model: SentenceTransformer, names: SentenceTransformerNames) -> Prompts:
    """Return the prompts of the dense model; tell the user where it is known to need some and has none."""
    own = Prompts(_own_prompt(model, "query"), _own_prompt(model, "document"))
    given = {f"{task}_prompt" for task in ("query", "document") if getattr(names, task) is not None}
    used = Prompts(*(own[i] if text is None else text for i, text in enumerate((names.query, names.document))))
    settings = {"query_prompt": used.query, "document_prompt": used.document}
    lacking = lacking_prompts(names.dense, Path(names.dense), settings, given)
    if lacking:
        spec = names._replace(**{name.removesuffix("_prompt"): text for name, text in lacking.items()}).text
        logging.getLogger(__name__).warning(prompts_notice(names.dense, f"--encoder {spec!r}"))
    return used


def _terms(model: SparseEncoder, texts: list[str], task: str, places: list[int], n: int) -> csr_matrix:
    """Return float32 (n, vocab) with the texts' positive weights in the rows `places`."""
    encode = model.encode_query if task == "query" else model.encode_document
    found: torch.Tensor = encode(texts, batch_size=SPARSE_BATCH, save_to_cpu=True, show_progress_bar=False).coalesce()
    rows, columns = found.indices().numpy()
    weights = found.values().float().numpy()
    kept = weights > 0
    return _csr(weights[kept], np.asarray(places)[rows[kept]], columns[kept], (n, found.shape[1]))


def _csr(
    weights: NDArray[np.floating], rows: NDArray[np.integer], columns: NDArray[np.integer], shape: tuple[int, int]
) -> csr_matrix:
    matrix = csr_matrix((weights, (rows, columns)), shape=shape, dtype=np.float32)
    matrix.sort_indices()
    return matrix


def _truncated(model: SentenceTransformer | SparseEncoder, texts: list[str], prompt: str) -> BoolArray:
    """Return bool (n,): True where a text with its prompt and special tokens is longer than the model reads."""
    limit = model.max_seq_length
    if limit is None or limit == float("inf"):
        return np.zeros(len(texts), dtype=np.bool_)
    ids = model.tokenizer([prompt + text for text in texts], truncation=False, padding=False, verbose=False)[
        "input_ids"
    ]
    return np.array([len(text) > limit for text in ids], dtype=np.bool_)


def _digest(model: SentenceTransformer | SparseEncoder, name: str) -> bytes:
    """Return the sha256 of what the output depends on: tensors, prompts, limits, tokens, and each module's settings."""
    import torch

    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    settings: dict[str, Any] = {
        "prompts": model.prompts,
        "max_seq_length": model.max_seq_length,
        "truncate_dim": getattr(model, "truncate_dim", None),
        "max_active_dims": getattr(model, "max_active_dims", None),
        "tokens": model.tokenizer.get_vocab(),
    }
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for module in json.loads(_read(name, "modules.json") or b"[]"):
        # Read as saved, such as the kind of pooling; the transformer's own (path "") notes the version that saved it.
        path = module.get("path")
        digest.update((_read(name, f"{path}/config.json") if path else None) or b"-")
    return digest.digest()
