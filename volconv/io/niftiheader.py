"""Headers for NIfTI files that volconv writes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.geometry import Geometry
    from volconv.io.volume import Scaling, VolumeInfo
    from volconv.region import Index5

#: Axes of (N, C, D, H, W) as NIfTI stores them, slowest first: its own order is (X, Y, Z, T, channel), fastest first.
FILE_ORDER = (1, 0, 2, 3, 4)

#: What NIfTI can hold; its long doubles and colours are left out.
DTYPES = (
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "float32",
    "float64",
    "complex64",
    "complex128",
)

_UNITS = {"m": "meter", "mm": "mm", "um": "micron"}

#: Sizes are 16-bit numbers in NIfTI-1.
_NIFTI1_MAX = 32767

#: Fields whose meaning the new file sets by itself, or that differ between the two versions.
_OWN_FIELDS = ("sizeof_hdr", "magic", "dim", "datatype", "bitpix", "vox_offset", "eol_check", "unused_str")

#: Fields that describe the old voxels: display range, and how slices were acquired.
_STALE_FIELDS = ("cal_min", "cal_max", "slice_code", "slice_start", "slice_end", "slice_duration", "glmin", "glmax")


def new_header(
    shape: Index5, dtype: np.dtype[Any], geometry: Geometry, like: VolumeInfo | None, scaling: Scaling | None, note: str
) -> Any:
    """Make nibabel's header of a new file, in native byte order.

    Parameters
    ----------
    shape : tuple of 5 ints
        (N, C, D, H, W); sizes above 32767 make it NIfTI-2.
    dtype : numpy.dtype
    geometry : Geometry
    like : VolumeInfo, optional
        Where it is NIfTI's, its header is carried on: time step, intent, units, kinds of transforms.
    scaling : Scaling, optional
    note : str
        For ``descrip``, which holds 79 bytes.
    """
    old = like.header if like is not None and like.format == "nifti" else None
    header = _carried(old, large=max(shape) > _NIFTI1_MAX)
    header.set_data_dtype(dtype)
    n, c, d, h, w = shape
    header.set_data_shape((w, h, d) if n == c == 1 else (w, h, d, n) if c == 1 else (w, h, d, n, c))
    for name in _STALE_FIELDS:
        if name in header:
            header[name] = 0
    matrix, unit = _in_nifti_unit(geometry)
    if old is None:
        header.set_xyzt_units(unit, "sec" if n > 1 else None)
        _set_transforms(header, matrix, matrix, sform=2, qform=0)
    else:
        _carry_units(header, unit)
        was = np.asarray(old.get_best_affine(), dtype=np.float64)
        qform = old.get_qform() if int(old["qform_code"]) else was
        if not np.array_equal(matrix, was):
            qform = qform @ np.linalg.solve(was, matrix) if np.linalg.det(was) else matrix
        _set_transforms(header, matrix, qform, sform=int(old["sform_code"]), qform=int(old["qform_code"]))
    header.set_slope_inter(*((scaling.slope, scaling.intercept) if scaling else (1.0, 0.0)))
    if note:
        header["descrip"] = note.encode()[:79].decode(errors="ignore").encode()
    return header


def _carried(old: Any, *, large: bool) -> Any:
    """Fresh native header with the fields of an old one that stay true."""
    order = "<" if sys.byteorder == "little" else ">"
    kind: Any = nibabel.Nifti2Header if large or isinstance(old, nibabel.Nifti2Header) else nibabel.Nifti1Header
    header = kind(endianness=order)
    if old is not None:
        for name in old:
            if name in header and name not in _OWN_FIELDS:
                header[name] = old[name]
        header.extensions[:] = old.extensions[:]
    return header


def _in_nifti_unit(geometry: Geometry) -> tuple[NDArray[np.float64], str | None]:
    """Affine and unit as NIfTI can state them: nanometres become micrometres."""
    matrix = geometry.matrix
    if geometry.unit == "nm":
        matrix[:3] *= 1e-3
        return matrix, "micron"
    return matrix, _UNITS.get(geometry.unit or "")


def _carry_units(header: Any, unit: str | None) -> None:
    """State the unit, except where an input that stated none was taken as mm: it stays unstated."""
    try:
        space, time = header.get_xyzt_units()
    except KeyError:
        space, time = "unknown", "unknown"
    header.set_xyzt_units(space if space == "unknown" and unit == "mm" else unit, time)


def _set_transforms(
    header: Any, matrix: NDArray[np.float64], quaternion: NDArray[np.float64], *, sform: int, qform: int
) -> None:
    """Write the affine into the transforms that have a code; the voxel size is always true."""
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    header.set_zooms((*np.where(spacing > 0, spacing, 1.0), *header.get_zooms()[3:]))
    header.set_sform(matrix, sform)
    header["qform_code"] = 0
    if not qform:
        return
    try:
        if np.linalg.det(quaternion[:3, :3]) == 0:
            raise HeaderDataError("a flat affine has no rotation")
        header.set_qform(quaternion, qform, strip_shears=False)
    except HeaderDataError:
        header["qform_code"] = 0
        # A quaternion cannot hold a shear: without an sform beside it the affine goes there.
        header.set_sform(matrix, sform or qform)
