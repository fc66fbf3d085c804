"""FreeSurfer's MGH and MGZ files (read only): nibabel reads the header, RawFile the voxels."""

from __future__ import annotations

import contextlib
import math
import os
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from nibabel.freesurfer.mghformat import DATA_OFFSET, MGHHeader

from volconv.errors import ReadError
from volconv.geometry import Geometry
from volconv.io.axes import AXIS, arrange
from volconv.io.gzipped import is_gzipped, unpacked
from volconv.io.nifti.axes import file_axes
from volconv.io.raw import RawFile
from volconv.io.unpacking import Unpacked
from volconv.io.volume import Access, Entry, OpenVolume, VolumeInfo

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from volconv.io.volume import Reading
    from volconv.region import Region

#: Bytes of the header's fields, and at which of them it says whether the others hold a position.
_HEADER_BYTES = 90
_GOOD_RAS_AT = 28

#: Bytes behind the voxels that begin with the time from one frame to the next; a file may lack them.
_FOOTER_BYTES = 20


def open_file(path: Path, key: str | None, *, axes: str | None, rgb: bool) -> MghSource:  # noqa: ARG001  # the signature of every format
    """Open an MGH file; whether it is gzipped is told by its content."""
    return MghSource(path, axes=axes)


def list_contents(path: Path) -> list[Entry]:
    """The volume, by the file's own axes."""
    with MghSource(path) as source:
        info = source.info
        return [Entry(str(path), tuple(info.shape[AXIS[letter]] for letter in info.axes), info.dtype.name, info.axes)]


class MghSource(OpenVolume):
    """An MGH file.

    A gzipped one is unpacked once, into a temporary file without a name: at the first read, or, where it has several
    frames in time, at once, as the time between them is stated behind the voxels.

    Parameters
    ----------
    path : Path
    axes : str, optional
        What the axes are, as "XYZC" where the frames are channels.

    Raises
    ------
    ReadError
        It is no MGH file, or damaged.
    ParameterError
        ``axes`` do not fit the file.
    """

    def __init__(self, path: Path, *, axes: str | None = None) -> None:
        self._name = str(path)
        self._files = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            undo.callback(self._files.close)
            try:
                self._file = self._files.enter_context(path.open("rb"))
            except OSError as error:
                raise ReadError(f"{path}: cannot be read: {error.strerror}") from error
            gzipped = is_gzipped(self._file)
            with unpacked(self._file, self._name, gzipped=gzipped) as stream:
                start = stream.read(_HEADER_BYTES)
            header = _header(start, self._name)
            sizes = _sizes(header, self._name)
            letters = file_axes("XYZ" if axes is None and sizes[3] == 1 else axes, sizes, self._name, "MGH")
            arrangement = arrange(letters[::-1], sizes[: len(letters)][::-1])
            self._dtype, self._order = _voxel_dtype(header, self._name), arrangement.order
            placed = struct.unpack_from(">h", start, _GOOD_RAS_AT)[0] != 0
            self.info = VolumeInfo(
                arrangement.shape,
                self._dtype.newbyteorder("="),
                Geometry.from_matrix(_affine(header, self._name), "mm"),
                format="mgh",
                axes=letters,
                compression="gzip" if gzipped else None,
                access=Access(order=self._order),
                notes=() if placed else (f"{path.name} states no position, taken as FreeSurfer's: 1 mm, coronal",),
            )
            raw = RawFile(self._file, DATA_OFFSET, self._dtype, arrangement.shape, self._order, name=self._name)
            self._voxels: RawFile | Unpacked = raw
            if gzipped:
                self._voxels = Unpacked(self._file, raw, _FOOTER_BYTES)
                self._files.callback(self._voxels.close)
                self.info = replace(self.info, access=self._voxels.access)
            else:
                raw.check_length()
            if arrangement.shape[0] > 1:
                self.info = replace(self.info, time_step=self._time_step(raw.nbytes))
                if gzipped:  # to its end, for the footer: it is there now
                    self.info = replace(self.info, access=Access(order=self._order, spool_bytes=raw.nbytes))
            undo.pop_all()

    def read_into(self, region: Region, out: NDArray[Any]) -> None:
        """See :meth:`OpenVolume.read_into`."""
        self._voxels.read_into(region, out)

    def prefetch(self) -> None:
        """Begin to unpack a gzipped file."""
        if isinstance(self._voxels, Unpacked):
            self._voxels.begin()

    def expect(self, reading: Reading) -> None:
        """See :meth:`OpenVolume.expect`."""
        if isinstance(self._voxels, Unpacked):
            self._voxels.expect(reading)

    def finish(self) -> None:
        """See :meth:`OpenVolume.finish`."""
        if isinstance(self._voxels, Unpacked):
            self._voxels.finish()

    def close(self) -> None:
        """Close the file, and drop what was unpacked of it."""
        self._files.close()

    def _time_step(self, nbytes: int) -> float | None:
        """Seconds from frame to frame; the file has milliseconds."""
        file: BinaryIO = self._file
        start = DATA_OFFSET
        if isinstance(self._voxels, Unpacked):
            file, start = self._voxels.file(), 0
        try:
            footer = os.pread(file.fileno(), _FOOTER_BYTES, start + nbytes)
        except OSError as error:
            raise ReadError(f"{self._name}: cannot be read: {error.strerror}") from error
        if len(footer) < 4:
            return None
        (step,) = struct.unpack_from(">f", footer)
        return step * 1e-3 if 0 < step < math.inf else None


def _header(start: bytes, name: str) -> Any:
    """The header as nibabel's own object; what follows the voxels is left out."""
    if not start:
        raise ReadError(f"{name}: is empty")
    if struct.unpack(">i", start[:4].ljust(4, b"\0"))[0] != 1:
        raise ReadError(f"{name}: is no MGH file")
    if len(start) < _HEADER_BYTES:
        raise ReadError(f"{name}: is truncated: its header ends early")
    kind: Any = MGHHeader  # nibabel types only some of its functions
    return kind(start, check=False)


def _sizes(header: Any, name: str) -> tuple[int, ...]:
    """(X, Y, Z, frames)."""
    sizes = tuple(int(size) for size in header["dims"])
    if any(size < 1 for size in sizes):
        raise ReadError(f"{name}: every axis must hold a voxel (got shape {sizes})")
    return sizes


def _voxel_dtype(header: Any, name: str) -> np.dtype[Any]:
    """Dtype of the voxels, big-endian as all in the file."""
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
    except KeyError as error:
        raise ReadError(f"{name}: voxels of type code {int(header['type'])} are not supported") from error
    return dtype


def _affine(header: Any, name: str) -> NDArray[np.floating]:
    with np.errstate(all="ignore"):
        affine: NDArray[np.floating] = header.get_affine()
    if not np.isfinite(affine).all():
        raise ReadError(f"{name}: its MGH header is damaged: its affine is not finite")
    return affine
