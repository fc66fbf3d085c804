"""The one loop that most time goes to: a register tile of sums.

A tile is ``rows`` rows of ``vectors`` vectors of sums. Each *step* of a program loads the vectors at one offset of the
data once and adds them, times one weight a row, to those rows that they belong to. The tile stays in registers from the
first step to the last: what auto-vectorised loops spend on loading and storing sums is not there.

What steps, rows and programs mean is up to :mod:`volconv.engines.cpu.programs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines.cpu.native import Array, native
from volconv.engines.cpu.simd import lanes, registers

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class TileShape:
    """Rows and vectors of a tile, and elements of a vector. Bits do not depend on it.

    A step consists of a ``run`` of taps side by side along W. With a ``cycle`` the steps of one channel are code, not
    data: those of a kernel of so many layers along the rows' axis, each of as many steps.
    """

    rows: int
    vectors: int
    lanes: int
    run: int = 1
    cycle: int = 0

    @property
    def widths(self) -> list[int]:
        """Vectors of a tile, and of narrower ones for the ends of lines."""
        return [3, 2, 1] if self.vectors == 3 else [4, 2]

    @property
    def width(self) -> int:
        """Outputs of one row."""
        return self.vectors * self.lanes


@cache
def tile_shape(dtype: np.dtype[Any], tall: bool, run: int = 1, cycle: int = 0) -> TileShape:
    """The tile that fills this machine's vector registers without spilling.

    Parameters
    ----------
    dtype : numpy.dtype
    tall : bool
        More rows, for many output channels: fewer loads a multiply-add (tests/benchmarks/algorithms.py).
    run, cycle : int
        See :class:`TileShape`.
    """
    rows, vectors = (4, 3) if registers() < 32 else (8, 3) if tall else (4, 4)
    return TileShape(rows, vectors, lanes(dtype), run, cycle)


def patterns(shape: TileShape) -> list[tuple[int, int]]:
    """Which runs of rows (first, end) a step may add to; programs name them by their place in this list."""
    if shape.rows > 4 or shape.cycle:
        return [(0, shape.rows)]
    return [(low, high) for low in range(shape.rows) for high in range(low + 1, shape.rows + 1)]


@cache
def compiled_correlate(dtype: np.dtype[Any], tile: TileShape) -> Callable[..., None]:
    """The loop over all tiles of a box of outputs, compiled for one dtype.

    It takes

    data : address
        Readable for one tile's width beyond what the outputs need.
    offsets : (steps,) array
        Of a run's first tap.
    weights : (sets, blocks, steps * run, rows) array
        One set for all slices or one for each; in it one block for all outputs, or one for each ``rows`` neighbours
        along the tile's rows.
    bias : (sets, blocks, rows) array
    program : (segments, 4) array
    chained : int
        How the parts of a sum are added up; see :class:`volconv.engines.cpu.programs.Sums`.
    out : address
    shape : tuple of 4 ints
        Outputs: slices, neighbours along the tile's rows, lines, and outputs of a line.
    strides : tuple of 3 ints
        Of the data for each of these but the last, which lie side by side.
    out_strides : tuple of 3 ints
    joined : bool
        Whether the lines of a slice are computed in one run, with what lies between them.
    stretch : int
        So many tiles of a line are computed for all rows before the next ones; 0: all tiles, for one tile's rows.
    """
    index, scratch = np.dtype(np.int64), 2 * tile.rows * tile.width

    def function() -> Callable[..., None]:
        from volconv.engines.cpu.tile_kernels import correlate_function

        return correlate_function(dtype, tile)

    loop = native(
        f"correlate-{dtype.name}-{tile.rows}x{tile.vectors}x{tile.lanes}-{tile.run}-{tile.cycle}",
        (1, Array(index, 1), Array(dtype, 4), Array(dtype, 3), Array(index, 2), 1, 1, 4, 3, 3, 1, 1, Array(dtype, 1)),
        function,
        *("tile", "tile_kernels", "emitter", "simd"),
    )

    def correlate(*arguments: Any) -> None:
        loop(*arguments, np.empty(scratch, dtype))

    return correlate
