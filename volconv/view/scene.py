"""What a picture shows, gathered before anything is drawn: slices, one window for all, a difference, facts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.errors import ParameterError
from volconv.view.place import comparable, parse_at, places
from volconv.view.slices import difference_of, largest_of, slices_of, window_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volconv.io import OpenVolume
    from volconv.view.slices import Slices

#: Of the keys of :meth:`Scene.as_dict`, and of their meaning.
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Scene:
    """All that a picture shows.

    Parameters
    ----------
    volumes : tuple of Slices
    window : pair of floats
        What is black and what is white, the same for all volumes.
    difference : Slices or None
        Second minus first, of two volumes on one grid.
    largest : float or None
        Largest absolute difference in the slices.
    notes : tuple of str
        What was assumed or left out, one line each.
    """

    volumes: tuple[Slices, ...]
    window: tuple[float, float]
    difference: Slices | None
    largest: float | None
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; numbers that are not finite are words."""
        return {
            "schema_version": SCHEMA_VERSION,
            "window": self.window,
            "volumes": [_told(one) for one in self.volumes],
            "difference": None
            if self.difference is None
            else {"value": _number(self.difference.value), "largest_in_slices": self.largest},
            "notes": self.notes,
        }


def gather(volumes: Sequence[OpenVolume], *, at: str | None = None, window: tuple[float, float] | None = None) -> Scene:
    """Read the slices of volumes through one place, and decide how they are shown.

    Parameters
    ----------
    volumes : sequence of OpenVolume
        At least one; each at its first time and channel.
    at : str, optional
        ``x,y,z`` as a voxel of the first volume, or with a unit as a place in the world; its middle by default.
    window : pair of numbers, optional
        What is black and what is white; by default percentiles 0.5 and 99.5 of all voxels shown.

    Raises
    ------
    ParameterError, ShapeError
        The place or the window makes no sense, or lies outside a volume.

    Examples
    --------
    >>> from volconv.io import ArraySource
    >>> ramp = np.arange(24.0).reshape(1, 1, 2, 3, 4)
    >>> scene = gather([ArraySource(ramp), ArraySource(ramp * 2)], at="3,0,1", window=(0, 10))
    >>> scene.volumes[0].value, scene.difference.value, scene.largest
    (15.0, 15.0, 23.0)
    """
    if window is not None and not (all(map(math.isfinite, window)) and window[0] < window[1]):
        raise ParameterError(f"window must be lo,hi, two numbers that grow (got {window[0]:g},{window[1]:g})")
    names = [" + ".join(volume.names) or "volume" for volume in volumes]
    infos = [volume.info for volume in volumes]
    place = None if at is None else parse_at(at)
    shown = [
        slices_of(volume, voxel, name=name)
        for volume, voxel, name in zip(volumes, places(infos, names, place), names, strict=True)
    ]
    notes = [note for one in shown for note in one.notes]
    difference = None
    if len(shown) == 2:
        if comparable(*infos):
            difference = difference_of(*shown)
        else:
            notes.append("no difference is shown: the two volumes do not lie on one grid")
    return Scene(
        volumes=tuple(shown),
        window=window_of(shown) if window is None else (float(window[0]), float(window[1])),
        difference=difference,
        largest=None if difference is None else largest_of(difference),
        notes=tuple(dict.fromkeys(notes)),
    )


def place_in_words(one: Slices) -> str:
    """Where the slices meet: ``voxel 98,116,94 (x,y,z), which is 0,-18,22 mm``."""
    voxel = f"voxel {','.join(str(index) for index in one.voxel[::-1])} (x,y,z)"
    if one.world is None:
        return voxel
    there = ",".join(f"{v:.4g}" for v in np.round(one.world, 6) + 0.0)
    return f"{voxel}, which is {there} {unit_in_words(one.geometry.unit)}"


def size_in_words(one: Slices) -> tuple[str, str]:
    """Size and spacing along x, y, z: ``197 × 233 × 189`` and ``1 × 1 × 1 mm``."""
    size = " × ".join(str(count) for count in one.shape[::-1])
    if one.geometry.unit is None:
        return size, "no spacing stated"
    return size, f"{' × '.join(f'{v:.3g}' for v in one.geometry.spacing[::-1])} {unit_in_words(one.geometry.unit)}"


def unit_in_words(unit: str | None) -> str:
    """A unit as it is printed; nothing for none."""
    return "µm" if unit == "um" else unit or ""


def basename(name: str) -> str:
    """A name without its folders."""
    return name.rstrip("/").rpartition("/")[2]


def _told(one: Slices) -> dict[str, Any]:
    return {
        "name": one.name,
        "shape": one.shape,
        "spacing": one.geometry.spacing if one.geometry.unit else None,
        "unit": one.geometry.unit,
        "voxel": one.voxel,
        "world": one.world,
        "value": _number(one.value),
        "planes": [
            {"title": plane.title, "axis": "DHW"[plane.axis], "index": plane.index, "letters": plane.letters}
            for plane in one.planes
        ],
    }


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
