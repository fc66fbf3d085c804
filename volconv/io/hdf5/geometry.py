"""Where the voxels of an HDF5 dataset lie, and how far its volumes are apart in time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from volconv.errors import ReadError
from volconv.geometry import GRID_TOLERANCE, MILLIMETRES, Geometry
from volconv.io.hdf5.attributes import as_text, attribute
from volconv.io.hdf5.bdv import bdv_geometry, bdv_view
from volconv.io.hdf5.find import H5_ERRORS, name_of, one_line, parts_inside
from volconv.io.units import normal_unit

if TYPE_CHECKING:
    from pathlib import Path

    from volconv.io.hdf5.axes import Axes

#: Seconds of what files spell.
_SECONDS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("us", "\u00b5s", "\u03bcs", "microsecond", "microseconds"), 1e-6),  # micro sign, Greek mu
    **dict.fromkeys(("min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
}

_SPACE = "ZYX"


class _Scale(NamedTuple):
    """A dimension scale: coordinate of index 0, distance from one to the next (0 where uneven), and unit."""

    first: float
    step: float
    unit: str


class _Found(NamedTuple):
    geometry: Geometry | None = None
    note: str | None = None


def stated_places(
    file: Any, data: Any, axes: Axes, path: Path, name: str
) -> tuple[Geometry, float | None, tuple[str, ...]]:
    """Geometry and time step (seconds) that a dataset states, and notes on what was left aside.

    The first of these that is there counts: volconv's ``affine``, ``element_size_um`` (D, H, W) of PlantSeg and
    ImageJ, resolutions of ilastik's axistags, dimension scales, BigDataViewer's XML.

    Raises
    ------
    ReadError
        An affine that is none.
    """
    scales, notes = _scales(file, data, axes, name)
    geometry = Geometry()
    for found in (
        _affine(data, name),
        _element_size(data, name),
        _tagged(axes, name),
        _scaled(scales, name),
        _bdv(file, data, path, name),
    ):
        notes += (found.note,) if found.note else ()
        if found.geometry is not None:
            geometry = found.geometry
            break
    step, more = _time_step(data, axes, scales, name)
    return geometry, step, notes + more


def _affine(data: Any, name: str) -> _Found:
    stated = attribute(data, "affine", name)
    if stated is None:
        return _Found()
    try:
        matrix = np.asarray(stated, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise ReadError(f"{name}: its attribute affine must be a finite 4x4 matrix: {one_line(error)}") from error
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.abs(matrix[:3, :3]).max(axis=0).all():
        raise ReadError(
            f"{name}: its attribute affine must be a finite 4x4 matrix without empty columns (got shape {matrix.shape})"
        )
    unit = normal_unit(as_text(attribute(data, "unit", name)) or "")
    if unit is None:
        return _Found(Geometry.from_matrix(matrix, None), f"{name} has an affine without a known unit")
    matrix = matrix.copy()
    matrix[:3] *= unit[1]
    return _Found(Geometry.from_matrix(matrix, unit[0]))


def _element_size(data: Any, name: str) -> _Found:
    stated = attribute(data, "element_size_um", name)
    if stated is None:
        return _Found()
    try:
        size = np.asarray(stated, dtype=np.float64)
    except (ValueError, TypeError):
        size = np.zeros(0)
    if size.shape != (3,) or not np.isfinite(size).all() or not (size > 0).all():
        return _Found(None, f"{name}: its element_size_um is not three positive numbers, and is left aside")
    return _Found(Geometry.from_spacing((float(size[0]), float(size[1]), float(size[2])), "um"))


def _tagged(axes: Axes, name: str) -> _Found:
    known = {tag.letter: _Scale(0.0, tag.resolution, tag.unit) for tag in axes.tags if tag.resolution}
    return _complete(known, name, "axistags")


def _scaled(scales: dict[str, _Scale], name: str) -> _Found:
    uneven = [letter for letter in _SPACE if letter in scales and not scales[letter].step]
    if uneven:
        return _Found(None, f"{name}: its dimension scale of {uneven[0]} is not evenly spaced, and is left aside")
    return _complete(scales, name, "dimension scales")


def _complete(known: dict[str, _Scale], name: str, what: str) -> _Found:
    """Geometry of what is known along each axis; a spacing along some of them only counts as unknown."""
    space = {letter: scale for letter, scale in known.items() if letter in _SPACE}
    if not space:
        return _Found()
    missing = [letter for letter in _SPACE if letter not in space]
    if missing:
        return _Found(None, f"{name}: its {what} state no spacing along {', '.join(missing)}, so it counts as unknown")
    units = {letter: normal_unit(scale.unit) for letter, scale in space.items()}
    unknown = [letter for letter in _SPACE if units[letter] is None]
    if unknown:
        told = repr(space[unknown[0]].unit) if space[unknown[0]].unit else "none"
        return _Found(None, f"{name}: its {what} have no unit of length ({told} for {unknown[0]}), and are left aside")
    first = units["Z"]
    lengths = {letter: _in_unit(unit, first) for letter, unit in units.items()}
    z, y, x = (space[letter].step * lengths[letter] for letter in _SPACE)
    d, h, w = (space[letter].first * lengths[letter] for letter in _SPACE)
    return _Found(Geometry.from_spacing((z, y, x), first[0] if first else None, (d, h, w)))


def _in_unit(unit: tuple[str, float] | None, first: tuple[str, float] | None) -> float:
    """Length of a file's unit in that of the first axis."""
    if unit is None or first is None:
        return 1.0
    return unit[1] if unit[0] == first[0] else unit[1] * MILLIMETRES[unit[0]] / MILLIMETRES[first[0]]


def _bdv(file: Any, data: Any, path: Path, name: str) -> _Found:
    view = bdv_view(name_of(data))
    return _Found(*bdv_geometry(file, view, path, name)) if view is not None else _Found()


def _scales(file: Any, data: Any, axes: Axes, name: str) -> tuple[dict[str, _Scale], tuple[str, ...]]:
    """Dimension scales by the letters of their axes."""
    found = {}
    try:
        for axis, (letter, size) in enumerate(zip(axes.letters, data.shape, strict=True)):
            if len(data.dims[axis]):
                scale = _scale(file, data.dims[axis][0], size, name)
                if scale is not None:
                    found[letter] = scale
    except (*H5_ERRORS, ReadError) as error:
        return {}, (f"{name}: its dimension scales cannot be read ({one_line(error)}), and are left aside",)
    return found, ()


def _scale(file: Any, data: Any, size: int, name: str) -> _Scale | None:
    """One scale; None where it holds no coordinates, as of netCDF's dimensions without a variable, or only one."""
    if data.shape != (size,) or size < 2 or data.dtype.kind not in "iuf":
        return None
    parts_inside(file, data, name_of(data))
    values = np.asarray(data[()], dtype=np.float64)
    if not values.any():
        return None
    unit = attribute(data, "units", name)
    unit = as_text(unit if unit is not None else attribute(data, "unit", name)) or ""
    step = float(values[-1] - values[0]) / (size - 1)
    even = values[0] + step * np.arange(size)
    if not np.isfinite(values).all() or np.abs(values - even).max() > GRID_TOLERANCE * abs(step):
        step = 0.0
    return _Scale(float(values[0]), step, unit)


def _time_step(data: Any, axes: Axes, scales: dict[str, _Scale], name: str) -> tuple[float | None, tuple[str, ...]]:
    notes: tuple[str, ...] = ()
    stated = attribute(data, "time_step", name)
    if stated is not None:
        try:
            step = float(np.asarray(stated, dtype=np.float64).reshape(()))
        except (ValueError, TypeError):
            step = 0.0
        if math.isfinite(step) and step > 0:
            return step, ()
        notes = (f"{name}: its time_step is not a positive number of seconds, and is left aside",)
    tagged = {tag.letter: (tag.resolution, tag.unit) for tag in axes.tags}
    scaled = {letter: (scale.step, scale.unit) for letter, scale in scales.items()}
    for step, unit in (tagged.get("T", (0.0, "")), scaled.get("T", (0.0, ""))):
        seconds = _SECONDS.get(unit.strip().lower())
        if seconds is not None and step > 0:
            return step * seconds, notes
    return None, notes
