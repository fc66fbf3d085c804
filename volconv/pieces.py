"""Pieces in which files keep voxels: how many are unpacked for a block, and which are worth keeping. Integers only."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from volconv.shapes import padded_interval

if TYPE_CHECKING:
    from volconv.params import Conv3dParams, Triple
    from volconv.region import Index5, Region

#: Blocks along an axis that stand for all of them.
_COUNTED = 256


def layer(chunk: Index5 | None, region: tuple[int, ...], shape: Index5) -> int:
    """Voxels of the pieces that a region's last plane lies in, where there is more than one plane in a piece.

    >>> layer((1, 1, 8, 10, 10), (1, 1, 3, 30, 30), (1, 1, 99, 30, 30))
    7200
    """
    if chunk is None or chunk[2] == 1:
        return 0
    # A region may begin and end within a piece.
    pieces = [min(-(-n // c), -(-(r + c - 1) // c)) * c for n, c, r in zip(shape, chunk, region, strict=True)]
    return math.prod(pieces[:2]) * chunk[2] * math.prod(pieces[3:])


def aligned(box: Triple, chunk: Index5, size: Triple) -> bool:
    """Whether blocks of this box end between pieces."""
    return all(n % c == 0 or n >= s for n, c, s in zip(box, chunk[2:], size, strict=True))


def covered(region: Region, chunk: Index5, *, kept: bool) -> int:
    """Voxels that are unpacked to read a region; with ``kept`` no plane of them is unpacked again.

    >>> from volconv.region import Region
    >>> covered(Region((0, 0, 7, 0, 0), (1, 1, 9, 5, 10)), (1, 1, 8, 10, 10), kept=False)
    1600
    """
    sizes = [
        _covering(a, b, 1 if kept and axis == 2 else c)
        for axis, (a, b, c) in enumerate(zip(region.start, region.stop, chunk, strict=True))
    ]
    return math.prod(sizes)


def times_unpacked(
    box: Triple, chunk: Index5, sizes: tuple[Triple, Triple], params: Conv3dParams, *, kept: bool
) -> float:
    """How often a voxel of the input is unpacked for blocks of this box, on the average.

    Parameters
    ----------
    box : (D, H, W)
        Of outputs.
    chunk : (N, C, D, H, W)
        Of the input.
    sizes : two of (D, H, W)
        Of input and output.
    params : Conv3dParams
    kept : bool
        Pieces stay unpacked until the next block along D has gone by.
    """
    found = 1.0
    for axis in range(3):
        if box[axis] < sizes[1][axis] and not (axis == 0 and kept):
            how = params.effective_kernel[axis], params.stride[axis], params.padding_low[axis]
            size, outputs = (both[axis] for both in sizes)
            found *= _along(size, outputs, box[axis], chunk[2 + axis], how, goes_on=axis == 0)
    return found


@lru_cache(maxsize=4096)
def _along(size: int, outputs: int, edge: int, piece: int, how: tuple[int, int, int], *, goes_on: bool) -> float:
    """The same along one axis; where blocks go on from each other only what is new is read."""
    kernel, stride, low = how
    unpacked = last = 0
    for start in range(0, min(outputs, _COUNTED * edge), edge):
        first, stop = padded_interval(start, min(start + edge, outputs), stride, kernel)
        first, stop = max(first - low, last if goes_on else 0), min(stop - low, size)
        if first < stop:
            unpacked += _covering(first, stop, piece)
            last = stop
    return unpacked / max(1, last)


def _covering(start: int, stop: int, piece: int) -> int:
    """Voxels along an axis of the pieces that an interval touches.

    >>> _covering(7, 9, 8), _covering(8, 9, 8)
    (16, 8)
    """
    return (-(-stop // piece) - start // piece) * piece
