"""Padded blocks gathered by a compiled loop: what :func:`volconv.padding.read_block` does, in half its time."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines.cpu.native import Array, Memory, native
from volconv.padding import FILL, read_block

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from volconv.io.volume import Scaling
    from volconv.padding import Run

    BlockReader = Callable[
        [NDArray[Any], Sequence[Sequence[Run]], NDArray[Any], complex, Scaling | None],
        None,
    ]


def block_reader(stored: np.dtype[Any], dtype: np.dtype[Any]) -> BlockReader:
    """What reads blocks of one dtype from values of another: see :func:`volconv.padding.read_block`.

    Parameters
    ----------
    stored : numpy.dtype
        Of the values; complex ones are read by their real or imaginary parts.
    dtype : numpy.dtype
        Of the blocks, which lie side by side along W.
    """
    part = np.empty(0, stored).real.dtype
    if not part.isnative or part.kind not in "iuf" or part.itemsize * (part.kind == "f") == 2 or part.itemsize > 8:
        return read_block
    size = part.itemsize
    loop = _compiled(part, dtype)

    def read(
        values: NDArray[Any],
        runs: Sequence[Sequence[Run]],
        block: NDArray[Any],
        fill: complex,
        scaling: Scaling | None,
    ) -> None:
        address = values.__array_interface__["data"][0]
        if (
            scaling is not None
            or values.dtype != part
            or address % size
            or any(s < 0 or s % size for s in values.strides)
        ):
            read_block(values, runs, block, fill, scaling)
            return
        planes, rows = (_places(axis) for axis in runs[:2])
        loop(
            address,
            tuple(s // size for s in values.strides),
            planes,
            rows,
            np.array(runs[2], np.int64),
            block.__array_interface__["data"][0],
            (*(s // block.itemsize for s in block.strides[:3]), len(block), block.shape[3]),
            np.array([fill.real], dtype),
        )

    return read


def _places(runs: Sequence[Run]) -> NDArray[np.int64]:
    """Where the voxels of a padded axis come from, one by one."""
    return np.concatenate([run.first + run.step * np.arange(run.length) for run in runs])


@cache
def _compiled(stored: np.dtype[Any], dtype: np.dtype[Any]) -> Callable[..., None]:
    """:func:`read_lines` for these dtypes."""
    index = np.dtype(np.int64)
    arguments = (
        *(Memory(stored), 4, Array(index, 1), Array(index, 1), Array(index, 2)),
        *(Memory(dtype), 5, Array(dtype, 1)),
    )
    return native(f"read-{stored.name}-{dtype.name}", arguments, lambda: read_lines, "reading")


def read_lines(
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
    along W; ``shape`` is how far apart the block's channels, planes and lines lie, its channels and its width.
    """
    channel_apart, plane_apart, row_apart, channels, width = shape
    for c in range(channels):
        for z in range(planes.shape[0]):
            for y in range(rows.shape[0]):
                start = c * channel_apart + z * plane_apart + y * row_apart
                line = block[start : start + width]
                if planes[z] == FILL or rows[y] == FILL:
                    line[:] = fill[0]
                    continue
                begin = c * apart[0] + planes[z] * apart[1] + rows[y] * apart[2]
                for r in range(runs.shape[0]):
                    target, length, first, step = runs[r, 0], runs[r, 1], runs[r, 2], runs[r, 3]
                    part = line[target : target + length]
                    if first == FILL:
                        part[:] = fill[0]
                    elif step * apart[3] == 1:
                        source = values[begin + first : begin + first + length]
                        for x in range(length):
                            part[x] = source[x]
                    else:
                        for x in range(length):
                            part[x] = values[begin + (first + x * step) * apart[3]]
