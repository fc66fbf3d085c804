"""Tensors of ``.safetensors`` files: a JSON header of offsets, and raw numbers, of which only those asked for are read.

The format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import os
import struct
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
from volconv.kernels.weights.kinds import is_safetensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Names of dtypes, with NumPy's.
_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
}

#: Bytes of a header: a hundred for each of as many tensors as a file may have.
_LONGEST_HEADER = 16 << 20


def open_safetensors(file: IO[bytes], path: str) -> WeightFile:
    """The tensors of a file.

    Raises
    ------
    ReadError
        Its header is damaged.
    """
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    if len(start) < 8 or not is_safetensors(start + file.read(1), size):
        raise ReadError(f"{path} is no safetensors file, or a damaged one")
    length = struct.unpack("<Q", start)[0]
    if length > _LONGEST_HEADER:
        raise ReadError(f"{path} must have a header of at most {_LONGEST_HEADER >> 20} MB (got {length} bytes)")
    file.seek(8)
    try:
        header = json.loads(file.read(length), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ReadError(f"{path} is damaged: its header is no JSON ({error})") from error
    header.pop("__metadata__", None)
    check_count(len(header), path)
    entries = [_entry(key, facts, size - 8 - length, path) for key, facts in header.items()]

    def read(entry: Weights) -> NDArray[Any]:
        what = f"{path}:{entry.key}"
        if entry.dtype not in _DTYPES.values():
            raise ReadError(f"{what} must be of a dtype that is read (got {entry.dtype})")
        assert entry.shape is not None  # noqa: S101  # all are tensors here
        stored = np.dtype("<u2" if entry.dtype == "bfloat16" else entry.dtype).newbyteorder("<")
        check_size(entry.shape, stored, what)
        file.seek(8 + length + entry.place)
        count = math.prod(entry.shape)
        values = np.frombuffer(file.read(count * stored.itemsize), stored, count).reshape(entry.shape)
        return from_bits(values, entry.dtype) if entry.dtype == "bfloat16" else values

    return WeightFile(entries, read, layers_of(entries))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _entry(key: str, facts: Any, room: int, path: str) -> Weights:
    """What the header says of a tensor, held against the file's size."""
    try:
        name, shape, (begin, end) = facts["dtype"], tuple(facts["shape"]), facts["data_offsets"]
        dtype = _DTYPES.get(name, str(name))
        good = all(type(n) is int and n >= 0 for n in (*shape, begin, end)) and begin <= end <= room
        if good and dtype in _DTYPES.values():
            itemsize = 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
            good = end - begin == math.prod(shape) * itemsize
    except (TypeError, KeyError, ValueError):
        good = False
    if not good:
        raise ReadError(f"{path} is damaged, or truncated: what its header says of {key!r} does not fit the file")
    layer, role = role_of(key)
    # Flax calls its weights kernels, and keeps them channels last; PyTorch calls them weights.
    layout = "oidhw" if key.endswith("weight") else None
    return Weights(key, shape, dtype, layer, role, layout, place=begin)
