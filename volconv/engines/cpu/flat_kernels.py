"""The compiled loop that splits a strided block into its phases."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numba

from volconv.engines.cpu.jit import compiled_kernel

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from volconv.params import Triple


def split_phases(block: NDArray[Any], stride: Triple, phases: NDArray[np.int64], out: NDArray[Any]) -> None:
    """Deinterleave a strided block: ``out[c, p, z, y, x] = block[c, z*sd + pd, y*sh + ph, x*sw + pw]``.

    Within one phase ``p`` a strided convolution has stride 1. Voxels past the block's end are left as they are.
    """
    sd, sh, sw = stride
    channels, depth, height, width = block.shape
    for c in range(channels):
        for p in range(phases.shape[0]):
            pd, ph, pw = phases[p]
            for z in range((depth - pd + sd - 1) // sd):
                for y in range((height - ph + sh - 1) // sh):
                    for x in range((width - pw + sw - 1) // sw):
                        out[c, p, z, y, x] = block[c, z * sd + pd, y * sh + ph, x * sw + pw]


@cache
def compiled_split_phases(dtype: np.dtype[Any]) -> Callable[..., None]:
    """:func:`split_phases` for blocks of this dtype."""
    real, index = numba.from_dtype(dtype), numba.int64
    return compiled_kernel(
        split_phases,
        numba.void(real[:, :, :, :], numba.types.UniTuple(index, 3), index[:, ::1], real[:, :, :, :, ::1]),
    )
