"""Kernels that count or average a neighbourhood: box, ball, neighbours, and the one voxel itself."""

from __future__ import annotations

import math
import re
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from volconv.errors import ParameterError
from volconv.kernels.parsing import check_taps, choice, lengths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from volconv.kernels.parsing import Asked

    Float64s = NDArray[np.float64]

#: Distances are sums of squares of rounded numbers: voxels this close to a sphere lie on it.
_ON_THE_SPHERE = 1e-9

_BOX_SIZE = (
    "box size must be one positive integer or three (D/H/W) of voxels, or positive lengths in mm, um, nm (got {!r})"
)


def outer(factors: Sequence[Float64s]) -> Float64s:
    """Kernel (D, H, W) that is the product of three 1-D ones."""
    return reduce(np.multiply.outer, factors)


def identity(_asked: Asked) -> Float64s:
    """One voxel of weight 1, which gives the volume itself."""
    return np.ones((1, 1, 1))


def box(asked: Asked) -> Float64s:
    """Mean over a box; sum 1. ``size=`` in voxels, or in mm, um or nm.

    Voxels: ``1/size`` at each of ``size`` taps, also an even number of them, as ``scipy.ndimage.uniform_filter``.
    Lengths: the box ``[-size/2, size/2]`` around the voxel's centre; each voxel counts as much as lies inside, so
    that the mean is over exactly that length whatever the spacing. A product of three 1-D kernels.
    """
    text = asked.text("size", "box:size=3, or box:size=3/5/5 for D/H/W")
    whole = [re.fullmatch(r"([0-9]{1,18})\s*(vox)?", part.strip()) for part in text.split("/")]
    if len(whole) in (1, 3) and all(m and int(m[1]) > 0 for m in whole):
        sizes = [int(m[1]) for m in whole if m] * (3 // len(whole))
        check_taps("box size", sizes, text)
        return np.full(sizes, 1.0 / math.prod(sizes))
    if not re.search(r"(m|µ|μ)", text):
        raise ParameterError(_BOX_SIZE.format(text), hint="without a unit sizes count voxels: box:size=3")
    size = lengths(asked, "size", "box:size=3mm")
    for voxels, unit in zip(size.voxels, size.units, strict=True):
        if voxels <= 0 or (unit == "vox" and voxels % 2 != 1):
            raise ParameterError(
                _BOX_SIZE.format(text),
                hint="beside lengths, sizes in voxels must be odd" if voxels > 0 else "for example box:size=3mm",
            )
    # The voxel at n covers n-0.5 to n+0.5; a hair over the edge is rounding.
    d, h, w = (max(0, math.ceil(min(v / 2, 2.0**27) - 0.5 - 1e-9)) for v in size.voxels)
    check_taps("box size", [2 * d + 1, 2 * h + 1, 2 * w + 1], text)
    return outer([_covered(v, r) for v, r in zip(size.voxels, (d, h, w), strict=True)])


def _covered(size: float, radius: int) -> Float64s:
    """Share of a centred interval that lies in each voxel; sum 1."""
    distance = np.abs(np.arange(-radius, radius + 1))
    share: Float64s = np.clip(size / 2 - distance + 0.5, 0, 1) if radius else np.ones(1)
    normalised: Float64s = share / share.sum()
    return normalised


def ball(asked: Asked) -> Float64s:
    """Mean over the voxels whose centres lie at most ``radius=`` away; sum 1.

    ``(z/rz)**2 + (y/ry)**2 + (x/rx)**2 <= 1`` with one radius or three (an ellipsoid); in voxels of equal spacing the
    same voxels as ``skimage.morphology.ball``. No product: large ones go through FFTs.
    """
    radius = lengths(asked, "radius", "ball:radius=3mm")
    sizes = [int(min(v * (1 + _ON_THE_SPHERE), 2.0**27)) for v in radius.voxels]
    check_taps("ball radius", [2 * n + 1 for n in sizes], radius.text)
    square = np.zeros((1, 1, 1))
    for axis, (n, r) in enumerate(zip(sizes, radius.voxels, strict=True)):
        x = np.arange(-n, n + 1) / (r or 1.0)
        square = square + np.expand_dims(x**2, tuple(a for a in range(3) if a != axis))
    inside = (square <= 1 + _ON_THE_SPHERE).astype(np.float64)
    mean: Float64s = inside / inside.sum()
    return mean


def neighbours(asked: Asked) -> Float64s:
    """1 at each of the ``count=`` 6, 18 or 26 neighbours, 0 at the voxel itself: of a mask it counts them.

    Those that share a face, a face or an edge, or any corner: ``scipy.ndimage.generate_binary_structure(3, 1)``, 2
    and 3 without their centre. Not normalised: the sum is ``count``.
    """
    asked.text("count", "neighbours:count=26")
    count = choice(
        asked, "count", ("6", "18", "26"), "they share a face; a face or an edge; a face, an edge or a corner"
    )
    most = {"6": 1, "18": 2, "26": 3}[str(count)]
    away = np.abs(np.indices((3, 3, 3)) - 1).sum(axis=0)
    weights: Float64s = ((away > 0) & (away <= most)).astype(np.float64)
    return weights
