"""What can be wrong with a TIFF file, and what is said then."""

from __future__ import annotations

import contextlib
import io
import logging
import lzma
import os
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from volconv.errors import ReadError, VolconvError
from volconv.io.formats import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

#: What tifffile and its codecs raise for files that are damaged or packed in an unknown way.
DECODE_ERRORS = (
    ValueError,
    RuntimeError,
    OSError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
)

#: Bytes of a value by the number of its type; 0 for those that there are not.
_SIZES = np.array([0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8, 0])

#: The first code of a tag that a program may give a meaning of its own, and those of them that describe pages: of
#: MetaMorph, Zeiss and ImageJ.
_FIRST_PRIVATE = 32768
_METADATA = (33628, 33629, 33630, 33631, 34412, 50838, 50839)

# tifffile logs each oddity of a file; unheard, Python would print them to stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class _Alone(io.BufferedReader):
    """A file as tifffile sees it: without a descriptor, for which it would open others that metadata name."""

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")


def opened(path: Path, files: contextlib.ExitStack) -> tuple[io.FileIO, Any]:
    """Open the file and tifffile's view of it; both are closed with ``files``.

    Raises
    ------
    ReadError
        It is no TIFF file, or cannot be read.
    """
    try:
        raw = io.FileIO(path)
        file = files.enter_context(_Alone(raw))
        if not os.fstat(raw.fileno()).st_size:
            raise ReadError(f"{path}: is empty")
        return raw, files.enter_context(tifffile.TiffFile(file, name=path.name))
    except tifffile.TiffFileError as error:
        raise ReadError(f"{path}: is no TIFF file: {one_line(error)}") from error
    except OSError as error:
        raise ReadError(f"{path}: cannot be read: {error.strerror or one_line(error)}") from error
    except (*DECODE_ERRORS, MemoryError) as error:
        raise ReadError(f"{path}: its TIFF structure is damaged: {one_line(error)}") from error


@contextlib.contextmanager
def understood(name: str) -> Iterator[None]:
    """Turn what tifffile raises over a damaged file into a ReadError."""
    try:
        yield
    except VolconvError:
        raise
    except (*DECODE_ERRORS, MemoryError) as error:
        raise ReadError(f"{name}: its TIFF structure is damaged: {one_line(error)}") from error


def others(tiff: Any) -> int:
    """How many series a file holds besides the first, thumbnails not counted."""
    return sum(not series.keyframe.is_reduced for series in tiff.series[1:])


def check_series(tiff: Any, number: int, name: str, *, chosen: bool, stated: bool) -> None:
    """Refuse what is no stack of pages of one size.

    Parameters
    ----------
    tiff : tifffile.TiffFile
    number : int
        Of the series.
    name : str
        For messages.
    chosen : bool
        The series was asked for by its number.
    stated : bool
        Its axes were stated, so nothing is taken from metadata.

    Raises
    ------
    ReadError
        Pages are of several sizes, of unknown samples, palette colours, or not all in the file.
    """
    series = tiff.series[number]
    frame = series.keyframe
    if frame.dtype is None or series.dtype is None:
        raise ReadError(
            f"{name}: its pages have an unknown sample type (got {frame.bitspersample} bits, "
            f"sample format {frame.sampleformat})"
        )
    if frame.photometric == tifffile.PHOTOMETRIC.PALETTE:
        raise ReadError(f"{name}: its pages hold palette colours", hint="convert them to grey values")
    if series.transform is not None:
        raise ReadError(f"{name}: its values are encoded in a way that is not supported ({series.kind})")
    if series.kind == "generic" and others(tiff) and not chosen:
        sizes = ", ".join(" x ".join(map(str, other.shape)) + f" {other.dtype}" for other in tiff.series[:4])
        raise ReadError(
            f"{name}: its pages are of several kinds ({sizes})",
            hint=f"name those that are meant, as in {name}:0, or keep one stack in a file",
        )
    if tiff.is_ome and series.kind == "generic" and not stated:
        raise ReadError(
            f"{name}: its OME metadata does not fit its pages", hint="state their axes, as in --axes ZYX (axes=)"
        )
    if series.is_multifile or (series.kind in ("ome", "mmstack", "ndtiff") and any(map(_is_missing, series))):
        raise ReadError(f"{name}: some of its pages are missing, or in other files, which is not supported")


def check_chain(file: io.FileIO, tiff: Any, name: str) -> None:
    """Refuse a file of which pages, or what describes them, lie outside: tifffile would only log it, and see less."""
    form = tiff.tiff
    size = os.fstat(file.fileno()).st_size
    tag = np.dtype([("code", "u2"), ("kind", "u2"), ("count", f"u{form.offsetsize}"), ("value", f"u{form.offsetsize}")])
    tag = tag.newbyteorder(form.byteorder)
    (offset,) = struct.unpack(form.offsetformat, os.pread(file.fileno(), form.offsetsize, form.offsetsize))
    seen: set[int] = set()
    while offset and not tiff.is_ndpi:  # NDPI's offsets are of a kind of their own
        (tags,) = struct.unpack(form.tagnoformat, os.pread(file.fileno(), form.tagnosize, offset).ljust(form.tagnosize))
        end = offset + form.tagnosize + tags * form.tagsize
        if end + form.offsetsize > size or offset in seen:
            raise ReadError(f"{name}: is truncated or damaged: its page {len(seen) + 1} lies outside the file")
        seen.add(offset)
        content = os.pread(file.fileno(), tags * form.tagsize + form.offsetsize, offset + form.tagnosize)
        if _outside(np.frombuffer(content, tag, tags), form.offsetsize, size):
            raise ReadError(f"{name}: is truncated or damaged: what describes page {len(seen)} lies outside the file")
        (offset,) = struct.unpack(form.offsetformat, content[-form.offsetsize :])


def _outside(tags: NDArray[Any], offset_size: int, size: int) -> bool:
    """Whether the value of a tag that counts lies beyond the end of a file."""
    lengths = tags["count"].astype(np.float64) * _SIZES[np.minimum(tags["kind"], len(_SIZES) - 1)]
    counts = (tags["code"] < _FIRST_PRIVATE) | np.isin(tags["code"], _METADATA)
    return bool(np.any(counts & (lengths > offset_size) & (tags["value"] + lengths > size)))


def read_dtype(dtype: Any, name: str) -> np.dtype[Any]:
    """Dtype in which pages are handed out: native, bits as uint8."""
    native = np.dtype(np.uint8) if dtype == np.bool_ else np.dtype(dtype).newbyteorder("=")
    known = SUFFIXES[".tif"].dtypes
    if native.name not in known:
        raise ReadError(f"{name}: voxels of dtype {native} are not supported (known: {', '.join(known)})")
    return native


def is_white_zero(frame: Any) -> bool:
    """Whether a page counts from white to black."""
    return bool(frame.photometric == tifffile.PHOTOMETRIC.MINISWHITE)


def compression_name(frame: Any) -> str | None:
    """How a page is packed, by the name that creation options have for it."""
    if frame.compression == tifffile.COMPRESSION.NONE:
        return None
    name = tag_name(tifffile.COMPRESSION, frame.compression).lower()
    return {"adobe_deflate": "zlib", "deflate": "zlib"}.get(name, name)


def one_line(error: BaseException) -> str:
    """Message of an error as one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _is_missing(page: Any) -> bool:
    return page is None or not any(page.dataoffsets)


def tag_name(kind: Any, value: int) -> str:
    """Name of a tag's value."""
    known: dict[int, str] = {code.value: code.name for code in kind}
    return known.get(value, f"{kind.__name__.lower()} {value!s:.20}")
