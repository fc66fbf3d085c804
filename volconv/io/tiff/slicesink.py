"""Folders of 2-D TIFF files being written, one file a slice."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

from volconv.errors import ParameterError, WriteError
from volconv.io.checks import check_block
from volconv.io.raw import RawFile
from volconv.io.target import FolderTarget, check_folder_target, translated
from volconv.io.tiff.packed import InPlanes, pack
from volconv.io.tiff.packing import Packing, parse_packing
from volconv.io.tiff.sink import described, lay_out
from volconv.io.tiff.words import layout_of
from volconv.io.volume import NewVolume, VolumeInfo
from volconv.region import NCDHW, Region

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from volconv.io.volume import Request

#: Digits of a slice's number that there are at least.
_DIGITS = 4


def describe_new(request: Request) -> VolumeInfo:
    """Check a new folder, and tell what it will be."""
    n, c, *_ = request.shape
    if request.key is not None:
        raise ParameterError(f"output must be a folder (got {request.path}:{request.key}/)")
    if n * c > 1:
        raise WriteError(
            f"{request.path}/: a folder of slices holds one channel of one volume (got {n} volumes of {c} channels)",
            hint="choose one with --time and --channel (time=, channel=), or write .ome.tif",
        )
    check_folder_target(request.path, mkdir=request.mkdir)
    return described(request, parse_packing(request), "slices", "ZYX")


def create_file(request: Request, info: VolumeInfo) -> FlatSlicesSink | PackedSlicesSink:
    """Create a folder of ``slice_0000.tif`` and so on, each as a ``.tif`` of one page would be."""
    packing = parse_packing(request)
    return FlatSlicesSink(request, info) if packing.flat else PackedSlicesSink(request, info, packing)


class FlatSlicesSink(NewVolume):
    """A folder of uncompressed slices, whose voxels are written where they belong."""

    def __init__(self, request: Request, info: VolumeInfo) -> None:
        self.info = info
        self._request = request
        self._made: set[int] = set()
        self._done = False
        self._target = FolderTarget(request.path)
        try:
            self._head, self._nbytes = self._first_slice()
        except BaseException:
            self.abort()
            raise

    def write(self, region: Region, values: NDArray[Any]) -> None:
        """Store the values of a region."""
        check_block(self.info, region, values)
        offset, shape = len(self._head), (1, 1, 1, *self.info.shape[3:])
        stored, name = self.info.dtype.newbyteorder("<"), self._target.name
        inside = Region((0, 0, 0, *region.start[3:]), (1, 1, 1, *region.stop[3:]))
        for number in range(region.start[2], region.stop[2]):
            part = values[:, :, number - region.start[2] :][:, :, :1]
            with self._opened(number) as file:
                RawFile(file, offset, stored, shape, name=name).write(inside, part)

    def commit(self) -> None:
        """Put the folder in place."""
        if self._done:
            return
        try:
            for number in set(range(self.info.shape[2])) - self._made:
                with self._opened(number):
                    pass  # no slice may be missing, written or not
            self._target.commit()
        except BaseException:
            self.abort()
            raise
        self._done = True

    def abort(self) -> None:
        """Remove what was written."""
        self._done = True
        self._target.abort()

    @contextlib.contextmanager
    def _opened(self, number: int) -> Iterator[BinaryIO]:
        """A slice's file, which the first call makes."""
        path = self._target.temporary / slice_name(number, self.info.shape[2])
        with translated(self._target.name), path.open("r+b" if number in self._made else "x+b", buffering=0) as file:
            if number not in self._made:
                file.write(self._head)
                file.truncate(self._nbytes)
                self._made.add(number)
            yield file

    def _first_slice(self) -> tuple[bytes, int]:
        """What every slice starts with, all of them being alike but for their voxels, and the bytes of its file."""
        path = self._target.temporary / slice_name(0, self.info.shape[2])
        with translated(self._target.name), path.open("x+b") as file:
            request, packing = _of_slice(self._request), Packing()
            raw = lay_out(file, request, layout_of(request, packing), packing)
            size = os.fstat(file.fileno()).st_size
            file.seek(0)
            self._made.add(0)
            return file.read(raw.offset), size


class PackedSlicesSink(InPlanes):
    """A folder of slices that are compressed or tiled."""

    def __init__(self, request: Request, info: VolumeInfo, packing: Packing) -> None:
        target = FolderTarget(request.path)
        super().__init__(info, target, NCDHW)
        self._request, self._packing = _of_slice(request), packing
        self._folder, self._next = target.temporary, 0

    def pack(self, plane: NDArray[Any]) -> None:
        """Write the next slice's file."""
        path = self._folder / slice_name(self._next, self.info.shape[2])
        self._next += 1
        with path.open("x+b") as file:
            pack(file, self._request, layout_of(self._request, self._packing), self._packing, iter([plane]))


def slice_name(number: int, count: int) -> str:
    """Name of a slice's file, with digits enough that names sort as numbers do.

    Examples
    --------
    >>> slice_name(7, 31), slice_name(7, 12_000)
    ('slice_0007.tif', 'slice_00007.tif')
    """
    return f"slice_{number:0{max(_DIGITS, len(str(count - 1)))}}.tif"


def _of_slice(request: Request) -> Request:
    """What the file of any slice is to be, but for its name."""
    path = request.path / slice_name(0, request.shape[2])
    return replace(request, path=path, shape=(1, 1, 1, *request.shape[3:]), time_step=None)
