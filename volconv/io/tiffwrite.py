"""TIFF stacks being written: tifffile lays out the file, RawFile fills in the voxels."""

from __future__ import annotations

import math
import os
import uuid
from typing import TYPE_CHECKING, Any

import tifffile

from volconv.io.checks import check_block
from volconv.io.raw import NCDHW, RawFile
from volconv.io.target import Target, check_target, translated
from volconv.io.volume import NewVolume, VolumeInfo

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from volconv.geometry import Geometry
    from volconv.io.volume import Request
    from volconv.region import Index5, Region

#: What ImageJ opens as a hyperstack (its 16-bit signed and half precision readings differ between versions).
_IMAGEJ_DTYPES = ("uint8", "uint16", "float32")

#: Classic TIFF counts bytes in 32 bits; some are left for the directories.
_CLASSIC_BYTES = 2**32 - 2**25

#: ImageJ's order of axes is T, Z, C, Y, X.
_IMAGEJ_ORDER = (0, 2, 1, 3, 4)


def describe_new(request: Request) -> VolumeInfo:
    """Check a new stack, and tell what it will be."""
    check_target(request.path, overwrite=request.overwrite)
    return VolumeInfo(request.shape, request.dtype, request.geometry, format="tiff")


def create_file(request: Request) -> TiffSink:
    """Create a TIFF stack.

    ``.ome.tif`` is OME-TIFF; ``.tif`` is an ImageJ hyperstack where ImageJ can hold it, and otherwise a plain stack
    (BigTIFF above 4 GB) that tifffile reads with its axes and spacing.
    """
    return TiffSink(request.path, describe_new(request), overwrite=request.overwrite, note=request.note)


class TiffSink(NewVolume):
    """A TIFF stack being written."""

    def __init__(self, path: Path, info: VolumeInfo, *, overwrite: bool, note: str) -> None:
        self.info = info
        self._target = Target(path, overwrite=overwrite)
        try:
            with translated(path):
                self._raw = _laid_out(self._target.file, path, info, note)
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


def _laid_out(file: Any, path: Path, info: VolumeInfo, note: str) -> RawFile:
    """Write all of the file but its voxels, which lie together uncompressed."""
    nbytes = math.prod(info.shape) * info.dtype.itemsize
    large = nbytes > _CLASSIC_BYTES
    ome = path.name.lower().endswith((".ome.tif", ".ome.tiff"))
    imagej = not ome and not large and info.dtype.name in _IMAGEJ_DTYPES
    order: Index5 = _IMAGEJ_ORDER if imagej else NCDHW
    shape = tuple(info.shape[axis] for axis in order)
    axes = "".join("TCZYX"[axis] for axis in order)
    if imagej:  # with samples stated, a width of 1 is not taken for them
        shape, axes = (*shape, 1), axes + "S"
    elif not ome:
        kept = [place for place, size in enumerate(shape) if size > 1 or place >= 3]
        shape, axes = tuple(shape[place] for place in kept), "".join(axes[place] for place in kept)
    resolution, known = _spacing(info.geometry, ome=ome)
    if ome:
        # The identifier is random in tifffile; this one is the same for the same kind of file.
        known["UUID"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"volconv:{info.shape}:{info.dtype}"))
    with tifffile.TiffWriter(file, bigtiff=large, byteorder="<", imagej=imagej, ome=ome) as writer:
        placed = writer.write(
            None,
            shape=shape,
            dtype=info.dtype,
            photometric="minisblack",
            resolution=resolution,
            resolutionunit="NONE",
            metadata={"axes": axes, **known},
            software=(note or "volconv").encode("ascii", "replace").decode(),
            returnoffset=True,
        )
    file.flush()
    if placed is None or os.fstat(file.fileno()).st_size < placed[0] + nbytes:
        raise RuntimeError(f"tifffile laid out no room for the voxels (got {placed}, shape {info.shape}, {info.dtype})")
    return RawFile(file, placed[0], info.dtype.newbyteorder("<"), info.shape, order, name=str(path))


def _spacing(geometry: Geometry, *, ome: bool) -> tuple[tuple[float, float] | None, dict[str, Any]]:
    """Resolution tags and metadata; nothing where the spacing is unknown."""
    if geometry.unit is None:
        return None, {}
    d, h, w = geometry.spacing
    if not (d > 0 and h > 0 and w > 0):
        return None, {}
    if ome:
        unit = {"um": "\u00b5m"}.get(geometry.unit, geometry.unit)
        sizes = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", (d, h, w), strict=True)}
        return None, {**sizes, **{f"PhysicalSize{axis}Unit": unit for axis in "ZYX"}}
    return (1 / w, 1 / h), {"spacing": d, "unit": geometry.unit}
