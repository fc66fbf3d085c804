"""Kernels of 3x3x3 voxels that are derivatives: gradient, Sobel, Scharr, Prewitt, Laplacian, Hessian.

``unit=`` says per what: ``unit=mm`` divides by the volume's spacing along each axis, ``unit=vox`` counts voxels as 1
apart.
"""

from __future__ import annotations

from math import isclose
from typing import TYPE_CHECKING

import numpy as np

from volconv.errors import ParameterError
from volconv.kernels.gaussians import derivatives_of_gaussian
from volconv.kernels.means import outer
from volconv.kernels.parsing import choice, unit_steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volconv.kernels.parsing import Asked, Floats
    from volconv.params import Triple

    Float64s = NDArray[np.float64]

AXIS_NAMES = ("z", "y", "x")

#: Orders of derivatives along D, H, W: of a gradient z, y, x; of a Hessian zz, zy, zx, yy, yx, xx.
FIRST = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
SECOND = ((2, 0, 0), (1, 1, 0), (1, 0, 1), (0, 2, 0), (0, 1, 1), (0, 0, 2))

_AXIS_HINT = "z is D, y is H, x is W; plain {} gives all three"

#: What is done along an axis for no, one, two derivatives: from the Taylor series, right to second order.
_STENCIL = (np.array([0.0, 1.0, 0.0]), np.array([-0.5, 0.0, 0.5]), np.array([1.0, -2.0, 1.0]))

#: Across the derivative.
_SMOOTHING = {
    "sobel": np.array([1.0, 2.0, 1.0]),
    "scharr": np.array([3.0, 10.0, 3.0]),
    "prewitt": np.array([1.0, 1.0, 1.0]),
}

#: Weights of the neighbours that share a face, an edge, a corner.
_LAPLACIANS = {"7": (1.0, 0.0, 0.0), "19": (1 / 3, 1 / 6, 0.0), "27": (4 / 9, 1 / 9, 1 / 36)}


def smoothed_difference(asked: Asked) -> Float64s:
    """Sobel, Scharr or Prewitt: ``[-1, 0, 1]`` along ``axis=``, smoothed across; else a bank (3, D, H, W): z, y, x.

    Smoothed by ``[1, 2, 1]`` (sobel: Sobel and Feldman, 1968), ``[3, 10, 3]`` (scharr: Scharr, 2000) or ``[1, 1, 1]``
    (prewitt: Prewitt, 1970) along both other axes. Not normalised, as in :func:`scipy.ndimage.sobel` and ``prewitt``: a
    slope of 1 gives 32, 512 or 18. With ``unit=`` divided by that, and by the spacing: the derivative per that unit
    (``unit=vox``: half of what :func:`skimage.filters.sobel`, ``scharr`` and ``prewitt`` give, which is per two
    voxels). Products of 1-D kernels.
    """
    across = _SMOOTHING[asked.kernel]
    asked_axis = choice(asked, "axis", AXIS_NAMES, _AXIS_HINT.format(asked.kernel))
    per = unit_steps(asked)
    slope = 2 * across.sum() ** 2
    bank = np.stack(
        [
            outer([2 * _STENCIL[1] if order else across for order in orders]) / (slope * per[axis] if per else 1.0)
            for axis, orders in enumerate(FIRST)
        ]
    )
    return bank if asked_axis is None else bank[AXIS_NAMES.index(asked_axis)].copy()


def gradient(asked: Asked) -> Float64s:
    """First derivatives, a bank (3, D, H, W): along z, y, x; or that along ``axis=``.

    Central differences ``[-1, 0, 1] / 2`` per voxel, or per ``unit=``: :func:`numpy.gradient` within. With ``sigma=``
    those of a Gaussian (:func:`volconv.kernels.gaussians.gaussian`), per unit of the sigma. Products of 1-D kernels.
    """
    axis = choice(asked, "axis", AXIS_NAMES, _AXIS_HINT.format("gradient"))
    orders = FIRST if axis is None else FIRST[AXIS_NAMES.index(axis) :][:1]
    bank = derivatives_of_gaussian(asked, orders) if _smoothed(asked) else _differences(asked, orders)
    return bank if axis is None else bank.reshape(bank.shape[1:])


def hessian(asked: Asked) -> Float64s:
    """Second derivatives, a bank (6, D, H, W): zz, zy, zx, yy, yx, xx.

    ``[1, -2, 1]`` along one axis, ``[-1, 0, 1] / 2`` along each of two, per voxel squared or per ``unit=`` squared.
    With ``sigma=`` those of a Gaussian, per unit of the sigma squared. Products of 1-D kernels.
    """
    return derivatives_of_gaussian(asked, SECOND) if _smoothed(asked) else _differences(asked, SECOND)


def laplacian(asked: Asked) -> Float64s:
    """Sum of the second derivatives, from ``points=`` 7 (default), 19 or 27 voxels; sum 0.

    Per voxel squared or per ``unit=`` squared. 7: neighbours 1, centre -6 (:func:`scipy.ndimage.laplace`); for any
    spacing; a sum of three products. 19: faces 1/3, edges 1/6, centre -4. 27: faces 4/9, edges 1/9, corners 1/36,
    centre -38/9, that is 6 times the product of ``[1/6, 2/3, 1/6]`` along all axes less the voxel itself. These two are
    for equal spacing; to leading order their errors are the same in all directions (Thampi, Ansumali, Adhikari and
    Succi, J. Comput. Phys. 234, 2013, from the lattices D3Q19 and D3Q27).
    """
    points = choice(asked, "points", tuple(_LAPLACIANS), "voxels that it is made of; 7 is the default") or "7"
    d, h, w = per = unit_steps(asked) or (1.0, 1.0, 1.0)
    if points == "7":
        weights: Float64s = _differences(asked, ((2, 0, 0), (0, 2, 0), (0, 0, 2))).sum(axis=0)
        return weights
    if not (isclose(d, h, rel_tol=1e-5) and isclose(d, w, rel_tol=1e-5)):
        raise ParameterError(
            f"laplacian points={points} needs the same spacing along all axes (got {d:g}, {h:g}, {w:g} "
            f"{asked.values['unit']} along D, H, W)",
            hint="points=7 is for any",
        )
    away = np.abs(np.indices((3, 3, 3)) - 1).sum(axis=0)
    weights = np.array([0.0, *_LAPLACIANS[points]])[away]
    weights[1, 1, 1] = -weights.sum()
    weights /= np.square(sum(per) / 3)
    return weights


def _smoothed(asked: Asked) -> bool:
    """Whether a sigma is given; then its unit is that of the result."""
    if "sigma" in asked.values and "unit" in asked.values:
        raise ParameterError(
            f"{asked.kernel} takes either sigma or unit (got both)", hint="with sigma the result is per its unit"
        )
    if "truncate" in asked.values and "sigma" not in asked.values:
        raise ParameterError(
            f"{asked.kernel} truncate goes with sigma (got truncate={asked.values['truncate']!r} alone)",
            hint=f"for example {asked.kernel}:sigma=1.5mm,truncate=3",
        )
    return "sigma" in asked.values


def _differences(asked: Asked, orders: tuple[Triple, ...]) -> Float64s:
    """A bank (C_out, 3, 3, 3) of differences between neighbours, per unit."""
    per: Floats = unit_steps(asked) or (1.0, 1.0, 1.0)
    return np.stack([outer([_STENCIL[n] / np.power(step, n) for n, step in zip(o, per, strict=True)]) for o in orders])
