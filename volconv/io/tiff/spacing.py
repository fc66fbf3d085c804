"""What a TIFF file says of the distance between its voxels, and of the time between its volumes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree.ElementTree import ParseError

import numpy as np
import tifffile

from volconv.geometry import MILLIMETRES, Geometry
from volconv.io.axes import AXIS
from volconv.io.units import normal_unit

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Resolutions that programs write without knowing any: dots per inch of screens, and one.
_DEFAULT_RESOLUTIONS = (1.0, 72.0, 96.0)

#: Units of length by ResolutionUnit.
_UNITS = {2: "inch", 3: "cm"}

#: Seconds of units of time as OME and ImageJ spell them; their case counts, as in ms and Ms.
_SECONDS = {
    "d": 86400.0,
    "h": 3600.0,
    "hour": 3600.0,
    "min": 60.0,
    "minute": 60.0,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "seconds": 1.0,
    "ms": 1e-3,
    "msec": 1e-3,
    "\u00b5s": 1e-6,  # micro sign
    "\u03bcs": 1e-6,  # Greek mu
    "us": 1e-6,
    "ns": 1e-9,
}

#: Share by which distances between planes may differ and count as even.
_EVEN = 1e-3


class Stated(NamedTuple):
    """What a file states; ``geometry.unit`` and ``time_step`` (seconds) are None where it does not.

    Without all three of X, Y and Z the spacing counts as unknown, and ``notes`` tell; ``plane`` is what is known then
    of one slice: Y, X, unit.
    """

    geometry: Geometry
    time_step: float | None = None
    notes: tuple[str, ...] = ()
    plane: tuple[float, float, str] | None = None

    def of_one_slice(self, name: str) -> Stated:
        """The same for a stack of one slice, where the spacing along Z does not matter."""
        if self.plane is None:
            return self
        h, w, unit = self.plane
        note = f"{name} states no spacing along Z, of which it has one slice: taken as 1 {unit}"
        return Stated(Geometry.from_spacing((1.0, h, w), unit), self.time_step, (note,))


def what_is_stated(tiff: Any, number: int, name: str) -> Stated:
    """Spacing and time step by the metadata of OME, ImageJ, tifffile, MetaMorph or Zeiss, or by tags alone.

    Parameters
    ----------
    tiff : tifffile.TiffFile
    number : int
        Of the series.
    name : str
        The file's name, for notes.
    """
    series = tiff.series[number]
    if tiff.is_ome and tiff.ome_metadata:
        return _ome(tiff, number, name)
    if tiff.is_imagej:
        return _tagged(series, tiff.imagej_metadata or {}, name)
    if tiff.is_shaped:
        known = tiff.shaped_metadata or ()
        return _tagged(series, known[number] if len(known) == len(tiff.series) else {}, name)
    if tiff.is_stk:
        return _metamorph(tiff.stk_metadata or {}, name)
    if tiff.is_lsm:
        return _zeiss(tiff.lsm_metadata or {}, name)
    return _tagged(series, {}, name)


def moved(geometry: Geometry, own: str, axes: str | None) -> Geometry:
    """Spacing of axes that a person has named otherwise than the file: the axis keeps its spacing.

    Parameters
    ----------
    geometry : Geometry
        By the file's own names of its axes.
    own : str
    axes : str or None
        Names for the same axes, None where the file's own count.

    Examples
    --------
    >>> moved(Geometry.from_spacing((3, 2, 1), "um"), "ZYX", "XYZ").spacing
    (1.0, 2.0, 3.0)
    """
    if axes is None or geometry.unit is None:
        return geometry
    sizes = dict(zip("ZYX", geometry.spacing, strict=True))
    named = {AXIS[new]: sizes[old] for old, new in zip(own, axes.upper(), strict=True) if old in sizes}
    d, h, w = (named.get(AXIS[axis], size) for axis, size in sizes.items())
    return Geometry.from_spacing((d, h, w), geometry.unit)


def _tagged(series: Any, known: Mapping[str, Any], name: str) -> Stated:
    """ImageJ's and tifffile's words, and the resolution tags."""
    step = _seconds(known.get("finterval"), known.get("tunit", "s"))
    unit, spacing = known.get("unit"), known.get("spacing")
    if isinstance(spacing, list) and len(spacing) == 3:
        return _complete(dict(zip("ZYX", ((size, unit) for size in spacing), strict=True)), name, step)
    tags = series.keyframe.tags
    y, x, of_tags = _pixel(tags, "YResolution"), _pixel(tags, "XResolution"), _UNITS.get(_tag(tags, "ResolutionUnit"))
    if x is None or any(math.isclose(1 / x, default) for default in _DEFAULT_RESOLUTIONS):
        of_tags = None
    if not str(series.axes).replace("S", "").endswith("YX"):
        y = x = None  # the tags are of a page's height and width, which are other axes here
    if normal_unit(str(unit)) is None:
        if of_tags is None and isinstance(spacing, int | float) and {abs(spacing), x, y} != {1.0}:
            note = f"{name} states a spacing without a unit of length, so it counts as unknown (--spacing says it)"
            return Stated(Geometry(), step, (note,))
        # A resolution in dots per inch or cm may be real, but says nothing of Z.
        return _complete({"Z": (None, of_tags), "Y": (y, of_tags), "X": (x, of_tags)}, name, step)
    z = abs(spacing) if isinstance(spacing, int | float) else None
    sizes = {"Z": (z, known.get("zunit", unit)), "Y": (y, known.get("yunit", unit)), "X": (x, unit)}
    if of_tags == "cm":  # as ImageJ reads it; inches are what tifffile writes where none were asked for
        sizes.update(Y=(y, of_tags), X=(x, of_tags))
    return _complete(sizes, name, step, unit=str(unit))


def _ome(tiff: Any, number: int, name: str) -> Stated:
    try:
        found = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]
        images = found if isinstance(found, list) else [found]
        if len(images) != len(tiff.series):  # tifffile leaves out those without pages
            images = [image for image in images if image.get("Name") == tiff.series[number].name]
            number = 0
            if len(images) != 1:
                return Stated(Geometry(), None, (f"{name}: its OME metadata does not say which series is which",))
        pixels = images[number]["Pixels"]
        # OME's default units are the micrometre and the second.
        sizes = {
            axis: (pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "um")) for axis in "ZYX"
        }
        step = _seconds(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s"))
    except (AttributeError, LookupError, TypeError, ValueError, ParseError):
        return Stated(Geometry(), None, (f"{name}: its OME metadata cannot be read",))
    return _complete(sizes, name, step)


def _metamorph(known: Mapping[str, Any], name: str) -> Stated:
    """Of STK: distances are in the calibration's unit, and of one plane each."""
    if not known.get("SpatialCalibration", 1):
        return Stated(Geometry())
    unit = str(known.get("CalibrationUnits", ""))
    between = np.asarray(known.get("ZDistance", ())).ravel()
    even = between.size > 0 and bool(np.allclose(between, between[0], rtol=_EVEN, atol=0))
    sizes = {
        "Z": (float(between[0]) if even else None, unit),
        "Y": (known.get("YCalibration"), unit),
        "X": (known.get("XCalibration"), unit),
    }
    return _complete(sizes, name, None) if normal_unit(unit) else Stated(Geometry())


def _zeiss(known: Mapping[str, Any], name: str) -> Stated:
    """Of LSM: metres and seconds."""
    sizes = {axis: (_scaled(known.get(f"VoxelSize{axis}"), 1e6), "um") for axis in "ZYX"}
    return _complete(sizes, name, _seconds(known.get("TimeIntervall"), "s"))


def _complete(
    sizes: Mapping[str, tuple[Any, Any]], name: str, step: float | None, *, unit: str | None = None
) -> Stated:
    """Geometry from sizes along Z, Y, X with their units, in the unit of X where no other is asked for."""
    first = normal_unit(str(unit or sizes["X"][1]))
    if first is None:
        return Stated(Geometry(), step)
    found = {axis: _size_in(first[0], *sizes[axis]) for axis in "ZYX"}
    d, h, w = found.values()
    if d is not None and h is not None and w is not None:
        return Stated(Geometry.from_spacing((d, h, w), first[0]), step)
    if d is None and h is None and w is None:
        return Stated(Geometry(), step)
    missing = ", ".join(axis for axis, size in found.items() if size is None)
    known = ", ".join(f"{axis} {size:.6g} {first[0]}" for axis, size in found.items() if size is not None)
    note = f"{name} states no spacing along {missing} (only {known}), so its spacing counts as unknown"
    return Stated(Geometry(), step, (note,), (h, w, first[0]) if h is not None and w is not None else None)


def _size_in(unit: str, value: Any, stated: Any) -> float | None:
    size, known = _positive(value), normal_unit(str(stated))
    if size is None or known is None:
        return None
    size *= known[1]
    return size if known[0] == unit else size * (MILLIMETRES[known[0]] / MILLIMETRES[unit])


def _seconds(value: Any, unit: Any) -> float | None:
    return _scaled(value, _SECONDS.get(str(unit).strip(), 0.0))


def _scaled(value: Any, factor: float) -> float | None:
    number = _positive(value)
    return _positive(number * factor) if number is not None else None


def _pixel(tags: Any, tag: str) -> float | None:
    """Size of a pixel from the pixels a unit of a resolution tag."""
    try:
        pixels, units = _tag(tags, tag)
        return _positive(float(units) / float(pixels))
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def _tag(tags: Any, tag: str) -> Any:
    found = tags.get(tag)
    return found.value if found is not None else None


def _positive(value: Any) -> float | None:
    if isinstance(value, int | float) and math.isfinite(value) and value > 0:
        return float(value)
    return None
