"""The decoder of the sparse head, compiled: from what it reads of tokens to the weights of terms in texts.

Terms stand in slots, in blocks of 64, the terms of a cluster (a vocabulary expert) in blocks of their own; without
clusters all are one. The largest logit over the tokens of a text is taken as soon as a block is multiplied, so that
there never are logits of all tokens and terms.

This module is imported to compile its functions alone: `machine_code` keeps what becomes of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import f4, i4, i8, u1
from numba import int8 as i1

from retriever.network.int8.kernels.packed import BLOCK
from retriever.network.int8.kernels.products import ENDS, MATRIX, ROWS, VECTOR, array, kernel, multiply, product, starts
from retriever.network.int8.kernels.shaped import shaped

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Wholes = NDArray[np.int32]
    Bytes = NDArray[np.int8]
    Places = NDArray[np.int64]

__all__ = ["choose", "largest", "weigh"]

F = np.float32
PORTION = 64
"""Tokens whose scores are held at once."""
ALWAYS = F(3e38)
"""The score of the cluster of a token's own term; compiled code knows no infinity."""


@kernel(VECTOR, i8, VECTOR, array(i8, 1))
def _best(scores: Floats, clusters: int, best: Floats, chosen: Places) -> None:
    """Write which of the scores are the best ones, as many as chosen has room for; of equal ones the first is better.

    best: room for as many scores.
    """
    count = chosen.size
    for cluster in range(clusters):
        score = scores[cluster]
        if cluster < count:
            place = np.int64(cluster)
        elif score > best[count - 1]:
            place = np.int64(count - 1)
        else:
            continue
        while place > 0 and score > best[place - 1]:
            best[place] = best[place - 1]
            chosen[place] = chosen[place - 1]
            place -= 1
        best[place] = score
        chosen[place] = cluster


@kernel(
    array(i1, 2), VECTOR, ENDS, ENDS, *MATRIX, array(i4, 1), i8, ENDS, ENDS, array(i8, 2), array(f4, 1), array(i4, 1)
)  # fmt: skip
def choose(
    values: Bytes,
    step: Floats,
    ids: Places,
    counts: Places,
    router: NDArray[np.uint8],
    scale: Floats,
    bias: Floats,
    own: Wholes,
    clusters: int,
    first: Places,
    tokens: Places,
    chosen: Places,
    floats: Floats,
    wholes: Wholes,
) -> None:
    """Write which tokens compute a cluster: tokens[first[c] : first[c + 1]] those of cluster c, ascending.

    Tokens of the terms ids (n,) compute counts (n,) clusters each, own[id] always among them unless it is -1. chosen:
    room (n, most of counts). Scores are products of whole numbers, step, scale and bias: the same wherever they are
    computed.
    """
    n, columns = values.shape[0], router.shape[0] * BLOCK
    scores, best = floats[:columns], floats[columns : columns + chosen.shape[1]]
    start, sums = wholes[:PORTION], shaped(wholes[PORTION:], (PORTION, columns))
    first[:] = 0
    for begin in range(0, n, PORTION):
        part = values[begin : min(begin + PORTION, n)]
        product(part, router, sums, start)
        for i in range(part.shape[0]):
            token = begin + i
            for c in range(clusters):
                scores[c] = F(sums[i, c]) * step[token] * scale[c] + bias[c]
            mine = own[ids[token]]
            if mine >= 0:
                scores[mine] = ALWAYS
            count = counts[token]
            _best(scores, clusters, best[:count], chosen[token][:count])
            for place in range(count):
                first[chosen[token, place] + 1] += 1
    for c in range(clusters):
        first[c + 1] += first[c]
    for token in range(n):
        for place in range(counts[token]):
            c = chosen[token, place]
            tokens[first[c]] = token
            first[c] += 1
    for c in range(clusters, 0, -1):
        first[c] = first[c - 1]
    first[0] = 0


@kernel(VECTOR, VECTOR, VECTOR, array(i4, 1), VECTOR)
def _write(best: Floats, scale: Floats, bias: Floats, stem: Wholes, out: Floats) -> None:
    """Write what the largest logits of a text weigh, (64,), to its row of weights, out (vocab,)."""
    for j in range(BLOCK):
        best[j] = best[j] * scale[j] + bias[j]
    for j in range(BLOCK):
        if best[j] > F(0):
            weight = np.log1p(best[j])
            out[stem[j]] = max(out[stem[j]], weight)


@kernel(array(i4, 2), VECTOR, ENDS, ENDS, ROWS, ROWS, array(i4, 2), ROWS, VECTOR)
def largest(
    sums: Wholes,
    step: Floats,
    tokens: Places,
    ends: Places,
    scale: Floats,
    bias: Floats,
    stem: Wholes,
    out: Floats,
    best: Floats,
) -> None:
    """Take the largest logits of some blocks over the tokens of each text, and write what they weigh; see `weigh`.

    sums: (>= m, blocks * 64), the products of the m tokens; best: room (64,).
    """
    m, i, text = tokens.size, np.int64(0), np.int64(0)
    while i < m:
        while ends[text + 1] <= tokens[i]:
            text += 1
        following = i + 1
        while following < m and tokens[following] < ends[text + 1]:
            following += 1
        for block in range(stem.shape[0]):
            column = block * BLOCK
            best[:] = F(-3e38)
            for token in range(i, following):
                own = step[tokens[token]]
                for j in range(BLOCK):
                    found = F(sums[token, column + j]) * own
                    best[j] = found if found > best[j] else best[j]
            _write(best, scale[block], bias[block], stem[block], out[text])
        i = following


@kernel(
    array(i1, 2), VECTOR, ENDS, ENDS, ENDS, ENDS, array(u1, 3), ROWS, ROWS, array(i4, 2), ROWS, array(i1, 1),
    array(f4, 1), array(i4, 1),
)  # fmt: skip
def weigh(
    values: Bytes,
    step: Floats,
    ends: Places,
    first: Places,
    tokens: Places,
    blocks: Places,
    weights: NDArray[np.uint8],
    scale: Floats,
    bias: Floats,
    stem: Wholes,
    out: Floats,
    small: Bytes,
    floats: Floats,
    wholes: Wholes,
) -> None:
    """Write log(1 + relu(scale * largest logit + bias)) of terms, the largest of each stem, to out of zeros.

    out: (texts, vocab); text i has the tokens from ends[i] to ends[i + 1]. weights: packed; scale, bias and stem:
    (blocks, 64). The tokens of cluster c, tokens[first[c] : first[c + 1]], meet the blocks from blocks[c] to
    blocks[c + 1]. Slots without a term have a bias below everything.
    """
    width = values.shape[1]
    best = floats[:BLOCK]
    for c in range(blocks.size - 1):
        found = tokens[first[c] : first[c + 1]]
        m = found.size
        if m == 0:
            continue
        sent = shaped(small, (m, width))
        for i in range(m):
            for j in range(width):
                sent[i, j] = values[found[i], j]
        start, sums = wholes[:m], shaped(wholes[m:], (m, BLOCK))
        starts(sent, start)
        for block in range(blocks[c], blocks[c + 1]):
            multiply(sent, weights[block], start, np.int64(sums.ctypes.data), np.int64(4 * BLOCK))
            own = slice(block, block + 1)
            largest(sums, step, found, ends, scale[own], bias[own], stem[own], out, best)
