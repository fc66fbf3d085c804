"""Which file has which format, and what each format can hold: a table, and no more."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

_INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
_COMPLEX = ("complex64", "complex128")


@dataclass(frozen=True, slots=True)
class Format:
    """A file format and what it can hold.

    Parameters
    ----------
    name : str
        As in :attr:`VolumeInfo.format`.
    title : str
        For people.
    module : str
        Of this package, with ``open_file``, ``list_contents`` and, where it writes, ``describe_new`` and
        ``create_file``.
    suffixes : tuple of str
        Lower case. Empty for a folder of slices. Those of OME-Zarr are a folder's, or a URL's.
    writes : bool
    dtypes : tuple of str
        Of stored voxels, by their NumPy names.
    axes : str
        For people.
    geometry : {"affine", "spacing", "spacing and origin"}
        Whether orientation and origin are kept, or spacing alone, or all but the orientation.
    scaling : bool
        Whether a slope and intercept from stored to real values are kept.
    time : bool
        Whether the time step is kept.
    options : dict
        Creation options and what they take.
    """

    name: str
    title: str
    module: str
    suffixes: tuple[str, ...]
    writes: bool
    dtypes: tuple[str, ...]
    axes: str
    geometry: Literal["affine", "spacing", "spacing and origin"]
    scaling: bool = False
    time: bool = True
    options: dict[str, str] | None = None


_TIFF_OPTIONS = {
    "compression": "none, zlib, lzw, zstd, lzma, packbits, jpeg2000, jpegxl, lerc or png",
    "predictor": "yes or no",
    "tile": "H,W in multiples of 16, or one number",
}

FORMATS = (
    Format(
        name="nifti",
        title="NIfTI",
        module="nifti",
        suffixes=(".nii", ".nii.gz"),
        writes=True,
        dtypes=(*_INTEGERS, "float32", "float64", *_COMPLEX),
        axes="X Y Z, then T, then C",
        geometry="affine",
        scaling=True,
    ),
    Format(
        name="pair",
        title="NIfTI pair",
        module="nifti",
        suffixes=(".hdr", ".hdr.gz", ".img", ".img.gz"),
        writes=False,
        dtypes=(*_INTEGERS, "float32", "float64", *_COMPLEX),
        axes="X Y Z, then T, then C",
        geometry="affine",
        scaling=True,
    ),
    Format(
        name="mgh",
        title="FreeSurfer MGH",
        module="mgh",
        suffixes=(".mgh", ".mgz", ".mgh.gz"),
        writes=False,
        dtypes=("uint8", "int16", "uint16", "int32", "float32"),
        axes="X Y Z, then T",
        geometry="affine",
    ),
    Format(
        name="tiff",
        title="TIFF",
        module="tiff",
        suffixes=(".tif", ".tiff"),
        writes=True,
        dtypes=(*_INTEGERS, "float16", "float32", "float64", *_COMPLEX),
        axes="T C Z Y X in any order",
        geometry="spacing",
        options=_TIFF_OPTIONS,
    ),
    Format(
        name="ome",
        title="OME-TIFF",
        module="tiff",
        suffixes=(".ome.tif", ".ome.tiff"),
        writes=True,
        dtypes=("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64", *_COMPLEX),
        axes="T C Z Y X in any order",
        geometry="spacing",
        options=_TIFF_OPTIONS,
    ),
    Format(
        name="microscope",
        title="LSM, STK",
        module="tiff",
        suffixes=(".lsm", ".stk"),
        writes=False,
        dtypes=("uint8", "uint16", "float32"),
        axes="T C Z Y X in any order",
        geometry="spacing",
    ),
    Format(
        name="slices",
        title="TIFF slices",
        module="tiff.slices",
        suffixes=(),
        writes=True,
        dtypes=(*_INTEGERS, "float16", "float32", "float64", *_COMPLEX),
        axes="one file for each Z",
        geometry="spacing",
        time=False,
        options=_TIFF_OPTIONS,
    ),
    Format(
        name="hdf5",
        title="HDF5",
        module="hdf5",
        suffixes=(".h5", ".hdf5"),
        writes=True,
        dtypes=(*_INTEGERS, "float16", "float32", "float64", *_COMPLEX),
        axes="1 to 5 of T C Z Y X in any order",
        geometry="affine",
        options={
            "chunks": "D,H,W or none",
            "compression": "none, gzip, lzf, or one of hdf5plugin's (zstd, blosc, lz4, ...)",
            "level": "of gzip and the like: 1 to 9",
            "shuffle": "yes or no",
        },
    ),
    Format(
        name="zarr",
        title="OME-Zarr",
        module="omezarr",
        suffixes=(".zarr", ".ome.zarr"),
        writes=True,
        dtypes=(*_INTEGERS, "float16", "float32", "float64", *_COMPLEX),
        axes="2 to 5 of T C Z Y X in any order",
        geometry="spacing and origin",
        options={
            "chunks": "D,H,W",
            "shards": "D,H,W in multiples of chunks, or none",
            "compression": "none, zstd, gzip or blosc",
            "level": "of compression: 1 to 9",
            "version": "of NGFF: 0.5 or 0.4",
        },
    ),
)

SLICES = next(form for form in FORMATS if form.name == "slices")

#: The one format that may lie in an object store.
ZARR = next(form for form in FORMATS if form.name == "zarr")

#: Suffix -> format.
SUFFIXES = {suffix: form for form in FORMATS for suffix in form.suffixes}

# The first suffix that is followed by a colon ends the path: what is inside a file may look like a path itself.
_INSIDE = re.compile(r"(.*?\.(?:h5|hdf5)):(.*)|(.*?\.tiff?|.*?\.zarr(?:/[^:]*)?):(\d+)", re.IGNORECASE | re.DOTALL)

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.IGNORECASE | re.DOTALL)


class Url(type(Path())):  # type: ignore[misc]  # the system's own kind of path
    """What fsspec opens, such as ``s3://bucket/image.zarr``: a path that no file has, and keeps its two slashes.

    Examples
    --------
    >>> url = split_path("s3://bucket/image.zarr:1")[0]
    >>> str(url), url.name, str(url.parent)
    ('s3://bucket/image.zarr', 'image.zarr', 's3://bucket')
    """

    def __str__(self) -> str:
        return _with_slashes(super().__str__())

    def __fspath__(self) -> str:
        return str(self)


def _with_slashes(text: str) -> str:
    return re.sub(r"^([a-z][a-z0-9+.-]*):/(?!/)", r"\1://", text, flags=re.IGNORECASE)


def as_path(text: str) -> Path:
    """A path, or a :class:`Url`."""
    return Url(text) if _URL.fullmatch(text) else Path(text)


def format_of(file: Path) -> Format | None:
    """Format that a file's name asks for; a longer suffix counts more."""
    return SUFFIXES.get(stem_and_ext(file)[1].lower())


def known_suffixes(*, writes: bool = False) -> str:
    """Suffixes for messages, those of several parts that go without saying left out."""
    shown = [s for s, form in SUFFIXES.items() if (form.writes or not writes) and not s.startswith((".ome", ".hdr."))]
    return ", ".join(suffix for suffix in shown if not suffix.startswith((".img.", ".mgh.")))


def widened(dtype: np.dtype[Any], form: Format) -> np.dtype[Any] | None:
    """The smallest dtype that a format can hold and that holds every value of ``dtype``; None where there is none.

    Examples
    --------
    >>> widened(np.dtype("float16"), SUFFIXES[".nii"])
    dtype('float32')
    """
    native = np.dtype(np.uint8) if dtype == np.bool_ else dtype.newbyteorder("=")
    if native.name in form.dtypes:
        return native
    held = [np.dtype(name) for name in form.dtypes]
    if native.kind in "iu":  # NumPy calls it safe to make a float64 of an int64; beyond 2**53 it is not
        held = [d for d in held if d.kind in "iu" or np.iinfo(native).bits <= np.finfo(d).nmant + 1]
    return min((d for d in held if np.can_cast(native, d, "safe")), key=lambda d: d.itemsize, default=None)


def split_path(path: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """File and, for ``file.h5:/path``, ``file.ome.tif:1`` and ``image.zarr:1``, what is meant inside it.

    Examples
    --------
    >>> split_path("cells.h5:/volumes/raw")[1], split_path("cells.ome.tif:1")[1], split_path("brain.nii")[1]
    ('/volumes/raw', '1', None)
    """
    text = os.fspath(path)
    match = _INSIDE.fullmatch(text)
    if match is None:
        return as_path(text), None
    if match[3] is not None:
        return as_path(match[3]), match[4]
    inner = match[2].strip("/")
    return as_path(match[1]), f"/{inner}" if inner else None


def stem_and_ext(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Bare name and suffix, with the suffixes of two parts that volumes have; a folder of slices has the suffix "/".

    Examples
    --------
    >>> stem_and_ext("data/brain.nii.gz"), stem_and_ext("cells.v2.ome.tif"), stem_and_ext("x.h5:/raw")
    (('brain', '.nii.gz'), ('cells.v2', '.ome.tif'), ('x', '.h5'))
    """
    if names_folder(path):
        return Path(path).name, "/"
    name = split_path(path)[0].name
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], name[-len(suffix) :]
    plain = Path(name)
    return plain.stem, plain.suffix


def names_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a name that ends in "/" is that of a folder of slices: an OME-Zarr is a folder, too."""
    text = os.fspath(path)
    return text.endswith("/") and format_of(Path(text.rstrip("/"))) is not ZARR
