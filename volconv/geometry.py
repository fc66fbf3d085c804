"""Where voxels lie in the world, and where those of an output lie."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from volconv.params import Conv3dParams, Triple

#: Length of one unit in millimetres.
MILLIMETRES = {"m": 1e3, "mm": 1.0, "um": 1e-3, "nm": 1e-6}

#: Grids whose corners lie closer than this share of a voxel are one and the same: headers hold single precision.
GRID_TOLERANCE = 1e-3

Row = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Geometry:
    """An affine from voxel indices to world coordinates.

    Parameters
    ----------
    affine : tuple of 4 rows of 4 floats
        Maps ``(x, y, z, 1)`` to the world, x the index along W, y along H, z along D:
        NIfTI's convention, and nibabel's.
    unit : {"mm", "um", "nm", "m"} or None
        Unit of the world coordinates. None: the file states no spacing, and voxels count as 1 apart.
    """

    affine: tuple[Row, Row, Row, Row] = (
        (1.0, 0.0, 0.0, 0.0),
        (0.0, 1.0, 0.0, 0.0),
        (0.0, 0.0, 1.0, 0.0),
        (0.0, 0.0, 0.0, 1.0),
    )
    unit: str | None = None

    @classmethod
    def from_matrix(cls, matrix: NDArray[np.floating], unit: str | None = "mm") -> Geometry:
        """Geometry from a (4, 4) array."""
        rows = [tuple(float(v) for v in row) for row in np.asarray(matrix, dtype=np.float64)]
        return cls((rows[0], rows[1], rows[2], rows[3]), unit)  # type: ignore[arg-type]  # numpy rows have no static length

    @classmethod
    def from_spacing(
        cls,
        spacing: tuple[float, float, float],
        unit: str | None = "mm",
        origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> Geometry:
        """Axis-aligned geometry from spacing and origin, both in D, H, W order."""
        matrix = np.diag([*spacing[::-1], 1.0])
        matrix[:3, 3] = origin[::-1]
        return cls.from_matrix(matrix, unit)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The affine as a fresh (4, 4) array."""
        return np.array(self.affine, dtype=np.float64)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels along D, H, W: the norms of the affine's columns."""
        x, y, z = (math.hypot(*(row[axis] for row in self.affine[:3])) for axis in range(3))
        return z, y, x

    @property
    def origin(self) -> tuple[float, float, float]:
        """World coordinates of the centre of voxel 0, in D, H, W order."""
        x, y, z = self.matrix[:3, 3]
        return float(z), float(y), float(x)

    @property
    def is_axis_aligned(self) -> bool:
        """Whether W, H, D run along world x, y, z in their positive directions."""
        linear = self.matrix[:3, :3]
        return bool(np.array_equal(linear, np.diag(np.diag(linear))) and (np.diag(linear) > 0).all())

    def spacing_in(self, unit: str) -> tuple[float, float, float] | None:
        """Spacing along D, H, W in another unit; None where the geometry states no unit."""
        if self.unit is None:
            return None
        factor = MILLIMETRES[self.unit] / MILLIMETRES[unit]
        d, h, w = self.spacing
        return d * factor, h * factor, w * factor

    def with_spacing(self, spacing: tuple[float, float, float], unit: str | None) -> Geometry:
        """The same axes and first voxel with other distances between voxels, along D, H, W.

        ``unit`` None keeps this geometry's; otherwise the world is measured in ``unit`` from here on. Distances in a
        geometry that stated no unit were no lengths, so its first voxel then lies at the origin.
        """
        matrix = self.matrix
        length = np.linalg.norm(matrix[:3, :3], axis=0)
        matrix[:3, :3] *= np.array(spacing[::-1]) / np.where(length > 0, length, 1.0)
        if unit is not None and self.unit is not None:
            matrix[:3, 3] *= MILLIMETRES[self.unit] / MILLIMETRES[unit]
        elif unit is not None:
            matrix[:3, 3] = 0
        return Geometry.from_matrix(matrix, unit or self.unit)

    def in_words(self) -> str:
        """Spacing and affine on one line, for messages."""
        rows = "; ".join(" ".join(f"{v:.6g}" for v in row) for row in self.affine[:3])
        return f"affine [{rows}]" + (f" {self.unit}" if self.unit else " without a unit")

    def resampled(self, step: Triple, first: tuple[float, float, float]) -> Geometry:
        """Geometry of a grid whose voxel ``o`` lies at index ``o*step + first`` of this one (D, H, W order)."""
        change = np.diag([*(float(s) for s in step[::-1]), 1.0])
        change[:3, 3] = first[::-1]
        return Geometry.from_matrix(self.matrix @ change, self.unit)


def grids_agree(one: Geometry, other: Geometry, size: Sequence[int]) -> bool:
    """Whether two geometries place the voxels of a (D, H, W) grid alike, units taken into account.

    Parameters
    ----------
    one, other : Geometry
    size : 3 ints
        Of the grid: affines are compared by where they put its corners, to within 0.001 voxels.

    Examples
    --------
    >>> metres, millimetres = Geometry.from_spacing((1, 1, 1), "m"), Geometry.from_spacing((1e3, 1e3, 1e3), "mm")
    >>> grids_agree(metres, millimetres, (9, 9, 9)), grids_agree(metres, Geometry(), (9, 9, 9))
    (True, False)
    """
    if (one.unit is None) != (other.unit is None):
        return False
    factor = MILLIMETRES[other.unit] / MILLIMETRES[one.unit] if one.unit and other.unit else 1.0
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, n - 1) for n in size[::-1]))], dtype=float)
    there, here = (corners @ other.matrix.T)[:, :3] * factor, (corners @ one.matrix.T)[:, :3]
    return bool(np.linalg.norm(there - here, axis=1).max() <= GRID_TOLERANCE * min(one.spacing))


def output_geometry(geometry: Geometry, params: Conv3dParams, origin: Triple = (0, 0, 0)) -> Geometry:
    """Geometry of a convolution's output; of the part of it that begins at output ``origin`` (D, H, W).

    Output voxel ``o`` is centred on input index ``o*stride - pad_low + dilation*(kernel - 1)/2`` on each axis;
    spacing and position follow from that and from nothing else.

    Examples
    --------
    >>> from volconv.params import Conv3dParams
    >>> half = Conv3dParams.parse((1, 1, 2, 2, 2), stride=2)
    >>> output_geometry(Geometry.from_spacing((1.0, 1.0, 1.0)), half).origin
    (0.5, 0.5, 0.5)
    """
    d, h, w = (
        first * stride + dilation * (kernel - 1) / 2 - low
        for first, stride, dilation, kernel, low in zip(
            origin, params.stride, params.dilation, params.kernel_size, params.padding_low, strict=True
        )
    )
    return geometry.resampled(params.stride, (d, h, w))
