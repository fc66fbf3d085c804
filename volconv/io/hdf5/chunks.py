"""How a dataset is cut into chunks, and how many of them are kept unpacked. Integers only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from volconv.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from volconv.region import Index5, Region

#: Chunks (D, H, W) of a packed dataset for which nobody chose any: 128 to 1024 kB.
DEFAULT_CHUNK = (32, 64, 64)

#: HDF5's own bound on the bytes of a chunk.
_CHUNK_BYTES = (4 << 30) - 1

#: Memory for unpacked chunks, at least and at most: blocks share the chunks at their seams.
_CACHE_BYTES = (16 << 20, 64 << 20)

#: What HDF5 keeps by itself; small chunks that are not packed would be read line by line without it.
LEAST_CACHE = 1 << 20

#: What HDF5 keeps of memory that it does not use any more.
_FREE_LISTS = 16 << 20

#: Bytes that are copied at a time, unless a chunk is larger.
_PART_BYTES = 1 << 20

#: Slots of the table in which HDF5 finds a chunk that it keeps: primes, as its manual asks for.
_SLOTS = (521, 4099, 32771, 262147)


def parse_chunks(text: str) -> tuple[int, int, int] | None:
    """What the creation option says; None for "none".

    Raises
    ------
    ParameterError
        It is neither three positive integers nor "none".

    Examples
    --------
    >>> parse_chunks("32,64,64")
    (32, 64, 64)
    """
    if text.strip().lower() == "none":
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise ParameterError(f"chunks must be three positive integers D,H,W, or none (got {text!r})")
    d, h, w = (int(part) for part in parts)
    return d, h, w


def fitted(chunk: Sequence[int], shape: Index5, itemsize: int) -> Index5:
    """A chunk (N, C, D, H, W) no larger than the volume, and no larger than HDF5 can take.

    Examples
    --------
    >>> fitted((1, 1, 32, 64, 64), (1, 1, 9, 300, 300), 4)
    (1, 1, 9, 64, 64)
    """
    n, c, d, h, w = (min(edge, size) for edge, size in zip(chunk, shape, strict=True))
    if math.prod((n, c, d, h, w)) * itemsize > _CHUNK_BYTES:
        return fitted((1, 1, *DEFAULT_CHUNK), shape, itemsize)
    return n, c, d, h, w


def check_chunk(chunk: tuple[int, int, int], shape: Index5, itemsize: int) -> None:
    """Refuse chunks that were asked for and that HDF5 cannot take.

    Raises
    ------
    ParameterError
        4 GB or more.
    """
    size = math.prod(min(edge, length) for edge, length in zip(chunk, shape[2:], strict=True)) * itemsize
    if size > _CHUNK_BYTES:
        raise ParameterError(f"chunks must take less than 4 GB each (got {','.join(map(str, chunk))}: {size} bytes)")


def piece_bytes(chunk: Index5 | None, itemsize: int) -> int:
    """Memory for a chunk that is packed or unpacked: as it is, twice, as it is packed, and between filters."""
    return 0 if chunk is None else 4 * math.prod(chunk) * itemsize + _FREE_LISTS


def parts(region: Region, chunk: Index5 | None, itemsize: int) -> Iterator[Region]:
    """Parts of a region, cut between chunks, of up to a megabyte or within one chunk: what h5py makes copies of.

    Examples
    --------
    >>> from volconv.region import Region
    >>> region = Region((0, 0, 3, 0, 0), (1, 1, 9, 1024, 1024))
    >>> [part.shape[2:] for part in parts(region, (1, 1, 4, 1024, 1024), 1)]
    [(1, 1024, 1024), (4, 1024, 1024), (1, 1024, 1024)]
    """
    if math.prod(region.shape) * itemsize > _PART_BYTES:
        for axis in range(5):
            start, stop, edge = region.start[axis], region.stop[axis], chunk[axis] if chunk else 1
            middle = max((start + stop) // 2 // edge, start // edge + 1) * edge
            if middle < stop:
                yield from parts(region.along(axis, start, middle), chunk, itemsize)
                yield from parts(region.along(axis, middle, stop), chunk, itemsize)
                return
    yield region


def chunk_cache(
    shape: Sequence[int] | None, chunks: Sequence[int] | None, itemsize: int, size: int | None = None
) -> tuple[int, int] | None:
    """Slots and bytes with which a layer of chunks across the volume is kept, within bounds; None without chunks.

    ``size`` is how many bytes to keep in place of these bounds.

    Examples
    --------
    >>> chunk_cache((100, 1000, 1000), (10, 100, 100), 2)
    (4099, 20000000)
    """
    if not shape or not chunks:
        return None
    layer = math.prod(math.ceil(size / edge) for size, edge in zip(shape[1:], chunks[1:], strict=True))
    one = math.prod(chunks) * itemsize
    # A chunk that does not fit is unpacked again for each region that touches it.
    if size is None:
        size = max(one, min(max(layer * one, _CACHE_BYTES[0]), _CACHE_BYTES[1]))
    wanted = 10 * (size // one)
    return next((slots for slots in _SLOTS if slots >= wanted), _SLOTS[-1]), size
