"""TIFF stacks being written: voxels in place where they lie flat, and otherwise packed page by page at the commit."""

from __future__ import annotations

import itertools
import math
import os
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import tifffile

from volconv.errors import ParameterError
from volconv.io.checks import check_block
from volconv.io.raw import RawFile
from volconv.io.room import spool_folder
from volconv.io.spool import Spool
from volconv.io.target import FolderTarget, Target, check_target, translated
from volconv.io.tiff.packing import Packing, parse_packing
from volconv.io.tiff.words import Layout, layout_of, words_of
from volconv.io.volume import Access, NewVolume, VolumeInfo
from volconv.region import NCDHW, Region

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from volconv.io.volume import Request
    from volconv.region import Index5


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
        nbytes = math.prod(request.shape) * request.dtype.itemsize
        page = math.prod(request.shape[3:]) * request.dtype.itemsize
        access = Access(packing.chunk(request.shape), packed=True, order=order, spool_bytes=nbytes, held_bytes=3 * page)
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


class SpooledSink(NewVolume):
    """What is kept in a temporary file until the commit, and packed then.

    Parameters
    ----------
    info : VolumeInfo
    target : Target or FolderTarget
        Aborted where there is no room for the voxels.
    order : tuple of 5 ints
        Axes of (N, C, D, H, W) in which they will be taken, slowest first.
    """

    def __init__(self, info: VolumeInfo, target: Target | FolderTarget, order: Index5) -> None:
        self.info = info
        self._target: Target | FolderTarget = target
        self._done = False
        try:
            with translated(target.name):
                self._spool = Spool(spool_folder(target.path), info.dtype, info.shape, order, name=target.name)
        except BaseException:
            self._target.abort()
            raise

    def write(self, region: Region, values: NDArray[Any]) -> None:
        """Store the values of a region."""
        check_block(self.info, region, values)
        self._spool.raw.write(region, values)

    def commit(self) -> None:
        """Pack all pages and put the output in place."""
        if self._done:
            return
        try:
            with translated(self._target.name):
                self.pack_all(self._spool.raw)
            self._target.commit()
        except BaseException:
            self.abort()
            raise
        self._done = True
        self._spool.close()

    def abort(self) -> None:
        """Remove what was written."""
        self._done = True
        self._spool.close()
        self._target.abort()

    def pack_all(self, voxels: RawFile) -> None:
        """Write the voxels to the target's temporary file or folder."""
        raise NotImplementedError


class PackedTiffSink(SpooledSink):
    """A TIFF stack whose pages are compressed or tiled."""

    def __init__(self, request: Request, info: VolumeInfo, packing: Packing, layout: Layout) -> None:
        target = Target(request.path, overwrite=request.overwrite)
        super().__init__(info, target, layout.order)
        self._arguments = (target.file, request, layout, packing)

    def pack_all(self, voxels: RawFile) -> None:
        """Write the file."""
        pack(*self._arguments, voxels)


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


def pack(file: BinaryIO, request: Request, layout: Layout, packing: Packing, voxels: RawFile, first: int = 0) -> None:
    """Write a whole file of packed pages.

    Parameters
    ----------
    file : binary file
    request : Request
        Of what this file holds.
    layout : Layout
    packing : Packing
    voxels : RawFile
        Where they are.
    first : int
        Slice of ``voxels`` that is the file's first.
    """
    with tifffile.TiffWriter(file, **layout.writer_arguments()) as writer:
        writer.write(
            _pieces(request, layout, packing, voxels, first),
            **words_of(request, layout),
            **packing.arguments(),
            maxworkers=1,  # more of them would hold half a gigabyte, and follow no --threads
        )


def _pieces(request: Request, layout: Layout, packing: Packing, voxels: RawFile, first: int) -> Iterator[NDArray[Any]]:
    """Pages, or tiles of (H, W, 1) filled up with zeros, in the order of the file."""
    *_, height, width = request.shape
    pages = [range(request.shape[axis]) for axis in layout.order[:3]]
    for place in itertools.product(*pages):
        n, c, d = (place[layout.order.index(axis)] for axis in range(3))
        if packing.tile is None:
            yield _rows(voxels, (n, c, first + d), 0, height)
            continue
        tall, wide = packing.tile
        for y in range(0, height, tall):
            rows = _rows(voxels, (n, c, first + d), y, min(y + tall, height))
            for x in range(0, width, wide):
                piece = rows[:, x : x + wide]
                tile = np.zeros((tall, wide, 1), request.dtype)
                tile[: piece.shape[0], : piece.shape[1], 0] = piece
                yield tile


def _rows(voxels: RawFile, page: tuple[int, int, int], start: int, stop: int) -> NDArray[Any]:
    n, c, d = page
    rows = voxels.read(Region((n, c, d, start, 0), (n + 1, c + 1, d + 1, stop, voxels.shape[4])))
    return rows.reshape(rows.shape[3:])
