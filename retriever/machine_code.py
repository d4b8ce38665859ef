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
from array import array
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.files import cache_errors, cache_root
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["COMPILED", "Argument", "Kernel", "argument", "kept", "load_kernels", "processor_instructions"]

COMPILED: dict[str, Any] = {"nogil": True, "_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Options of `njit` for functions that are kept, and for those that they call: they must not make arrays."""
_HEAD = struct.Struct("<8sII")  # magic, CRC-32 of what follows, size of its description
_MAGIC = b"kernels2"
_WORDS = {"int64": "q", "float32": "f4x", "float64": "d", "bool": "?7x"}
"""How numbers lie in words of 8 bytes."""
_ADDRESS = 4
"""Which word of an array is its address."""
_ENTRY = "retriever.entry."


@functools.cache
def processor_instructions() -> frozenset[str]:
    """Return the instruction sets that the processor has, by LLVM's names: torch would take seconds to say them."""
    from llvmlite import binding

    try:
        return frozenset(name for name, there in binding.get_host_cpu_features().items() if there)
    except RuntimeError:  # LLVM does not know this processor
        return frozenset()


class Description(NamedTuple):
    """One function in a file: its symbol, the kinds of its arguments, of its result, and the sizes of its object code.

    A kind is a type of NumPy's, and ":n" for an array of n dimensions. sizes: of the function, and of its entry.
    """

    name: str
    symbol: str
    kinds: list[str]
    result: str
    sizes: list[int]


class Argument(NamedTuple):
    """An array as compiled functions take it, looked at once for many calls; it keeps the array."""

    kind: str
    words: tuple[int, ...]
    array: NDArray[Any]

    @property
    def address(self) -> int:
        """Return where it lies."""
        return self.words[_ADDRESS]


def argument(array: NDArray[Any]) -> Argument:
    """Look at an array that lies in one piece; raise ValueError for another."""
    if not array.flags.c_contiguous:
        raise ValueError(f"need an array in one piece, found strides {array.strides} for the shape {array.shape}")
    # As numba passes arrays: their owners, of whom it need not know here, size, item size, address, shape, strides.
    address = array.__array_interface__["data"][0]
    words = (0, 0, array.size, array.itemsize, address, *array.shape, *array.strides)
    return Argument(_kind_of(array.dtype, array.ndim), words, array)


@functools.cache
def _kind_of(dtype: np.dtype[Any], dimensions: int) -> str:
    return f"{dtype}:{dimensions}"  # to name a type takes as long as all else that is looked at


class Kernel:
    """A compiled function, called from any number of threads; they do not hold the interpreter's lock meanwhile.

    It is called with one block of words, which its entry hands over: a search makes a dozen calls, and to make an
    object of each of their hundred words takes longer than some of them.
    """

    def __init__(self, description: Description, address: int) -> None:
        self.name, self._kinds = description.name, description.kinds
        self._returns = description.result != "none"
        self._block = struct.Struct("".join(_words(description.kinds)))
        self._call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(address)

    def __call__(self, *arguments: Any) -> Any:
        """Call it with arrays, or `Argument`s, and numbers of the kinds that it was compiled for."""
        words: list[Any] = [0, 0]  # places for the result, and for an error's description
        for kind, given in zip(self._kinds, arguments, strict=True):
            if ":" not in kind:
                words.append(given)
                continue
            found = given if isinstance(given, Argument) else argument(given)
            if found.kind != kind:
                raise TypeError(f"{self.name}: found an array {found.kind}, need {kind}")
            words += found.words
        block = array("q", self._block.pack(*words))
        status = self._call(block.buffer_info()[0])
        if status:
            raise RuntimeError(f"{self.name}: compiled code ends with {status}")
        return block[0] if self._returns else None


def _words(kinds: Sequence[str]) -> list[str]:
    """Return how each word of a function's block is packed."""
    words = ["q", "q"]
    for kind in kinds:
        dimensions = kind.partition(":")[2]
        words += ["q"] * (_ADDRESS + 1 + 2 * int(dimensions)) if dimensions else [_WORDS[kind]]
    return words


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


def kept(module: str, sources: Sequence[str]) -> bool:
    """Say whether a module's functions, as `load_kernels` takes them, need not be compiled any more."""
    return _path(module, (module, *sources)).is_file()


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
        kinds, result = [_kind(one) for one in overload.signature.args], str(overload.signature.return_type)
        assert result in ("none", "int64"), f"{name} returns {result}"
        symbol = overload.fndesc.llvm_func_name
        own = [overload.library.serialize_using_object_code()[2][0], _entry(symbol, kinds)]
        descriptions.append(Description(name, symbol, kinds, result, [*map(len, own)]))
        codes += own
    described = json.dumps(descriptions).encode()
    content = described + b"".join(codes)
    return _HEAD.pack(_MAGIC, zlib.crc32(content), len(described)) + content


def _entry(symbol: str, kinds: Sequence[str]) -> bytes:
    """Return the object code of what calls a function with the words of a block, whose address it is given.

    numba's functions take the addresses of a result and of an error's description first: the block's first words.
    """
    from llvmlite import binding, ir

    byte, status, word = ir.IntType(8), ir.IntType(32), ir.IntType(64)
    types = {"q": word, "f4x": ir.FloatType(), "d": ir.DoubleType(), "?7x": byte}
    packed = _words(kinds)
    module = ir.Module()
    target = ir.Function(module, ir.FunctionType(status, [types[one] for one in packed]), symbol)
    entry = ir.Function(module, ir.FunctionType(status, [word]), _ENTRY + symbol)
    builder = ir.IRBuilder(entry.append_basic_block())
    places = [builder.add(entry.args[0], word(8 * number)) for number in range(len(packed))]
    given = [
        builder.load(builder.inttoptr(place, types[one].as_pointer()))
        for place, one in zip(places[2:], packed[2:], strict=True)
    ]
    builder.ret(builder.call(target, [*places[:2], *given]))
    machine = _machine()
    parsed = binding.parse_assembly(str(module))
    return bytes(machine.emit_object(parsed))


def _machine() -> Any:
    """Return LLVM's description of this processor's code."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding.Target.from_default_triple().create_target_machine(codemodel="jitdefault", jit=True)


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

    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), _machine())
    start = size
    for length in (length for description in descriptions for length in description.sizes):
        engine.add_object_file(binding.ObjectFileRef.from_data(bytes(content[start : start + length])))
        start += length
    engine.finalize_object()
    _engines.append(engine)
    return {one.name: Kernel(one, engine.get_function_address(_ENTRY + one.symbol)) for one in descriptions}
