"""Token encoders: a vector for each token of a text, for late interaction (ColBERT, Khattab & Zaharia, 2004.12832).

Ours projects the last hidden states of an encoder to fewer dimensions; a `MultiVectorEncoder` folder of
sentence-transformers is one, too.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from retriever.encoder.views import unit
from retriever.lazy import lazy
from retriever.types import EncodedByToken, Encoder, TokenVectors, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retriever.encoder.moe.encoder import MoEEncoder
    from retriever.types import FloatArray

__all__ = ["OWN", "ProjectedStates", "TokenEncoder", "load_token_encoder", "token_encoder_of"]

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

    def with_views(self, texts: Sequence[str], encoder: Encoder) -> EncodedByToken:
        """Encode n passages as an encoder does, and by token: in one pass of the network where it is one."""
        ...

    def words(self, text: str, *, query: bool) -> list[str]:
        """Return what stands for each vector of a text, to be shown."""
        ...


@runtime_checkable
class HasTokenEncoder(Protocol):
    """An encoder that brings a token encoder along."""

    @property
    def token_encoder(self) -> TokenEncoder:
        """Return it."""
        ...


def load_token_encoder(name: str, encoder: Encoder) -> TokenEncoder:
    """Return the token encoder of a name: "own", or a folder or hub name of a `MultiVectorEncoder`.

    Raises:
        UserError: it cannot be loaded, or the encoder has none of its own.
    """
    if name != OWN:
        return _multi_vector(name)
    if not isinstance(encoder, HasTokenEncoder):
        raise UserError(
            f"{encoder.identity.name}: has no token vectors of its own; give the folder of a MultiVectorEncoder"
        )
    return encoder.token_encoder


def token_encoder_of(name: str, sha256: str, encoder: Encoder) -> TokenEncoder:
    """Return the token encoder of an index, by its name; loaded once.

    Raises:
        UserError: it is not there, or not the same any more.
    """
    found = load_token_encoder(name, encoder)
    if found.sha256 != sha256:
        raise UserError(
            f"the index was built with the token encoder {name} (sha256 {sha256[:12]}), found {found.sha256[:12]}; "
            "put the original one in its place, or build the index again"
        )
    return found


class ProjectedStates:
    """The last hidden states of an encoder, projected to `dim` dimensions, of unit length.

    The projection is the encoder folder's; without one it is a random orthogonal one.
    """

    name = OWN

    def __init__(self, encoder: MoEEncoder) -> None:
        self._encoder = encoder
        self._projection = _projection(encoder.folder / FILE, encoder.hidden_size)
        self.dim = self._projection.shape[1]
        digest = hashlib.sha256(encoder.identity.sha256.encode())
        digest.update(np.ascontiguousarray(self._projection).tobytes())
        self.sha256 = digest.hexdigest()

    def documents(self, texts: Sequence[str]) -> TokenVectors:
        """Encode n passages, their opening and closing tokens, too."""
        found = self._encoder.encode_by_token(texts, dense=False, sparse=False, projection=self._projection).tokens
        assert found is not None
        return found

    def with_views(self, texts: Sequence[str], encoder: Encoder) -> EncodedByToken:
        """Encode n passages in one pass; `encoder` is its own."""
        return self._encoder.encode_by_token(texts, projection=self._projection)

    def queries(self, texts: Sequence[str]) -> TokenVectors:
        """Encode n queries, without their opening and closing tokens, which say nothing of their own."""
        found = [self._encoder.query_states(text) for text in texts]
        frame = [self._encoder.lexicon.opening, self._encoder.lexicon.closing]
        kept = [~np.isin(states.ids, frame) for states in found]
        vectors = [states.vectors[own] for states, own in zip(found, kept, strict=True)]
        ids = [states.ids[own] for states, own in zip(found, kept, strict=True)]
        return TokenVectors(
            unit(np.concatenate([np.zeros((0, len(self._projection)), np.float32), *vectors]) @ self._projection),
            np.array([len(own) for own in ids], np.int64),
            np.concatenate([np.zeros(0, np.int32), *ids]),
        )

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


@cache
def _multi_vector(name: str) -> TokenEncoder:
    return _MultiVector(name)


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

    def with_views(self, texts: Sequence[str], encoder: Encoder) -> EncodedByToken:
        """Encode n passages with both models."""
        return EncodedByToken(encoder.encode_documents(texts), self.documents(texts))

    def _encode(self, encode: Any, texts: Sequence[str]) -> TokenVectors:
        found = [np.asarray(one, np.float32) for one in encode(list(texts), convert_to_numpy=True)] if texts else []
        counts = np.array([len(one) for one in found], np.int64)
        return TokenVectors(np.concatenate([np.zeros((0, self.dim), np.float32), *found]), counts)

    def words(self, text: str, *, query: bool) -> list[str]:
        """Return numbers: which token a vector stands for is the model's own business."""
        found = self.queries([text]) if query else self.documents([text])
        return [f"token {number}" for number in range(1, len(found.vectors) + 1)]
