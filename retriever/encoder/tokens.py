"""Token encoders: a vector for each token of a text, for late interaction (ColBERT, Khattab & Zaharia, 2004.12832).

Ours projects the last hidden states of an encoder to fewer dimensions; a `MultiVectorEncoder` folder of
sentence-transformers is one, too.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np

from retriever.lazy import lazy
from retriever.types import Encoder, TokenVectors, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retriever.encoder.moe_encoder import MoEEncoder
    from retriever.types import FloatArray

__all__ = ["OWN", "TokenEncoder", "load_token_encoder", "token_encoder_of"]

OWN = "own"
"""The token encoder that an encoder brings along."""
FILE = "tokens.safetensors"
DIM = 96
SEED = 7


class TokenEncoder(Protocol):
    """Encodes texts token by token. sha256: of all that decides the vectors."""

    name: str
    sha256: str
    dim: int

    def documents(self, texts: Sequence[str]) -> TokenVectors:
        """Encode n passages."""
        ...

    def queries(self, texts: Sequence[str]) -> TokenVectors:
        """Encode n queries."""
        ...

    def words(self, text: str, *, query: bool) -> list[str]:
        """Return what stands for each vector of a text, to be shown."""
        ...


def load_token_encoder(name: str, encoder: Encoder) -> TokenEncoder:
    """Return the token encoder of a name: "own", or a folder or hub name of a `MultiVectorEncoder`.

    Raises:
        UserError: it cannot be loaded, or the encoder has none of its own.
    """
    if name != OWN:
        return _MultiVector(name)
    from retriever.encoder.moe_encoder import MoEEncoder

    if not isinstance(encoder, MoEEncoder):
        raise UserError(
            f"{encoder.identity.name}: has no token vectors of its own; give the folder of a MultiVectorEncoder"
        )
    return _Projected(encoder)


_loaded: WeakKeyDictionary[Encoder, dict[str, TokenEncoder]] = WeakKeyDictionary()


def token_encoder_of(name: str, sha256: str, encoder: Encoder) -> TokenEncoder:
    """Return the token encoder of an index, by its name; loaded once for each encoder object.

    Raises:
        UserError: it is not there, or not the same any more.
    """
    known = _loaded.setdefault(encoder, {})
    if name not in known:
        known[name] = load_token_encoder(name, encoder)
    found = known[name]
    if found.sha256 != sha256:
        raise UserError(
            f"the index was built with the token encoder {name} (sha256 {sha256[:12]}), found {found.sha256[:12]}; "
            "put the original one in its place, or build the index again"
        )
    return found


class _Projected:
    """The last hidden states of an encoder, projected to `dim` dimensions, of unit length.

    The projection is the encoder folder's; without one it is a random orthogonal one.
    """

    name = OWN

    def __init__(self, encoder: MoEEncoder) -> None:
        self._encoder = encoder
        self._projection = _projection(encoder.folder / FILE, encoder.identity.dense_dim)
        self.dim = self._projection.shape[1]
        digest = hashlib.sha256(encoder.identity.sha256.encode())
        digest.update(np.ascontiguousarray(self._projection).tobytes())
        self.sha256 = digest.hexdigest()

    def documents(self, texts: Sequence[str]) -> TokenVectors:
        """Encode n passages, their opening and closing tokens, too."""
        found = self._encoder.token_states(texts, query=False)
        return found._replace(vectors=_unit(found.vectors @ self._projection))

    def queries(self, texts: Sequence[str]) -> TokenVectors:
        """Encode n queries, without their opening and closing tokens, which say nothing of their own."""
        found = self._encoder.token_states(texts, query=True)
        lexicon = self._encoder.lexicon
        assert found.ids is not None
        kept = ~np.isin(found.ids, [lexicon.opening, lexicon.closing])
        counts = np.add.reduceat(np.append(kept, False), np.append(0, np.cumsum(found.counts))[:-1])
        counts = np.where(found.counts > 0, counts, 0)
        return TokenVectors(_unit(found.vectors[kept] @ self._projection), counts, found.ids[kept])

    def words(self, text: str, *, query: bool) -> list[str]:
        """Return the tokens of a text."""
        ids = self._encoder.token_ids_read(text, query=query)
        lexicon = self._encoder.lexicon
        own = [one for one in ids if not query or one not in (lexicon.opening, lexicon.closing)]
        return [self._encoder.vocabulary[one] for one in own]


def _projection(path: Path, hidden: int) -> FloatArray:
    if path.is_file():
        from safetensors.numpy import load_file

        try:
            found: FloatArray = load_file(path)["projection"].astype(np.float32)
        except (OSError, KeyError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}); install the encoder again") from None
        if found.ndim != 2 or len(found) != hidden:
            raise UserError(
                f"{path}: a projection of {found.shape}, need ({hidden}, dimensions); use the encoder's own"
            )
        return found
    drawn = np.random.default_rng(SEED).standard_normal((hidden, min(DIM, hidden)))
    orthogonal: FloatArray = np.linalg.qr(drawn)[0].astype(np.float32)
    return orthogonal


def _unit(vectors: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: FloatArray = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return unit


class _MultiVector:
    """A `sentence_transformers.MultiVectorEncoder`."""

    def __init__(self, name: str) -> None:
        self.name = name
        folder = Path(name)
        files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
        digest = hashlib.sha256(b"" if files else name.encode())
        for path in files:
            digest.update(str(path.relative_to(folder)).encode() + hashlib.sha256(path.read_bytes()).digest())
        self.sha256 = digest.hexdigest()
        self.dim = int(self._model.get_embedding_dimension())

    @lazy
    def _model(self) -> Any:
        from sentence_transformers import MultiVectorEncoder

        try:
            return MultiVectorEncoder(self.name, device="cpu")
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{self.name}: cannot be loaded ({reason}); give a MultiVectorEncoder's folder") from None

    def documents(self, texts: Sequence[str]) -> TokenVectors:
        """Encode n passages."""
        return self._encode(self._model.encode_document, texts)

    def queries(self, texts: Sequence[str]) -> TokenVectors:
        """Encode n queries."""
        return self._encode(self._model.encode_query, texts)

    def _encode(self, encode: Any, texts: Sequence[str]) -> TokenVectors:
        found = [np.asarray(one, np.float32) for one in encode(list(texts), convert_to_numpy=True)] if texts else []
        counts = np.array([len(one) for one in found], np.int64)
        return TokenVectors(np.concatenate([np.zeros((0, self.dim), np.float32), *found]), counts)

    def words(self, text: str, *, query: bool) -> list[str]:
        """Return numbers: which token a vector stands for is the model's own business."""
        found = self.queries([text]) if query else self.documents([text])
        return [f"token {number}" for number in range(1, len(found.vectors) + 1)]
