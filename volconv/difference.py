"""Whether two files hold the same volume: the same real values, at the same places in the world."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.copying import walk
from volconv.errors import ParameterError
from volconv.geometry import Geometry, grids_agree
from volconv.io import Region, opened, real_values

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from numpy.typing import NDArray

    from volconv.io import OpenVolume, Scaling
    from volconv.region import Index5

#: Of the keys of :meth:`Difference.as_dict`, and of their meaning.
SCHEMA_VERSION = 1

#: Bytes that are held for each voxel of a block: two of stored values, and what is computed of them.
_VOXEL_BYTES = 64

#: Headers hold time steps in single precision.
_STEP_TOLERANCE = 1e-6

#: Beyond this, not every integer is a float64.
_EXACT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Difference:
    """How two volumes differ. Pairs are of the first file and the second.

    Parameters
    ----------
    same : bool
        Shape and geometry agree, and no voxel differs by more than the tolerance. dtype and format do not count.
    names : pair of str
    shapes : pair of tuples of 5 ints
        (N, C, D, H, W).
    dtypes : pair of str
        Of stored values.
    geometries : pair of Geometry
    same_geometry : bool or None
        None where shapes differ, like the rest: nothing else is compared then.
    time_steps : pair of floats or None
        Seconds; None where a file does not say.
    same_time_step : bool or None
        None where there is one volume, or where a file does not say.
    tolerance : float
    differing : int or None
        Voxels that differ by more than the tolerance.
    largest : number or None
        Largest absolute difference; infinite where only one of two values is NaN, or is infinite.
    voxel : tuple of 5 ints or None
        The first voxel (N, C, D, H, W) that differs so much; None where all are equal.
    world : tuple of 3 floats or None
        Where that is, x, y, z by the first file's affine; None where that file states no geometry.
    values : pair of numbers or None
        The real values there.
    notes : tuple of str
        What was assumed, one line each.
    """

    same: bool
    names: tuple[str, str]
    shapes: tuple[Index5, Index5]
    dtypes: tuple[str, str]
    geometries: tuple[Geometry, Geometry]
    same_geometry: bool | None
    time_steps: tuple[float | None, float | None]
    same_time_step: bool | None
    tolerance: float
    differing: int | None
    largest: float | None
    voxel: Index5 | None
    world: tuple[float, float, float] | None
    values: tuple[Any, Any] | None
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: complex numbers are pairs, and those that are not finite are words."""
        return {
            "schema_version": SCHEMA_VERSION,
            "same": self.same,
            "files": self.names,
            "shapes": self.shapes,
            "dtypes": self.dtypes,
            "affines": [geometry.affine for geometry in self.geometries],
            "units": [geometry.unit for geometry in self.geometries],
            "same_geometry": self.same_geometry,
            "time_steps": self.time_steps,
            "same_time_step": self.same_time_step,
            "tolerance": self.tolerance,
            "differing_voxels": self.differing,
            "largest_difference": None if self.largest is None else _plain(self.largest),
            "voxel": self.voxel,
            "world": self.world,
            "values": None if self.values is None else [_plain(value) for value in self.values],
            "notes": self.notes,
        }


def diff(
    a: str | os.PathLike[str] | OpenVolume,
    b: str | os.PathLike[str] | OpenVolume,
    *,
    tolerance: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> Difference:
    """Compare the real values of two volumes, block by block, and where their voxels lie.

    Integers are compared exactly, all else in double precision, complex values by the modulus of their difference.
    NaN equals NaN, and an infinity itself.

    Parameters
    ----------
    a, b : path or OpenVolume
        See :func:`volconv.open_volume`. Open volumes are left open.
    tolerance : float
        Voxels may differ by this much.
    progress : callable, optional
        Called with (bytes of voxels read of both, bytes in all) after each block.

    Raises
    ------
    ParameterError
        The tolerance is negative, or no number.
    ReadError
        A file cannot be read.

    Examples
    --------
    >>> from volconv.io import ArraySource
    >>> one, other = np.zeros((1, 1, 2, 2, 2)), np.zeros((1, 1, 2, 2, 2))
    >>> other[0, 0, 1, 0, 1] = 0.25
    >>> found = diff(ArraySource(one), ArraySource(other), tolerance=0.5)
    >>> found.same, found.largest, found.voxel
    (True, 0.25, (0, 0, 1, 0, 1))
    """
    if not 0 <= tolerance < math.inf:
        raise ParameterError(f"tolerance must be a number from 0 (got {tolerance})")
    with opened(a) as (first, first_name), opened(b) as (second, second_name):
        infos = first.info, second.info
        comparable = infos[0].shape == infos[1].shape
        agree = grids_agree(infos[0].geometry, infos[1].geometry, infos[0].shape[2:]) if comparable else None
        found = _compare(first, second, tolerance, progress) if comparable else None
    geometry = infos[0].geometry
    steps = infos[0].time_step, infos[1].time_step
    in_step = None
    if comparable and infos[0].shape[0] > 1 and steps[0] is not None and steps[1] is not None:
        in_step = math.isclose(steps[0], steps[1], rel_tol=_STEP_TOLERANCE)
    world = None
    if found is not None and found.voxel is not None and geometry != Geometry():
        x, y, z, _ = geometry.matrix @ (*found.voxel[:1:-1], 1)
        world = float(x), float(y), float(z)
    return Difference(
        same=found is not None and found.differing == 0 and bool(agree) and in_step is not False,
        names=(first_name, second_name),
        shapes=(infos[0].shape, infos[1].shape),
        dtypes=(infos[0].dtype.name, infos[1].dtype.name),
        geometries=(geometry, infos[1].geometry),
        same_geometry=agree,
        time_steps=steps,
        same_time_step=in_step,
        tolerance=tolerance,
        differing=found.differing if found else None,
        largest=found.largest if found else None,
        voxel=found.voxel if found else None,
        world=world,
        values=found.values if found else None,
        notes=tuple(dict.fromkeys(note for info in infos for note in info.notes)),
    )


@dataclass(slots=True)
class _Found:
    """What the blocks so far have shown."""

    differing: int = 0
    largest: float = 0
    voxel: Index5 | None = None
    values: tuple[Any, Any] | None = None


def _compare(a: OpenVolume, b: OpenVolume, tolerance: float, progress: Callable[[int, int], None] | None) -> _Found:
    found = _Found()
    shape, scalings = a.info.shape, (a.info.scaling, b.info.scaling)
    done, total = 0, math.prod(shape)
    voxel_bytes = a.info.dtype.itemsize + b.info.dtype.itemsize
    for block in walk([a, b], [], _VOXEL_BYTES).regions:
        values = a.read(block), b.read(block)
        alike = scalings[0] == scalings[1] and (values[0].dtype == values[1].dtype or _are_whole(values))
        if not (alike and np.array_equal(*values)):
            _look(found, block, values, scalings, tolerance)
        done += math.prod(block.shape)
        if progress is not None:
            progress(done * voxel_bytes, total * voxel_bytes)
    a.finish()
    b.finish()
    return found


def _look(
    found: _Found,
    block: Region,
    stored: tuple[NDArray[Any], NDArray[Any]],
    scalings: tuple[Scaling | None, Scaling | None],
    tolerance: float,
) -> None:
    """Take up the differences of one block."""
    distance = differences(stored, scalings)
    limit = tolerance
    if distance.dtype.kind == "u":  # a whole number is above 2.5 where it is above 2, and so it is compared exactly
        limit = math.floor(tolerance)
    found.differing += int(np.count_nonzero(distance > limit))
    place = np.unravel_index(int(distance.argmax()), block.shape)
    largest = distance[place].item()
    if largest > found.largest:
        n, c, z, y, x = (int(i) + start for i, start in zip(place, block.start, strict=True))
        found.largest, found.voxel = largest, (n, c, z, y, x)
        one, other = (
            (values[place] if scaling is None else real_values(values[place], scaling)).item()
            for values, scaling in zip(stored, scalings, strict=True)
        )
        found.values = one, other


def differences(
    stored: tuple[NDArray[Any], NDArray[Any]], scalings: tuple[Scaling | None, Scaling | None] = (None, None)
) -> NDArray[Any]:
    """Absolute differences of real values: uint64 for integers stored alike, float64 for all else.

    Examples
    --------
    >>> differences((np.array([2**63 - 1, -5]), np.array([2**63 - 2, 5]))).tolist()
    [1, 10]
    >>> differences((np.array([np.nan, np.nan, np.inf]), np.array([np.nan, 1.0, np.inf]))).tolist()
    [0.0, inf, 0.0]
    """
    a, b = stored
    if _are_whole(stored) and scalings[0] == scalings[1]:
        return _whole(a, b) if scalings[0] is None else _whole(a, b) * abs(scalings[0].slope)
    if "c" in (a.dtype.kind, b.dtype.kind):
        one, other = (
            real_values(values, scaling, np.complex128) for values, scaling in zip(stored, scalings, strict=True)
        )
        return np.hypot(_apart(one.real, other.real), _apart(one.imag, other.imag))
    if scalings == (None, None) and (_is_long(a) or _is_long(b)):
        return _long(a, b) if _is_long(a) else _long(b, a)
    one, other = (real_values(values, scaling) for values, scaling in zip(stored, scalings, strict=True))
    return _apart(one, other)


def _are_whole(stored: tuple[NDArray[Any], NDArray[Any]]) -> bool:
    return all(values.dtype.kind in "biu" for values in stored)


def _whole(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.uint64]:
    """Of integers, exact; what is more than 2**64 - 1 counts as that."""
    one, other = a.astype(np.uint64), b.astype(np.uint64)
    distance = np.where(a < b, other - one, one - other)  # modulo 2**64, and so right below that
    if a.dtype.kind != b.dtype.kind:
        for signed, unsigned in ((a, other), (b, one)):
            distance[(signed < 0) & (distance < unsigned)] = 2**64 - 1
    return distance


def _apart(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Of floats: infinite where only one is NaN, or the same infinity is not on both sides."""
    with np.errstate(all="ignore"):
        distance: NDArray[np.float64] = np.abs(a - b)
    distance[(a == b) | (np.isnan(a) & np.isnan(b))] = 0
    distance[np.isnan(distance)] = np.inf
    return distance


def _is_long(values: NDArray[Any]) -> bool:
    return values.dtype.kind in "iu" and values.dtype.itemsize > _EXACT_BYTES


def _long(integers: NDArray[Any], floats: NDArray[Any]) -> NDArray[np.float64]:
    """Of integers of 64 bits and floats: where float64 does not hold an integer, by halves that it holds."""
    one, other = integers.astype(np.float64), floats.astype(np.float64)
    high = (integers >> 32).astype(np.float64) * 2.0**32
    low = (integers & 0xFFFFFFFF).astype(np.float64)
    with np.errstate(all="ignore"):
        distance: NDArray[np.float64] = np.abs(np.where(np.abs(one) < 2.0**53, one - other, high - other + low))
    distance[np.isnan(distance)] = np.inf
    return distance


def _plain(value: complex) -> Any:
    """A number as JSON has it."""
    if isinstance(value, complex):
        return [_plain(value.real), _plain(value.imag)]
    return value if isinstance(value, int) or math.isfinite(value) else str(value)
