"""Compiled loops as object code: kept on disk, and run without the library that compiles them.

numba takes a third of a second to load, and 70 MB; LLVM alone takes 30 ms, and runs what numba made.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from volconv import engines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np

#: Only fused multiply-add is allowed beyond strict IEEE arithmetic: sums keep their order, so the bits of a result do
#: not depend on how a loop was vectorised.
OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}}

#: What would free an array's memory, were it numba's own.
NEVER = "NRT_MemInfo_call_dtor"

#: What holds loaded code must live as long as the code may run.
_KEPT: list[Any] = []


class Array(NamedTuple):
    """An argument that is an array: of this dtype, so many axes, C-contiguous unless ``layout`` is "A"."""

    dtype: np.dtype[Any]
    axes: int
    layout: str = "C"


class Memory(NamedTuple):
    """An argument that is an address, which the loop sees as an array of one axis that has no end."""

    dtype: np.dtype[Any]


#: An argument: an array, memory, or so many integers (a tuple of them, where they are several).
Argument = Array | Memory | int

#: Elements of what has no end.
ENDLESS = 1 << 56


def native(
    name: str, arguments: Sequence[Argument], function: Callable[[], Callable[..., None]], *sources: str
) -> Callable[..., None]:
    """A loop as machine code that runs without the GIL.

    Parameters
    ----------
    name : str
        Names what is kept; different for each dtype and each constant that is compiled in.
    arguments : sequence of Argument
        What the loop takes. Nothing is checked when it is called.
    function : callable
        Gives the loop as a Python function for numba, which must neither allocate nor raise; called where nothing is
        kept yet.
    *sources : str
        Modules beside this one that the loop is made of: when they change, it is compiled anew.

    Notes
    -----
    Nowhere to keep the code, or a damaged file, costs time and nothing else.
    """
    key = f"{name}-{_fingerprint(name, arguments, sources)}.o"
    for folder in _folders():
        found = _read(folder / key)
        if found is not None:
            return _loaded(*found, arguments)
    if engines.on_compilation is not None:
        engines.on_compilation()
    symbol, code = _compiled(function(), arguments)
    for folder in _folders():
        if _write(folder / key, symbol, code):
            break
    return _loaded(symbol, code, arguments)


def _fingerprint(name: str, arguments: Sequence[Argument], sources: Sequence[str]) -> str:
    """Changes with all that the code depends on: source, compiler and processor."""
    import llvmlite
    from llvmlite import binding

    digest = hashlib.sha256()
    for module in ("native", *sources):
        digest.update(Path(__file__).with_name(f"{module}.py").read_bytes())
    target = binding.get_default_triple(), binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()
    # Releases of numba go with those of llvmlite, and to ask for numba's takes longer.
    versions = sys.version_info[:2], llvmlite.__version__
    digest.update(repr((name, tuple(arguments), target, versions)).encode())
    return digest.hexdigest()[:32]


def _folders() -> Iterator[Path]:
    """Where code may be kept, best first."""
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(named)
        return
    yield Path(__file__).parent / "__pycache__"
    home = os.environ.get("XDG_CACHE_HOME")
    with contextlib.suppress(RuntimeError):  # nobody's home
        yield (Path(home) if home else Path.home() / ".cache") / "volconv"


def code_folder() -> Path | None:
    """The folder where code is kept, or would be; None where none can be written to."""
    for folder in _folders():
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
            return folder
    return None


def _read(path: Path) -> tuple[str, bytes] | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, rest = content[:32], content[32:]
    if hashlib.sha256(rest).digest() != digest:  # LLVM would end the process over damaged code
        return None
    symbol, _, code = rest.partition(b"\n")
    return symbol.decode(), code


def _write(path: Path, symbol: str, code: bytes) -> bool:
    """Keep code under its name, complete or not at all."""
    rest = symbol.encode() + b"\n" + code
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(hashlib.sha256(rest).digest() + rest)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        return False
    return True


def _compiled(function: Callable[..., None], arguments: Sequence[Argument]) -> tuple[str, bytes]:
    """Name and object code of a function, for this processor."""
    import numba
    from llvmlite import binding
    from numba import types

    array: Any = types.Array  # its types know fewer dtypes than it takes

    def kind(argument: Argument) -> Any:
        if isinstance(argument, Array):
            return array(numba.from_dtype(argument.dtype), argument.axes, argument.layout)
        if isinstance(argument, Memory):
            return array(numba.from_dtype(argument.dtype), 1, "C")
        return types.int64 if argument == 1 else types.UniTuple(types.int64, argument)

    kinds = [kind(argument) for argument in arguments]
    made: Any = numba.njit(numba.void(*kinds), **OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True})(
        function
    )
    (signature,) = made.signatures
    module = binding.parse_assembly(made.inspect_llvm(signature))
    foreign = [f.name for f in module.functions if f.is_declaration and f.name.startswith(("NRT_", "numba_", "Py"))]
    if foreign != [NEVER][: len(foreign)]:  # without numba those are nowhere
        raise RuntimeError(f"{function.__qualname__} allocates or calls Python: {', '.join(foreign)}")
    compiled = made.overloads[signature]
    symbol: str = compiled.fndesc.llvm_func_name
    code: bytes
    _, _, (code, _) = compiled.library.serialize_using_object_code()  # what numba itself would keep
    return symbol, code


def _machine() -> Any:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding.Target.from_default_triple().create_target_machine(
        binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten(), opt=3, jit=True, reloc="pic"
    )


def _loaded(symbol: str, code: bytes, arguments: Sequence[Argument]) -> Callable[..., None]:
    """Object code as a Python function; calls follow numba's convention, by which arrays come as their parts."""
    from llvmlite import binding

    machine = _machine()
    if binding.address_of_symbol(NEVER) is None:
        _KEPT.append(ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None))
        binding.add_symbol(NEVER, ctypes.cast(_KEPT[-1], ctypes.c_void_p).value)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
    engine.add_object_file(binding.object_file.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _KEPT.append(engine)

    pointer, number = ctypes.c_void_p, ctypes.c_int64
    kinds: list[Any] = [pointer, pointer]
    for argument in arguments:
        if isinstance(argument, Array):
            kinds += [pointer, pointer, number, number, pointer, *[number] * (2 * argument.axes)]
        elif isinstance(argument, Memory):
            kinds += [pointer, pointer, number, number, pointer, number, number]
        else:
            kinds += [number] * argument
    run = ctypes.CFUNCTYPE(ctypes.c_int32, *kinds)(engine.get_function_address(symbol))

    def call(*values: Any) -> None:
        nothing = (pointer * 2)()
        place = ctypes.addressof(nothing)
        parts: list[Any] = [place, place + ctypes.sizeof(pointer)]
        for argument, value in zip(arguments, values, strict=True):
            if isinstance(argument, Array):
                where = value.__array_interface__["data"][0]
                parts += (None, None, value.size, value.itemsize, where, *value.shape, *value.strides)
            elif isinstance(argument, Memory):
                size = argument.dtype.itemsize
                parts += (None, None, ENDLESS, size, value, ENDLESS, size)
            elif argument == 1:
                parts.append(int(value))
            else:
                parts += value
        if run(*parts):
            raise RuntimeError(f"{symbol} failed")

    return call
