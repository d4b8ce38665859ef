"""Functions that numba compiles once and that later processes call without numba: their machine code is kept.

To import numba and read its own cache takes half a second and 100 MB, more than all else that a search does. What is
kept is the object code that LLVM made; LLVM's own loader, which is small, maps it again. The file's name is a hash of
all that the code depends on: the sources, the compiler, the processor.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import json
import logging
import os
import struct
import sys
import zlib
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.files import cache_errors, cache_root
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["COMPILED", "Argument", "Kernel", "argument", "load_kernels", "processor_instructions"]

COMPILED: dict[str, Any] = {"nogil": True, "_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Options of `njit` for functions that are kept, and for those that they call: they must not make arrays."""
_HEAD = struct.Struct("<8sII")  # magic, CRC-32 of what follows, size of its description
_MAGIC = b"kernels1"
_SCALARS: dict[str, Any] = {
    "int64": ctypes.c_int64,
    "float32": ctypes.c_float,
    "float64": ctypes.c_double,
    "bool": ctypes.c_bool,
}


@functools.cache
def processor_instructions() -> frozenset[str]:
    """Return the instruction sets that the processor has, by LLVM's names: torch would take seconds to say them."""
    from llvmlite import binding

    try:
        return frozenset(name for name, there in binding.get_host_cpu_features().items() if there)
    except RuntimeError:  # LLVM does not know this processor
        return frozenset()


class Description(NamedTuple):
    """One function in a file: its symbol, the kinds of its arguments, of its result, and the size of its object code.

    A kind is a type of NumPy's, and ":n" for an array of n dimensions.
    """

    name: str
    symbol: str
    kinds: list[str]
    result: str
    size: int


class Argument(NamedTuple):
    """An array as compiled functions take it, looked at once for many calls; it keeps the array."""

    kind: str
    values: tuple[Any, ...]
    array: NDArray[Any]

    @property
    def address(self) -> int:
        """Return where it lies."""
        return int(self.array.__array_interface__["data"][0])


def argument(array: NDArray[Any]) -> Argument:
    """Look at an array that lies in one piece; raise ValueError for another."""
    if not array.flags.c_contiguous:
        raise ValueError(f"need an array in one piece, found strides {array.strides} for the shape {array.shape}")
    sizes = map(ctypes.c_int64, (*array.shape, *array.strides))
    address = ctypes.c_void_p(array.__array_interface__["data"][0])
    # As numba passes arrays: their owners, of whom it need not know here, size, item size, address, shape, strides.
    values = (None, None, ctypes.c_int64(array.size), ctypes.c_int64(array.itemsize), address, *sizes)
    return Argument(_kind_of(array.dtype, array.ndim), values, array)


@functools.cache
def _kind_of(dtype: np.dtype[Any], dimensions: int) -> str:
    return f"{dtype}:{dimensions}"  # to name a type takes as long as all else that is looked at


class Kernel:
    """A compiled function, called from any number of threads; they do not hold the interpreter's lock meanwhile."""

    def __init__(self, description: Description, address: int) -> None:
        self.name, self._kinds = description.name, description.kinds
        self._result = None if description.result == "none" else _SCALARS[description.result]
        self._call = ctypes.CFUNCTYPE(ctypes.c_int)(address)

    def __call__(self, *arguments: Any) -> Any:
        """Call it with arrays, or `Argument`s, and numbers of the kinds that it was compiled for."""
        result: Any = (self._result or ctypes.c_int64)()
        flat: list[Any] = [ctypes.byref(result), ctypes.byref(ctypes.c_void_p())]
        for kind, given in zip(self._kinds, arguments, strict=True):
            if ":" not in kind:
                flat.append(_SCALARS[kind](given))
                continue
            found = given if isinstance(given, Argument) else argument(given)
            if found.kind != kind:
                raise TypeError(f"{self.name}: found an array {found.kind}, need {kind}")
            flat += found.values
        status = self._call(*flat)
        if status:
            raise RuntimeError(f"{self.name}: compiled code ends with {status}")
        return result.value if self._result else None


_loaded: dict[str, dict[str, Kernel]] = {}
_engines: list[Any] = []
"""What holds the memory of the code."""
_loading = Lock()


def load_kernels(module: str, names: Sequence[str], *, sources: Sequence[str] = ()) -> dict[str, Kernel]:
    """Return functions of a module, compiled: by numba if this was never done, else from what is kept.

    The functions are numba's, each compiled for one signature with the options `COMPILED`; the module is imported to
    compile them alone. sources: the other modules that their code comes from.
    """
    with _loading:
        if module not in _loaded:
            _loaded[module] = _load(module, names, sources)
        return _loaded[module]


def _load(module: str, names: Sequence[str], sources: Sequence[str]) -> dict[str, Kernel]:
    path = _path(module, (module, *sources))
    with cache_errors("compiled kernels"):
        try:
            return _linked(path.read_bytes())
        except FileNotFoundError:
            pass
        except ValueError as error:
            path.unlink()
            raise OSError(f"{path}: damaged ({error})") from None
    _say_once()
    data = _compiled(module, names)
    with cache_errors("compiled kernels"):
        from retriever.files import atomic_file

        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(data)
    return _linked(data)


@functools.cache
def _say_once() -> None:
    """Say what takes so long: the first command after an installation looks as if it hung."""
    logging.getLogger(__name__).warning("compiling for this processor, once after an installation: up to half a minute")


def _path(module: str, modules: Sequence[str]) -> Path:
    """Return where the machine code is kept, or would be."""
    import llvmlite
    from llvmlite import binding

    try:
        features = binding.get_host_cpu_features().flatten()
    except RuntimeError:  # LLVM does not know this processor
        features = ""
    numba = Path(_origin("numba"))
    settings = sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith("NUMBA_"))
    compiler = [sys.version, llvmlite.__version__, str(numba), numba.stat().st_mtime_ns, *settings]
    digest = hashlib.sha256(json.dumps([compiler, binding.get_host_cpu_name(), features]).encode())
    for name in (*modules, __name__):
        digest.update(Path(_origin(name)).read_bytes())
    return cache_root() / "kernels" / f"{module}-{digest.hexdigest()[:16]}.o"


def _origin(module: str) -> str:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise UserError(f"{module} is not installed: install the package again with all that it needs")
    return spec.origin


def _compiled(module: str, names: Sequence[str]) -> bytes:
    """Return the content of the file: the functions' descriptions, and their object code."""
    source = importlib.import_module(module)
    descriptions, codes = [], []
    for name in names:
        function = getattr(source, name)
        (overload,) = function.overloads.values()
        _check_alone(name, overload.library)
        code = overload.library.serialize_using_object_code()[2][0]
        kinds = [_kind(one) for one in overload.signature.args]
        symbol = overload.fndesc.llvm_func_name
        descriptions.append(Description(name, symbol, kinds, str(overload.signature.return_type), len(code)))
        codes.append(code)
    described = json.dumps(descriptions).encode()
    content = described + b"".join(codes)
    return _HEAD.pack(_MAGIC, zlib.crc32(content), len(described)) + content


def _check_alone(name: str, library: Any) -> None:
    """Raise AssertionError for code that calls what a process without numba does not have."""
    system = ctypes.CDLL(None)
    called = [one.name for one in library._final_module.functions if one.is_declaration]
    missing = [one for one in called if not one.startswith("llvm.") and not hasattr(system, one)]
    assert not missing, f"{name} calls {', '.join(missing)}"


def _kind(numba_type: Any) -> str:
    return f"{numba_type.dtype}:{numba_type.ndim}" if hasattr(numba_type, "ndim") else str(numba_type)


def _linked(data: bytes) -> dict[str, Kernel]:
    """Map the functions of a file; raise ValueError where it is damaged."""
    magic, crc, size = _HEAD.unpack_from(data) if len(data) >= _HEAD.size else (b"", 0, 0)
    content = memoryview(data)[_HEAD.size :]
    if magic != _MAGIC or zlib.crc32(content) != crc:
        raise ValueError("wrong checksum")
    descriptions = [Description(*values) for values in json.loads(bytes(content[:size]))]
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine()
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
    start = size
    for description in descriptions:
        code = bytes(content[start : start + description.size])
        engine.add_object_file(binding.ObjectFileRef.from_data(code))
        start += description.size
    engine.finalize_object()
    _engines.append(engine)
    return {one.name: Kernel(one, engine.get_function_address(one.symbol)) for one in descriptions}
