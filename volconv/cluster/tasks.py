"""Into which tasks an output is cut for several processes: boxes of whole pieces of the target, no two touch one.

Integers only, and neither memory nor how many processes there are: a run that goes on with another has the same tasks.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from volconv.region import Region
from volconv.tiling import io_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from volconv.io.volume import VolumeInfo
    from volconv.params import Conv3dParams, Triple
    from volconv.region import Index5

#: Bytes of a task's input or output, whichever is more; a volume is cut into so many tasks, if they are not too small.
MOST_BYTES = 256 << 20
LEAST_BYTES = 16 << 20
COUNT = 64

#: Edges that are tried along an axis.
_EDGES = 64

#: Tasks along an axis that are looked at, of many.
_SAMPLE = 256


@dataclass(frozen=True, slots=True)
class Tasks:
    """All tasks of one output.

    Parameters
    ----------
    shape : tuple of 5 ints
        Of the output.
    volumes : int
    box : tuple of 3 ints
        Outputs (D, H, W) of a task.

    Examples
    --------
    >>> tasks = Tasks((1, 1, 5, 4, 4), 1, (2, 4, 4))
    >>> len(tasks), [part.start[2] for _, part in tasks]
    (3, [0, 2, 4])
    """

    shape: Index5
    volumes: int
    box: Triple

    def __len__(self) -> int:
        """How many there are."""
        n, _, *size = self.shape
        return math.prod(-(-whole // edge) for whole, edge in zip((n, *size), (self.volumes, *self.box), strict=True))

    def __iter__(self) -> Iterator[tuple[int, Region]]:
        """Number and outputs of each."""
        return enumerate(io_blocks(Region.whole(self.shape), self.volumes, self.box))


def cut(source: VolumeInfo, target: VolumeInfo, params: Conv3dParams, grid: Triple) -> Tasks:
    """The tasks for which least is read and computed twice.

    Parameters
    ----------
    source, target : VolumeInfo
    params : Conv3dParams
    grid : 3 ints
        What the algorithm's blocks begin on: a task computes all cells that it touches.
    """
    n, channels, *size = target.shape
    shape: Triple = (size[0], size[1], size[2])
    unit = target.access.chunk or (1, 1, 1, 1, 1)
    strides = math.prod(params.stride)
    each = max(channels * target.dtype.itemsize, strides * source.shape[1] * source.dtype.itemsize)
    total = each * n * math.prod(shape)
    most = max(LEAST_BYTES, min(MOST_BYTES, total // COUNT))
    volumes = min(unit[0], n)

    def edges(axis: int) -> list[tuple[int, float]]:
        """Edges along an axis, and what is read and computed for each output there."""
        step, whole = unit[2 + axis], shape[axis]
        count = -(-whole // step)
        found = sorted({-(-count // parts) for parts in range(1, count + 1)} if count < _EDGES else range(1, _EDGES))
        return [(min(k * step, whole), _waste(min(k * step, whole), whole, grid[axis], params, axis)) for k in found]

    best, best_price = tuple(min(edge, whole) for edge, whole in zip(unit[2:], shape, strict=True)), math.inf
    for tried in itertools.product(*map(edges, range(3))):
        box = tuple(edge for edge, _ in tried)
        if volumes * math.prod(box) * each > most:
            continue
        price = math.prod(waste for _, waste in tried)
        if price < best_price:
            best, best_price = box, price
    if best == shape:  # several volumes at once
        volumes = max(volumes, min(n, most // (each * math.prod(shape)) // unit[0] * unit[0]))
    return Tasks(target.shape, volumes, (best[0], best[1], best[2]))


def _waste(edge: int, size: int, cell: int, params: Conv3dParams, axis: int) -> float:
    """Inputs read along an axis for each that the outputs of tasks with this edge would need without halos."""
    stride, halo = params.stride[axis], params.effective_kernel[axis] - params.stride[axis]
    starts = range(0, size, edge)[:_SAMPLE]
    read = outputs = 0
    for start in starts:
        stop = min(start + edge, size)
        covered = min(-(-stop // cell) * cell, size) - start // cell * cell
        read += covered * stride + max(0, halo)
        outputs += stop - start
    return read / (outputs * stride)
