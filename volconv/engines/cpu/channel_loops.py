"""The compiled loop of :mod:`volconv.engines.cpu.channels`: tiles whose vectors hold output channels side by side.

A tile is a few outputs, wherever they lie, of some vectors of channels each. A *step* is a tap: its weights for all
those channels are loaded once, and added, times the one voxel that each output sees there, to the output's sums.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from volconv.engines.cpu.native import Array, Memory, native
from volconv.engines.cpu.simd import registers

if TYPE_CHECKING:
    from collections.abc import Callable

#: Vectors of channels that a tile has at most: with its outputs they fill the registers.
MOST_VECTORS = 3

#: Tiles that are computed with one part of the weights before the next ones: their sums stay in L2.
TILES_TOGETHER = 32


def outputs_of_a_tile() -> int:
    """How many outputs fill this machine's registers with their sums."""
    return 8 if registers() >= 32 else 4


def scratch_size(width: int) -> int:
    """Elements of scratch for the loop of tiles of so many channels: sums, and what they lost."""
    return 2 * TILES_TOGETHER * outputs_of_a_tile() * width


@cache
def compiled_channels(dtype: np.dtype[Any], vectors: int) -> Callable[..., None]:
    """The loop over all outputs of some channels of some groups, compiled for one dtype.

    It takes

    data, out : address
        Of the first group's block, and of the first channel's outputs.
    seen, places : (outputs,) arrays
        Where the first voxel that each output sees lies in the block, and where the output itself goes; as many as
        fill whole tiles.
    offsets : (steps,) array
        Where each tap lies from there.
    weights : (groups, blocks, steps, channels of a tile) array
    bias : (groups, blocks, channels of a tile) array
    group : (first, end, stride of the data, stride of the output)
        Groups of the weights; and how far apart they lie.
    channels : (count, stride)
        Those of all blocks that are outputs, and how far apart they lie.
    many : int
        Outputs.
    sums : (chain, chains together, compensated)
        A sum is formed in chains of so many steps; so many chains' weights stay in cache.
    work : (:func:`scratch_size`,) array
    """
    index = np.dtype(np.int64)

    def function() -> Callable[..., None]:
        from volconv.engines.cpu.channel_kernels import channels_function

        return channels_function(dtype, vectors)

    return native(
        f"channels-{dtype.name}-{outputs_of_a_tile()}x{vectors}",
        (
            *(1, Memory(dtype), Array(index, 1), Array(index, 1), Array(index, 1), Array(dtype, 4), Array(dtype, 3)),
            *(4, 2, 1, 3, Array(dtype, 1)),
        ),
        function,
        *("channel_loops", "channel_kernels", "emitter", "simd"),
    )
