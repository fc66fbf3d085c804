"""Where slices are taken: a voxel, or a place in the world that is found in every volume."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from volconv.errors import ParameterError, ShapeError
from volconv.geometry import MILLIMETRES, grids_agree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volconv.geometry import Geometry
    from volconv.io import VolumeInfo
    from volconv.params import Triple

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_AT = re.compile(rf"\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*(mm|um|\u00b5m|\u03bcm|nm|m)?\s*")


class At(NamedTuple):
    """A place x, y, z: a voxel where ``unit`` is None, and otherwise in the world, by the affine."""

    xyz: tuple[float, float, float]
    unit: str | None


def parse_at(text: str) -> At:
    """A place as it is written: ``x,y,z`` as a voxel from 0, or with a unit behind it as a point of the world.

    Raises
    ------
    ParameterError

    Examples
    --------
    >>> parse_at("98,134,72"), parse_at("-3,0,9.5mm")
    (At(xyz=(98.0, 134.0, 72.0), unit=None), At(xyz=(-3.0, 0.0, 9.5), unit='mm'))
    """
    found = _AT.fullmatch(text) if isinstance(text, str) else None
    xyz = (float(found[1]), float(found[2]), float(found[3])) if found else None
    if found is None or xyz is None or not all(map(math.isfinite, xyz)):
        raise ParameterError(
            f"at must be x,y,z, three numbers with commas between, as a voxel or with a unit "
            f"({', '.join(MILLIMETRES)}) at its end (got {text!r})",
            hint="as in 98,134,72 or -3,0,9.5mm",
        )
    unit = "um" if found[4] in ("\u00b5m", "\u03bcm") else found[4]
    if unit is None and not all(value >= 0 and value.is_integer() for value in xyz):
        raise ParameterError(
            f"at must count whole voxels from 0 (got {text!r})", hint="or give a place with its unit: -3,0,9.5mm"
        )
    return At(xyz, unit)


def places(infos: Sequence[VolumeInfo], names: Sequence[str], at: At | None = None) -> list[Triple]:
    """The voxel (D, H, W) of each volume that lies at one place.

    Voxels are counted in the first volume, and the middle is its middle. In the others it is the voxel at the same
    place in the world; where one of the two states no unit, the voxel of the same index, or its own middle.

    Raises
    ------
    ParameterError
        A place in the world is asked for, and the first volume states no unit.
    ShapeError
        It lies outside one of the volumes.
    """
    first = infos[0]
    if at is None:
        d, h, w = (size // 2 for size in first.shape[2:])
        found = [(d, h, w)]
    elif at.unit is None:
        found = [_within(first, names[0], at.xyz, at)]
    else:
        if first.geometry.unit is None:
            raise ParameterError(
                f"at in {at.unit} needs a spacing, and {names[0]} states none",
                hint="state it (--spacing 1,0.5,0.5um), or count voxels",
            )
        found = [_within(first, names[0], _indices(first.geometry, at.xyz, at.unit), at)]
    for info, name in zip(infos[1:], names[1:], strict=True):
        index: tuple[float, ...] = found[0][::-1]
        in_one_world = first.geometry.unit is not None and info.geometry.unit is not None
        if at is None and not in_one_world:
            index = tuple(float(size // 2) for size in info.shape[:1:-1])
        elif in_one_world and not _same_grid(first, info):
            x, y, z, _ = (float(v) for v in first.geometry.matrix @ (*index, 1))
            index = _indices(info.geometry, (x, y, z), first.geometry.unit or "mm")
        found.append(_within(info, name, index, at))
    return found


def comparable(a: VolumeInfo, b: VolumeInfo) -> bool:
    """Whether two volumes lie on one grid; where one states no unit, whether sizes agree."""
    return a.shape[2:] == b.shape[2:] and (
        a.geometry.unit is None or b.geometry.unit is None or grids_agree(a.geometry, b.geometry, a.shape[2:])
    )


def _same_grid(a: VolumeInfo, b: VolumeInfo) -> bool:
    return a.shape[2:] == b.shape[2:] and grids_agree(a.geometry, b.geometry, a.shape[2:])


def _indices(geometry: Geometry, xyz: tuple[float, float, float], unit: str) -> tuple[float, ...]:
    """Where a point of the world lies between a volume's voxels, x, y, z."""
    factor = MILLIMETRES[unit] / MILLIMETRES[geometry.unit or unit]
    try:
        inverse = np.linalg.inv(geometry.matrix)
    except np.linalg.LinAlgError:
        raise ShapeError(f"at in {unit} needs an affine that is not flat (got {geometry.in_words()})") from None
    return tuple(float(v) for v in (inverse @ (*(value * factor for value in xyz), 1))[:3])


def _within(info: VolumeInfo, name: str, index: tuple[float, ...], at: At | None) -> Triple:
    """The nearest voxel (D, H, W) to an index x, y, z."""
    x, y, z = (math.floor(value + 0.5) for value in index)
    d, h, w = info.shape[2:]
    if not (0 <= x < w and 0 <= y < h and 0 <= z < d):
        asked = "the first volume's middle" if at is None else ",".join(f"{v:g}" for v in at.xyz) + (at.unit or "")
        raise ShapeError(
            f"at must lie within {name}, whose voxels x,y,z go from 0,0,0 to {w - 1},{h - 1},{d - 1} "
            f"(got {asked}, which is voxel {x},{y},{z} of it)",
            hint="give a place that all have (--at x,y,z)" if at is None else None,
        )
    return z, y, x
