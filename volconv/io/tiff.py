"""TIFF stacks as volumes: tifffile finds and decodes pages; uncompressed ones are read as one flat array."""

from __future__ import annotations

import contextlib
import logging
import os
import struct
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
import tifffile

from volconv.errors import OutOfMemoryError, ReadError
from volconv.io.raw import RawFile
from volconv.io.tiffpages import DECODE_ERRORS, PageReader
from volconv.io.tiffspacing import stated_geometry
from volconv.io.volume import Entry, OpenVolume, VolumeInfo

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from volconv.io.tiffwrite import TiffSink
    from volconv.io.volume import Request
    from volconv.region import Index5, Region

DTYPES = (
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
)

_AXIS = {"T": 0, "C": 1, "Z": 2, "Q": 2, "I": 2, "Y": 3, "X": 4}

# tifffile logs each oddity of a file; unheard, Python would print them to stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def open_file(path: Path, key: str | None, *, axes: str | None, rgb: bool) -> TiffSource:  # noqa: ARG001  # the signature of every format
    """Open the first series of a TIFF file."""
    return TiffSource(path)


def list_contents(path: Path) -> list[Entry]:
    """Every series."""
    with contextlib.ExitStack() as files:
        _, tiff = opened(path, files)
        return [
            Entry(f"{path}:{i}", tuple(series.shape), str(series.dtype), series.axes)
            for i, series in enumerate(tiff.series)
        ]


def describe_new(request: Request) -> VolumeInfo:
    """See :mod:`volconv.io.tiffwrite`."""
    from volconv.io import tiffwrite

    return tiffwrite.describe_new(request)


def create_file(request: Request) -> TiffSink:
    """See :mod:`volconv.io.tiffwrite`."""
    from volconv.io import tiffwrite

    return tiffwrite.create_file(request)


class TiffSource(OpenVolume):
    """The first series of a TIFF file.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ReadError
        It is no TIFF file, damaged, packed in a way that is not installed, or of colours.
    """

    def __init__(self, path: Path) -> None:
        self._name = str(path)
        self._files = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            undo.callback(self._files.close)
            self._file, self._tiff = opened(path, self._files)
            try:
                series = self._tiff.series[0]
                frame = series.keyframe
                check_page(frame, series, self._tiff, self._name)
                shape, order, notes = _arranged(series, path)
                geometry, more = stated_geometry(self._tiff, path.name)
                offset = series.dataoffset
                plain = offset is not None and frame.is_final and series.dtype.itemsize * 8 == frame.bitspersample
                # ImageJ's and tifffile's metadata count the voxels that lie together; else pages must be all there.
                if not (plain and series.kind in {"imagej", "shaped"}):
                    check_chain(self._file, self._tiff, self._name)
            except DECODE_ERRORS as error:
                raise ReadError(f"{path}: its TIFF structure is damaged: {one_line(error)}") from error
            dtype = read_dtype(series.dtype, self._name)
            self.info = VolumeInfo(shape, dtype, geometry, format="tiff", notes=notes + more)
            self._reader: RawFile | PageReader
            if plain and dtype == series.dtype:
                stored = dtype.newbyteorder(self._tiff.byteorder)
                self._reader = RawFile(self._file, cast("int", offset), stored, shape, order, name=self._name)
                self._reader.check_length()
            else:
                self._series = series
                self._reader = PageReader(self._decoded, shape, dtype, order)
                self._reader.read(_first_voxel())  # a codec that is missing is told now, not after half a run
            undo.pop_all()

    def read(self, region: Region) -> NDArray[Any]:
        """Stored values of a region."""
        return self._reader.read(region)

    def close(self) -> None:
        """Close the file."""
        self._files.close()

    def _decoded(self, number: int) -> NDArray[Any]:
        if self._file.closed:
            raise ValueError(f"{self._name} is closed")
        return decoded(self._series.pages[number], f"{self._name}: page {number + 1}", self.info.dtype)


def opened(path: Path, files: contextlib.ExitStack) -> tuple[Any, Any]:
    """Open the file and tifffile's view of it; both are closed with ``files``."""
    try:
        file = files.enter_context(path.open("rb"))
        return file, files.enter_context(tifffile.TiffFile(file, name=path.name))
    except tifffile.TiffFileError as error:
        raise ReadError(f"{path}: is no TIFF file: {one_line(error)}") from error
    except OSError as error:
        raise ReadError(f"{path}: cannot be read: {error.strerror or one_line(error)}") from error
    except DECODE_ERRORS as error:
        raise ReadError(f"{path}: its TIFF structure is damaged: {one_line(error)}") from error


def check_page(frame: Any, series: Any, tiff: Any, name: str) -> None:
    """Refuse what is no stack of grey pages of one size."""
    if frame.dtype is None or series.dtype is None:
        raise ReadError(f"{name}: its pages have an unknown sample type")
    if frame.photometric == tifffile.PHOTOMETRIC.PALETTE:
        raise ReadError(f"{name}: its pages hold palette colours", hint="convert them to grey values")
    if frame.samplesperpixel > 1 and "S" in series.axes:
        raise ReadError(
            f"{name}: its pages hold {frame.samplesperpixel} colour samples a pixel (RGB)",
            hint="convert them to grey values, or keep each colour in a channel of its own",
        )
    if series.kind in {"generic", "uniform"} and len(tiff.series) > 1:
        sizes = ", ".join(" x ".join(map(str, other.shape)) + f" {other.dtype}" for other in tiff.series[:4])
        raise ReadError(f"{name}: its pages are of several kinds ({sizes})", hint="keep one stack in a file")
    if series.is_multifile or (series.kind == "ome" and any(page is None for page in series.pages)):
        raise ReadError(f"{name}: some of its pages are in other files, which is not supported")


def check_chain(file: BinaryIO, tiff: Any, name: str) -> None:
    """Refuse a file whose chain of pages breaks off: tifffile would only log it, and see a shorter stack."""
    form = tiff.tiff
    size = os.fstat(file.fileno()).st_size
    (offset,) = struct.unpack(form.offsetformat, os.pread(file.fileno(), form.offsetsize, form.offsetsize))
    seen: set[int] = set()
    while offset and not tiff.is_ndpi:  # NDPI's offsets are of a kind of their own
        (tags,) = struct.unpack(form.tagnoformat, os.pread(file.fileno(), form.tagnosize, offset).ljust(form.tagnosize))
        end = offset + form.tagnosize + tags * form.tagsize
        if end + form.offsetsize > size or offset in seen:
            raise ReadError(f"{name}: is truncated or damaged: its page {len(seen) + 1} lies outside the file")
        seen.add(offset)
        (offset,) = struct.unpack(form.offsetformat, os.pread(file.fileno(), form.offsetsize, end))


def read_dtype(dtype: Any, name: str) -> np.dtype[Any]:
    """Dtype in which pages are handed out: native, bits as uint8."""
    native = np.dtype(np.uint8) if dtype == np.bool_ else np.dtype(dtype).newbyteorder("=")
    if native.name not in DTYPES:
        raise ReadError(f"{name}: voxels of dtype {native} are not supported (known: {', '.join(DTYPES)})")
    return native


def decoded(page: Any, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values of one page.

    Raises
    ------
    ReadError
        The page is damaged, or its compression needs a codec that is not installed.
    OutOfMemoryError
        The page is too large.
    """
    try:
        return np.asarray(page.asarray(), dtype)
    except MemoryError as error:
        raise OutOfMemoryError(f"{name} does not fit in memory (shape {page.shape}, {dtype})") from error
    except DECODE_ERRORS as error:
        known = {code.value: code.name for code in tifffile.COMPRESSION}
        packing = known.get(page.compression, f"compression {page.compression}")
        if "imagecodecs" in str(error):
            raise ReadError(
                f"{name} is packed by {packing}, whose codec is not installed", hint="pip install imagecodecs"
            ) from error
        raise ReadError(f"{name} cannot be decoded ({packing}): {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """Message of an error as one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _arranged(series: Any, path: Path) -> tuple[Index5, Index5, tuple[str, ...]]:
    """Shape, the order of axes in the file, and notes on what was assumed."""
    axes, sizes = str(series.axes), tuple(int(size) for size in series.shape)
    unknown = [axis for axis in axes if axis not in _AXIS]
    used = [_AXIS[axis] for axis in axes if axis in _AXIS]
    if unknown or len(set(used)) < len(used) or used[-2:] != [3, 4] or 0 in sizes:
        raise ReadError(
            f"{path}: its axes {axes} {sizes} are not those of a volume (known: T, C, Z in any order, then Y, X)",
            hint="state them in the file, as tifffile's metadata={'axes': 'CZYX'} does",
        )
    if len(series.keyframe.shape) != 2 and series.dataoffset is None:
        raise ReadError(f"{path}: packed pages of {len(series.keyframe.shape)} axes are not supported")
    shape = [1, 1, 1, 1, 1]
    for axis, size in zip(used, sizes, strict=True):
        shape[axis] = size
    n, c, d, h, w = shape
    a, b, e, f, g = [axis for axis in range(3) if axis not in used] + used
    guessed = any(axis in axes for axis in "QI")
    notes = (f"{path.name} does not say what its pages are, taken as slices along Z",) if guessed else ()
    return (n, c, d, h, w), (a, b, e, f, g), notes


def _first_voxel() -> Region:
    from volconv.region import Region

    return Region((0, 0, 0, 0, 0), (1, 1, 1, 1, 1))
