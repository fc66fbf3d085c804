"""What a run reads and writes of its files: bytes, their order, temporary files, and the time that it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from volconv.io.raw import in_turn
from volconv.padding import padded_axes
from volconv.pieces import covered
from volconv.steps import steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volconv.cuts import Cut, Ends
    from volconv.io.volume import VolumeInfo
    from volconv.plan import Plan
    from volconv.region import Region

#: Bytes a second of voxels that lie as they are, that are packed, and that are unpacked (set by
#: tests/benchmarks/large.py).
PLAIN_RATE = 1.5e9
PACKING_RATE = 250e6
UNPACKING_RATE = 400e6


class FileReading(NamedTuple):
    """How a file is read.

    Parameters
    ----------
    in_turn : bool
        Once, from start to end.
    spool : int
        Bytes of a temporary file for what does not come in the file's order.
    cache : int
        Memory for pieces of the file that are kept unpacked.
    voxels, once, unpacked : int
        How many are read, would be if none were read twice, and are unpacked for it.
    """

    in_turn: bool = False
    spool: int = 0
    cache: int = 0
    voxels: int = 0
    once: int = 0
    unpacked: int = 0


@dataclass(frozen=True, slots=True)
class Traffic:
    """What goes to and from files.

    Parameters
    ----------
    read_bytes, written_bytes : int
        Of stored voxels, as they are unpacked.
    halo : float
        Share of what is needed that is read more than once.
    source, mask : FileReading
        How they are read; no mask is read as nothing.
    target_spool, target_cache : int
        Bytes of a temporary file for what does not come in the target's order, and of memory for pieces of it.
    seconds : float
        Predicted for the whole run.
    """

    read_bytes: int
    written_bytes: int
    halo: float
    source: FileReading
    mask: FileReading
    target_spool: int
    target_cache: int
    seconds: float

    @property
    def spool_bytes(self) -> int:
        """Of all temporary files."""
        return self.source.spool + self.mask.spool + self.target_spool


def traffic(plan: Plan, ends: Ends, blocks: Sequence[Region], cut: Cut) -> Traffic:
    """Follow a run through its blocks, without a voxel; the plan has one for all of them."""
    target, (target_cache, *caches) = ends.target, cut.caches
    source, *masks = (_followed(plan, end, blocks, cache) for end, cache in zip(ends.read, caches, strict=True))
    follows = target.access.in_turn and in_turn(blocks, target.shape, target.access.order, gaps=False)
    read_bytes = [reading.voxels * end.dtype.itemsize for reading, end in zip((source, *masks), ends.read, strict=True)]
    outputs = sum(math.prod(block.shape) for block in plan.blocks)
    share = outputs / max(1, math.prod(plan.output_shape))
    written_bytes = outputs * target.dtype.itemsize
    compute_seconds = share * plan.candidates[plan.algorithm] / cut.threads * (1 if plan.masking is None else 2)
    return Traffic(
        read_bytes=sum(read_bytes),
        written_bytes=written_bytes,
        halo=max(0.0, source.voxels / source.once - 1) if source.once else 0.0,  # blocks may skip what strides do
        source=source,
        mask=masks[0] if masks else FileReading(),
        target_spool=0 if follows else target.access.spool_bytes,
        target_cache=target_cache,
        seconds=max(
            compute_seconds,
            sum(
                reading.unpacked * end.dtype.itemsize / (UNPACKING_RATE if _packed(end) else PLAIN_RATE)
                for reading, end in zip((source, *masks), ends.read, strict=True)
            ),
            written_bytes / (PACKING_RATE if _packed(target) else PLAIN_RATE),
        ),
    )


def _followed(plan: Plan, source: VolumeInfo, blocks: Sequence[Region], cache: int) -> FileReading:
    axes = padded_axes(source.shape[2:], plan.params)
    regions, once = (
        [
            region
            for step in steps(parts, axes, plan.params, source.shape[:2], plan.origin)
            for region, _ in step.fresh()
        ]
        for parts in (blocks, plan.blocks)
    )
    voxels = sum(math.prod(region.shape) for region in regions)
    chunk, unpacked = source.access.chunk, voxels
    if source.access.packed and chunk is not None:
        unpacked = sum(covered(region, chunk, kept=cache > 0) for region in regions)
    turns = source.access.in_turn and in_turn(regions, source.shape, source.access.order)
    return FileReading(
        in_turn=turns,
        spool=0 if turns else source.access.spool_bytes,
        cache=cache,
        voxels=voxels,
        once=sum(math.prod(region.shape) for region in once),
        unpacked=unpacked,
    )


def _packed(info: VolumeInfo) -> bool:
    return info.access.packed or info.access.spool_bytes > 0
