"""Which chunks a region touches, and how many of them are under way at a time. Integers only."""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING

from volconv.region import Region

if TYPE_CHECKING:
    from collections.abc import Iterator

    from volconv.region import Index5

#: Bytes of chunks, unpacked, that are packed or unpacked at one time, unless one chunk takes more.
TOGETHER_BYTES = 8 << 20

#: Chunks that are asked for at one time: enough to hide the delay of an object store.
_TOGETHER = 32


def pieces(region: Region, chunk: Index5, shape: Index5) -> Iterator[Region]:
    """Chunks that a region touches, cut off where the volume ends, in the order of their indices.

    Examples
    --------
    >>> region = Region((0, 0, 3, 0, 0), (1, 1, 5, 2, 2))
    >>> [(piece.start[2], piece.stop[2]) for piece in pieces(region, (1, 1, 4, 2, 2), (1, 1, 7, 2, 2))]
    [(0, 4), (4, 7)]
    """
    spans = [
        [(start, min(start + edge, size)) for start in range(first // edge * edge, last, edge)]
        for first, last, edge, size in zip(region.start, region.stop, chunk, shape, strict=True)
    ]
    for n, c, d, h, w in product(*spans):
        yield Region((n[0], c[0], d[0], h[0], w[0]), (n[1], c[1], d[1], h[1], w[1]))


def at_a_time(chunk: Index5, itemsize: int) -> int:
    """Chunks that are under way at one time.

    Examples
    --------
    >>> at_a_time((1, 1, 64, 128, 128), 2), at_a_time((1, 1, 4, 4, 4), 1), at_a_time((1, 1, 512, 512, 512), 4)
    (4, 32, 1)
    """
    return max(1, min(_TOGETHER, TOGETHER_BYTES // (math.prod(chunk) * itemsize)))


def held_bytes(chunk: Index5, itemsize: int) -> int:
    """Memory for chunks under way: unpacked, as a copy in the machine's byte order, packed, and as it is assembled."""
    return 4 * at_a_time(chunk, itemsize) * math.prod(chunk) * itemsize


def within(chunk: Index5, shape: Index5) -> Index5:
    """A chunk no larger than the volume."""
    n, c, d, h, w = map(min, chunk, shape)
    return n, c, d, h, w
