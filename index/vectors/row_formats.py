"""How vectors are stored: float32, float16, or bytes with a scale for each row.

What is stored is what counts: the exact score of a row is the inner product of the query and the stored values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retriever.types import FloatArray

    Records = NDArray[Any]

__all__ = ["ROW_TYPES", "RowFormat", "StoredVectors", "inner_products"]

ROW_TYPES = {"float32": "f32", "float16": "f16", "int8": "i8"}
"""What a row may be made of, and the suffix of the file that holds such rows."""
LARGEST_CODE = 127
TWO_BIT_STEP = np.float32(0.9957)
"""Between two of four levels for normal numbers of deviation 1, where the error is least (Max, 1960)."""
FOUR_OF_A_BYTE = (2 * (np.arange(256)[:, None] >> np.array([0, 2, 4, 6]) & 3) - 3).astype(np.int8)
"""The four numbers that a byte of 2 bits each stands for, (256, 4)."""
HALF_BITS = np.int32(-0x7000_2000)  # 0x8fffe000: the sign, and 15 bits that are a float16 without it, 13 bits up
HALF_SCALE = np.float32(2.0**112)
"""Between the exponents that the same bits mean in float32 and in float16."""


class RowFormat(NamedTuple):
    """The form of the row files: the number type of the vectors and how many numbers one has; 0 without vectors.

    token_dim: how many numbers the vector of a token has; 0 without them. token_bits: 8, or 2, of each of these; a
    vector has a scale besides.
    """

    row_type: str
    dim: int
    token_dim: int = 0
    token_bits: int = 8

    @property
    def record(self) -> np.dtype[Any]:
        """Return what one row is in the file."""
        if self.row_type == "int8":
            return _bytes_and_scale(self.dim)
        return np.dtype(("<f4" if self.row_type == "float32" else "<f2", (self.dim,)))

    @property
    def token_record(self) -> np.dtype[Any]:
        """Return what the vector of one token is in its file."""
        if self.token_bits == 2:
            return np.dtype([("scale", "<f4"), ("codes", "u1", (-(-self.token_dim // 4),))])
        return _bytes_and_scale(self.token_dim)

    @property
    def token_file(self) -> str:
        """Return the name of the file of the tokens' vectors."""
        return "tokens.i2" if self.token_bits == 2 else "tokens.i8"

    @property
    def file(self) -> str:
        """Return the name of the row file."""
        return f"vectors.{ROW_TYPES[self.row_type]}"

    def store(self, vectors: FloatArray) -> Records:
        """Return float32 (n, dim) as it will be stored.

        int8: round(127 v / m) with m the largest magnitude of the row, and the scale m / 127: an error of half a scale
        at most.

        Raises:
            ValueError: a value is not finite, or beyond what float16 holds.
        """
        if not np.isfinite(vectors).all():
            raise ValueError("a vector holds a value that is not finite")
        if self.row_type == "int8":
            return _in_bytes(vectors, self.record)
        if self.row_type == "float32":
            return np.ascontiguousarray(vectors, dtype="<f4")
        with np.errstate(over="ignore"):
            halves = vectors.astype("<f2")
        if not np.isfinite(halves).all():
            raise ValueError("a vector holds a value beyond 65504, the largest that float16 rows hold; use float32")
        return halves

    def store_tokens(self, vectors: FloatArray) -> Records:
        """Return the float32 vectors of tokens (n, token_dim) as they are stored; raise ValueError as `store`.

        In 8 bits as int8 rows. In 2 bits as -3, -1, 1 or 3 times a scale, the steps that are best for normal numbers
        (Max, 1960); the scale is such that the stored vector's product with the vector itself is as it was.
        """
        if not np.isfinite(vectors).all():
            raise ValueError("the vector of a token holds a value that is not finite")
        if self.token_bits == 2:
            return _in_two_bits(vectors, self.token_record)
        return _in_bytes(vectors, self.token_record)

    def token_codes(self, records: Records) -> NDArray[np.int8]:
        """Return whole numbers (n, token_dim) that are the stored vectors of tokens, but for their scales."""
        codes: NDArray[np.int8]
        if self.token_bits == 2:
            packed = records["codes"]
            codes = FOUR_OF_A_BYTE[packed].reshape(len(records), 4 * packed.shape[1])[:, : self.token_dim]
            return codes
        codes = records["codes"]
        return codes


def _bytes_and_scale(dim: int) -> np.dtype[Any]:
    return np.dtype([("scale", "<f4"), ("codes", "i1", (dim,))])


def _in_two_bits(vectors: FloatArray, record: np.dtype[Any]) -> Records:
    records = np.zeros(len(vectors), record)
    steps = TWO_BIT_STEP * np.sqrt(np.square(vectors).mean(axis=1, keepdims=True)) if vectors.size else vectors
    steps = np.where(steps > 0, steps, np.float32(1))
    codes = np.clip(np.floor(vectors / steps) + 2, 0, 3).astype(np.uint8)
    products = ((2 * codes.astype(np.float32) - 3) * vectors).sum(axis=1)
    records["scale"] = np.where(products > 0, np.square(vectors).sum(axis=1) / np.where(products > 0, products, 1), 0)
    padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % 4))).reshape(len(codes), -(-codes.shape[1] // 4), 4)
    records["codes"] = (padded << np.array([0, 2, 4, 6], np.uint8)).sum(axis=2, dtype=np.uint8)
    return records


def _in_bytes(vectors: FloatArray, record: np.dtype[Any]) -> Records:
    records = np.zeros(len(vectors), record)
    scales = np.abs(vectors).max(axis=1, initial=0) / np.float32(LARGEST_CODE)
    records["scale"] = scales
    scales = np.where(scales > 0, scales, np.float32(1))[:, None]
    records["codes"] = np.clip(np.rint(vectors / scales), -LARGEST_CODE, LARGEST_CODE)
    return records


class StoredVectors:
    """Stored rows, decoded where they are read: `vectors[rows]` is float32 (n, dim).

    records: (n,) or (n, dim), what the row file holds.
    """

    def __init__(self, records: Records, row_format: RowFormat) -> None:
        self.records = np.asarray(records)  # each slice of a memmap, a subclass, would cost microseconds
        self.dim = row_format.dim
        self._row_type = row_format.row_type

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> FloatArray:
        records = self.records[rows]
        if self._row_type == "int8":
            vectors: FloatArray = records["codes"] * records["scale"][:, None]
            return vectors
        return _widened(records) if self._row_type == "float16" else np.ascontiguousarray(records)

    def scores(self, rows: slice | NDArray[np.int64], query: FloatArray) -> FloatArray:
        """Return the exact scores (n,) of these rows: float32 inner products with query (dim,)."""
        if self._row_type == "int8":
            records = self.records[rows]
            scores: FloatArray = inner_products(records["codes"].astype(np.float32), query) * records["scale"]
            return scores
        return inner_products(self[rows], query)


def inner_products(vectors: FloatArray, query: FloatArray) -> FloatArray:
    """Return float32 inner products (n,); unlike BLAS, equal vectors get equal scores wherever they stand."""
    scores: FloatArray = np.einsum("ij,j->i", vectors, query)
    return scores


def _widened(halves: NDArray[np.float16]) -> FloatArray:
    """Return finite float16 as float32, with the same values; NumPy's own conversion takes ten times as long."""
    bits = halves.view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= HALF_BITS
    widened: FloatArray = bits.view(np.float32)
    widened *= HALF_SCALE
    return widened
