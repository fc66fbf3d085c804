"""Folders and patterns of 2-D TIFF files as volumes, one file a slice."""

from __future__ import annotations

import contextlib
import glob
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volconv.errors import ReadError
from volconv.io.tiff import check_chain, check_page, decoded, one_line, opened, read_dtype
from volconv.io.tiffpages import DECODE_ERRORS, PageReader
from volconv.io.tiffspacing import stated_geometry
from volconv.io.volume import Entry, OpenVolume, VolumeInfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from volconv.geometry import Geometry
    from volconv.region import Region


def open_file(path: Path, key: str | None, *, axes: str | None, rgb: bool) -> SlicesSource:  # noqa: ARG001  # the signature of every format
    """Open the TIFF files of a folder, or those that a pattern names, as one volume.

    Slices are in natural order: slice2 comes before slice10.
    """
    if path.is_dir():
        files = [file for file in path.iterdir() if not file.name.startswith(".")]
    else:
        files = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207  # Path.glob takes no absolute pattern
    files = sorted((file for file in files if file.suffix.lower() in (".tif", ".tiff")), key=_natural)
    if not files:
        if not path.is_dir() and not glob.glob(str(path), recursive=True):  # noqa: PTH207
            raise ReadError(f"{path}: no such files")
        place = "the folder holds" if path.is_dir() else "the pattern names"
        raise ReadError(f"{path}: {place} no .tif or .tiff files")
    return SlicesSource(path, files)


def list_contents(path: Path) -> list[Entry]:
    """The volume that the slices are."""
    with open_file(path, None, axes=None, rgb=False) as source:
        return [Entry(str(path), source.info.shape[2:], source.info.dtype.name, "ZYX")]


class SlicesSource(OpenVolume):
    """One slice a file, opened when it is read.

    Parameters
    ----------
    path : Path
        The folder or pattern, for messages.
    files : list of Path
        In the order of slices.

    Raises
    ------
    ReadError
        A file is no 2-D TIFF, or differs from the first in size or dtype; all headers are checked first.
    """

    def __init__(self, path: Path, files: list[Path]) -> None:
        self._path = path
        self._files = files
        self._closed = False
        size, dtype, geometry, notes = _header(files[0])
        for file in files[1:]:
            other_size, other_dtype, _, _ = _header(file)
            if (other_size, other_dtype) != (size, dtype):
                raise ReadError(
                    f"{file}: slices must be of one size and dtype (got {other_size} {other_dtype}, "
                    f"{files[0].name} is {size} {dtype})"
                )
        shape = (1, 1, len(files), *size)
        self.info = VolumeInfo(shape, dtype, geometry, format="tiff", notes=notes)
        self._reader = PageReader(self._slice, shape, dtype)

    def read(self, region: Region) -> NDArray[Any]:
        """Stored values of a region."""
        if self._closed:
            raise ValueError(f"{self._path} is closed")
        return self._reader.read(region)

    def close(self) -> None:
        """End reading; no file is open between two reads."""
        self._closed = True

    def _slice(self, number: int) -> NDArray[Any]:
        file = self._files[number]
        with contextlib.ExitStack() as files:
            _, tiff = opened(file, files)
            values = decoded(tiff.pages[0], str(file), self.info.dtype)
        if values.size != self.info.shape[3] * self.info.shape[4]:
            raise ReadError(f"{file}: has changed since it was opened")
        return values


def _header(file: Path) -> tuple[tuple[int, int], np.dtype[Any], Geometry, tuple[str, ...]]:
    with contextlib.ExitStack() as files:
        opened_file, tiff = opened(file, files)
        try:
            series = tiff.series[0]
            check_chain(opened_file, tiff, str(file))
            check_page(series.keyframe, series, tiff, str(file))
            geometry, notes = stated_geometry(tiff, file.name)
        except DECODE_ERRORS as error:
            raise ReadError(f"{file}: its TIFF structure is damaged: {one_line(error)}") from error
        if series.axes != "YX":
            raise ReadError(f"{file}: a slice must be one 2-D page (got axes {series.axes}, shape {series.shape})")
        height, width = series.shape
        return (int(height), int(width)), read_dtype(series.dtype, str(file)), geometry, notes


def _natural(file: Path) -> list[tuple[int, str]]:
    """Sort key that counts runs of digits as numbers."""
    parts = re.split(r"(\d+)", str(file))
    return [(int(part), part) if part.isdecimal() and part.isascii() else (-1, part) for part in parts]
