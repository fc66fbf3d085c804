"""Whole volumes, uncompressed, in temporary files without a name: for what a format can only take from start to end."""

from __future__ import annotations

import contextlib
import gzip
import os
import tempfile
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from volconv.errors import ReadError
from volconv.io.raw import COPY_BYTES, NCDHW, RawFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np

    from volconv.region import Index5


#: One byte of a deflate stream never stands for more than 1032 (RFC 1951: 258 bytes in 2 bits).
_MOST_PACKED = 1032


class Spool:
    """Room for a volume, to be written in any order and then taken from start to end.

    Parameters
    ----------
    folder : Path
        Where it lies: that of the target, which must have room for something of this size anyway.
    dtype : numpy.dtype
    shape : tuple of 5 ints
        (N, C, D, H, W).
    order : tuple of 5 ints
        Axes in the order in which they follow each other, slowest first.
    name : str
        The target's name, for messages.

    Attributes
    ----------
    raw : RawFile
        To read and write regions.
    """

    def __init__(self, folder: Path, dtype: np.dtype[Any], shape: Index5, order: Index5 = NCDHW, *, name: str) -> None:
        self._file = cast("BinaryIO", tempfile.TemporaryFile(dir=folder))  # noqa: SIM115  # it lives until close()
        self.raw = RawFile(self._file, 0, dtype, shape, order, name=name)
        try:
            self._file.truncate(self.raw.nbytes)
        except BaseException:
            self.close()
            raise

    def pieces(self) -> Iterator[bytes]:
        """All bytes from start to end."""
        self._file.seek(0)
        while piece := self._file.read(COPY_BYTES):
            yield piece

    def close(self) -> None:
        """Let go of it; once is enough."""
        self._file.close()


def unpacked_copy(stream: BinaryIO, size: int, name: str, *, footer: int = 0) -> BinaryIO:
    """The next ``size`` bytes of a stream in a temporary file; it is read on to its end, where gzip has a checksum.

    Of what follows them, up to ``footer`` bytes are kept too, as many as there are.

    Raises
    ------
    ReadError
        The stream is shorter, or there is no room.
    """
    spool = cast("BinaryIO", tempfile.TemporaryFile(prefix="volconv-"))  # noqa: SIM115  # the caller closes it
    with contextlib.ExitStack() as undo:
        undo.callback(spool.close)
        left = size + footer
        while piece := stream.read(COPY_BYTES):
            try:
                spool.write(piece[:left])
            except OSError as error:
                raise ReadError(
                    f"{name}: cannot be unpacked into {tempfile.gettempdir()}: {error.strerror}",
                    hint="set TMPDIR to a folder with more room",
                ) from error
            left = max(0, left - len(piece))
        if left > footer:
            raise ReadError(f"{name}: is truncated: {size} bytes of voxels expected, {size + footer - left} found")
        spool.flush()
        undo.pop_all()
    return spool


def check_promise(size: int, file: BinaryIO, name: str) -> None:
    """Refuse a header that promises more bytes than a gzipped file of this size can hold.

    Raises
    ------
    ReadError
    """
    most = os.fstat(file.fileno()).st_size * _MOST_PACKED
    if size > most:
        raise ReadError(f"{name}: is truncated: {size} bytes of voxels expected, and it can hold at most {most}")


def is_gzipped(file: BinaryIO) -> bool:
    """Whether a file's content is gzip's, whatever its name."""
    file.seek(0)
    return file.read(2) == b"\x1f\x8b"


@contextlib.contextmanager
def unpacked(file: BinaryIO, name: str, *, gzipped: bool) -> Iterator[BinaryIO]:
    """The file from its start, unpacked as it is read; damage becomes a ReadError."""
    try:
        file.seek(0)
        if not gzipped:
            yield file
            return
        with gzip.GzipFile(fileobj=file, mode="rb") as stream:
            yield cast("BinaryIO", stream)
    except EOFError as error:
        raise ReadError(f"{name}: is truncated: its gzip stream ends early") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ReadError(f"{name}: its gzip stream is damaged: {error}") from error
    except OSError as error:
        raise ReadError(f"{name}: cannot be read: {error.strerror or error}") from error
