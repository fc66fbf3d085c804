"""NIfTI files, plain or gzipped, in one file or (read only) in two: how their voxels are read and written."""

from __future__ import annotations

import contextlib
import io
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

from volconv.errors import ReadError
from volconv.io.axes import AXIS
from volconv.io.checks import check_block
from volconv.io.gzipped import Packer, is_gzipped, packing_bytes, unpacked
from volconv.io.nifti.axes import AXES
from volconv.io.nifti.header import describe, read_header
from volconv.io.nifti.newheader import FILE_ORDER, new_header, spacing_is_unknown
from volconv.io.pair import header_of, is_pair, voxels_of
from volconv.io.raw import RawFile
from volconv.io.room import spool_folder
from volconv.io.spool import InTurn
from volconv.io.target import Target, check_target, translated
from volconv.io.unpacking import Unpacked
from volconv.io.volume import Access, Entry, NewVolume, OpenVolume, Scaling, VolumeInfo

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from volconv.io.volume import Reading, Request
    from volconv.region import Region


def open_file(path: Path, key: str | None, *, axes: str | None, rgb: bool) -> NiftiSource:  # noqa: ARG001  # the signature of every format
    """Open a NIfTI file, or a pair by either name; whether one is gzipped is told by its content."""
    return NiftiSource(path, axes=axes, rgb=rgb)


def list_contents(path: Path) -> list[Entry]:
    """The volume, by the file's own axes; colours as an axis of samples."""
    with NiftiSource(path, rgb=True) as source:
        info = source.info
        return [Entry(str(path), tuple(info.shape[AXIS[letter]] for letter in info.axes), info.dtype.name, info.axes)]


class NiftiSource(OpenVolume):
    """A NIfTI file, or two.

    Gzipped voxels are unpacked once: see :class:`volconv.io.unpacking.Unpacked`.

    Parameters
    ----------
    path : Path
        Of a pair, either.
    axes : str, optional
        What the axes are, as "XYZC".
    rgb : bool
        Take colours as channels.

    Raises
    ------
    ReadError
        It is no NIfTI file, damaged, or of colours that were not asked for.
    ParameterError
        ``axes`` do not fit the file.
    """

    def __init__(self, path: Path, *, axes: str | None = None, rgb: bool = False) -> None:
        pair = is_pair(path)
        header_path = header_of(path) if pair else path
        self._files = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            undo.callback(self._files.close)
            header_file = self._open(header_path)
            with unpacked(header_file, str(header_path), gzipped=is_gzipped(header_file)) as stream:
                header, heard = read_header(stream, str(header_path), pair=pair)
            voxel_path = voxels_of(path) if pair else path
            self._name = str(voxel_path)
            self._file = self._open(voxel_path) if pair else header_file
            info, self._layout = describe(header, heard, path.name, header_name=str(header_path), axes=axes, rgb=rgb)
            gzipped = is_gzipped(self._file)
            at = self._layout
            raw = RawFile(self._file, at.offset, at.dtype, at.shape, at.order, name=self._name)
            self._voxels: RawFile | Unpacked = raw
            access = Access(order=at.order)
            if gzipped:
                self._voxels = Unpacked(self._file, raw)
                self._files.callback(self._voxels.close)
                access = self._voxels.access
            else:
                raw.check_length()
            self.info = replace(info, access=access, compression="gzip" if gzipped else None)
            undo.pop_all()

    def prefetch(self) -> None:
        """Begin to unpack gzipped voxels."""
        if isinstance(self._voxels, Unpacked):
            self._voxels.begin()

    def expect(self, reading: Reading) -> None:
        """See :meth:`OpenVolume.expect`."""
        if isinstance(self._voxels, Unpacked):
            self._voxels.expect(reading)

    def read_into(self, region: Region, out: NDArray[Any]) -> None:
        """See :meth:`OpenVolume.read_into`."""
        self._voxels.read_into(region, out)

    def finish(self) -> None:
        """See :meth:`OpenVolume.finish`."""
        if isinstance(self._voxels, Unpacked):
            self._voxels.finish()

    def close(self) -> None:
        """Close the files, and drop what was unpacked of them."""
        self._files.close()

    def _open(self, path: Path) -> BinaryIO:
        try:
            return self._files.enter_context(path.open("rb"))
        except OSError as error:
            raise ReadError(f"{path}: cannot be read: {error.strerror}") from error


def describe_new(request: Request) -> VolumeInfo:
    """Check a new file, and tell what it will be."""
    check_target(request.path, overwrite=request.overwrite, mkdir=request.mkdir)
    header = new_header(request)
    scaling = request.scaling
    if scaling is not None:  # as exact as the header keeps it
        scaling = Scaling(float(header["scl_slope"]), float(header["scl_inter"]))
    gzipped = _gzips(request.path)
    access = Access(order=FILE_ORDER)
    if gzipped:
        nbytes = math.prod(request.shape) * request.dtype.itemsize
        access = Access(order=FILE_ORDER, in_turn=True, spool_bytes=nbytes, held_bytes=packing_bytes())
    notes: tuple[str, ...] = ()
    if spacing_is_unknown(request.geometry):
        steps = [f"{step:g}" for step in request.geometry.spacing]
        told = ",".join(steps if len(set(steps)) > 1 else steps[:1])
        notes = (f"{request.path.name}: spacing unknown, written as {told} without a unit",)
    return VolumeInfo(
        request.shape,
        request.dtype,
        request.geometry,
        scaling,
        request.time_step,
        format="nifti",
        axes=AXES[: int(header["dim"][0])],
        compression="gzip" if gzipped else None,
        access=access,
        header=header,
        notes=notes,
    )


def create_file(request: Request, info: VolumeInfo) -> NiftiSink:
    """Create a NIfTI file, gzipped where its name ends in ``.gz``."""
    return NiftiSink(request.path, info, overwrite=request.overwrite)


class NiftiSink(NewVolume):
    """A NIfTI file being written; gzipped voxels are packed as they come, as long as they come in the file's order."""

    def __init__(self, path: Path, info: VolumeInfo, *, overwrite: bool) -> None:
        self.info = info
        self._path = path
        self._target = Target(path, overwrite=overwrite)
        self._files = contextlib.ExitStack()
        self._packer: Packer | None = None
        self._voxels: RawFile | InTurn
        try:
            with translated(path):
                start, file = _before_voxels(info.header), self._target.file
                if _gzips(path):
                    self._packer = Packer(file)
                    self._files.callback(self._packer.close)
                    self._packer.write(start)
                    self._voxels = InTurn(
                        spool_folder(path),
                        info.dtype,
                        info.shape,
                        FILE_ORDER,
                        name=str(path),
                        take=self._packer.write,
                    )
                    self._files.callback(self._voxels.close)
                else:
                    file.write(start)
                    file.flush()
                    self._voxels = RawFile(file, len(start), info.dtype, info.shape, FILE_ORDER, name=str(path))
                    file.truncate(len(start) + self._voxels.nbytes)
        except BaseException:
            self.abort()
            raise

    def write(self, region: Region, values: NDArray[Any]) -> None:
        """Store the values of a region."""
        check_block(self.info, region, values)
        with translated(self._path):
            self._voxels.write(region, values)

    def commit(self) -> None:
        """Pack what is left where the name asks for gzip, and put the file in place."""
        packer, self._packer = self._packer, None
        try:
            with self._files, translated(self._path):
                if packer is not None and isinstance(self._voxels, InTurn):
                    self._voxels.finish()
                    packer.finish()
            self._target.commit()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Remove what was written."""
        self._packer = None
        self._files.close()
        self._target.abort()


def _before_voxels(header: Any) -> bytes:
    """All of a file that comes before its voxels."""
    file = io.BytesIO()
    header.write_to(file)
    return file.getvalue().ljust(int(header.get_data_offset()), b"\0")


def _gzips(path: Path) -> bool:
    """Whether a new file's name asks for compression."""
    return path.name.lower().endswith(".gz")
