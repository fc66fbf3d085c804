"""What a TIFF file says of the distance between its voxels."""

from __future__ import annotations

import math
from typing import Any
from xml.etree.ElementTree import ParseError

import tifffile

from volconv.geometry import MILLIMETRES, Geometry
from volconv.io.units import normal_unit

#: Resolutions that programs write without knowing any: dots per inch of screens, and one.
_DEFAULT_RESOLUTIONS = (1.0, 72.0, 96.0)

_NOTHING: tuple[Geometry, tuple[str, ...]] = (Geometry(), ())


def stated_geometry(tiff: Any, name: str) -> tuple[Geometry, tuple[str, ...]]:
    """Geometry from OME's or ImageJ's metadata or from tifffile's own, and notes.

    Without all three of X, Y and Z the spacing counts as unknown: ``unit`` is None.

    Parameters
    ----------
    tiff : tifffile.TiffFile
    name : str
        The file's name, for notes.
    """
    if tiff.is_ome and tiff.ome_metadata:
        return _ome(tiff.ome_metadata, name)
    known: dict[str, Any] = {}
    if tiff.is_imagej:
        known = tiff.imagej_metadata or {}
    elif tiff.is_shaped:
        known = (tiff.shaped_metadata or ({},))[0]
    unit = normal_unit(str(known.get("unit", "")))
    if unit is not None:
        if any(known.get(other, known["unit"]) != known["unit"] for other in ("yunit", "zunit")):
            return Geometry(), (f"{name} states different units along its axes, so its spacing is left aside",)
        return _complete(known.get("spacing"), _pixel(tiff, "YResolution"), _pixel(tiff, "XResolution"), unit, name)
    # Without metadata a resolution in dots per inch or cm may be real, but says nothing of Z.
    if _resolution_unit(tiff) in (2, 3) and _is_measured(tiff):
        return _complete(None, _pixel(tiff, "YResolution"), _pixel(tiff, "XResolution"), ("mm", 1.0), name)
    return _NOTHING


def _complete(z: Any, y: Any, x: Any, unit: tuple[str, float], name: str) -> tuple[Geometry, tuple[str, ...]]:
    sizes = [_positive(value) for value in (z, y, x)]
    d, h, w = (size * unit[1] if size is not None else None for size in sizes)
    if d is not None and h is not None and w is not None:
        return Geometry.from_spacing((d, h, w), unit[0]), ()
    if d is None and h is None and w is None:
        return _NOTHING
    missing = ", ".join(axis for axis, size in zip("ZYX", (d, h, w), strict=True) if size is None)
    return Geometry(), (f"{name} states no spacing along {missing}, so its spacing counts as unknown",)


def _ome(text: str, name: str) -> tuple[Geometry, tuple[str, ...]]:
    try:
        image = tifffile.xml2dict(text)["OME"]["Image"]
        pixels = (image[0] if isinstance(image, list) else image)["Pixels"]
    except (KeyError, IndexError, TypeError, ValueError, ParseError):
        return Geometry(), (f"{name}: its OME metadata cannot be read",)
    first = normal_unit(str(pixels.get("PhysicalSizeXUnit", "um")))  # OME's default is the micrometre
    if first is None:
        return _NOTHING
    z, y, x = (_ome_size(pixels, axis, first) for axis in "ZYX")
    return _complete(z, y, x, first, name)


def _ome_size(pixels: dict[str, Any], axis: str, first: tuple[str, float]) -> float | None:
    """Size along an axis in the unit of X."""
    size = _positive(pixels.get(f"PhysicalSize{axis}"))
    unit = normal_unit(str(pixels.get(f"PhysicalSize{axis}Unit", "um")))
    if size is None or unit is None or unit == first:
        return size if unit is not None else None
    return size * (unit[1] * MILLIMETRES[unit[0]]) / (first[1] * MILLIMETRES[first[0]])


def _pixel(tiff: Any, tag: str) -> float | None:
    """Size of a pixel from the pixels a unit of a resolution tag."""
    found = tiff.pages[0].tags.get(tag)
    if found is None:
        return None
    try:
        pixels, units = found.value
        return float(units) / float(pixels)
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def _resolution_unit(tiff: Any) -> int:
    found = tiff.pages[0].tags.get("ResolutionUnit")
    return int(found.value) if found is not None else 1


def _is_measured(tiff: Any) -> bool:
    size = _pixel(tiff, "XResolution")
    return size is not None and size > 0 and not any(math.isclose(1 / size, d) for d in _DEFAULT_RESOLUTIONS)


def _positive(value: Any) -> float | None:
    if isinstance(value, int | float) and math.isfinite(value) and value > 0:
        return float(value)
    return None
