"""What a path and an XML file of BigDataViewer say of a dataset.

Its layout is ``/t00000/s00/0/cells``: time point, setup and level of a pyramid, each level a dataset (Z, Y, X); factors
by which the levels are smaller are in ``/s00/resolutions``, one row (x, y, z) a level.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

import h5py
import numpy as np

from volconv.errors import ReadError
from volconv.geometry import Geometry
from volconv.io.formats import stem_and_ext
from volconv.io.hdf5.find import H5_ERRORS, followed
from volconv.io.units import normal_unit

if TYPE_CHECKING:
    from pathlib import Path

_CELLS = re.compile(r"/t\d{5,}/s(\d{2,})/(\d+)/cells")

#: An XML of thousands of views takes some megabytes.
_XML_BYTES = 64 << 20

_LEVELS = 64


class View(NamedTuple):
    """Setup and level of a dataset, and the path of its setup's factors."""

    setup: int
    level: int
    factors: str


def bdv_view(key: str) -> View | None:
    """Setup and level that a dataset's path names; None where it is not BigDataViewer's.

    Examples
    --------
    >>> bdv_view("/t00012/s03/1/cells")
    View(setup=3, level=1, factors='/s03/resolutions')
    """
    match = _CELLS.fullmatch(key)
    return View(int(match[1]), int(match[2]), f"/s{match[1]}/resolutions") if match else None


def bdv_geometry(file: Any, view: View, path: Path, name: str) -> tuple[Geometry | None, str | None]:
    """Geometry of a level by the XML of the same name beside the file, or a note on why there is none."""
    xml = path.with_name(f"{stem_and_ext(path)[0]}.xml")
    if not xml.is_file():
        return None, None
    try:
        spacing, text = _voxel_size(xml, view.setup)
        unit = normal_unit(text)
        if unit is None:
            return None, f"{name}: {xml.name} has no unit of length ({text!r}), and is left aside"
        factors = _factors(file, view, name)
    except (OSError, ValueError, ElementTree.ParseError, LookupError) as error:
        return None, f"{name}: {xml.name} is left aside: {' '.join(str(error).split())}"
    x, y, z = (length * unit[1] for length in spacing)
    full = Geometry.from_spacing((z, y, x), unit[0])
    # A voxel of a level is centred on those of level 0 that it is the mean of.
    scale = np.diag([*factors, 1.0])
    scale[:3, 3] = (np.array(factors) - 1) / 2
    return Geometry.from_matrix(full.matrix @ scale, unit[0]), None


def _voxel_size(xml: Path, setup: int) -> tuple[tuple[float, ...], str]:
    """Size (x, y, z) of a setup's voxels, and its unit."""
    if xml.stat().st_size > _XML_BYTES:
        raise ValueError(f"it is larger than {_XML_BYTES >> 20} MB")
    content = xml.read_bytes()
    # Entities could unfold without a bound; text of two bytes a letter could hide them.
    if b"<!DOCTYPE" in content or b"\0" in content:
        raise ValueError("it is no plain XML without a document type")
    root = ElementTree.fromstring(content)  # noqa: S314  # neither entities nor without bound
    for view in root.iter("ViewSetup"):
        if (view.findtext("id") or "").strip() == str(setup):
            size = tuple(float(part) for part in (view.findtext("voxelSize/size") or "").split())
            if len(size) != 3 or not np.isfinite(size).all() or min(size) <= 0:
                raise ValueError(f"its setup {setup} has no voxelSize of three positive numbers")
            return size, (view.findtext("voxelSize/unit") or "").strip()
    raise ValueError(f"it has no setup {setup}")


def _factors(file: Any, view: View, name: str) -> tuple[float, ...]:
    """Factors (x, y, z) by which a level is smaller than level 0."""
    try:
        table = followed(file, view.factors, name)
        if not isinstance(table, h5py.Dataset) or table.external or table.is_virtual or table.size > 3 * _LEVELS:
            raise ValueError(view.factors)
        row = np.asarray(table[()], dtype=np.float64)[view.level]
        if row.shape == (3,) and np.isfinite(row).all() and (row > 0).all():
            return tuple(row.tolist())
    except (*H5_ERRORS, ReadError, IndexError):
        pass
    if view.level == 0:
        return (1.0, 1.0, 1.0)
    raise ValueError(f"the size of level {view.level} is not known, as {view.factors} does not tell it")
