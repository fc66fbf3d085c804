"""TIFF stacks being written: what they will be, and those whose voxels lie flat and are written in place."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, BinaryIO

import tifffile

from volconv.errors import ParameterError
from volconv.io.checks import check_block
from volconv.io.raw import RawFile
from volconv.io.target import Target, check_target, translated
from volconv.io.tiff.packed import PackedTiffSink
from volconv.io.tiff.packing import Packing, parse_packing
from volconv.io.tiff.words import Layout, layout_of, words_of
from volconv.io.volume import Access, NewVolume, VolumeInfo
from volconv.region import NCDHW

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.io.volume import Request
    from volconv.region import Index5, Region


def describe_new(request: Request) -> VolumeInfo:
    """Check a new stack, and tell what it will be."""
    if request.key is not None:
        raise ParameterError(
            f"output must be a whole file: a series inside one is only read (got {request.path}:{request.key})"
        )
    check_target(request.path, overwrite=request.overwrite, mkdir=request.mkdir)
    packing = parse_packing(request)
    layout = layout_of(request, packing)
    name = "ome" if layout.words == "ome" else "tiff"
    return described(request, packing, name, layout.axes(request.shape), layout.order)


def create_file(request: Request, info: VolumeInfo) -> FlatTiffSink | PackedTiffSink:
    """Create a TIFF stack.

    ``.ome.tif`` is OME-TIFF; ``.tif`` is an ImageJ hyperstack where ImageJ can hold it, and otherwise a plain stack
    that tifffile reads with its axes and spacing. What would not fit in 4 GB is BigTIFF.
    """
    packing = parse_packing(request)
    layout = layout_of(request, packing)
    return (FlatTiffSink if packing.flat else PackedTiffSink)(request, info, packing, layout)


def described(request: Request, packing: Packing, name: str, axes: str, order: Index5 = NCDHW) -> VolumeInfo:
    """What a new file, or the new files of a folder, will be."""
    access = Access(order=order)
    if not packing.flat:
        chunk, held = packing.chunk(request.shape), packing.held_bytes(request.shape, request.dtype)
        nbytes = math.prod(request.shape) * request.dtype.itemsize
        access = Access(chunk, packed=True, order=order, in_turn=True, spool_bytes=nbytes, held_bytes=held)
    return VolumeInfo(
        request.shape,
        request.dtype,
        request.geometry,
        time_step=request.time_step,
        format=name,
        axes=axes,
        compression=packing.compression,
        access=access,
    )


class FlatTiffSink(NewVolume):
    """A TIFF stack whose uncompressed voxels are written where they belong."""

    def __init__(self, request: Request, info: VolumeInfo, packing: Packing, layout: Layout) -> None:
        self.info = info
        self._target = Target(request.path, overwrite=request.overwrite)
        try:
            with translated(request.path):
                self._raw = lay_out(self._target.file, request, layout, packing)
        except BaseException:
            self.abort()
            raise

    def write(self, region: Region, values: NDArray[Any]) -> None:
        """Store the values of a region."""
        check_block(self.info, region, values)
        self._raw.write(region, values)

    def commit(self) -> None:
        """Put the file in place."""
        self._target.commit()

    def abort(self) -> None:
        """Remove what was written."""
        self._target.abort()


def lay_out(file: BinaryIO, request: Request, layout: Layout, packing: Packing) -> RawFile:
    """Write all of a file but its voxels, which lie together uncompressed."""
    with tifffile.TiffWriter(file, **layout.writer_arguments()) as writer:
        placed = writer.write(None, **words_of(request, layout), **packing.arguments(), returnoffset=True)
    file.flush()
    nbytes = math.prod(request.shape) * request.dtype.itemsize
    if placed is None or os.fstat(file.fileno()).st_size < placed[0] + nbytes:
        raise RuntimeError(f"tifffile laid out no room for the voxels (got {placed}, {request.shape}, {request.dtype})")
    stored = request.dtype.newbyteorder("<")
    return RawFile(file, placed[0], stored, request.shape, layout.order, name=str(request.path))
