"""Arrays of ``.npy`` and ``.npz`` files."""

from __future__ import annotations

import warnings
from tokenize import TokenError
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from volconv.errors import ReadError
from volconv.kernels.weights.entries import (
    WeightFile,
    Weights,
    check_count,
    check_size,
    holds_objects,
    layers_of,
    role_of,
)
from volconv.kernels.weights.kinds import NPY_MAGIC, PICKLE_MAGIC

if TYPE_CHECKING:
    from zipfile import ZipFile

    from numpy.typing import NDArray


def open_npy(file: IO[bytes], path: str) -> WeightFile:
    """The one array of a ``.npy`` file, whose key is empty."""
    shape, dtype = _header(file, path)
    entry = Weights("", shape, _name(dtype))
    return WeightFile([entry], lambda _: _array(file, path), {}, model=False)


def open_npz(archive: ZipFile, path: str) -> WeightFile:
    """The arrays of a ``.npz`` file."""
    members = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
    check_count(len(members), path)
    entries = [_entry(archive, key, name) for key, name in members.items()]

    def read(entry: Weights) -> NDArray[Any]:
        with archive.open(entry.place) as member:
            return _array(member, f"{path}:{entry.key}")

    return WeightFile(entries, read, layers_of(entries), model=False)


def _entry(archive: ZipFile, key: str, name: str) -> Weights:
    layer, role = role_of(key)
    try:
        with archive.open(name) as member:
            shape, dtype = _header(member, key)
    except (ReadError, SyntaxError, TokenError, ValueError):
        return Weights(key, None, "damaged", place=name)
    return Weights(key, shape, _name(dtype), layer, role, place=name)


def _name(dtype: np.dtype[Any]) -> str:
    return dtype.name if dtype.kind in "biufc" else str(dtype)


def _header(file: IO[bytes], what: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an array, from the file's start."""
    magic = file.read(len(NPY_MAGIC))
    if magic.startswith(PICKLE_MAGIC):
        raise holds_objects(what)
    if magic != NPY_MAGIC:
        raise ReadError(f"{what} is no NumPy array file, or a damaged one (it starts with {magic!r})")
    file.seek(0)
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of files that Python 2 wrote
        shape, _, dtype = read_header(file)
    return shape, dtype


def _array(file: IO[bytes], what: str) -> NDArray[Any]:
    file.seek(0)
    shape, dtype = _header(file, what)
    if dtype.hasobject:
        raise holds_objects(what)
    check_size(shape, dtype, what)
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array
