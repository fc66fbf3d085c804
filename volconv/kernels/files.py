"""Arrays from ``FILE[:KEY]``: one layer, or one array, of a file of weights."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.errors import ReadError
from volconv.kernels.layers import chosen, rank_error, refusal
from volconv.kernels.weights import KINDS, SUFFIXES, Layer, Weights, with_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from volconv.kernels.weights import WeightFile

__all__ = ["KINDS", "LoadedLayer", "is_file_spec", "list_weights", "load_array", "load_layer", "split_file_spec"]

# The first suffix that ends the spec or is followed by a colon ends the path: keys may look like paths themselves.
_FILE = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, SUFFIXES))}))(?::(.*))?", re.IGNORECASE | re.DOTALL)
_NUMERIC = "biufc"


def split_file_spec(spec: str, folder: str | os.PathLike[str] = "") -> tuple[str, str | None] | None:
    """Path and key of ``FILE[:KEY]``; None where the spec names no file.

    A known suffix makes a file of it, existing or not. With any other suffix, and a dot or a slash before the first
    colon, which no named kernel has, it is the file that is there.

    Parameters
    ----------
    spec : str
    folder : path
        Where a relative path begins.

    Examples
    --------
    >>> split_file_spec("weights.npz:conv1.weight")
    ('weights.npz', 'conv1.weight')
    >>> split_file_spec("psf.npy"), split_file_spec("gaussian:sigma=2")
    (('psf.npy', None), None)
    """
    match = _FILE.fullmatch(spec)
    if match:
        return match[1], match[2]
    if not re.search(r"[./]", spec.partition(":")[0]):
        return None
    ends = [len(spec), *(at for at in range(len(spec) - 1, 0, -1) if spec[at] == ":")]
    for end in ends[:64]:
        try:
            if Path(folder, spec[:end]).is_file():
                return spec[:end], spec[end + 1 :] if end < len(spec) else None
        except (OSError, ValueError):  # a name too long, or with a NUL
            return None
    return None


def is_file_spec(spec: str) -> bool:
    """Whether a spec names a file and not a kernel or number."""
    return split_file_spec(spec) is not None


def other_file_hint(spec: str) -> str | None:
    """What to say where a spec names no file, and yet there is one of this name."""
    path = spec.partition(":")[0]
    try:
        found = Path(path).is_file()
    except (OSError, ValueError):
        return None
    return f"there is a file of this name: write ./{spec} to mean it" if found and "." not in path else None


@dataclass(frozen=True, slots=True, eq=False)
class LoadedLayer:
    """A weight as loaded, and what its file says belongs to it.

    Parameters
    ----------
    weight : ndarray
    name : str
        FILE:KEY of the weight.
    bias : ndarray or None
    bias_name : str or None
    layout : {"oidhw", "dhwio", None}
        Order of the weight's axes, where the file's kind settles it.
    attributes : dict
        Parameters of a Conv3d that the file states.
    place : object
        What else the reader knows: of a volume its geometry.
    """

    weight: NDArray[Any]
    name: str
    bias: NDArray[Any] | None
    bias_name: str | None
    layout: str | None
    attributes: Mapping[str, Any]
    place: Any


def load_layer(spec: str, name: str = "kernel", axes: Sequence[int] = (3, 4, 5)) -> LoadedLayer:
    """The layer, or array, that ``FILE[:KEY]`` names.

    Parameters
    ----------
    spec : str
        A spec for which :func:`is_file_spec` holds. No key is needed where only one array fits.
    name : {"kernel", "bias"}
        What it is for. Of a layer, "bias" means its bias.
    axes : sequence of ints
        Numbers of axes that the array may have.

    Returns
    -------
    LoadedLayer
        Arrays are bool, integer, floating or complex as stored, in native byte order and C order; bfloat16 is float32.

    Raises
    ------
    ReadError
        The file is missing, damaged, holds what would have to be executed, or has no such key; or what has it is no
        Conv3d's.
    ShapeError
        The array is not numeric, or has another number of axes.
    """
    path_and_key = split_file_spec(spec)
    if path_and_key is None:
        raise ReadError(f"{name} must be in a file of kind {KINDS} (got {spec!r})")
    path, key = path_and_key

    def use(file: WeightFile) -> LoadedLayer:
        layer = chosen(file, path, key, name, axes)
        weight, bias = layer.weight, layer.bias
        return LoadedLayer(
            _array(file, weight, path, name, axes),
            _spec(path, weight),
            None if bias is None else _array(file, bias, path, "bias", (1,)),
            None if bias is None else _spec(path, bias),
            weight.layout,
            layer.attributes or {},
            weight.place,
        )

    return with_weights(path, name, use)


def load_array(spec: str, name: str, axes: Sequence[int]) -> NDArray[Any]:
    """The array that ``FILE[:KEY]`` names: :func:`load_layer` without what belongs to it."""
    return load_layer(spec, name, axes).weight


def list_weights(path: str | os.PathLike[str]) -> list[Weights]:
    """What a file of weights holds.

    Parameters
    ----------
    path : path

    Returns
    -------
    list of Weights
        In the file's order, each with its key, shape and dtype; ``layer`` is what ``-k FILE:LAYER`` may say for a
        weight and its bias together, and ``refusal`` tells of weights that are no Conv3d's.

    Raises
    ------
    ReadError
        The file is missing, damaged, of no known kind, or holds what would have to be executed.

    Examples
    --------
    >>> [entry.key for entry in list_weights("sample_data/brain_unet.npz")][:2]  # doctest: +SKIP
    ['conv3d|kernel', 'conv3d|bias']
    """
    from dataclasses import replace

    def use(file: WeightFile) -> list[Weights]:
        return [
            replace(entry, refusal=refusal(file, Layer(entry)) if entry.role == "weight" else None, place=None)
            for entry in file.entries
        ]

    return with_weights(os.fspath(path), "weights", use)


def _spec(path: str, entry: Weights) -> str:
    return f"{path}:{entry.key}" if entry.key else path


def _array(file: WeightFile, entry: Weights, path: str, name: str, axes: Sequence[int]) -> NDArray[Any]:
    array = file.read(entry)
    if array.dtype.kind not in _NUMERIC or array.ndim not in axes:
        raise rank_error(name, entry, _spec(path, entry), axes)
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")
