"""Tensors of PyTorch's files: zip archives, and those from before 1.6. Nothing that they name is ever called.

Both hold a pickle that says which tensors there are, in containers, and where each lies in which storage; of the
storages only what a tensor takes is read. (How they are written: ``torch/serialization.py``.)
"""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from volconv.errors import ReadError
from volconv.kernels.weights.entries import (
    WeightFile,
    Weights,
    check_count,
    check_size,
    from_bits,
    layers_of,
    role_of,
)
from volconv.kernels.weights.pickles import MOST_PICKLE_BYTES, DamagedError, Machine, Named

if TYPE_CHECKING:
    from collections.abc import Callable
    from zipfile import ZipFile

    from numpy.typing import NDArray

_HINT = "save tensors alone: torch.save(model.state_dict(), FILE)"
_STORAGES = {
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Float": "float32",
    "Double": "float64",
    "Byte": "uint8",
    "Char": "int8",
    "Short": "int16",
    "Int": "int32",
    "Long": "int64",
    "Bool": "bool",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
    "Untyped": "uint8",
    "_Untyped": "uint8",
}
_STORAGE = re.compile(r"torch\.(?:cuda\.|storage\.)?(\w+)Storage")
_DTYPE = re.compile(r"torch\.(bool|bfloat16|(?:u?int|float|complex)\d+|float\d_\w+|qu?int\w+)")
_READ = {*_STORAGES.values(), "uint16", "uint32", "uint64"}
_MENTIONED = {"torch.nn.parameter.Parameter", "torch.Tensor", "torch._tensor.Tensor"}

#: Levels of containers in containers.
_DEEPEST = 30


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of ``count`` numbers, bytes where it has no dtype of its own; ``first`` is where a view of it begins."""

    key: str
    dtype: str
    count: int
    first: int = 0


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as a view of a storage, in elements; ``flags`` are "conj" and "neg"."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    flags: tuple[str, ...] = ()


def open_archive(archive: ZipFile, path: str) -> WeightFile:
    """The tensors of a zip archive.

    Raises
    ------
    ReadError
        It is a program, or names what is not known.
    ValueError
        It is damaged.
    """
    names = set(archive.namelist())
    pickled = next(name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl")
    folder = pickled[: -len("data.pkl")]
    if f"{folder}constants.pkl" in names:
        raise ReadError(f"{path} is a TorchScript program, and programs are never loaded", hint=_HINT)
    if archive.getinfo(pickled).file_size > MOST_PICKLE_BYTES:
        raise ReadError(f"{path} must have a pickle of at most {MOST_PICKLE_BYTES >> 20} MB", hint=_HINT)
    order = "<"
    if f"{folder}byteorder" in names:
        with archive.open(f"{folder}byteorder") as member:
            order = ">" if member.read(16) == b"big" else "<"
    with archive.open(pickled) as member:
        content = member.read(MOST_PICKLE_BYTES)
    tensors = _machine(path).run(io.BytesIO(content))

    def read(storage: Storage, begin: int, size: int) -> bytes:
        with archive.open(f"{folder}data/{storage.key}") as member:
            member.seek(begin)
            return member.read(size)

    return _file(path, tensors, read, order)


def open_legacy(file: IO[bytes], path: str) -> WeightFile:
    """The tensors of a file from before PyTorch 1.6.

    Raises
    ------
    ReadError
        It names what is not known.
    ValueError
        It is damaged.
    """
    file.seek(0, io.SEEK_END)
    end = file.tell()
    file.seek(0)
    start = io.BytesIO(file.read(MOST_PICKLE_BYTES))  # pickles, and more or less of what follows them
    storages: dict[str, Storage] = {}
    machine = _machine(path, storages)
    for _ in range(3):  # a number, the version, and the machine that wrote it
        machine.run(start)
    tensors, keys = machine.run(start), machine.run(start)
    places: dict[str, tuple[int, int]] = {}
    place = start.tell()
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in storages for key in keys):
        raise DamagedError("its storages do not fit its tensors")
    for key in keys:
        file.seek(place)
        (count,) = struct.unpack("<q", file.read(8).ljust(8, b"\xff"))
        size = count * _itemsize(storages[key].dtype)
        if not 0 <= size <= end - place - 8:
            raise DamagedError("it is truncated")
        places[key] = place + 8, size
        place += 8 + size

    def read(storage: Storage, begin: int, size: int) -> bytes:
        place, room = places[storage.key]
        file.seek(place + begin)
        return file.read(min(size, max(0, room - begin)))

    return _file(path, tensors, read, "<")


def _machine(path: str, storages: dict[str, Storage] | None = None) -> Machine:
    """What PyTorch's pickles may name, as data."""

    def rebuilt_as(function: Any, kind: Any, arguments: Any, state: Any) -> Any:  # noqa: ARG001  # as PyTorch calls it
        return machine.call(function, arguments)

    calls: dict[str, Callable[..., Any]] = {
        "collections.OrderedDict": _ordered_dict,
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": lambda *given: _tensor(*given[:4], flags=given[6:]),
        "torch._utils._rebuild_tensor_v3": lambda *given: _tensor(*given[:4], dtype=given[6], flags=given[7:]),
        "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
        "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
        "torch._tensor._rebuild_from_type_v2": rebuilt_as,
        "torch.Size": lambda sizes: tuple(sizes),
        "torch.device": lambda *_: None,
    }

    def names(name: str) -> Callable[..., Any] | None:
        if name in _MENTIONED or _STORAGE.fullmatch(name) or _DTYPE.fullmatch(name):
            return None
        return calls[name]

    def storage(identity: Any) -> Storage:
        found = _storage(identity)
        if storages is not None:
            storages[found.key] = found
        return found

    machine = Machine(path, names, storage, _HINT)
    return machine


def _ordered_dict(*pairs: Any) -> dict[str, Any]:
    """An empty one, which items follow; Python 2 gave pairs."""
    return {str(key): value for key, value in (pairs[0] if pairs else ()) if isinstance(key, str | int)}


def _storage(identity: Any) -> Storage:
    """What ``("storage", kind, key, device, count)`` stands for; a sixth item, a part of another, is of old files."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        raise DamagedError("its pickle has a persistent id that names no storage")
    kind, key, _, count, *view = identity[1:]
    named = _STORAGE.fullmatch(kind.name) if isinstance(kind, Named) else None
    if named is None or not isinstance(key, str) or not _whole(count):
        raise DamagedError("its pickle has a storage of no known kind")
    first = view[0][1] if view and view[0] is not None else 0
    if not _whole(first):
        raise DamagedError("its pickle has a view that begins nowhere")
    return Storage(key, _STORAGES.get(named[1], named[1].lower()), count, first)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *, dtype: Any = None, flags: Any = ()) -> Tensor:
    good = isinstance(storage, Storage) and isinstance(shape, tuple) and isinstance(strides, tuple)
    if not good or len(shape) != len(strides) or len(shape) > 64 or not _whole(offset, *shape, *strides):
        raise DamagedError("its pickle has a tensor of no shape")
    name = storage.dtype if dtype is None else dtype.name.removeprefix("torch.")
    marked = tuple(str(flag) for flag in (flags[0] if flags and isinstance(flags[0], dict) else ()))
    return Tensor(storage, storage.first + offset, shape, strides, name, marked)


def _whole(*values: Any) -> bool:
    return all(type(value) is int and 0 <= value < 1 << 62 for value in values)


def _itemsize(dtype: str) -> int:
    if dtype not in _READ:
        raise DamagedError(f"it holds a storage of {dtype}, whose size is not known")
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _file(path: str, tensors: Any, read: Callable[[Storage, int, int], bytes], order: str) -> WeightFile:
    found = _flattened(tensors, path)

    def values(entry: Weights) -> NDArray[Any]:
        what = f"{path}:{entry.key}" if entry.key else path
        if not isinstance(entry.place, Tensor):
            raise ReadError(f"{what} is no tensor (it is of type {entry.dtype})")
        return _values(entry.place, what, read, order)

    entries = [_entry(key, value) for key, value in found.items()]
    return WeightFile(entries, values, layers_of(entries))


def _flattened(tensors: Any, path: str) -> dict[str, Any]:
    """Containers in containers, as one dict whose keys have dots."""
    found: dict[str, Any] = {}
    visited = 0

    def visit(value: Any, key: str, levels: int) -> None:
        nonlocal visited
        visited += 1
        check_count(visited, path)  # not what is found: containers may be in each other many times over, and empty
        if not isinstance(value, dict | list | tuple):
            found[key] = value
            return
        if not levels:
            raise ReadError(f"{path} must have at most {_DEEPEST} containers in each other", hint=_HINT)
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            visit(item, f"{key}.{name}" if key else str(name), levels - 1)

    visit(tensors, "", _DEEPEST)
    return found


def _entry(key: str, value: Any) -> Weights:
    if not isinstance(value, Tensor):
        return Weights(key, None, value.name if isinstance(value, Named) else type(value).__name__, place=value)
    layer, role = role_of(key)
    return Weights(key, value.shape, value.dtype, layer, role, "oidhw", place=value)


def _values(tensor: Tensor, what: str, read: Callable[[Storage, int, int], bytes], order: str) -> NDArray[Any]:
    """Numbers of a tensor, of the part of its storage that it takes."""
    if tensor.dtype == "complex32":  # pairs of float16
        pairs = replace(
            tensor,
            offset=2 * tensor.offset,
            shape=(*tensor.shape, 2),
            strides=(*(2 * step for step in tensor.strides), 1),
            dtype="float16",
        )
        return from_bits(_values(pairs, what, read, order), "complex32")
    if tensor.dtype not in _READ:
        raise ReadError(f"{what} must be of a dtype that is read (got {tensor.dtype})")
    stored = np.dtype("uint16" if tensor.dtype == "bfloat16" else tensor.dtype).newbyteorder(order)  # type: ignore[arg-type]
    check_size(tensor.shape, stored, what)
    if 0 in tensor.shape:
        return np.empty(tensor.shape, stored)
    span = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
    check_size((span,), stored, what)
    begin, size = tensor.offset * stored.itemsize, span * stored.itemsize
    inside = begin + size <= tensor.storage.count * _itemsize(tensor.storage.dtype)
    content = read(tensor.storage, begin, size) if inside else b""
    if len(content) < size:
        raise DamagedError(f"{what} reaches beyond its storage")
    flat = np.frombuffer(content, stored)
    strides = tuple(step * stored.itemsize for step in tensor.strides)
    values: NDArray[Any] = np.array(np.lib.stride_tricks.as_strided(flat, tensor.shape, strides, writeable=False))
    if tensor.dtype == "bfloat16":
        values = from_bits(values, tensor.dtype)
    if "conj" in tensor.flags:
        values = values.conj()
    return -values if "neg" in tensor.flags else values
