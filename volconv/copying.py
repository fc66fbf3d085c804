"""In which blocks files are gone through that are only copied or compared, below a bound on memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from volconv.budget import SLACK
from volconv.errors import OutOfMemoryError
from volconv.io import Region
from volconv.io.raw import in_turn
from volconv.io.volume import Reading
from volconv.memory import LIBRARIES, default_memory, in_words

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from volconv.io import OpenVolume, VolumeInfo
    from volconv.region import Index5

#: Bytes that the blocks held at one time may take together, and pieces of each file that are kept unpacked.
BLOCK_BYTES = 64 << 20

#: All channels of a plane before the next plane, as some formats keep them together.
_PLANES_FIRST = (0, 2, 1, 3, 4)


class Walk(NamedTuple):
    """Blocks in their order; memory for pieces that each file keeps unpacked; bytes of temporary files."""

    regions: list[Region]
    cache_bytes: int
    spool_bytes: int


def walk(
    volumes: Sequence[OpenVolume],
    others: Sequence[VolumeInfo],
    voxel_bytes: int,
    *,
    memory: int | None = None,
    folder: Path | None = None,
) -> Walk:
    """Blocks of volumes of one shape, in the order of those that go only from start to end; they are told of it.

    Parameters
    ----------
    volumes : sequence of OpenVolume
        To be read.
    others : sequence of VolumeInfo
        Of those that are written: their pieces are cut least.
    voxel_bytes : int
        Held for each voxel of a block.
    memory : int, optional
        Bytes that the process may have resident; by default :func:`volconv.memory.default_memory`.
    folder : Path, optional
        Where temporary files may lie.

    Raises
    ------
    OutOfMemoryError
        A piece of a file is too large.
    """
    infos = [*others, *(volume.info for volume in volumes)]
    shape, bound = infos[0].shape, default_memory() if memory is None else memory
    fixed = LIBRARIES + SLACK + sum(info.access.held_bytes for info in infos)
    room = max(0, bound - fixed)
    packed = sum(info.access.packed for info in infos)
    cache = min(BLOCK_BYTES, room // (2 * packed)) if packed else 0
    streams = [info.access.order for info in (*infos[len(others) :], *others) if info.access.in_turn]
    budget = min(BLOCK_BYTES, room - packed * cache)
    regions = blocks(shape, [info.access.chunk for info in infos], voxel_bytes, budget, *streams[:1])
    largest = max((math.prod(region.shape) for region in regions), default=0) * voxel_bytes
    if packed and largest > room - packed * cache:  # the pieces themselves go before those that are kept
        cache = max(0, room - largest) // packed
    if largest > room and memory is not None:
        least = in_words(fixed + largest)
        raise OutOfMemoryError(
            f"memory must be at least {least} for the pieces that these files are made of (got {in_words(bound)})",
            hint=f"pass --memory {least} (memory=)",
        )
    spools = 0
    for volume in volumes:
        access = volume.info.access
        turns = access.in_turn and in_turn(regions, shape, access.order)
        spools += 0 if turns else access.spool_bytes
        volume.expect(Reading(turns, cache, folder))
    for info in others:
        follows = info.access.in_turn and in_turn(regions, shape, info.access.order, gaps=False)
        spools += 0 if follows else info.access.spool_bytes
    return Walk(regions, cache, spools)


def blocks(
    shape: Index5,
    chunks: Sequence[Index5 | None],
    voxel_bytes: int,
    budget: int = BLOCK_BYTES,
    order: Index5 = _PLANES_FIRST,
) -> list[Region]:
    """Cut a volume into blocks that cost little to read and write.

    Blocks are whole rows, planes and so on as the order has it, as far as the budget goes, and cut no chunk of the
    first file, nor of the others where there is room for that. Only a chunk may take more than the budget.

    Parameters
    ----------
    shape : tuple of 5 ints
        (N, C, D, H, W).
    chunks : sequence of 5 ints or None
        What each of the files keeps as one piece; see :class:`volconv.io.Access`.
    voxel_bytes : int
        Held for each voxel of a block.
    budget : int
        Bytes that one block may take.
    order : tuple of 5 ints
        Axes of (N, C, D, H, W) in which blocks follow each other, slowest first.

    Examples
    --------
    >>> [block.shape for block in blocks((1, 2, 5, 4, 4), [None], 1, budget=64)]
    [(1, 2, 2, 4, 4), (1, 2, 2, 4, 4), (1, 2, 1, 4, 4)]
    """
    voxels = max(1, budget // voxel_bytes)
    box = [1, 1, 1, 1, 1]
    for number, chunk in enumerate(chunks):
        if chunk is not None:
            common = [min(math.lcm(a, b), size) for a, b, size in zip(box, chunk, shape, strict=True)]
            if number == 0 or math.prod(common) <= voxels:
                box = common
    for axis in reversed(order):
        box[axis] = min(shape[axis], box[axis] * max(1, voxels // math.prod(box)))
        if box[axis] < shape[axis]:
            break
    regions = [Region.whole(shape)]
    for axis in order:
        size, step = shape[axis], box[axis]
        regions = [r.along(axis, i, min(i + step, size)) for r in regions for i in range(0, size, step)]
    return regions
