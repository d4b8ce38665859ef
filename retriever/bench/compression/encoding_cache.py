"""The encoding cache: the views of a corpus, encoded once; indexes of any settings are built from them."""

from __future__ import annotations

import sys
import zipfile
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix
from tqdm import tqdm

from retriever.corpus.corpus import documents, open_corpus, survey
from retriever.encoder.base import EncoderBase
from retriever.encoder.runtime import numerics
from retriever.encoder.views import joined, picked
from retriever.files import atomic_file, cache_errors, cache_root
from retriever.types import Encoded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from retriever.eval.data.dataset import Dataset
    from retriever.types import Encoder

__all__ = ["CachedEncoder", "cached_encoding"]

BATCH = 256
FORMAT = 1
MATRICES = ("sparse", "tokens")


class CachedEncoder(EncoderBase):
    """Gives the documents of one corpus the views that the cache holds; queries are encoded as ever.

    doc_ids, encoded: the documents in the order of the corpus, and their views.
    """

    def __init__(self, encoder: Encoder, doc_ids: list[str], texts: Sequence[str], encoded: Encoded) -> None:
        self.identity, self.vocabulary = encoder.identity, encoder.vocabulary
        self._encoder = encoder
        self.doc_ids, self.encoded = doc_ids, encoded
        self._row_of = {text: row for row, text in enumerate(texts)}

    def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        """Return the views of texts of the corpus; raise KeyError for another text."""
        rows = np.array([self._row_of[text] for text in texts], np.int64)
        found = picked(self.encoded, rows)
        if not dense:
            found = found._replace(dense=None)
        return found if sparse else found._replace(sparse=None, tokens=None)

    def encode_queries(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        """Encode queries."""
        return self._encoder.encode_queries(texts, dense=dense, sparse=sparse)


def cached_encoding(data: Dataset, encoder: Encoder, *, progress: bool = False) -> CachedEncoder:
    """Encode the corpus of a data set, or read it from the cache; all of it stands in memory."""
    source = open_corpus(data.corpus)
    found = survey(source)
    corpus = [one.document for one in documents(source, found)]
    parts = (data.name.replace("/", "-"), found.digest[:12], encoder.identity.sha256[:12], numerics(encoder), FORMAT)
    name = f"{'-'.join(map(str, parts))}.npz"
    path = cache_root() / "encodings" / name
    texts = [document.contents for document in corpus]
    encoded = _read(path)
    if encoded is None:
        encoded = _encode(encoder, texts, progress)
        with cache_errors("encodings"):
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, encoded)
    return CachedEncoder(encoder, [document.doc_id for document in corpus], texts, encoded)


def _encode(encoder: Encoder, texts: Sequence[str], progress: bool) -> Encoded:
    stream, parts = iter(texts), list[Encoded]()
    with tqdm(total=len(texts), desc="encode", unit=" docs", file=sys.stderr, disable=not progress) as bar:
        while batch := list(islice(stream, BATCH)):
            parts.append(encoder.encode_documents(batch))
            bar.update(len(batch))
    return joined(parts)


def _write(path: Path, encoded: Encoded) -> None:
    arrays: dict[str, NDArray[Any]] = {"truncated": encoded.truncated}
    if encoded.dense is not None:
        arrays["dense"] = encoded.dense
    for name in MATRICES:
        matrix = getattr(encoded, name)
        if matrix is not None:
            for part in ("data", "indices", "indptr", "shape"):
                arrays[f"{name}_{part}"] = np.asarray(getattr(matrix, part))
    with atomic_file(path) as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def _read(path: Path) -> Encoded | None:
    """Return what `_write` stored, None if the file is missing or damaged: it is only a cache."""
    try:
        with path.open("rb") as stream, np.load(stream) as file:  # NumPy leaves a damaged file open
            arrays = dict(file)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile):
        return None
    return Encoded(arrays.get("dense"), _matrix(arrays, "sparse"), arrays["truncated"], _matrix(arrays, "tokens"))


def _matrix(arrays: Mapping[str, NDArray[Any]], name: str) -> csr_matrix | None:
    if f"{name}_data" not in arrays:
        return None
    parts = [arrays[f"{name}_{part}"] for part in ("data", "indices", "indptr")]
    return csr_matrix(tuple(parts), shape=tuple(arrays[f"{name}_shape"]))
