"""What is shown of a volume: three slices through one place, as a viewer lays them out, and their differences."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.copying import walk
from volconv.dtypes import volume_compute_dtype
from volconv.io import FORMATS, Region, real_values
from volconv.io.combine import Selected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from volconv.geometry import Geometry
    from volconv.io import OpenVolume, VolumeInfo
    from volconv.params import Triple

#: What a window leaves out at either end, in percent of the voxels shown.
TAILS = 0.5

#: Degrees from which on axes count as oblique.
TILTED = 1.0

#: Formats that keep an orientation.
_ORIENTED = frozenset(form.name for form in FORMATS if form.geometry == "affine")

#: Axis of the world and direction on it, by letter.
_DIRECTIONS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
_ENDS = (("L", "R"), ("P", "A"), ("I", "S"))

#: Axes of the world across, upwards, and cut; the patient's left is on the left, as NiiVue and nilearn have it.
_BODY = (("axial", 0, 1, 2), ("coronal", 0, 2, 1), ("sagittal", 1, 2, 0))

#: Axes x, y, z across, downwards, and cut; as ImageJ's orthogonal views, but for YZ, which is turned to match XZ.
_BARE = (("XY", 0, 1, 2), ("XZ", 0, 2, 1), ("YZ", 1, 2, 0))

#: Bytes held for each voxel of a block that is read for its slices.
_VOXEL_BYTES = 16


@dataclass(frozen=True, slots=True)
class Plane:
    """One slice, as it is shown.

    Parameters
    ----------
    title : str
        "axial", "coronal", "sagittal" where the volume has an orientation, otherwise "XY", "XZ", "YZ".
    axis : int
        Which of D, H, W it cuts: 0, 1 or 2.
    index : int
        Where, in voxels.
    values : array, shape (rows, columns)
        Real values, the first row on top; the modulus of complex ones.
    spacing : pair of floats
        Distance of rows and of columns.
    letters : tuple of 4 str
        What lies to the left, right, top and bottom; "" where there is nothing to say.
    cross : pair of ints
        Row and column of the place that all three slices go through.
    """

    title: str
    axis: int
    index: int
    values: NDArray[np.floating]
    spacing: tuple[float, float]
    letters: tuple[str, str, str, str]
    cross: tuple[int, int]

    @property
    def extent(self) -> tuple[float, float]:
        """Height and width, in the unit of the spacing."""
        rows, columns = self.values.shape
        return rows * self.spacing[0], columns * self.spacing[1]


@dataclass(frozen=True, slots=True)
class Slices:
    """Three slices of one volume through one voxel.

    Parameters
    ----------
    name : str
    shape : 3 ints
        D, H, W of the volume.
    voxel : 3 ints
        Its index along D, H, W.
    geometry : Geometry
    oriented : bool
        Whether directions in a body are known, or axes are merely X, Y and Z.
    planes : tuple of 3 Plane
    notes : tuple of str
        What was assumed, one line each.
    """

    name: str
    shape: Triple
    voxel: Triple
    geometry: Geometry
    oriented: bool
    planes: tuple[Plane, Plane, Plane]
    notes: tuple[str, ...] = ()

    @property
    def value(self) -> float:
        """The real value at the voxel."""
        return float(self.planes[0].values[self.planes[0].cross])

    @property
    def tilt(self) -> float:
        """Degrees by which axes differ from the directions that letters name; 0 where there are none."""
        if not self.oriented:
            return 0.0
        linear = self.geometry.matrix[:3, :3]
        cosines = np.abs(linear).max(axis=0) / np.linalg.norm(linear, axis=0)
        return float(np.degrees(np.arccos(min(1.0, cosines.min()))))

    @property
    def world(self) -> tuple[float, float, float] | None:
        """Where the voxel's centre lies, x, y, z in the geometry's unit; None where the file states none."""
        if self.geometry.unit is None:
            return None
        x, y, z, _ = self.geometry.matrix @ (*self.voxel[::-1], 1)
        return float(x), float(y), float(z)


def slices_of(volume: OpenVolume, voxel: Triple | None = None, *, name: str = "") -> Slices:
    """Three orthogonal slices of a volume's first channel at its first time; nothing else is kept.

    A file that is read only from start to end is read once, in blocks; of any other the three slices alone are read.

    Parameters
    ----------
    volume : OpenVolume
    voxel : 3 ints, optional
        D, H, W; the middle by default.
    name : str
        By default what it was opened by.

    Examples
    --------
    >>> from volconv.io import ArraySource
    >>> shown = slices_of(ArraySource(np.arange(24.0).reshape(1, 1, 2, 3, 4)))
    >>> shown.voxel, shown.value, [plane.title for plane in shown.planes]
    ((1, 1, 2), 18.0, ['XY', 'XZ', 'YZ'])
    """
    shown = name or " + ".join(volume.names) or "volume"
    volume = first_of(volume, shown)
    info = volume.info
    d, h, w = info.shape[2:]
    at = (d // 2, h // 2, w // 2) if voxel is None else voxel
    whole = Region((0, 0, 0, 0, 0), (1, 1, d, h, w))
    cuts = [whole.along(2 + axis, at[axis], at[axis] + 1) for axis in range(3)]
    stored = _in_turn(volume, cuts) if info.access.in_turn else [volume.read(cut) for cut in cuts]
    dtype = np.dtype(np.float64) if info.scaling else volume_compute_dtype(info.dtype, np.dtype(np.float32))
    flat = [
        _plain(real_values(values, info.scaling, dtype)).reshape([n for i, n in enumerate((d, h, w)) if i != axis])
        for axis, values in enumerate(stored)
    ]
    letters = _letters(info)
    notes = list(info.notes)
    if info.dtype.kind == "c":
        notes.append(f"{shown}: voxels are complex, and shown by their modulus")
    one, two, three = (
        _plane(layout, flat, at, info.geometry.spacing, letters) for layout in (_BODY if letters else _BARE)
    )
    return Slices(shown, (d, h, w), at, info.geometry, bool(letters), (one, two, three), tuple(notes))


def first_of(volume: OpenVolume, name: str) -> OpenVolume:
    """The first channel at the first time of a volume, which is what is shown; a note tells of the others."""
    n, c = volume.info.shape[:2]
    if (n, c) == (1, 1):
        return volume
    chosen = Selected(volume, 0, 0, name)
    many = [f"{count} {what}" for count, what in ((n, "volumes in time"), (c, "channels")) if count > 1]
    note = f"{name}: has {' and '.join(many)}; of each the first is shown (--time and --channel pick others)"
    chosen.info = replace(chosen.info, notes=(*chosen.info.notes, note))
    return chosen


def window_of(shown: Sequence[Slices]) -> tuple[float, float]:
    """Black and white for all of these: percentiles of the finite voxels shown, or their ends where these are one.

    Examples
    --------
    >>> from volconv.io import ArraySource
    >>> window_of([slices_of(ArraySource(np.full((1, 1, 2, 2, 2), 7.0)))])
    (6.5, 7.5)
    """
    values = np.concatenate([plane.values.ravel() for one in shown for plane in one.planes])
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, (TAILS, 100 - TAILS)))
    if not low < high:
        low, high = float(values.min()), float(values.max())
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def difference_of(a: Slices, b: Slices) -> Slices:
    """Slices of ``b - a``, of two volumes on one grid; NaN where both are NaN or the same infinity is 0."""
    planes = []
    for one, other in zip(a.planes, b.planes, strict=True):
        here, there = one.values.astype(np.float64), other.values.astype(np.float64)
        with np.errstate(invalid="ignore"):
            values = there - here
        values[here == there] = 0  # infinities
        planes.append(Plane(other.title, other.axis, other.index, values, other.spacing, other.letters, other.cross))
    first, second, third = planes
    return Slices(f"{b.name} - {a.name}", b.shape, b.voxel, b.geometry, b.oriented, (first, second, third))


def largest_of(difference: Slices) -> float:
    """The largest absolute finite value in the slices; 0 where there is none."""
    finite = [np.abs(plane.values[np.isfinite(plane.values)]) for plane in difference.planes]
    return float(max((values.max() for values in finite if values.size), default=0.0))


def _in_turn(volume: OpenVolume, cuts: list[Region]) -> list[NDArray[np.generic]]:
    """Slices of a stream, gathered on one way through it."""
    kept = [np.empty(cut.shape, volume.info.dtype) for cut in cuts]
    for block in walk([volume], [], _VOXEL_BYTES).regions:
        values = None
        for cut, target in zip(cuts, kept, strict=True):
            part = _common(block, cut)
            if part is not None:
                values = volume.read(block) if values is None else values
                target[part.within(cut).slices] = values[part.within(block).slices]
    return kept


def _common(one: Region, other: Region) -> Region | None:
    n, c, d, h, w = (
        (max(ends[:2]), min(ends[2:])) for ends in zip(one.start, other.start, one.stop, other.stop, strict=True)
    )
    if any(a >= b for a, b in (n, c, d, h, w)):
        return None
    return Region((n[0], c[0], d[0], h[0], w[0]), (n[1], c[1], d[1], h[1], w[1]))


def _plain(values: NDArray[Any]) -> NDArray[np.floating]:
    return np.abs(values) if values.dtype.kind == "c" else values


def _letters(info: VolumeInfo) -> str:
    """Where x, y, z run to, such as RAS; nothing where that is not known."""
    geometry = info.geometry
    if geometry.unit is None or info.format not in _ORIENTED:
        return ""
    if info.format == "hdf5" and geometry.is_axis_aligned and not any(geometry.origin):
        return ""  # a spacing and nothing else
    from volconv.io.orientation import orientation

    letters = orientation(geometry)
    return "" if "?" in letters else letters


def _plane(
    layout: tuple[str, int, int, int],
    flat: Sequence[NDArray[np.floating]],
    at: Triple,
    spacing: tuple[float, float, float],
    letters: str,
) -> Plane:
    """Turn a slice as it is shown; ``layout`` names the axes across, along the columns, and cut."""
    title, *axes = layout
    if letters:
        towards = [_DIRECTIONS[letter] for letter in letters]
        held = {world: voxel for voxel, (world, _) in enumerate(towards)}
        across, upwards, cut = (held[world] for world in axes)
        mirrored, turned = towards[across][1] < 0, towards[upwards][1] > 0
        ends = (*_ENDS[axes[0]], *_ENDS[axes[1]][::-1])
    else:
        across, upwards, cut = axes
        mirrored = turned = False
        ends = ("", "XYZ"[across], "", "XYZ"[upwards])
    row, column, axis = 2 - upwards, 2 - across, 2 - cut  # x, y, z as W, H, D
    values = flat[axis] if row < column else flat[axis].T
    cross = [at[row], at[column]]
    if turned:
        values, cross[0] = values[::-1], values.shape[0] - 1 - cross[0]
    if mirrored:
        values, cross[1] = values[:, ::-1], values.shape[1] - 1 - cross[1]
    return Plane(title, axis, at[axis], values, (spacing[row], spacing[column]), ends, (cross[0], cross[1]))
