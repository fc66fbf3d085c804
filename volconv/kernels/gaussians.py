"""Kernels made of Gaussians: the Gaussian and its derivatives, LoG, DoG, unsharp mask, Gabor.

A Gaussian is sampled at voxel centres, cut off at ``truncate`` sigmas and divided by its sum: SciPy's definition.
Derivatives are per unit of the sigma: a sigma in mm gives them per mm, one in voxels per voxel.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np

from volconv.errors import ParameterError
from volconv.kernels.means import outer
from volconv.kernels.parsing import check_taps, lengths, number, numbers, reach, steps
from volconv.params import AXES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from volconv.kernels.parsing import Asked, Floats, Lengths
    from volconv.params import Triple

    Float64s = NDArray[np.float64]

#: Derivatives of a Gaussian as sampled are true to 2 % from this many voxels and the default of ``truncate``; below,
#: they soon are not (at half a voxel the second is a third too large, and does not vanish on constants).
LEAST_SIGMA = 0.7
LEAST_TRUNCATE = 3.0

_FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))
_DOG_RATIO = 1.6


def gaussian_1d(sigma: float, truncate: float = 4.0, order: int = 0) -> Float64s:
    """Sampled Gaussian of sum 1 along one axis, or its derivative, as applied by cross-correlation.

    ``exp(-x**2 / (2*sigma**2))`` at the integers up to ``int(truncate*sigma + 0.5)``, divided by its sum; times
    ``x/sigma**2`` for order 1 and ``(x**2/sigma**2 - 1)/sigma**2`` for order 2, which are not normalised again. These
    are the numbers of ``scipy.ndimage.gaussian_filter1d`` (``_gaussian_kernel1d``), which also leaves an axis alone
    where sigma is at most 1e-15.

    Parameters
    ----------
    sigma : float
        Standard deviation in voxels.
    truncate : float
        Where to stop, in sigmas.
    order : {0, 1, 2}
        Of the derivative, per voxel.

    Examples
    --------
    >>> gaussian_1d(0.5, truncate=2).round(4).tolist()
    [0.1065, 0.787, 0.1065]
    >>> gaussian_1d(1, truncate=2, order=1).round(4).tolist()
    [-0.109, -0.2442, 0.0, 0.2442, 0.109]
    """
    if sigma <= 1e-15:
        return np.ones(1)
    radius = int(truncate * sigma + 0.5)
    x = np.arange(-radius, radius + 1)
    values: Float64s = np.exp(-0.5 / (sigma * sigma) * x**2)
    values /= values.sum()
    if order == 1:
        values *= x / sigma**2
    elif order == 2:
        values *= (x**2 / sigma**2 - 1) / sigma**2
    return values


def gaussian(asked: Asked) -> Float64s:
    """Gaussian of sum 1, by ``sigma=`` or ``fwhm=`` (``2*sqrt(2*log(2))`` sigmas); or its derivative, by ``order=``.

    ``exp(-x**2 / (2*sigma**2))`` along each axis, at voxel centres up to ``truncate`` (4) sigmas, over its sum; of
    order 1 times ``x/sigma**2``, of order 2 times ``(x**2/sigma**2 - 1)/sigma**2``. A product of three 1-D kernels.
    ``order=0/0/1`` (D/H/W) is the derivative along W, positive where values increase with W, per unit of the sigma:
    :func:`scipy.ndimage.gaussian_filter` with the same ``order`` and ``truncate``, over the spacing.
    """
    given = [name for name in ("sigma", "fwhm") if name in asked.values]
    if len(given) != 1:
        raise ParameterError(
            f"gaussian needs either sigma or fwhm (got {'both' if given else 'neither'})",
            hint="for example gaussian:sigma=1.5mm",
        )
    text = asked.values.get("order", "0/0/0")
    orders = [part.strip() for part in text.split("/")]
    if len(orders) != 3 or not all(re.fullmatch(r"[012]", part) for part in orders):
        raise ParameterError(
            f"gaussian order must be three of 0, 1, 2 (D/H/W) (got {text!r})",
            hint="order=0/0/1 is the derivative along W",
        )
    bank = derivatives_of_gaussian(asked, [(int(orders[0]), int(orders[1]), int(orders[2]))], given[0])
    return bank.reshape(bank.shape[1:])


def derivatives_of_gaussian(asked: Asked, orders: Sequence[Triple], name: str = "sigma") -> Float64s:
    """A bank (C_out, D, H, W) of derivatives of one Gaussian, per unit of its width."""
    width = lengths(asked, name, f"{asked.kernel}:sigma=1.5mm")
    sigmas = _times(width.voxels, 1 / _FWHM_PER_SIGMA) if name == "fwhm" else width.voxels
    truncate = _truncate(asked)
    derived = [axis for axis in range(3) if any(order[axis] for order in orders)]
    per: Floats = (1.0, 1.0, 1.0)
    if derived:
        per = steps(asked, width)
        _check_sampling(asked, width, sigmas, derived, truncate)
    _check_reach(asked, width, sigmas, truncate, len(orders))
    return np.stack(
        [
            outer(
                [gaussian_1d(s, truncate, n) / np.power(step, n) for s, n, step in zip(sigmas, order, per, strict=True)]
            )
            for order in orders
        ]
    )


def log(asked: Asked) -> Float64s:
    """Laplacian of a Gaussian, per unit of ``sigma=`` squared: negative in the middle of bright blobs.

    The sum of the second derivatives along D, H and W (Marr and Hildreth, 1980), three products of 1-D kernels:
    :func:`scipy.ndimage.gaussian_laplace`. Not multiplied by ``sigma**2``, as blob detection over several sigmas needs.
    The sum is 0 but for what ``truncate`` cuts off, less than 1e-3 of the sum of magnitudes; ``truncate=6`` makes it
    next to nothing.
    """
    laplacian: Float64s = derivatives_of_gaussian(asked, ((2, 0, 0), (0, 2, 0), (0, 0, 2))).sum(axis=0)
    return laplacian


def dog(asked: Asked) -> Float64s:
    """Difference of Gaussians, ``G(low) - G(high)``, of sum 0: passes what is wider than ``low=``, not than ``high=``.

    Positive in the middle of bright blobs. ``high`` is 1.6 times ``low`` by default, which is closest to a Laplacian of
    a Gaussian (Marr and Hildreth, 1980). Two products of 1-D kernels: those of
    :func:`skimage.filters.difference_of_gaussians`. Each is cut off at ``truncate`` of its own sigmas.
    """
    low = lengths(asked, "low", "dog:low=1mm,high=1.6mm")
    if "high" in asked.values:
        high = lengths(asked, "high", "dog:low=1mm,high=1.6mm")
        wide = high.voxels
        if not all(narrow <= w for narrow, w in zip(low.voxels, wide, strict=True)) or low.voxels == wide:
            raise ParameterError(
                f"dog high must be wider than low (got low={low.text}, high={high.text})",
                hint="the wider one is taken from the narrower one",
            )
    else:
        high, wide = low, _times(low.voxels, _DOG_RATIO)
    truncate = _truncate(asked)
    radii = _check_reach(asked, high, wide, truncate)
    return _gaussian(low.voxels, truncate, radii) - _gaussian(wide, truncate, radii)


def unsharp(asked: Asked) -> Float64s:
    """Unsharp mask, ``(1 + amount)*identity - amount*G(sigma)``, of sum 1: adds what a Gaussian takes away.

    ``amount=`` is 1 by default. Two products of 1-D kernels: :func:`skimage.filters.unsharp_mask`, whose ``radius`` is
    the sigma.
    """
    sigma = lengths(asked, "sigma", "unsharp:sigma=1mm,amount=1")
    amount = number(asked, "amount", 1.0, "a number above 0", 0.0)
    truncate = _truncate(asked)
    radii = _check_reach(asked, sigma, sigma.voxels, truncate)
    weights = -amount * _gaussian(sigma.voxels, truncate, radii)
    weights[radii] += 1 + amount
    return weights


def gabor(asked: Asked) -> Float64s:
    """Gaussian of sum 1 times a plane wave: ``G(x) * cos(2*pi*(n.x)/wavelength + phase)``, n along ``direction=``.

    The real Gabor function (Daugman, 1985). ``phase=0``, in degrees, is even and answers to ridges; ``phase=-90`` is
    odd, a sine, positive where values increase along n. ``direction=`` is D/H/W in space, not on the grid: with a
    wavelength in mm it counts millimetres. Not made to vanish on constants: the even one sums to about
    ``exp(-2*(pi*sigma/wavelength)**2)``. A product along an axis, obliquely a sum of up to four. In two dimensions
    the real part of :func:`skimage.filters.gabor_kernel`, which is normalised by the continuous Gaussian's integral.
    """
    example = "gabor:sigma=2mm,wavelength=4mm,direction=0/0/1"
    sigma, wave = lengths(asked, "sigma", example), lengths(asked, "wavelength", example)
    if "/" in wave.text:
        raise ParameterError(f"gabor wavelength must be one length (got {wave.text!r})", hint=f"for example {example}")
    direction = numbers(asked, "direction", example)
    length = math.hypot(*direction)
    if not 0 < length < math.inf:
        raise ParameterError(
            f"gabor direction must not be 0/0/0, nor too long (got {asked.values['direction']!r})",
            hint=f"for example {example}",
        )
    # Waves for each voxel along each axis: the wavelength in voxels of that axis has the spacing in it.
    rates = [n / length / v if v else math.inf for n, v in zip(direction, wave.voxels, strict=True)]
    if max(map(abs, rates)) > 0.5:
        raise ParameterError(
            f"gabor wavelength must be at least 2 voxels along every axis that the wave runs along (got {wave.text!r})",
            hint="shorter waves cannot be told from longer ones on this grid",
        )
    phase = math.radians(math.fmod(number(asked, "phase", 0.0, "a number of degrees"), 360.0))
    truncate = _truncate(asked)
    radii = _check_reach(asked, sigma, sigma.voxels, truncate)
    waves = np.zeros((1, 1, 1))
    for axis, (rate, r) in enumerate(zip(rates, radii, strict=True)):
        x = np.arange(-r, r + 1) * rate
        waves = waves + np.expand_dims(x, tuple(a for a in range(3) if a != axis))
    return _gaussian(sigma.voxels, truncate, radii) * np.cos(2 * math.pi * waves + phase)


def _check_sampling(asked: Asked, width: Lengths, sigmas: Floats, derived: Sequence[int], truncate: float) -> None:
    if truncate < LEAST_TRUNCATE:
        raise ParameterError(
            f"{asked.kernel} truncate must be at least {LEAST_TRUNCATE:g} where a derivative is taken "
            f"(got {asked.values['truncate']!r})",
            hint="less cuts off too much of it; the default is 4",
        )
    for axis in derived:
        if sigmas[axis] < LEAST_SIGMA:
            raise ParameterError(
                f"{asked.kernel} {width.name} must be a sigma of at least {LEAST_SIGMA} voxels along every axis of a "
                f"derivative (got {width.text!r}, {sigmas[axis]:.3g} voxels along {AXES[axis]})",
                hint="narrower ones are too few samples for a derivative: take a wider one along that axis "
                f"({width.name}=D/H/W), or differences of neighbours (gradient, hessian, laplacian)",
            )


def _gaussian(sigmas: Floats, truncate: float, radii: Triple) -> Float64s:
    """Gaussian of sum 1 within a box of zeros of ``2*radius + 1``."""
    lines = []
    for sigma, radius in zip(sigmas, radii, strict=True):
        line = gaussian_1d(sigma, truncate)
        lines.append(np.pad(line, radius - len(line) // 2))
    return outer(lines)


def _check_reach(asked: Asked, width: Lengths, sigmas: Floats, truncate: float, channels: int = 1) -> Triple:
    """How far Gaussians reach, in voxels; refused where that is too far."""
    radii = reach(sigmas, truncate)
    check_taps(f"{asked.kernel} {width.name}", [channels, *(2 * r + 1 for r in radii)], width.text)
    return radii


def _times(voxels: Floats, factor: float) -> Floats:
    d, h, w = (v * factor for v in voxels)
    return d, h, w


def _truncate(asked: Asked) -> float:
    return number(asked, "truncate", 4.0, "a number of sigmas above 0", 0.0)
