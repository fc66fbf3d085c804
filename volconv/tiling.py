"""How an output is cut up: I/O blocks (what is read, computed and written at a time) and work items (one thread's).

Only integers: no arrays, no files.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from volconv.region import Region
from volconv.shapes import block_shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from volconv.params import Conv3dParams, Triple
    from volconv.region import Index5

#: Outputs along W that the inner loops compute at a time, more or less.
VECTORS = 48
#: And along D.
ROWS = 4

#: Work items for each thread that are worth trying.
ITEMS_PER_THREAD = 4
#: How much longer what is computed takes where planes or rows are cut.
CUT = 1.12
#: And where blocks are larger than they should be: by their size to this power.
BEYOND = 0.5
#: The part of an item that some threads work longer than others, however even their items.
UNEVEN = 0.25
#: Seconds until another thread has begun.
HANDOVER = 300e-6
#: Seconds that each item costs, whatever its size, and each voxel that is read into its block.
ITEM_SECONDS = 60e-6
VOXEL_SECONDS = 0.25e-9


class Item(NamedTuple):
    """What one call of an engine computes: one volume, some groups, a box of outputs (D, H, W)."""

    volume: int
    groups: tuple[int, int]
    start: Triple
    stop: Triple


def io_blocks(outputs: Region, volumes: int, box: Triple) -> Iterator[Region]:
    """Regions of the output that are read, computed and written in turn, of all channels; there may be millions.

    Those that are cut apart along H and W alone follow each other last: a column is gone through along D, so that what
    a block shares with the one before it is most of its halo.

    Parameters
    ----------
    outputs : Region
        All of them, of all channels.
    volumes : int
        That one block holds; more than one only of whole volumes.
    box : tuple of 3 ints
        Outputs (D, H, W) of a block.

    Examples
    --------
    >>> [block.start[2:] for block in io_blocks(Region.whole((1, 1, 4, 4, 4)), 1, (2, 2, 4))]
    [(0, 0, 0), (2, 0, 0), (0, 2, 0), (2, 2, 0)]
    """
    n, channels, d, h, w = (
        [(at, min(at + step, last)) for at in range(first, last, step)]
        for first, last, step in zip(outputs.start, outputs.stop, (volumes, outputs.shape[1], *box), strict=True)
    )
    return (
        Region((v[0], c[0], z[0], y[0], x[0]), (v[1], c[1], z[1], y[1], x[1]))
        for v, c, y, x, z in itertools.product(n, channels, h, w, d)
    )


def halved(block: Region, grid: Triple) -> list[Region]:
    """A block in two, which lie on the grid if it does; whole where it is too small.

    Volumes are parted first, then D, H and W.

    >>> [part.shape for part in halved(Region.whole((1, 2, 5, 8, 8)), (2, 1, 1))]
    [(1, 2, 4, 8, 8), (1, 2, 1, 8, 8)]
    """
    for axis, cell in ((0, 1), (2, grid[0]), (3, grid[1]), (4, grid[2])):
        start, size = block.start[axis], block.shape[axis]
        if size > cell:
            middle = start + -(-size // (2 * cell)) * cell
            return [block.along(axis, start, middle), block.along(axis, middle, block.stop[axis])]
    return [block]


@lru_cache(maxsize=256)
def item_shape(
    output_shape: Index5,
    params: Conv3dParams,
    grid: Triple,
    itemsize: int,
    block_bytes: int,
    threads: int,
    seconds: float | None = None,
    together: bool = False,
) -> tuple[int, Triple]:
    """Groups and box (D, H, W) of one work item.

    The box is the one, in multiples of ``grid``, that should take least time: ``seconds`` in all on one thread, more
    where rows are cut or blocks larger than ``block_bytes``, and what reading blocks with their halos takes, shared by
    threads. Without ``seconds`` halos count most. Bits do not depend on it; it may depend on threads.
    ``together`` keeps all groups in one item.

    Examples
    --------
    >>> from volconv.params import Conv3dParams
    >>> same = Conv3dParams.parse((1, 1, 3, 3, 3), padding="same")
    >>> item_shape((1, 1, 256, 256, 256), same, (1, 1, 1), 4, 1 << 19, 2)
    (1, (24, 16, 256))
    """
    if together:
        one = replace(params, groups=1)
        return params.groups, item_shape(output_shape, one, grid, itemsize, block_bytes, threads, seconds)[1]
    volumes, _, depth, height, width = output_shape
    block_bytes = max(1, block_bytes)
    channels = params.in_channels // params.groups
    voxel = itemsize * channels
    (kd, kh, kw), (sd, sh, sw) = params.effective_kernel, params.stride
    parts = max(1, volumes * params.groups)  # there is an item for each, at least
    fixed, beyond = ITEM_SECONDS, BEYOND
    if seconds is None:
        fixed, beyond = 0.0, 1.0
        seconds = parts * depth * height * width * channels * VOXEL_SECONDS
    whole = math.lcm(grid[0], ROWS)
    best, best_price = (grid[0], grid[1], grid[2]), math.inf
    for h, w in itertools.product(_sizes(height, grid[1]), _sizes(width, grid[2])):
        row = ((h - 1) * sh + kh) * ((w - 1) * sw + kw)
        fitting = (block_bytes // (voxel * row) - kd) // sd + 1
        # Rows that are cut, or short, cost more than their halo: vectors of sums that are not full.
        filled = max(w / (-(-w // VECTORS) * VECTORS), w / (w + kw - 1) * h / (h + VECTORS / (w + kw)))
        slabs = {-(-depth // n) for n in (*range(1, 5), *(threads * i for i in range(1, ITEMS_PER_THREAD + 1)))}
        for d in {_aligned(min(depth, n), whole if n >= whole else grid[0]) for n in {fitting, *slabs}}:
            block = row * ((d - 1) * sd + kd)
            items = parts * -(-depth // d) * -(-height // h) * -(-width // w)
            # Whole planes, as they lie in memory: what is fresh of it is still in cache, cleared, when it is written.
            computed = seconds / filled
            computed *= (1.0 if h >= height else CUT) * (1.0 if w >= width else CUT)
            read = items * block * channels * VOXEL_SECONDS * (1 + 64 / w)
            over = max(1.0, block * voxel / block_bytes) ** beyond
            # Some threads are done before others.
            price = ((computed + read) * over + items * fixed) * (-(-items // threads) + UNEVEN) / items
            price += HANDOVER if fixed and items > 1 and threads > 1 else 0.0
            if price < best_price:
                best, best_price = (d, h, w), price
    box = (min(best[0], depth), min(best[1], height), min(best[2], width))
    block_size = voxel * math.prod(block_shape(box, params))
    boxes = math.prod(-(-s // b) for s, b in zip(output_shape[2:], box, strict=True))
    side_by_side = params.groups * volumes * boxes // (ITEMS_PER_THREAD * threads)
    return max(1, min(block_bytes // max(1, block_size), side_by_side, params.groups)), box


def work_items(block: Region, groups: int, item_groups: int, box: Triple) -> Iterator[Item]:
    """The items of one I/O block, their boxes counted from its first corner; as that lies on the grid, so do they."""
    depth, height, width = block.shape[2:]
    for volume in range(block.shape[0]):
        for group in range(0, groups, item_groups):
            for z, y, x in itertools.product(
                *(range(0, n, b) for n, b in zip((depth, height, width), box, strict=True))
            ):
                yield Item(
                    volume,
                    (group, min(group + item_groups, groups)),
                    (z, y, x),
                    (min(z + box[0], depth), min(y + box[1], height), min(x + box[2], width)),
                )


def _sizes(size: int, grid: int) -> list[int]:
    """Sizes worth trying on an axis: it cut into a few nearly equal parts, as multiples of the grid."""
    counts = [1, 2, 3, 4, 6, *(1 << k for k in range(3, max(4, size.bit_length())))]
    return sorted({_aligned(-(-size // n), grid) for n in counts})


def _aligned(size: int, grid: int) -> int:
    return max(grid, size // grid * grid)
