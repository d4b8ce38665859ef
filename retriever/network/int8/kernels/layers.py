"""All layers of a network for a few short texts in one call.

A call for each step of each layer gives the interpreter's lock to other threads twenty times, and waits for it again.
The layers' arrays are given by their places: int64 (arrays, 1 + most dimensions), each its address and its sizes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import f4, f8, i4, i8, types, u1, u2
from numba import int8 as i1
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from retriever.network.int8.kernels.few import add_product, attend, feed, norm, pool, quantise
from retriever.network.int8.kernels.products import ENDS, ROWS, array, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Places = NDArray[np.int64]

__all__ = ["add_product", "feed", "norm", "pass_layers", "pool", "quantise"]

F = np.float32
ATTENTION, FEED = 9, 7
"""How many arrays a layer has besides those of its feed-forward layers, and how many each of these has."""


def _seen(dtype: Any, dimensions: int) -> Any:
    """Return what compiled code sees an array by, of its place: int64, its address and its sizes."""
    kind = types.Array(dtype, dimensions, "C")

    def typed(_typing: Any, place: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            source = context.make_array(signature.args[0])(context, builder, arguments[0])
            first = builder.load(source.data)
            sizes = [
                builder.load(builder.gep(source.data, [context.get_constant(types.intp, 1 + i)]))
                for i in range(dimensions)
            ]
            item = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(dtype)))
            strides = [item]
            for size in reversed(sizes[1:]):
                strides.insert(0, builder.mul(strides[0], size))
            made = context.make_array(kind)(context, builder)
            data = builder.inttoptr(first, made.data.type)
            populate_array(made, data=data, shape=sizes, strides=strides, itemsize=item, meminfo=None)  # type: ignore[no-untyped-call]
            return made._getvalue()

        return kind(place), emit

    return intrinsic(typed)


vector, rows, cube, packed, cubes16 = _seen(f4, 1), _seen(f4, 2), _seen(u1, 3), _seen(u1, 4), _seen(u2, 3)


@kernel(ROWS, ROWS)
def _add(more: Floats, total: Floats) -> None:
    for i in range(total.shape[0]):
        for j in range(total.shape[1]):
            total[i, j] += more[i, j]


@kernel(
    ROWS, ENDS, i8, i8, f8, array(i8, 2), array(i8, 2), array(f8, 1), array(i8, 1), ROWS, ROWS, array(i8, 2),
    array(f4, 1), array(u2, 1), array(i4, 1), array(i1, 1),
)  # fmt: skip
def pass_layers(
    x: Floats,
    ends: Places,
    heads: int,
    length_step: int,
    eps: float,
    arrays: Places,
    feeds: Places,
    scales: NDArray[np.float64],
    taken: Places,
    total: Floats,
    spare: Floats,
    chosen: Places,
    floats: Floats,
    halves: NDArray[np.uint16],
    wholes: NDArray[np.int32],
    small: NDArray[np.int8],
) -> None:
    """Put what the layers make of x in its place, and add the output of those that are `taken` to total, of its shape.

    arrays: of each layer those of attention and its norm, the norm behind the feed-forward layers, and of each of
    these up, down and router. feeds: of each of these its layer and how many experts are active (see `feed`). scales:
    of their routed experts. Room: spare, of the shape of x; chosen (feeds, 2 * active * n), the experts of each token.
    """
    at, fed = 0, 0
    for layer in range(taken.size):
        a = arrays[at : at + ATTENTION]
        at += ATTENTION
        attend(
            x, ends, heads, length_step, cubes16(a[0]), vector(a[1]),
            cube(a[2]), vector(a[3]), vector(a[4]), vector(a[5]), vector(a[6]), eps, floats, halves, wholes, small,
        )  # fmt: skip
        first = fed
        while fed < feeds.shape[0] and feeds[fed, 0] == layer:
            fed += 1
        # One that all tokens pass is added to its own input; several read the same.
        alone = fed - first == 1 and arrays[at + 6, 1] == 0
        if not alone:
            spare[:] = F(0)
        for i in range(first, fed):
            f = arrays[at : at + FEED]
            at += FEED
            scale: Any = F(scales[i])
            feed(
                x, rows(f[6]), feeds[i, 1], scale, packed(f[0]), rows(f[1]), rows(f[2]), packed(f[3]),
                rows(f[4]), rows(f[5]), x if alone else spare, chosen[i], floats, halves, wholes, small,
            )  # fmt: skip
        if not alone:
            _add(spare, x)
        norm(x, vector(a[7]), vector(a[8]), eps)
        if taken[layer]:
            _add(x, total)
