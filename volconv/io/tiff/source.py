"""TIFF stacks as volumes: tifffile finds and decodes pages; uncompressed ones are read as one flat array."""

from __future__ import annotations

import contextlib
import math
import threading
from typing import TYPE_CHECKING, Any

from volconv.errors import ReadError
from volconv.io.raw import RawFile
from volconv.io.tiff.announced import check_announced
from volconv.io.tiff.decoding import check_codec, decoded_page, decoded_piece, piece_of
from volconv.io.tiff.layout import layout_of
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
from volconv.io.tiff.pages import DECODING_BYTES, PageReader
from volconv.io.tiff.provenance import noted
from volconv.io.tiff.spacing import moved, what_is_stated
from volconv.io.volume import Access, Entry, OpenVolume, VolumeInfo
from volconv.region import Region

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from volconv.io.volume import Reading
    from volconv.region import Index5

#: Series that an error lists.
_LISTED = 8


def open_file(path: Path, key: str | None, *, axes: str | None, rgb: bool) -> TiffSource:
    """Open a series of a TIFF file, the first one where ``key`` gives no number."""
    return TiffSource(path, key, axes=axes, rgb=rgb)


def list_contents(path: Path) -> list[Entry]:
    """Every series."""
    with contextlib.ExitStack() as files:
        _, tiff = opened(path, files)
        with understood(str(path)):
            check_announced(tiff, str(path))
            several = len(tiff.series) > 1
            return [
                Entry(
                    f"{path}:{number}" if several else str(path),
                    tuple(int(size) for size in series.shape),
                    "unknown" if series.keyframe.dtype is None else series.dtype.name,
                    str(series.axes),
                )
                for number, series in enumerate(tiff.series)
            ]


class TiffSource(OpenVolume):
    """A series of a TIFF file.

    Parameters
    ----------
    path : Path
    key : str or None
        Number of the series.
    axes : str or None
        What its axes are, in the order in which tifffile shows them.
    rgb : bool
        Colours are channels.

    Raises
    ------
    ReadError
        It is no TIFF file, damaged, packed in a way that is not installed, or of colours.
    ParameterError
        The axes do not fit it.
    """

    def __init__(self, path: Path, key: str | None, *, axes: str | None, rgb: bool) -> None:
        self._name = str(path) if key is None else f"{path}:{key}"
        self._files = contextlib.ExitStack()
        self._lock = threading.Lock()  # tifffile finds pages when they are asked for
        with contextlib.ExitStack() as undo:
            undo.callback(self._files.close)
            self._file, self._tiff = opened(path, self._files)
            with understood(self._name):
                check_chain(self._file, self._tiff, self._name)
                check_announced(self._tiff, self._name)
                number = _number(self._tiff, key, path)
                self._series = series = self._tiff.series[number]
                frame, offset = series.keyframe, series.dataoffset
                check_series(self._tiff, number, self._name, chosen=key is not None, stated=axes is not None)
                layout = layout_of(series, self._name, axes=axes, rgb=rgb)
                stated = what_is_stated(self._tiff, number, path.name)
                if layout.shape[2] == 1:
                    stated = stated.of_one_slice(path.name)
                provenance = noted(self._tiff, number)
                notes = _notes(self._tiff, key, path, None if axes is not None else layout.shape)
                if is_white_zero(frame):
                    notes = (*notes, f"{path.name} counts from white to black (MINISWHITE); values are as stored")
            dtype = read_dtype(series.dtype, self._name)
            self._reader: RawFile | PageReader
            if offset is not None:  # all voxels lie together, and as they are
                stored = dtype.newbyteorder(self._tiff.byteorder)
                self._reader = RawFile(self._file, offset, stored, layout.shape, layout.order, name=self._name)
                self._reader.check_length()
            else:
                pages = math.prod(layout.shape) // int(frame.size)
                if len(series) < pages:
                    raise ReadError(f"{self._name}: is truncated: {pages} pages expected, {len(series)} found")
                self._piece = piece_of(frame) if layout.paged == 2 else None
                self._reader = PageReader(self._decoded, layout.shape, dtype, layout.order, layout.paged, self._piece)
                self._files.callback(self._reader.close)
            self.info = VolumeInfo(
                layout.shape,
                dtype,
                moved(stated.geometry, str(series.axes), axes),
                time_step=stated.time_step,
                format="ome" if self._tiff.is_ome else "tiff",
                axes=layout.letters,
                compression=compression_name(frame),
                access=Access(order=layout.order) if isinstance(self._reader, RawFile) else self._reader.access,
                notes=(*layout.notes, *stated.notes, *notes),
                spacing_notes=stated.notes,
                provenance=provenance,
            )
            if isinstance(self._reader, PageReader):  # a codec that is missing is told now, not after half a run
                check_codec(frame, f"{self._name}: page 1")
                if self._reader.access.held_bytes <= DECODING_BYTES:
                    self.read(Region((0, 0, 0, 0, 0), (1, 1, 1, 1, 1)))
            undo.pop_all()

    def read_into(self, region: Region, out: NDArray[Any]) -> None:
        """See :meth:`OpenVolume.read_into`."""
        if self._file.closed:
            raise ValueError(f"{self._name} is closed")
        self._reader.read_into(region, out)

    def expect(self, reading: Reading) -> None:
        """See :meth:`OpenVolume.expect`."""
        if isinstance(self._reader, PageReader):
            self._reader.expect(reading)

    def close(self) -> None:
        """Close the file."""
        self._files.close()

    def _decoded(self, number: int, piece: int) -> NDArray[Any]:
        name = f"{self._name}: page {number + 1}"
        with self._lock, understood(name):
            page = self._series[number]
            if self._piece is None:
                return decoded_page(self._series, page, name, self.info.dtype)
        return decoded_piece(self._file, self._series, page, piece, name, self.info.dtype)


def _number(tiff: Any, key: str | None, path: Path) -> int:
    """Number of the series that is meant."""
    if not tiff.series:
        raise ReadError(f"{path}: holds no pages")
    number = 0 if key is None else int(key)
    if number >= len(tiff.series):
        listed = [f"{i}: {' x '.join(map(str, series.shape))}" for i, series in enumerate(tiff.series[:_LISTED])]
        if len(tiff.series) > _LISTED:
            listed.append("...")
        raise ReadError(f"{path}: has no series {key} (series and shapes: {', '.join(listed)})")
    return number


def _notes(tiff: Any, key: str | None, path: Path, guessed: Index5 | None) -> tuple[str, ...]:
    """What people may not expect, of a shape that nobody stated too."""
    count = len(tiff.series)
    if key is None and others(tiff):
        rest = f"the other is {path.name}:1" if count == 2 else f"others are {path.name}:1 to {path.name}:{count - 1}"
        return (f"{path.name} holds {count} series; this is the first, {rest}",)
    if guessed is not None and count == len(tiff.series[0]) == guessed[2] == 1:
        return (f"{path.name} holds one slice (D = 1); quote a pattern or name a folder to read slices as one volume",)
    return ()
