"""Folders and patterns of 2-D TIFF files as volumes, one file a slice."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from volconv.errors import ParameterError, ReadError
from volconv.io.axes import AXIS, arrange, parse_axes
from volconv.io.files import slices_of
from volconv.io.tiff.announced import check_announced
from volconv.io.tiff.decoding import decoded_page
from volconv.io.tiff.layout import SeriesLayout, layout_of
from volconv.io.tiff.opening import (
    check_chain,
    check_series,
    compression_name,
    is_white_zero,
    opened,
    others,
    read_dtype,
    understood,
)
from volconv.io.tiff.pages import PageReader
from volconv.io.tiff.provenance import noted
from volconv.io.tiff.slicesink import create_file, describe_new
from volconv.io.tiff.spacing import Stated, what_is_stated
from volconv.io.volume import Entry, OpenVolume, VolumeInfo

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from volconv.io.volume import Reading
    from volconv.region import Region

__all__ = ["SlicesSource", "create_file", "describe_new", "list_contents", "open_file"]


def open_file(path: Path, key: str | None, *, axes: str | None, rgb: bool) -> SlicesSource:
    """Open the TIFF files of a folder, or those that a pattern names, as one volume.

    Slices are in natural order: slice2 comes before slice10.
    """
    if key is not None:
        raise ReadError(f"{path}: slices are whole files, not series of them (got :{key})", hint="leave the number out")
    channels_stated = "C" in (axes or "")[1:].upper()  # of each file, so its colours are they
    return SlicesSource(path, slices_of(path), axes=axes, rgb=rgb or channels_stated)


def list_contents(path: Path) -> list[Entry]:
    """The volume that the slices are."""
    with open_file(path, None, axes=None, rgb=True) as source:
        info = source.info
        return [Entry(str(path), tuple(info.shape[AXIS[letter]] for letter in info.axes), info.dtype.name, info.axes)]


class SlicesSource(OpenVolume):
    """One slice a file, opened when it is read.

    Parameters
    ----------
    path : Path
        The folder or pattern, for messages.
    files : list of Path
        In the order of slices.
    axes : str or None
        What the axes are, that of the files first: "ZYX", or "TYX" and "CYX" for files that are volumes or channels.
    rgb : bool
        Colours are channels.

    Raises
    ------
    ReadError
        A file is no 2-D TIFF, or differs from the first in size or dtype; all headers are checked first.
    ParameterError
        The axes are no such ones.
    """

    def __init__(self, path: Path, files: list[Path], *, axes: str | None, rgb: bool) -> None:
        self._path = path
        self._files = files
        self._closed = False
        first = _header(files[0], rgb=rgb)
        packings = {first.compression}
        for file in files[1:]:
            other = _header(file, rgb=rgb)
            if (other.page, other.dtype) != (first.page, first.dtype):
                raise ReadError(
                    f"{file}: slices must be of one size and dtype (got {other}, {files[0].name} is {first})"
                )
            if other.white_zero != first.white_zero:
                raise ReadError(
                    f"{file}: slices must all count from black to white, or all from white to black "
                    f"(unlike {files[0].name})"
                )
            packings.add(other.compression)
        letters = _letters(axes, first, len(files), str(path))
        shape, order = arrange(letters, (len(files), *first.sizes))
        notes = first.stated.notes
        if first.white_zero:
            notes = (*notes, f"{files[0].name} counts from white to black (MINISWHITE); values are as stored")
        self._reader = PageReader(self._slice, shape, first.dtype, order, len(letters) - 1)
        self.info = VolumeInfo(
            shape,
            first.dtype,
            first.stated.geometry,
            time_step=first.stated.time_step if shape[0] > 1 else None,
            format="slices",
            axes=letters,
            compression=packings.pop() if len(packings) == 1 else "mixed",
            access=self._reader.access,
            notes=notes,
            spacing_notes=first.stated.notes,
            provenance=first.provenance,
        )

    def read_into(self, region: Region, out: NDArray[Any]) -> None:
        """See :meth:`OpenVolume.read_into`."""
        if self._closed:
            raise ValueError(f"{self._path} is closed")
        self._reader.read_into(region, out)

    def close(self) -> None:
        """End reading; no file is open between two reads."""
        self._closed = True
        self._reader.close()

    def expect(self, reading: Reading) -> None:
        """See :meth:`OpenVolume.expect`."""
        self._reader.expect(reading)

    def _slice(self, number: int, piece: int) -> NDArray[Any]:  # noqa: ARG002  # a page is one piece
        file = self._files[number]
        with contextlib.ExitStack() as files:
            _, tiff = opened(file, files)
            with understood(str(file)):
                series = tiff.series[0]
            if series.keyframe.size != math.prod(self._reader.page_shape):
                raise ReadError(f"{file}: has changed since it was opened")
            return decoded_page(series, series[0], str(file), self.info.dtype)


@dataclass(frozen=True, slots=True)
class _Header:
    """What a slice's file says of it; ``page`` are letters and sizes of its axes."""

    page: tuple[tuple[str, int], ...]
    dtype: np.dtype[Any]
    compression: str | None
    white_zero: bool
    stated: Stated
    provenance: str | None

    @property
    def letters(self) -> str:
        return "".join(letter for letter, _ in self.page)

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(size for _, size in self.page)

    def __str__(self) -> str:
        return f"{self.sizes} {self.dtype}"


def _header(file: Path, *, rgb: bool) -> _Header:
    with contextlib.ExitStack() as files:
        raw, tiff = opened(file, files)
        with understood(str(file)):
            check_chain(raw, tiff, str(file))
            check_announced(tiff, str(file))
            if not tiff.series:
                raise ReadError(f"{file}: holds no pages")
            series = tiff.series[0]
            check_series(tiff, 0, str(file), chosen=False, stated=False)
            layout = layout_of(series, str(file), axes=None, rgb=rgb)
            if others(tiff) or not _is_page(layout):
                raise ReadError(
                    f"{file}: a slice must be one 2-D page (got axes {series.axes}, shape {tuple(series.shape)}, "
                    f"{len(tiff.series)} series)"
                )
            stated, provenance = what_is_stated(tiff, 0, file.name), noted(tiff, 0)
            page = tuple((letter, layout.shape[AXIS[letter]]) for letter in layout.letters if letter in "YXS")
            dtype = read_dtype(series.dtype, str(file))
            packing, white_zero = compression_name(series.keyframe), is_white_zero(series.keyframe)
            return _Header(page, dtype, packing, white_zero, stated, provenance)


def _is_page(layout: SeriesLayout) -> bool:
    n, c, d, _, _ = layout.shape
    return n == d == 1 and (c == 1 or "S" in layout.letters)


def _letters(axes: str | None, first: _Header, count: int, name: str) -> str:
    """Letters of the volume's axes, that of the files first."""
    if axes is None:
        return f"Z{first.letters}"
    letters = parse_axes(axes, (count, *first.sizes), name)
    if [AXIS[letter] for letter in letters[1:]] != [AXIS[letter] for letter in first.letters]:
        known = ", ".join(f"{letter}{first.letters}" for letter in "ZTC")
        raise ParameterError(f"axes of a folder of slices must be one of {known} (got {axes!r})")
    return letters
