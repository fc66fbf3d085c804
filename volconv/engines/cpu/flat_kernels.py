"""The compiled loop that splits strided lines into their phases."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines.cpu.native import Array, native

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def split_phases(block: NDArray[Any], stride: int, phases: NDArray[np.int64], out: NDArray[Any]) -> None:
    """Deinterleave lines: ``out[c, p, z, y, x] = block[c, z, y, x*stride + phases[p]]``.

    Voxels past the block's end are left as they are.
    """
    channels, depth, height, width = block.shape
    for c in range(channels):
        for z in range(depth):
            for y in range(height):
                for p in range(phases.shape[0]):
                    first = phases[p]
                    source, target = block[c, z, y], out[c, p, z, y]
                    for x in range((width - first + stride - 1) // stride):
                        target[x] = source[x * stride + first]


@cache
def compiled_split_phases(dtype: np.dtype[Any]) -> Callable[..., None]:
    """:func:`split_phases` for blocks of this dtype."""
    block = Array(dtype, 4, "A")  # lines lie side by side along W, whatever lies between them
    arguments = (block, 1, Array(np.dtype(np.int64), 1), Array(dtype, 5))
    return native(f"split_phases-{dtype.name}", arguments, lambda: split_phases, "flat_kernels")
