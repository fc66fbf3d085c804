"""The compiled loop that gathers the lines of a block, cast to its dtype."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines.cpu.native import Array, Memory, native

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@cache
def compiled_gather(stored: np.dtype[Any], dtype: np.dtype[Any]) -> Callable[..., None]:
    """:func:`gather_lines` from values of one dtype into a block of another."""
    index = np.dtype(np.int64)
    arguments = (
        *(Memory(stored), 4, Array(index, 1), Array(index, 1), Array(index, 2)),
        *(Memory(dtype), 5, Array(dtype, 1)),
    )
    return native(f"gather-{stored.name}-{dtype.name}", arguments, lambda: gather_lines, "gather_loops")


def gather_lines(
    values: NDArray[Any],
    apart: tuple[int, int, int, int],
    planes: NDArray[np.int64],
    rows: NDArray[np.int64],
    runs: NDArray[np.int64],
    block: NDArray[Any],
    shape: tuple[int, int, int, int, int],
    fill: NDArray[Any],
) -> None:
    """Line by line: values with so many elements between neighbours along C, D, H, W.

    ``planes`` and ``rows`` say where those of the block come from, ``runs`` (target, length, first, step) its voxels
    along W, less than zero where that is ``fill``; ``shape`` is how far apart the block's channels, planes and lines
    lie, its channels and its width.
    """
    channel_apart, plane_apart, row_apart, channels, width = shape
    for c in range(channels):
        for z in range(planes.shape[0]):
            for y in range(rows.shape[0]):
                start = c * channel_apart + z * plane_apart + y * row_apart
                line = block[start : start + width]
                if planes[z] < 0 or rows[y] < 0:
                    line[:] = fill[0]
                    continue
                begin = c * apart[0] + planes[z] * apart[1] + rows[y] * apart[2]
                for r in range(runs.shape[0]):
                    target, length, first, step = runs[r, 0], runs[r, 1], runs[r, 2], runs[r, 3]
                    part = line[target : target + length]
                    if first < 0:
                        part[:] = fill[0]
                    elif step * apart[3] == 1:
                        source = values[begin + first : begin + first + length]
                        for x in range(length):
                            part[x] = source[x]
                    else:
                        for x in range(length):
                            part[x] = values[begin + (first + x * step) * apart[3]]
