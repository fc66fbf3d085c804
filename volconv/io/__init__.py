"""Volumes in files: :func:`open_volume` and :func:`create_volume` pick the format by the name's suffix.

Importing this package loads no file format's library; each format is one module, imported when a name asks for it.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from volconv.errors import ReadError, WriteError
from volconv.io.array import ArraySink, ArraySource
from volconv.io.volume import NewVolume, OpenVolume, Scaling, Sink, Source, VolumeInfo
from volconv.region import Region

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from volconv.geometry import Geometry
    from volconv.region import Index5

__all__ = [
    "SUFFIXES",
    "ArraySink",
    "ArraySource",
    "NewVolume",
    "OpenVolume",
    "Region",
    "Scaling",
    "Sink",
    "Source",
    "VolumeInfo",
    "create_volume",
    "open_volume",
    "split_path",
    "stem_and_ext",
]

#: Suffix of a name -> module of this package that reads and writes it; the longest suffix that fits counts.
SUFFIXES = {
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".ome.tif": "tiff",
    ".ome.tiff": "tiff",
}


def open_volume(path: str | os.PathLike[str]) -> OpenVolume:
    """Open a volume for reading by region.

    Parameters
    ----------
    path : str or path
        A NIfTI, HDF5 (``file.h5`` or ``file.h5:/path/of/dataset``) or TIFF file, or a folder or pattern
        (``slices/z*.tif``) of TIFF slices.

    Returns
    -------
    OpenVolume
        A :class:`Source`; use it in ``with``, or close it.

    Raises
    ------
    ReadError
        There is no such file, its kind is unknown, or it is damaged.

    Examples
    --------
    >>> with open_volume("sample_data/mni152_t1.nii.gz") as brain:  # doctest: +SKIP
    ...     brain.info.shape, brain.info.geometry.spacing
    ((1, 1, 189, 233, 197), (1.0, 1.0, 1.0))
    """
    if not os.fspath(path):
        raise ReadError("input must have a name (got an empty one)")
    file, key = split_path(path)
    if file.is_dir() or (not file.exists() and _is_pattern(file)):
        from volconv.io.tiffslices import open_slices

        return open_slices(file)
    if not file.exists():
        raise ReadError(f"{path}: no such file")
    kind = _kind(file)
    if kind is None:
        raise ReadError(f"{path}: the suffix names no known kind of volume (known: {_known()})")
    return cast("OpenVolume", import_module(f"{__name__}.{kind}").open_file(file, key))


def create_volume(
    path: str | os.PathLike[str],
    *,
    shape: Index5,
    dtype: DTypeLike,
    geometry: Geometry | None = None,
    like: VolumeInfo | None = None,
    scaling: Scaling | None = None,
    overwrite: bool = False,
    note: str = "",
) -> NewVolume:
    """Create a volume that is written by region and appears when it is complete.

    Parameters
    ----------
    path : str or path
        Its suffix picks the format; ``file.h5:/path/of/dataset`` names the dataset (``/data`` otherwise).
    shape : tuple of 5 ints
        (N, C, D, H, W).
    dtype : dtype
        What :meth:`Sink.write` will be given, except that bool becomes uint8: see the result's ``info.dtype``.
    geometry : Geometry, optional
        That of ``like`` unless given.
    like : VolumeInfo, optional
        The input's: a file of the same format carries on its header.
    scaling : Scaling, optional
        From the stored values to the real ones, where the format has a place for it (NIfTI).
    overwrite : bool
        Whether an existing file may be replaced.
    note : str
        One line on where the volume comes from, kept in the file.

    Returns
    -------
    NewVolume
        A :class:`Sink`; leaving its ``with`` commits, or aborts where an exception passes through.

    Raises
    ------
    OutputExistsError
        The file exists, and ``overwrite`` is false.
    WriteError
        The kind is unknown, cannot hold the dtype, or the file cannot be made.
    """
    if not os.fspath(path):
        raise WriteError("output must have a name (got an empty one)")
    file, key = split_path(path)
    kind = _kind(file)
    if kind is None:
        raise WriteError(f"{path}: the suffix names no known kind of volume (known: {_known()})")
    if geometry is None and like is not None:
        geometry = like.geometry
    _check_room(file, math.prod(shape) * np.dtype(dtype).itemsize)
    module = import_module(f"{__name__}.{kind}")
    sink = module.create_file(
        file,
        key,
        shape=shape,
        dtype=np.dtype(dtype),
        geometry=geometry,
        like=like,
        scaling=scaling,
        overwrite=overwrite,
        note=note,
    )
    return cast("NewVolume", sink)


def split_path(path: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """File and, for ``file.h5:/path``, the path inside it.

    Examples
    --------
    >>> split_path("cells.h5:/volumes/raw")[1], split_path("brain.nii")[1]
    ('/volumes/raw', None)
    """
    text = os.fspath(path)
    match = re.fullmatch(r"(.*?\.(?:h5|hdf5)):(.*)", text, re.IGNORECASE | re.DOTALL)
    if match is None:
        return Path(text), None
    inner = match[2].strip("/")
    return Path(match[1]), f"/{inner}" if inner else None


def stem_and_ext(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Bare name and suffix, with the suffixes of two parts that volumes have.

    Examples
    --------
    >>> stem_and_ext("data/brain.nii.gz"), stem_and_ext("cells.v2.ome.tif"), stem_and_ext("x.h5:/raw")
    (('brain', '.nii.gz'), ('cells.v2', '.ome.tif'), ('x', '.h5'))
    """
    name = split_path(path)[0].name
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], name[-len(suffix) :]
    plain = Path(name)
    return plain.stem, plain.suffix


def _check_room(file: Path, size: int) -> None:
    """Refuse at once what would fill the disk after hours; a missing folder is told of elsewhere."""
    folder = file.resolve().parent
    if folder.is_dir() and size > (free := shutil.disk_usage(folder).free):
        raise WriteError(f"{file}: the output takes {size} bytes, and its folder has room for {free}")


def _kind(file: Path) -> str | None:
    return SUFFIXES.get(stem_and_ext(file)[1].lower())


def _known() -> str:
    return ", ".join(suffix for suffix in SUFFIXES if not suffix.startswith(".ome"))


def _is_pattern(file: Path) -> bool:
    return any(mark in os.fspath(file) for mark in "*?[")
