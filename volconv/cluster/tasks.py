"""Into which tasks an output is cut for several processes: boxes of whole pieces of the target, no two touch one.

Integers only, and neither memory nor how many processes there are: a run that goes on with another has the same tasks.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from volconv.budget import UNPACKING
from volconv.region import Region
from volconv.shapes import padded_interval
from volconv.tiling import io_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from volconv.io.volume import VolumeInfo
    from volconv.params import Conv3dParams, Triple
    from volconv.region import Index5

#: Bytes of a task's input or output, whichever is more; a volume is cut into so many tasks, if they are not too small.
MOST_BYTES = 256 << 20
LEAST_BYTES = 32 << 20
COUNT = 32

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
    """The tasks for which least is read, unpacked and computed twice.

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
    inputs = math.prod(params.stride) * source.shape[1] * source.dtype.itemsize
    each = max(channels * target.dtype.itemsize, inputs)
    most = max(LEAST_BYTES, min(MOST_BYTES, each * n * math.prod(shape) // COUNT))
    volumes = min(unit[0], n)
    piece = source.access.chunk if source.access.packed and source.access.chunk else (1, 1, 1, 1, 1)
    best, best_price = tuple(min(edge, whole) for edge, whole in zip(unit[2:], shape, strict=True)), math.inf
    tried = []
    for axis in range(3):
        how = params.effective_kernel[axis], params.stride[axis], params.padding_low[axis]
        sizes = source.shape[2 + axis], shape[axis], grid[axis], piece[2 + axis]
        tried.append([(edge, *_times_read(edge, *sizes, *how)) for edge in _edges(unit[2 + axis], shape[axis])])
    room = most // (volumes * each)
    for (d, *of_d), (h, *of_h), (w, *of_w) in itertools.product(*tried):
        if d * h * w > room:
            continue
        read, unpacked = (a * b * c for a, b, c in zip(of_d, of_h, of_w, strict=True))
        price = read + UNPACKING * unpacked
        if price < best_price:
            best, best_price = (d, h, w), price
    if best == shape:  # several volumes at once
        volumes = max(volumes, min(n, most // (each * math.prod(shape)) // unit[0] * unit[0]))
    return Tasks(target.shape, volumes, (best[0], best[1], best[2]))


def _edges(step: int, whole: int) -> list[int]:
    """Edges that are tried along an axis: multiples of a step, of many those that make equal parts."""
    count = -(-whole // step)
    counts = range(1, _EDGES) if count >= _EDGES else {-(-count // parts) for parts in range(1, count + 1)}
    return [min(k * step, whole) for k in sorted(counts)]


def _times_read(
    edge: int, size: int, outputs: int, cell: int, piece: int, kernel: int, stride: int, low: int
) -> tuple[float, float]:
    """How often an input is read along an axis, and unpacked, for tasks with this edge, on the average."""
    read = unpacked = last = 0
    for start in range(0, min(outputs, _SAMPLE * edge), edge):
        stop = min(-(-min(start + edge, outputs) // cell) * cell, outputs)
        first, end = padded_interval(start // cell * cell, stop, stride, kernel)
        first, end = max(first - low, 0), min(end - low, size)
        if first < end:
            read += end - first
            unpacked += (-(-end // piece) - first // piece) * piece
            last = end
    return read / max(1, last), unpacked / max(1, last)
