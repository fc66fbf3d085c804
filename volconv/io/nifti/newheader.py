"""Headers for NIfTI files that volconv writes."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
from nibabel.nifti1 import Nifti1Extension
from nibabel.spatialimages import HeaderDataError

from volconv.errors import WriteError
from volconv.geometry import MILLIMETRES
from volconv.io.formats import SUFFIXES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.geometry import Geometry
    from volconv.io.volume import Request, VolumeInfo
    from volconv.region import Index5

#: Axes of (N, C, D, H, W) as NIfTI stores them, slowest first: its own order is (X, Y, Z, T, channel), fastest first.
FILE_ORDER = (1, 0, 2, 3, 4)

#: What NIfTI can hold; its long doubles and colours are left out.
DTYPES = SUFFIXES[".nii"].dtypes

#: NIfTI's units of time, in seconds.
TIME_UNITS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}

_UNITS = {"m": "meter", "mm": "mm", "um": "micron"}
_MILLIMETRES = {stated: MILLIMETRES[unit] for unit, stated in _UNITS.items()}

#: Sizes are 16-bit numbers in NIfTI-1.
_NIFTI1_MAX = 32767

#: Fields whose meaning the new file sets by itself, or that differ between the two versions.
_OWN_FIELDS = ("sizeof_hdr", "magic", "dim", "datatype", "bitpix", "vox_offset", "eol_check", "unused_str")

#: Fields that describe the old voxels: display range, and how slices were acquired.
_STALE_FIELDS = ("cal_min", "cal_max", "slice_code", "slice_start", "slice_end", "slice_duration", "glmin", "glmax")

#: Bits of dim_info that say along which axes frequency and phase were encoded; the others say which one slices are.
_IN_PLANE = 0b1111

#: Intent of a file whose 5th axis is channels: without it ITK takes the file for a volume of five dimensions.
_VECTOR = 1007

#: Intents whose voxels are several numbers: matrices, displacements, vectors.
_OF_SEVERAL = (1004, 1005, 1006, _VECTOR)


def new_header(request: Request) -> Any:
    """Make nibabel's header of a new file, in native byte order.

    Where the input is NIfTI its header is carried on: units, intent, description, extensions, kinds of transforms,
    trailing axes of size 1. The request's note becomes a further extension, of NIfTI's kind "comment".
    """
    old, axes = _input(request.like)
    header = _carried(old, large=max(request.shape) > _NIFTI1_MAX)
    header.set_data_dtype(request.dtype)
    was = old.get_data_shape() if old is not None else (1, 1, 1)
    n, c, d, h, w = request.shape
    header.set_data_shape((w, h, d, n, c, 1, 1)[: _rank(request.shape, was)])
    if not request.copied:
        for name in _STALE_FIELDS:
            if name in header:
                header[name] = 0
        header["dim_info"] = int(header["dim_info"]) & _IN_PLANE
    _set_intent(header, c, was)
    _set_steps(header, old, axes, request.time_step)
    if request.like is not None and old is not None:
        header["toffset"] += request.like.skipped_time / TIME_UNITS.get(stated_units(header)[1], 1.0)
    with np.errstate(all="ignore"):
        _set_geometry(header, old, request.geometry)
        finite = np.isfinite(header.get_best_affine()).all()
    if not finite:
        raise WriteError(f"{request.path}: NIfTI cannot hold such numbers ({request.geometry.in_words()})")
    scaling = request.scaling
    header.set_slope_inter(*((scaling.slope, scaling.intercept) if scaling else (1.0, 0.0)))
    if request.note:
        header.extensions.append(Nifti1Extension("comment", request.note.encode()))
        if not header["descrip"].item().strip():  # it holds 79 bytes: the note's first sentence
            header["descrip"] = request.note.partition("; ")[0].encode()[:79].decode(errors="ignore").encode()
    return header


def spacing_is_unknown(geometry: Geometry) -> bool:
    """Whether a geometry says no more than that voxels follow each other."""
    return geometry.unit is None and geometry.is_axis_aligned


def stated_units(header: Any) -> tuple[str, str]:
    """Units of space and time by NIfTI's names, "unknown" where the header states none or nonsense."""
    try:
        space, time = header.get_xyzt_units()
    except KeyError:
        return "unknown", "unknown"
    return space, time


def _input(like: VolumeInfo | None) -> tuple[Any, str]:
    """Header and axes of the input where it is NIfTI."""
    if like is None or like.header is None or like.format not in ("nifti", "pair"):
        return None, ""
    return like.header, like.axes


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


def _rank(shape: Index5, was: tuple[int, ...]) -> int:
    """How many axes a new file has: all that it needs, and those of size 1 that the input had after them."""
    n, c, d, h, _ = shape
    needed = 5 if c > 1 else 4 if n > 1 else 3 if d > 1 else 2 if h > 1 else 1
    needed = max(needed, min(3, len(was)))
    return len(was) if all(size == 1 for size in was[needed:]) and len(was) > needed else needed


def _set_intent(header: Any, channels: int, was: tuple[int, ...]) -> None:
    """Say that the 5th axis is a vector's, and no longer say so where it is gone."""
    intent = int(header["intent_code"])
    if channels > 1 and not intent:
        header["intent_code"] = _VECTOR
    elif channels == 1 and intent in _OF_SEVERAL and max(was[4:], default=1) > 1:
        header["intent_code"] = 0


def _set_steps(header: Any, old: Any, axes: str, step: float | None) -> None:
    """State the steps along the 4th and 5th axis, which are T and C here, whatever they were in the input."""
    rank, steps = int(header["dim"][0]), header["pixdim"]
    for letter, position, unstated in (("T", 4, 0.0), ("C", 5, 1.0)):
        if rank >= position:
            steps[position] = old["pixdim"][axes.index(letter) + 1] if letter in axes else unstated
    unit = stated_units(old)[1] if old is not None else "unknown"
    if step is not None:
        # A step without a unit was taken as seconds: it stays without.
        if unit not in TIME_UNITS and (old is None or unit != "unknown"):
            unit = "sec"
        steps[4] = step / TIME_UNITS.get(unit, 1.0)
    header.set_xyzt_units(stated_units(header)[0], unit)


def _set_geometry(header: Any, old: Any, geometry: Geometry) -> None:
    """State where voxels lie; the transforms of an input move along, by their codes."""
    matrix, unit = _in_nifti_unit(geometry)
    time = stated_units(header)[1]
    if spacing_is_unknown(geometry):
        header.set_xyzt_units(None, time)
        _set_transforms(header, matrix, matrix, sform=0, qform=0)
        return
    if old is None:
        header.set_xyzt_units(unit, time)
        _set_transforms(header, matrix, matrix, sform=2, qform=0)
        return
    space = stated_units(old)[0]
    # An input that states no unit was taken as mm: it stays unstated.
    header.set_xyzt_units(space if space == "unknown" and unit == "mm" else unit, time)
    was = np.asarray(old.get_best_affine(), dtype=np.float64)
    qform = was.copy()
    if int(old["qform_code"]):
        with contextlib.suppress(HeaderDataError, ValueError):  # no rotation, which an sform beside it had hidden
            qform = old.get_qform()
    factor = _MILLIMETRES.get(space, 1.0) / _MILLIMETRES[unit] if unit is not None else 1.0
    was[:3] *= factor
    qform[:3] *= factor
    if not np.array_equal(matrix, was):
        qform = qform @ np.linalg.solve(was, matrix) if np.linalg.det(was) else matrix
    _set_transforms(header, matrix, qform, sform=int(old["sform_code"]), qform=int(old["qform_code"]))


def _in_nifti_unit(geometry: Geometry) -> tuple[NDArray[np.float64], str | None]:
    """Affine and unit as NIfTI can state them: nanometres become micrometres."""
    matrix = geometry.matrix
    if geometry.unit == "nm":
        matrix[:3] *= 1e-3
        return matrix, "micron"
    return matrix, _UNITS.get(geometry.unit or "")


def _set_transforms(
    header: Any, matrix: NDArray[np.float64], quaternion: NDArray[np.float64], *, sform: int, qform: int
) -> None:
    """Write the affine into the transforms that have a code; the voxel size is always true."""
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    header["pixdim"][1:4] = np.where(spacing > 0, spacing, 1.0)
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
