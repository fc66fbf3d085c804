"""The input of one block after another: what the last one had is kept, the rest is read, in memory that stays."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from volconv.io.volume import Source
    from volconv.steps import Step


class Window:
    """A source, read step by step.

    Parameters
    ----------
    source : Source
    steps : sequence of Step
        All that will be asked for, in this order.
    copies : int
        How many steps' inputs stay as they are: with 2 one can be read while the one before it is used.
    """

    def __init__(self, source: Source, steps: Sequence[Step], copies: int) -> None:
        self._source = source
        shapes = [step.shape for step in steps]
        most = [max((shape[axis] for shape in shapes), default=0) for axis in range(5)]
        self._depth = most[2]
        self._memory = [Room(most, source.info.dtype, source.info.access.order) for _ in range(copies)]
        self._turn = -1
        self._last: NDArray[Any] | None = None

    def read(self, step: Step) -> NDArray[Any]:
        """Stored values (N, C, D, H, W) that a step needs; its memory is used again ``copies`` steps later."""
        self._turn = (self._turn + 1) % len(self._memory)
        values = self._memory[self._turn].of(step.shape, self._depth)
        if step.kept and self._last is not None:
            _keep(self._last, values, step.kept)
        for region, place in step.fresh():
            self._source.read_into(region, values[place.slices])
        self._last = values
        return values


class Room:
    """Memory for arrays (N, C, D, H, W) of many shapes, one at a time, whose voxels follow each other without gaps.

    Parameters
    ----------
    shape : sequence of 5 ints
        The largest.
    dtype : numpy.dtype
    order : sequence of 5 ints
        Axes in the order in which they follow each other in memory, slowest first.
    """

    def __init__(self, shape: Sequence[int], dtype: np.dtype[Any], order: Sequence[int]) -> None:
        self._memory: NDArray[Any] = np.empty(math.prod(shape), dtype)
        self._order = tuple(order)

    def of(self, shape: Sequence[int], depth: int | None = None) -> NDArray[Any]:
        """An array of this shape; planes lie where they would in one of another depth, if that is given.

        What is read or written without gaps is not copied for it: a copy of a block is not in the plan.

        >>> room = Room((1, 1, 3, 4, 5), np.dtype(np.uint8), (0, 1, 2, 3, 4))
        >>> room.of((1, 1, 2, 3, 4)).strides, room.of((1, 1, 2, 3, 4), 3).strides
        ((24, 24, 12, 4, 1), (36, 36, 12, 4, 1))
        """
        n, c, d, h, w = shape
        extents = n, c, depth or d, h, w
        memory = self._memory[: math.prod(extents)].reshape([extents[axis] for axis in self._order])
        return memory.transpose(np.argsort(self._order))[:, :, :d]


def _keep(last: NDArray[Any], values: NDArray[Any], planes: int) -> None:
    """Take over the last planes of an array as the first of another, which may be the same memory."""
    skipped = last.shape[2] - planes
    if not np.may_share_memory(last, values):
        values[:, :, :planes] = last[:, :, skipped:]
        return
    if not skipped:
        return
    for n, c, z in np.ndindex(*values.shape[:2], planes):  # forwards: none is overwritten before it is taken
        values[n, c, z] = last[n, c, skipped + z]
