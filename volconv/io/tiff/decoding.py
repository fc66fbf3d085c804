"""How a page is decoded, or one strip or tile of it."""

from __future__ import annotations

import contextlib
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from volconv.errors import OutOfMemoryError, ReadError, VolconvError
from volconv.io.checks import check_memory
from volconv.io.tiff.opening import DECODE_ERRORS, one_line, tag_name

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

#: Compressions whose strips need more than their own bytes: JPEG's share tables.
_WHOLE = (6, 7, 33007, 34892)

#: Bytes that one byte stands for at most: a run of 258 in 2 bits, a string of 3838 in 12 bits, a block of 128 kB in 4
#: bytes; nobody says of LZMA, whose best is some thousands.
_MOST_UNPACKED = {
    tifffile.COMPRESSION.NONE: 1,
    tifffile.COMPRESSION.ADOBE_DEFLATE: 1032,
    tifffile.COMPRESSION.DEFLATE: 1032,
    tifffile.COMPRESSION.PNG: 1032,
    tifffile.COMPRESSION.LZW: 2560,
    tifffile.COMPRESSION.PACKBITS: 64,
    tifffile.COMPRESSION.ZSTD: 1 << 15,
    tifffile.COMPRESSION.LZMA: 1 << 16,
}

#: Bytes that a piece is packed into are at most so many times its own, and some that every piece has.
_MOST_PACKED = (4, 1 << 16)


def piece_of(frame: Any) -> tuple[int, int] | None:
    """Size (H, W) of the strips or tiles of a page, where one can be decoded without the others; None where not."""
    height, width = (int(size) for size in frame.shaped[2:4])
    if tuple(frame.shaped) != (1, 1, height, width, 1) or frame.compression in _WHOLE or frame.is_subsampled:
        return None
    rows, columns = (frame.tilelength, frame.tilewidth) if frame.is_tiled else (frame.rowsperstrip, width)
    if min(rows, columns) < 1 or (frame.is_tiled and frame.tiledepth != 1):
        return None
    return int(rows), int(columns)


def decoded_piece(file: io.FileIO, series: Any, page: Any, index: int, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values (H, W) of one strip or tile of a page; a strip at its end has less rows.

    Raises
    ------
    ReadError, OutOfMemoryError
        As :func:`decoded_page`.
    """
    frame = series.keyframe
    rows, columns = (frame.tilelength, frame.tilewidth) if frame.is_tiled else (frame.rowsperstrip, frame.imagewidth)
    factor, more = _MOST_PACKED
    with _told(frame, name, dtype):
        held = min(len(page.dataoffsets), len(page.databytecounts))
        if index >= held:
            raise ReadError(f"{name} is damaged: it has {held} strips or tiles, and more are expected")
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        tall = rows if frame.is_tiled else min(rows, frame.imagelength - index * rows)
        _check_promise([(offset, count)], tall * columns, frame, name)
        most = factor * rows * columns * max(1, dtype.itemsize) + more
        data = os.pread(file.fileno(), min(count, most), offset) if offset and count else None
        values, _, (_, height, width, _) = frame.decode(data, index)
        if values is None:
            return np.broadcast_to(np.asarray(frame.nodata, dtype), (height, width))  # of whatever size, one number
        return _of_size(np.asarray(values, dtype), (height, width), frame, name)


def decoded_page(series: Any, page: Any, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values of one page of a series.

    Raises
    ------
    ReadError
        The page is damaged, or its compression needs a codec that is not installed.
    OutOfMemoryError
        The page is too large.
    """
    frame = series.keyframe
    with _told(frame, name, dtype):
        voxels = max(frame.size, math.prod(frame.chunks))  # a tile may be larger than its page
        _check_promise(list(zip(page.dataoffsets, page.databytecounts, strict=True)), voxels, frame, name)
        values = np.asarray(page.asarray(maxworkers=1), dtype)
    return _of_size(values, (int(frame.size),), frame, name)


def check_codec(frame: Any, name: str) -> None:
    """Refuse pages that cannot be decoded here.

    Raises
    ------
    ReadError
        As :func:`decoded_page`.
    """
    with _told(frame, name, frame.dtype):
        if frame.compression != tifffile.COMPRESSION.NONE:
            tifffile.TIFF.DECOMPRESSORS[frame.compression]
        if frame.predictor != tifffile.PREDICTOR.NONE:
            tifffile.TIFF.UNPREDICTORS[frame.predictor]


def _check_promise(parts: Sequence[tuple[int, int]], voxels: int, frame: Any, name: str) -> None:
    """Refuse what lies outside the file, or announces more than it can hold, before there is memory for it."""
    if any(start + count > frame.parent.filehandle.size for start, count in parts):
        raise ReadError(f"{name} is damaged: it lies outside the file")
    most = _MOST_UNPACKED.get(frame.compression)
    packed, expected = sum(count for _, count in parts), voxels * frame.bitspersample // 8
    if most and expected > packed * most and all(count for _, count in parts):  # a part of 0 bytes stands for zeros
        raise ReadError(
            f"{name} is damaged: {expected} bytes of voxels expected, and its {packed} bytes hold at most "
            f"{packed * most}"
        )
    check_memory(expected if packed else 0, name)


def _of_size(values: NDArray[Any], shape: tuple[int, ...], frame: Any, name: str) -> NDArray[Any]:
    size = math.prod(shape)
    if values.size != size:
        raise ReadError(f"{name} cannot be decoded ({_packing(frame)}): {size} voxels expected, {values.size} found")
    return values.reshape(shape)


@contextlib.contextmanager
def _told(frame: Any, name: str, dtype: Any) -> Iterator[None]:
    """Turn what tifffile and its codecs raise into what is wrong with a page."""
    try:
        yield
    except VolconvError:
        raise
    except MemoryError as error:
        raise OutOfMemoryError(f"{name} does not fit in memory (shape {frame.shape}, {dtype})") from error
    except DECODE_ERRORS as error:
        if "imagecodecs" in str(error) or isinstance(error, ImportError):
            raise ReadError(
                f"{name} is packed by {_packing(frame)}, whose codec is not installed",
                hint="pip install 'volconv[tiff]'",
            ) from error
        raise ReadError(f"{name} cannot be decoded ({_packing(frame)}): {one_line(error)}") from error


def _packing(frame: Any) -> str:
    """All that must be undone to read a page."""
    parts = []
    if frame.compression != tifffile.COMPRESSION.NONE:
        parts.append(tag_name(tifffile.COMPRESSION, frame.compression))
    if frame.predictor != tifffile.PREDICTOR.NONE:
        parts.append(f"predictor {tag_name(tifffile.PREDICTOR, frame.predictor)}")
    if frame.bitspersample not in (8, 16, 32, 64, 128):
        parts.append(f"samples of {frame.bitspersample} bits")
    return " with ".join(parts) or "no compression"
