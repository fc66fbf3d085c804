"""NIfTI-1 and NIfTI-2 files, plain or gzipped: nibabel reads the headers, RawFile the voxels."""

from __future__ import annotations

import contextlib
import gzip
import logging
import struct
import warnings
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError

from volconv.errors import ReadError
from volconv.geometry import Geometry
from volconv.io.checks import check_block
from volconv.io.niftiheader import DTYPES, FILE_ORDER, new_header
from volconv.io.raw import RawFile
from volconv.io.spool import Spool, is_gzipped, unpacked, unpacked_copy
from volconv.io.target import Target, check_target, translated
from volconv.io.volume import Entry, NewVolume, OpenVolume, Scaling, VolumeInfo

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from volconv.io.volume import Request
    from volconv.region import Region

_UNITS = {"meter": "m", "mm": "mm", "micron": "um"}

# nibabel prints each oddity that it mends to stderr by a logger of its own; a file that can be read is no news.
_QUIET = logging.getLogger("volconv.io.nifti")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False


def open_file(path: Path, key: str | None, *, axes: str | None, rgb: bool) -> NiftiSource:  # noqa: ARG001  # the signature of every format
    """Open a NIfTI file; whether it is gzipped is told by its content."""
    return NiftiSource(path)


def list_contents(path: Path) -> list[Entry]:
    """The volume, by the file's own axes."""
    with NiftiSource(path) as source:
        n, c, d, h, w = source.info.shape
        return [Entry(str(path), (w, h, d, n, c), source.info.dtype.name, source.info.axes)]


class NiftiSource(OpenVolume):
    """A NIfTI file.

    A gzipped one is unpacked at the first read, once, into a temporary file without a name.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ReadError
        It is no NIfTI file, damaged, or of colours.
    """

    def __init__(self, path: Path) -> None:
        self._name = str(path)
        self._files = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            undo.callback(self._files.close)
            try:
                self._file = self._files.enter_context(path.open("rb"))
            except OSError as error:
                raise ReadError(f"{path}: cannot be read: {error.strerror}") from error
            self._gzipped = is_gzipped(self._file)
            with unpacked(self._file, self._name, gzipped=self._gzipped) as stream:
                header, heard = _read_header(stream, self._name)
            self._offset = int(header.get_data_offset())
            self._dtype = _voxel_dtype(header, self._name)
            self.info = _describe(header, self._dtype, path, heard)
            self._raw: RawFile | None = None
            if not self._gzipped:
                self._raw = self._raw_in(self._file, self._offset)
                self._raw.check_length()
            undo.pop_all()

    def read(self, region: Region) -> NDArray[Any]:
        """Stored values of a region."""
        if self._raw is None:
            self._raw = self._raw_in(self._unpack(), 0)
        return self._raw.read(region)

    def close(self) -> None:
        """Close the file, and drop what was unpacked of it."""
        self._files.close()

    def _raw_in(self, file: BinaryIO, offset: int) -> RawFile:
        return RawFile(file, offset, self._dtype, self.info.shape, FILE_ORDER, name=self._name)

    def _unpack(self) -> BinaryIO:
        """Voxels alone, in a temporary file."""
        size = self._raw_in(self._file, 0).nbytes
        with unpacked(self._file, self._name, gzipped=True) as stream:
            stream.read(self._offset)
            spool = unpacked_copy(stream, size, self._name)
        self._files.callback(spool.close)
        return spool


def describe_new(request: Request) -> VolumeInfo:
    """Check a new file, and tell what it will be."""
    check_target(request.path, overwrite=request.overwrite)
    scaling = request.scaling
    header = new_header(request.shape, request.dtype, request.geometry, request.like, scaling, request.note)
    if scaling is not None:  # as exact as the header keeps it
        scaling = Scaling(float(header["scl_slope"]), float(header["scl_inter"]))
    return VolumeInfo(request.shape, request.dtype, request.geometry, scaling, format="nifti", header=header)


def create_file(request: Request) -> NiftiSink:
    """Create a NIfTI file, gzipped where its name ends in ``.gz``."""
    return NiftiSink(request.path, describe_new(request), overwrite=request.overwrite)


class NiftiSink(NewVolume):
    """A NIfTI file being written; the voxels of a gzipped one wait in a temporary file beside it until the commit."""

    def __init__(self, path: Path, info: VolumeInfo, *, overwrite: bool) -> None:
        self.info = info
        self._path = path
        self._target = Target(path, overwrite=overwrite)
        self._spool: Spool | None = None
        try:
            with translated(path):
                info.header.write_to(self._target.file)
                offset = int(info.header.get_data_offset())
                self._target.file.write(bytes(offset - self._target.file.tell()))
                self._target.file.flush()
                if path.name.lower().endswith(".gz"):
                    folder = self._target.temporary.parent
                    self._spool = Spool(folder, info.dtype, info.shape, FILE_ORDER, name=str(path))
                    self._raw = self._spool.raw
                else:
                    self._raw = RawFile(self._target.file, offset, info.dtype, info.shape, FILE_ORDER, name=str(path))
                    self._target.file.truncate(offset + self._raw.nbytes)
        except BaseException:
            self.abort()
            raise

    def write(self, region: Region, values: NDArray[Any]) -> None:
        """Store the values of a region."""
        check_block(self.info, region, values)
        self._raw.write(region, values)

    def commit(self) -> None:
        """Compress where the name asks for it, and put the file in place."""
        try:
            if self._spool is not None:
                with translated(self._path):
                    self._compress(self._spool)
                self._spool = None
            self._target.commit()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Remove what was written."""
        if self._spool is not None:
            self._spool.close()
        self._target.abort()

    def _compress(self, spool: Spool) -> None:
        file = self._target.file
        file.seek(0)
        header = file.read()
        file.seek(0)
        file.truncate()
        # No name and no time in the gzip header: the same voxels give the same bytes.
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=1, mtime=0) as stream:
            stream.write(header)
            for piece in spool.pieces():
                stream.write(piece)
        spool.close()


def _read_header(stream: BinaryIO, name: str) -> tuple[Any, tuple[str, ...]]:
    """Header as nibabel's own object, checked and mended as nibabel does, and what nibabel warned of."""
    start = stream.read(540)
    if not start:
        raise ReadError(f"{name}: is empty")
    size = set(struct.unpack("<i", start[:4]) + struct.unpack(">i", start[:4])) if len(start) >= 348 else set()
    if 348 in size and start[344:348] == b"n+1\0":
        kind: Any = nibabel.Nifti1Header
    elif 540 in size and start[4:8] == b"n+2\0":
        kind = nibabel.Nifti2Header
    elif 348 in size and start[344:348] == b"ni1\0":
        raise ReadError(
            f"{name}: is the header of a .hdr/.img pair", hint="convert it to one file, as with nibabel's nib-convert"
        )
    else:
        raise ReadError(f"{name}: is no NIfTI file")
    if len(start) < kind.sizeof_hdr:
        raise ReadError(f"{name}: is truncated: its header ends early")
    stream.seek(0)
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            header = kind.from_fileobj(stream, check=False)
            header.check_fix(logger=_QUIET, error_level=40)
            affine = header.get_best_affine()
            int(header.get_data_offset())
    except (HeaderDataError, ValueError, OverflowError, KeyError, struct.error) as error:
        raise ReadError(f"{name}: its NIfTI header is damaged: {_one_line(error)}") from error
    if not np.isfinite(affine).all():
        raise ReadError(f"{name}: its NIfTI header is damaged: its affine is not finite")
    return header, tuple(" ".join(str(warning.message).split()) for warning in heard)


def _voxel_dtype(header: Any, name: str) -> np.dtype[Any]:
    """Dtype of the voxels in the file's byte order."""
    try:
        dtype = cast("np.dtype[Any]", header.get_data_dtype())
    except (HeaderDataError, KeyError):
        dtype = np.dtype(np.void)
    if dtype.newbyteorder("=").name in DTYPES:
        return dtype
    label = header._field_recoders["datatype"].label  # nibabel has no public way from a code to its name
    code = int(header["datatype"])
    with contextlib.suppress(KeyError):
        raise ReadError(f"{name}: voxels of datatype {label[code]} are not supported (known: {', '.join(DTYPES)})")
    raise ReadError(f"{name}: its datatype code {code} is unknown")


def _describe(header: Any, dtype: np.dtype[Any], path: Path, heard: tuple[str, ...]) -> VolumeInfo:
    x, y, z, n, c = _file_shape(header, str(path))
    notes = tuple(f"{path.name}: {text}" for text in heard)
    try:
        unit = _UNITS.get(header.get_xyzt_units()[0])
    except KeyError:
        unit = None
    if unit is None:
        unit = "mm"
        notes = (*notes, f"{path.name} states no units, taken as mm")
    return VolumeInfo(
        (n, c, z, y, x),
        dtype.newbyteorder("="),
        Geometry.from_matrix(header.get_best_affine(), unit),
        _scaling(header, str(path)),
        format="nifti",
        header=header,
        notes=notes,
    )


def _file_shape(header: Any, name: str) -> tuple[int, ...]:
    """(X, Y, Z, T, C) of the file, missing axes 1."""
    try:
        shape = tuple(int(size) for size in header.get_data_shape())
    except HeaderDataError as error:
        raise ReadError(f"{name}: its NIfTI header is damaged: {_one_line(error)}") from error
    if not shape or any(size < 1 for size in shape):
        raise ReadError(f"{name}: every axis must hold a voxel (got shape {shape})")
    if any(size > 1 for size in shape[5:]):
        raise ReadError(f"{name}: a volume has at most five axes x, y, z, t, channel (got shape {shape})")
    return (*shape, 1, 1, 1, 1)[:5]


def _scaling(header: Any, name: str) -> Scaling | None:
    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError as error:
        raise ReadError(f"{name}: its slope and intercept are damaged: {_one_line(error)}") from error
    if slope is None or (slope, intercept) == (1.0, 0.0):
        return None
    return Scaling(slope, intercept)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
