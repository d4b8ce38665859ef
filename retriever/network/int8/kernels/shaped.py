"""Room in one piece seen as an array of some shape, for compiled code that makes no arrays of its own."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

__all__ = ["shaped"]


def _shaped(_typing: Any, room: Any, shape: Any) -> Any:
    kind = types.Array(room.dtype, shape.count, "C")

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source = context.make_array(signature.args[0])(context, builder, arguments[0])
        made = context.make_array(kind)(context, builder)
        sizes = cgutils.unpack_tuple(builder, arguments[1])  # type: ignore[no-untyped-call]
        item = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(room.dtype)))
        strides = [item]
        for size in reversed(sizes[1:]):
            strides.insert(0, builder.mul(strides[0], size))
        populate_array(made, data=source.data, shape=sizes, strides=strides, itemsize=item, meminfo=None)  # type: ignore[no-untyped-call]
        return made._getvalue()

    return kind(room, shape), emit


shaped: Any = intrinsic(_shaped)
"""shaped(room, shape): the beginning of an array of one dimension as one of this shape; it must be long enough.

numpy's `reshape` is not for code that is kept: it calls a function of numba's library.
"""
