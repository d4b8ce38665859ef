"""Matrices as `tiles` read them: block of 64 outputs by block, the inputs of a step beside each other."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = [
    "BLOCK",
    "FED",
    "HALF",
    "PORTION",
    "STRIP",
    "TILE",
    "bfloat16_bits",
    "pack_bfloat16",
    "pack_int8",
    "unpack_int8",
]

BLOCK = 64
"""Outputs of a tile: 4 vectors of 16."""
TILE = 4
"""Rows of a tile: 16 vectors of sums, 4 of weights and one of a row fit into 32 registers."""

HALF = BLOCK // 2
"""Outputs of a tile of 8 rows: as many as a head of attention mostly has."""
PORTION = 256
"""Tokens that go through attention together, in whole texts: what lies between two products stays in the cache."""
STRIP = 32
"""Tokens of a text whose weights for all its tokens are held at once."""
FED = 64
"""Tokens that meet the two matrices of a feed-forward layer before the next ones do."""


def pack_int8(weights: Any) -> Any:
    """Return int8 weights (..., out, in), in a multiple of 4, as tiles read them: uint8 (..., blocks, steps, 256).

    128 is added to each weight: the instruction takes one factor without a sign.
    """
    packed = _pack(np.ascontiguousarray(weights).view(np.uint32))
    packed ^= np.uint32(0x80808080)
    return packed.view(np.uint8)


def pack_bfloat16(bits: Any) -> Any:
    """Return the bits of bfloat16 weights (out, in), in a multiple of 2, as tiles read them: (blocks, steps, 128)."""
    return _pack(np.ascontiguousarray(bits).view(np.uint32)).view(np.uint16)


def bfloat16_bits(values: Any) -> Any:
    """Return float32 values in bfloat16, as the uint16 of their bits: to the nearest, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> 16).astype(np.uint16)


def _pack(words: Any) -> Any:
    *more, out, steps = words.shape
    blocks = -(-out // BLOCK)
    if out % BLOCK:
        padded = np.zeros((*more, blocks * BLOCK, steps), np.uint32)
        padded[..., :out, :] = words
        words = padded
    return np.ascontiguousarray(words.reshape(*more, blocks, BLOCK, steps).swapaxes(-1, -2))


def unpack_int8(packed: Any) -> Any:
    """Return the int8 weights (out, in) that `pack_int8` packed, out in whole blocks."""
    blocks, steps, _ = packed.shape
    words = packed.view(np.uint32) ^ np.uint32(0x80808080)
    return np.ascontiguousarray(words.swapaxes(-1, -2)).view(np.int8).reshape(blocks * BLOCK, 4 * steps)
