"""The input of one block after another: what the last one had is kept, the rest is read, in memory that stays."""

from __future__ import annotations

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
        self._memory = [Room(most, source.info.dtype, source.info.access.order) for _ in range(copies)]
        self._turn = -1
        self._last: NDArray[Any] | None = None

    def read(self, step: Step) -> NDArray[Any]:
        """Stored values (N, C, D, H, W) that a step needs; its memory is used again ``copies`` steps later."""
        self._turn = (self._turn + 1) % len(self._memory)
        values = self._memory[self._turn].of(step.shape)
        if step.kept and self._last is not None:
            _keep(self._last, values, step.kept)
        for region, place in step.fresh():
            self._source.read_into(region, values[place.slices])
        self._last = values
        return values


class Room:
    """Memory for arrays (N, C, D, H, W) of many shapes, one at a time, whose voxels lie as in one of the largest.

    Parameters
    ----------
    shape : sequence of 5 ints
        The largest.
    dtype : numpy.dtype
    order : sequence of 5 ints
        Axes in the order in which they follow each other in memory, slowest first.
    """

    def __init__(self, shape: Sequence[int], dtype: np.dtype[Any], order: Sequence[int]) -> None:
        memory: NDArray[Any] = np.empty([shape[axis] for axis in order], dtype)
        self._whole = memory.transpose(np.argsort(order))

    def of(self, shape: Sequence[int]) -> NDArray[Any]:
        """The first voxels along each axis."""
        return self._whole[tuple(slice(size) for size in shape)]


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
