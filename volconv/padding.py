"""Reading a block with its halo: which voxels a padded interval holds, and the copy that gathers them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from volconv.io.volume import Scaling
    from volconv.params import Conv3dParams, PaddingMode


#: Says in place of a source index that a voxel is padding_value.
FILL = -1


class Run(NamedTuple):
    """Neighbouring voxels of a padded axis that come from evenly stepped voxels of the source.

    ``target``: where the run starts in the interval asked for; ``length``; ``first``: source index of its first voxel,
    or FILL; ``step``: 1, -1 (mirrored) or 0 (one voxel repeated); more where only some of an axis are taken.
    """

    target: int
    length: int
    first: int
    step: int

    @property
    def extent(self) -> tuple[int, int]:
        """Half-open interval of source indices, low to high."""
        last = self.first + self.step * (self.length - 1)
        return min(self.first, last), max(self.first, last) + 1


@dataclass(frozen=True, slots=True)
class PaddedAxis:
    """One axis of a volume with its padding, as arithmetic on indices.

    Examples
    --------
    >>> axis = PaddedAxis(size=4, low=2, high=2, mode="reflect")
    >>> axis.runs(0, 4)
    [Run(target=0, length=2, first=2, step=-1), Run(target=2, length=2, first=0, step=1)]
    >>> axis.extents(0, 4)
    [(0, 3)]
    """

    size: int
    low: int
    high: int
    mode: PaddingMode

    def runs(self, start: int, stop: int) -> list[Run]:
        """What padded indices ``start`` to ``stop`` hold (0 is the first voxel of the low padding)."""
        found = []
        parts = (
            (0, self.low),
            (self.low, self.low + self.size),
            (self.low + self.size, self.low + self.size + self.high),
        )
        for (begin, end), resolve in zip(parts, (self._below, self._inside, self._above), strict=True):
            a, b = max(start, begin), min(stop, end)
            if a < b:
                first, step = resolve(a - self.low)
                found.append(Run(a - start, b - a, first, step))
        return found

    def extents(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Source intervals, disjoint and ascending, that cover what padded indices ``start`` to ``stop`` hold."""
        covered: list[tuple[int, int]] = []
        for low, high in sorted(run.extent for run in self.runs(start, stop) if run.first != FILL):
            if covered and low <= covered[-1][1]:
                covered[-1] = covered[-1][0], max(covered[-1][1], high)
            else:
                covered.append((low, high))
        return covered

    def _below(self, index: int) -> tuple[int, int]:
        """Source index and step for ``index`` < 0."""
        match self.mode:
            case "zeros":
                return FILL, 0
            case "replicate":
                return 0, 0
            case "reflect":
                return -index, -1
            case "symmetric":
                return -index - 1, -1
            case "circular":
                return index + self.size, 1

    def _inside(self, index: int) -> tuple[int, int]:
        return index, 1

    def _above(self, index: int) -> tuple[int, int]:
        """Source index and step for ``index`` >= size."""
        match self.mode:
            case "zeros":
                return FILL, 0
            case "replicate":
                return self.size - 1, 0
            case "reflect":
                return 2 * self.size - 2 - index, -1
            case "symmetric":
                return 2 * self.size - 1 - index, -1
            case "circular":
                return index - self.size, 1


def every(runs: Sequence[Run], stride: int) -> list[Run]:
    """Only every ``stride``-th voxel of an interval, its first one included.

    >>> every([Run(target=0, length=2, first=FILL, step=0), Run(target=2, length=6, first=0, step=1)], 3)
    [Run(target=0, length=1, first=-1, step=0), Run(target=1, length=2, first=1, step=3)]
    """
    found = []
    for target, length, first, step in runs:
        number = -(-target // stride)
        skipped = number * stride - target
        if skipped < length:
            found.append(Run(number, (length - 1 - skipped) // stride + 1, first + step * skipped, step * stride))
    return found


def padded_axes(size: Sequence[int], params: Conv3dParams) -> list[PaddedAxis]:
    """The three spatial axes of a volume of this size (D, H, W)."""
    return [
        PaddedAxis(s, low, high, params.padding_mode)
        for s, low, high in zip(size, params.padding_low, params.padding_high, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Piece:
    """Parts of a volume read side by side into one array: for each of D, H, W the source intervals it holds."""

    extents: tuple[tuple[tuple[int, int], ...], ...]

    @property
    def size(self) -> tuple[int, ...]:
        """Size (D, H, W) of that array."""
        return tuple(sum(high - low for low, high in axis) for axis in self.extents)

    def place(self, axis: int, index: int) -> int:
        """Where a source index lies in that array."""
        offset = 0
        for low, high in self.extents[axis]:
            if low <= index < high:
                return offset + index - low
            offset += high - low
        raise IndexError(f"source index {index} is not in {self.extents[axis]}")


def read_block(
    stored: NDArray[Any],
    runs: Sequence[Sequence[Run]],
    block: NDArray[Any],
    fill: complex,
    scaling: Scaling | None,
) -> None:
    """Fill a padded block: gather, cast to the block's dtype, scale; in one pass while it is in cache.

    Parameters
    ----------
    stored : (C, D, H, W) array
        Stored values; any dtype, byte order and strides. Only read.
    runs : 3 lists of Run
        What the block holds along D, H, W, in indices of ``stored``.
    block : (C, d, h, w) array
        Receives the values.
    fill : number
        ``padding_value``; real values, so that scaling does not apply to it.
    scaling : Scaling, optional
    """
    for d, h, w in itertools.product(*([(_target(run), _source(run)) for run in axis] for axis in runs)):
        target = block[:, d[0], h[0], w[0]]
        if d[1] is None or h[1] is None or w[1] is None:
            target[...] = fill
            continue
        np.copyto(target, stored[:, d[1], h[1], w[1]], casting="unsafe")
        if scaling is not None:
            target *= scaling.slope
            target += scaling.intercept


def _target(run: Run) -> slice:
    return slice(run.target, run.target + run.length)


def _source(run: Run) -> slice | None:
    if run.first == FILL:
        return None
    if run.step == 0:
        return slice(run.first, run.first + 1)
    stop = run.first + run.step * run.length
    return slice(run.first, stop if stop >= 0 else None, run.step)
