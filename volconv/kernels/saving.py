"""Weights into ``FILE[:KEY]``: one array of a new ``.npy``, ``.npz`` or HDF5 file."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.errors import ParameterError
from volconv.io.target import Target, check_target, translated

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Kinds of file that are written, as messages name them.
KINDS = ".npy, .npz:KEY, .h5:/PATH or .hdf5:/PATH"

# The first suffix that ends the name or is followed by a colon ends the path: keys may look like paths themselves.
_FILE = re.compile(r"(.+?\.(?:npy|npz|h5|hdf5))(?::(.*))?", re.IGNORECASE | re.DOTALL)

#: Name of the array where none is asked for, and of the bias beside it: PyTorch's.
KEY, BIAS = "weight", "bias"


def split_output(spec: str) -> tuple[Path, str]:
    """Path and key of ``FILE.npy``, ``FILE.npz[:KEY]`` or ``FILE.h5[:/PATH]``.

    Raises
    ------
    ParameterError
        It names no file of these kinds, or no key that it can have.

    Examples
    --------
    >>> split_output("psf.npz:blue")[1], split_output("psf.h5")[1]
    ('blue', 'weight')
    """
    found = _FILE.fullmatch(spec)
    if found is None:
        raise ParameterError(f"output must be {KINDS} (got {spec!r})", hint="the key may be left out: k.npz, k.h5")
    path, key = found.groups()
    if path.lower().endswith(".npy"):
        if key is not None:
            raise ParameterError(f"output must have no key in a .npy file, which holds one array (got {spec!r})")
        return Path(path), KEY
    name = KEY if key is None else key.strip("/")
    if not name.isprintable() or any(part in ("", ".", "..") for part in name.split("/")):
        raise ParameterError(f"output must have a key that names an array (got {spec!r})", hint=f"as in {path}:{KEY}")
    return Path(path), name


def check_output(spec: str, *, overwrite: bool = False) -> None:
    """Refuse an output that :func:`save_weights` could not make, before any work.

    Raises
    ------
    ParameterError, OutputExistsError, WriteError
    """
    check_target(split_output(spec)[0], overwrite=overwrite)


def save_weights(
    weights: NDArray[Any], spec: str, bias: NDArray[Any] | None = None, *, overwrite: bool = False
) -> bool:
    """Write weights into a new file, which appears complete or not at all.

    Parameters
    ----------
    weights : array
        As they are, in their dtype.
    spec : str
        ``FILE.npy``, ``FILE.npz[:KEY]`` or ``FILE.h5[:/PATH]``; the array is called "weight" by default. The same
        weights give the same bytes.
    bias : array, optional
        Goes beside weights that are called "weight" or "LAYER.weight".
    overwrite : bool
        Whether an existing file may be replaced, as a whole.

    Returns
    -------
    bool
        Whether the bias is in the file.

    Raises
    ------
    ParameterError, OutputExistsError, WriteError
    """
    path, key = split_output(spec)
    arrays = {key: weights}
    if bias is not None and path.suffix.lower() != ".npy" and re.fullmatch(rf"(.*[./])?{KEY}", key):
        arrays[key.removesuffix(KEY) + BIAS] = bias
    target = Target(path, overwrite=overwrite)
    try:
        with translated(path):
            if path.suffix.lower() == ".npy":
                np.lib.format.write_array(target.file, weights, allow_pickle=False)
            elif path.suffix.lower() == ".npz":
                with zipfile.ZipFile(target.file, "w") as archive:
                    for name, array in arrays.items():
                        with archive.open(f"{name}.npy", "w") as member:
                            np.lib.format.write_array(member, array, allow_pickle=False)
            else:
                target.file.write(_hdf5(arrays))
        target.commit()
    finally:
        target.abort()
    return len(arrays) > 1


def _hdf5(arrays: dict[str, NDArray[Any]]) -> bytes:
    """The whole file: made in memory, since HDF5 itself does not survive a disk that is full."""
    import h5py

    made = io.BytesIO()
    with h5py.File(made, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return made.getvalue()
